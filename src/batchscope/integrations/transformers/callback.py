"""Callback of the Trainer that reads the gradient noise scale of the training that goes on.

`on_step_end` of the Trainer comes when gradients are gone, and `on_pre_optimizer_step` when they are clipped. The
monitor therefore has hooks of its own on the parameters; the callback puts them on, tells it the micro-batches of each
step, and hands its readings to `Trainer.log`. A micro-batch weighs as many tokens as the Trainer counts in it, where
its loss is divided by the tokens of the whole step (`num_items_in_batch`), else as much as any other.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...live.monitor import NoiseMonitor
from ...live.reading import Reading
from ...tasks.batches import first_dimension
from ..trainers import logged, say_why_none
from .taken import overridden

__all__ = ["NoiseCallback"]

_KEPT = "noise_monitor.json"
"""Beside the Trainer's own files in a checkpoint."""


class NoiseCallback:
    """Noise monitor of a Trainer: `trainer.add_callback(NoiseCallback(trainer))`.

    What it reads is logged whenever the Trainer logs, by the Trainer's own logging (TensorBoard, `log_history`, the
    progress bar): `gradient_noise_scale` in examples with its 90 % interval `_low` and `_high`, `gradient_signal`,
    `gradient_noise`, and `noise_monitor_overhead`, a share of the training's time. A checkpoint keeps the readings, and
    a training that is resumed from it goes on with them.

    Args:
        trainer: whose training is watched.
        options: arguments of `NoiseMonitor`: `layers`, `share`, `source`, `data_set_size`, `loss`, ...; `loss` is the
            Trainer's own where it is not overridden, with its own count of a batch's terms (`loss_weight`), so that a
            batch can be split where steps are not accumulated.

    Attributes:
        monitor: of the training that goes on; `None`: none does.

    Cost: as for `NoiseMonitor`; besides, one transfer of the numbers of tokens a step, where steps are accumulated.
    """

    def __init__(self, trainer: Any, **options: Any) -> None:
        self.monitor: NoiseMonitor | None = None
        self._trainer, self._options = trainer, options
        self._last: Reading | None = None

    def read(self) -> Reading | None:
        """The reading of now, or the last one of a training that has ended; `None` before the first."""
        return self._last if self.monitor is None else self.monitor.read()

    def __getattr__(self, name: str) -> Callable[..., None]:
        """An event that is not looked at: a callback has a method for each of them."""
        if not name.startswith("on_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return _nothing

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Put the monitor beside the model and the optimizer."""
        self._end()
        optimizer = given["optimizer"]
        how: dict[str, Any] = {"scaler": getattr(optimizer, "scaler", None), **self._own_loss(), **self._options}
        size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        self.monitor = NoiseMonitor(given["model"], optimizer, batch_size=size, **how)
        kept = _checkpoint(args, state) / _KEPT
        if state.global_step and kept.is_file():
            self.monitor.load_state_dict(json.loads(kept.read_text(encoding="utf-8")))
        self._watch_batches()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Log the reading where the Trainer logs this step."""
        if control.should_log and self.monitor is not None and (values := logged(self.monitor.read())):
            self._trainer.log(values)

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep the readings beside the checkpoint."""
        folder = _checkpoint(args, state)
        if self.monitor is not None and args.should_save and folder.is_dir():
            (folder / _KEPT).write_text(json.dumps(self.monitor.state_dict()), encoding="utf-8")

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Take everything off again; say why where nothing could be read."""
        self._end()
        say_why_none(self._last)

    def _own_loss(self) -> dict[str, Any]:
        """The Trainer's loss of a batch alone and its number of terms; empty where the user has another."""
        trainer = self._trainer
        if "loss" in self._options or overridden(trainer, "compute_loss") or trainer.compute_loss_func is not None:
            return {}

        def loss(model: Any, batch: Any) -> Any:
            items = None
            if trainer.model_accepts_loss_kwargs and "labels" in batch:
                items = _counts(trainer, [batch])[0]
            return trainer.compute_loss(model, dict(batch), num_items_in_batch=items)

        return {"loss": loss, "loss_weight": partial(_terms, trainer)}

    def _end(self) -> None:
        if self.monitor is not None:
            self._last = self.monitor.read()
            self.monitor.close()
        self.monitor = None
        vars(self._trainer).pop("get_batch_samples", None)

    def _watch_batches(self) -> None:
        """See the micro-batches of each step when the Trainer has them all, before the first backward pass."""
        trainer, taken = self._trainer, self._trainer.get_batch_samples

        def get_batch_samples(*given: Any, **named: Any) -> Any:
            batches, items = taken(*given, **named)
            try:
                self._tell(batches, items)
            except Exception as error:
                self._end()
                warnings.warn(
                    f"the noise monitor has switched itself off, and the training goes on without it: "
                    f"{type(error).__name__}: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return batches, items

        trainer.get_batch_samples = get_batch_samples

    def _tell(self, batches: Sequence[Any], items: Any) -> None:
        if self.monitor is None:
            return
        weights = _weights(self._trainer, batches, items)
        for batch, weight in zip(batches, weights, strict=True):
            self.monitor.micro_batch(first_dimension(batch), weight, batch)


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _weights(trainer: Any, batches: Sequence[Any], items: Any) -> list[float]:
    """Weight of each micro-batch in the gradient of a step, up to a common factor.

    Counted as by the Trainer's `_get_num_items_in_batch`, which gathers over all processes and cannot be asked here.
    """
    if len(batches) < 2 or items is None or trainer.loss_is_scaled_for_ga is False:
        return [1.0] * len(batches)
    return [float(count) for count in torch.stack(_counts(trainer, batches)).tolist()]


def _terms(trainer: Any, batch: Any) -> float:
    """Number of terms in the mean that the loss of a batch is: its labels that count, else its examples."""
    counted = isinstance(batch.get("labels"), torch.Tensor)
    return float(_counts(trainer, [batch])[0]) if counted else float(first_dimension(batch))


def _counts(trainer: Any, batches: Sequence[Any]) -> list[torch.Tensor]:
    """Number of terms in the loss of each batch, on its device."""
    shifts = getattr(trainer, "_loss_shifts_labels", False)
    counts: list[torch.Tensor] = []
    for batch in batches:
        labels = batch["shift_labels"] if "shift_labels" in batch else batch["labels"]
        if shifts and "shift_labels" not in batch:
            labels = labels[..., 1:]
        counts.append(labels.ne(-100).sum())
    return counts


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
