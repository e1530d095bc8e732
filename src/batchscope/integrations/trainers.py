"""What trainers of both libraries have in common: length, callbacks, and what is logged of a reading."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from ..live.reading import Reading

__all__ = ["Repeated", "logged", "own_steps", "say_why_none", "with_effect"]

_OURS = __name__.partition(".")[0]


class Repeated(IterableDataset[Any]):
    """A stream that ends after each epoch, as trainers have it, without that end: it begins again.

    Args:
        stream: a data set whose every iteration is one epoch; where it has `set_epoch`, it is told which.
    """

    def __init__(self, stream: Dataset[Any]) -> None:
        self._stream: Any = stream

    def __iter__(self) -> Iterator[Any]:
        """Examples of one epoch after another; an epoch without any is the end."""
        for epoch in itertools.count():
            if epoch and callable(tell := getattr(self._stream, "set_epoch", None)):
                tell(epoch)
            empty = True
            for example in self._stream:
                empty = False
                yield example
            if empty:
                return


def logged(reading: Reading) -> dict[str, float]:
    """Numbers of a reading by the names under which they are logged; one that it does not have is left out.

    `gradient_noise_scale` in examples with the ends of its 90 % interval, `gradient_signal`, `gradient_noise`,
    `noise_monitor_overhead`, and `gradient_noise_scale/LAYER` where layers are asked for; nothing before the first
    window was read.
    """
    scale = reading.gradient_noise_scale
    if not scale.n:
        return {}
    found = {
        "gradient_noise_scale": scale.value,
        "gradient_noise_scale_low": scale.low,
        "gradient_noise_scale_high": scale.high,
        "gradient_signal": reading.signal.value,
        "gradient_noise": reading.noise.value,
        "noise_monitor_overhead": reading.overhead,
    }
    found |= {f"gradient_noise_scale/{name}": estimate.value for name, estimate in reading.layers.items()}
    return {name: value for name, value in found.items() if value is not None}


def own_steps(max_steps: int, epochs: float, batches: int | None, accumulate: int) -> int | None:
    """Optimizer steps of the user's own training.

    Args:
        max_steps: of the training; 0 or less: it has no such end.
        epochs: of the training, also a part of one; 0 or less: it has no such end.
        batches: micro-batches in an epoch; `None`: not known.
        accumulate: micro-batches of a step; those at the end of an epoch make a step, too.

    Returns:
        Their number; `None`: nothing says it.
    """
    if max_steps > 0:
        return max_steps
    return math.ceil(epochs * math.ceil(batches / accumulate)) if epochs > 0 and batches else None


def say_why_none(reading: Reading | None) -> None:
    """At the end of a training in which no window was read, log why, and what would help.

    Args:
        reading: the last one; `None`: the callback has said so itself.
    """
    if reading is None or reading.gradient_noise_scale.n:
        return
    tried = "; ".join(f"{name}: {why}" for name, why in reading.passed_over.items())
    logging.getLogger(_OURS).warning(
        "no gradient noise scale was read: %s%s. Two or more micro-batches a step can always be read; with one, give "
        "the callback loss=(model, batch) -> mean loss",
        reading.reason,
        f" ({tried})" if tried else "",
    )


def with_effect(callbacks: Iterable[object], harmless: Callable[[type[Any]], bool]) -> list[str]:
    """Names of the callbacks that may change a training: all but the harmless ones of a library, and those here."""
    kinds = [type(each) for each in callbacks]
    return [kind.__name__ for kind in kinds if not harmless(kind) and kind.__module__.partition(".")[0] != _OURS]
