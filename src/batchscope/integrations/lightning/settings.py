"""What is taken over of a `Trainer`, and what is not, each of it named."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...errors import TaskError
from ...wording import joined
from ..trainers import own_steps, with_effect

__all__ = ["TrainerSettings", "settings_of"]

_PRECISIONS = {"32-true": "float32", "16-mixed": "float16", "bf16-mixed": "bfloat16"}
_WITHOUT_EFFECT = frozenset(
    {
        "LearningRateMonitor",
        "ModelCheckpoint",
        "ModelSummary",
        "RichModelSummary",
        "RichProgressBar",
        "TQDMProgressBar",
    }
)
"""Callbacks of Lightning that change nothing in a training."""


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Settings of a `Trainer`, as far as runs follow them.

    Attributes:
        clip_value: `gradient_clip_val`; `None`: gradients are not clipped.
        clip_algorithm: `norm` or `value`; `None`: the default, `norm`.
        precision: of the task.
        max_epochs: of the user's own training; -1: it has no such end.
        max_steps: of the user's own training; -1: it has no such end.
        accumulate: `accumulate_grad_batches`.
        limit_val_batches: how many validation batches (a whole number), or which share of them.
        limit_train_batches: the same of an epoch's training batches; `overfit_batches` and `fast_dev_run` set it, too.
        notes: what is not taken over, in sentences.
    """

    clip_value: float | None = None
    clip_algorithm: str | None = None
    precision: str = "float32"
    max_epochs: int = -1
    max_steps: int = -1
    accumulate: int = 1
    limit_val_batches: float = 1.0
    limit_train_batches: float = 1.0
    notes: tuple[str, ...] = ()

    def own_steps(self, batches: int | None) -> int | None:
        """Optimizer steps of the user's own training, of so many batches an epoch; `None`: they are not known.

        It ends at what comes first, its steps or its epochs.
        """
        ends = [
            own_steps(-1, self.max_epochs, self._in_epoch(batches), self.accumulate),
            self.max_steps if self.max_steps > 0 else None,
        ]
        return min((end for end in ends if end is not None), default=None)

    def own_epochs(self, batches: int | None) -> int | None:
        """Epochs of the user's own training, begun ones included; `None`: they are not known."""
        steps, in_epoch = self.own_steps(batches), own_steps(-1, 1, self._in_epoch(batches), self.accumulate)
        if steps is None or in_epoch is None:
            return self.max_epochs if self.max_epochs > 0 else None
        return math.ceil(steps / in_epoch)

    def _in_epoch(self, batches: int | None) -> int | None:
        """Training batches of an epoch of the user's own training."""
        limit = self.limit_train_batches
        if isinstance(limit, int):
            return limit if batches is None else min(limit, batches)
        return None if batches is None else int(batches * limit)


def settings_of(trainer: Any) -> TrainerSettings:
    """Read a `Trainer`.

    Args:
        trainer: of Lightning; `None`: there is none, and its defaults hold.

    Raises:
        TaskError: it is no `Trainer`.
    """
    if trainer is None:
        return TrainerSettings()
    if not hasattr(trainer, "gradient_clip_val") or not hasattr(trainer, "precision"):
        raise TaskError(
            f"trainer is a {type(trainer).__name__}; give a Lightning Trainer, or a function that makes one"
        )
    precision = str(trainer.precision)
    notes = [*_ours(trainer), *_dropped(trainer)]
    if precision not in _PRECISIONS:
        notes.append(
            f"the Trainer's precision {precision!r} is not taken over, runs compute in float32: "
            f"{joined([repr(name) for name in _PRECISIONS])} are"
        )
    clip = trainer.gradient_clip_val
    algorithm = trainer.gradient_clip_algorithm
    return TrainerSettings(
        clip_value=None if clip is None else float(clip),
        clip_algorithm=None if algorithm is None else str(getattr(algorithm, "value", algorithm)),
        precision=_PRECISIONS.get(precision, "float32"),
        max_epochs=-1 if trainer.max_epochs is None else int(trainer.max_epochs),
        max_steps=int(trainer.max_steps),
        accumulate=int(trainer.accumulate_grad_batches),
        limit_val_batches=trainer.limit_val_batches,
        limit_train_batches=1.0 if (limit := getattr(trainer, "limit_train_batches", None)) is None else limit,
        notes=tuple(notes),
    )


def _ours(trainer: Any) -> Iterator[str]:
    """What an answer says itself."""
    if trainer.accumulate_grad_batches != 1:
        yield (
            f"the Trainer's accumulate_grad_batches={trainer.accumulate_grad_batches} is not taken over: the "
            "recommended recipe has its own, grad_accum_steps"
        )
    length = [
        f"{name}={value}"
        for name in ("max_epochs", "max_steps", "min_epochs", "min_steps")
        if (value := getattr(trainer, name, None)) not in (None, -1, 0)
    ]
    if length:
        yield f"the Trainer's {joined(length)} set no length of the runs: find chooses it (--within sets one)"
    if trainer.world_size > 1:
        yield (
            f"the Trainer's {trainer.world_size} devices ({type(trainer.strategy).__name__}) are not taken over: runs "
            f"here use one, and --world-size {trainer.world_size} asks for a recipe for them"
        )


def _dropped(trainer: Any) -> Iterator[str]:
    """What runs do without."""
    strategy = type(getattr(trainer, "strategy", None)).__name__
    if trainer.world_size == 1 and strategy not in ("SingleDeviceStrategy", "NoneType"):
        yield f"the Trainer's strategy {strategy} is not taken over: runs hold the whole model on one device"
    if others := with_effect(trainer.callbacks, lambda kind: kind.__name__ in _WITHOUT_EFFECT):
        yield f"callbacks are not called in the runs: {joined(others)}"
    loggers = [type(each).__name__ for each in trainer.loggers]
    kept = [name for name in loggers if name not in ("TensorBoardLogger", "CSVLogger")]
    if kept:
        yield f"nothing is sent to {joined(kept)}: in the runs self.logger accepts everything and keeps nothing"
    changed = [
        f"{name}={value!r}"
        for name, default in (
            ("limit_train_batches", 1.0),
            ("overfit_batches", 0.0),
            ("fast_dev_run", False),
            ("reload_dataloaders_every_n_epochs", 0),
            ("val_check_interval", 1.0),
            ("check_val_every_n_epoch", 1),
            ("_detect_anomaly", False),
        )
        if (value := getattr(trainer, name, default)) not in (default, None)
    ]
    if changed:
        verb = "is" if len(changed) == 1 else "are"
        yield f"the Trainer's {joined([text.removeprefix('_') for text in changed])} {verb} not taken over"
