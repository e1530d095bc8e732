"""Optimizer and scheduler in what `configure_optimizers` returns, and its learning rates set to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch.optim import Optimizer

from ...errors import TaskError

__all__ = ["Configured", "configured", "set_lr"]


@dataclass(frozen=True, kw_only=True)
class Configured:
    """What `configure_optimizers` returned, without the scheduler's marks on the optimizer.

    Attributes:
        optimizer: with the learning rates that it was made with, as far as a scheduler left them.
        schedulers: in their order; mostly one, or none.
        interval: at which the first one steps: `step` or `epoch`.
        frequency: of these steps.
        lr: the learning rate that the optimizer was asked for.
    """

    optimizer: Optimizer
    schedulers: tuple[Any, ...]
    interval: str
    frequency: int
    lr: float


def configured(returned: Any) -> Configured:
    """Read what `configure_optimizers` returned, in any of the forms that Lightning takes.

    Raises:
        TaskError: there is no optimizer in it, or several.
    """
    optimizers, schedules = _parts(returned)
    if not optimizers:
        kind = "None" if returned is None else type(returned).__name__
        raise TaskError(f"configure_optimizers() returned {kind}, which holds no optimizer; return the optimizer")
    if len(optimizers) > 1:
        raise TaskError(
            f"configure_optimizers() returned {len(optimizers)} optimizers ({_kinds(optimizers)}), and find changes "
            "the learning rate and batch size of one: return one with a parameter group for each part, or an Optimizer "
            "whose step() steps several (docs/tasks.md, several optimizers)"
        )
    optimizer = optimizers[0]
    settings = [_settings(each) for each in schedules]
    first = settings[0] if settings else {}
    return Configured(
        optimizer=optimizer,
        schedulers=tuple(each.get("scheduler") for each in settings),
        interval=str(first.get("interval", "epoch")),
        frequency=int(first.get("frequency", 1)),
        lr=_asked(optimizer),
    )


def _parts(returned: Any) -> tuple[list[Optimizer], list[Any]]:
    """Optimizers, and schedulers or their settings."""
    if isinstance(returned, Optimizer):
        return [returned], []
    if isinstance(returned, Mapping):
        given = cast("Mapping[str, Any]", returned)
        schedule = given.get("lr_scheduler")
        held = [given["optimizer"]] if isinstance(given.get("optimizer"), Optimizer) else []
        return held, [] if schedule is None else [*schedule] if isinstance(schedule, list | tuple) else [schedule]
    if not isinstance(returned, list | tuple):
        return [], []
    items = cast("Sequence[Any]", returned)
    if len(items) == 2 and isinstance(items[0], list | tuple):
        schedules: Any = items[1] if items[1] is not None else []
        return [*items[0]], [*schedules] if isinstance(schedules, list | tuple) else [schedules]
    pairs = [_parts(item) for item in items if isinstance(item, Optimizer | Mapping)]
    return [o for made, _ in pairs for o in made], [s for _, made in pairs for s in made]


def _settings(schedule: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", schedule) if isinstance(schedule, Mapping) else {"scheduler": schedule}


def _kinds(optimizers: Sequence[Optimizer]) -> str:
    return ", ".join(type(each).__name__ for each in optimizers)


def _asked(optimizer: Optimizer) -> float:
    """The learning rate that it was asked for: its default, where a group has it, else that of the first group."""
    lrs = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    default = optimizer.defaults.get("lr")
    asked = float(default) if default is not None and float(default) in lrs else lrs[0]
    if asked <= 0.0:
        raise TaskError(
            f"configure_optimizers() made a {type(optimizer).__name__} with the learning rate {asked:g}, of which no "
            "other can be a multiple; make it with the learning rate of the training"
        )
    return asked


def set_lr(made: Configured, lr: float) -> Optimizer:
    """Set the learning rate; groups with another keep their ratio to it, and nothing of a scheduler is left.

    A scheduler of torch puts a function in the place of `step`, and `initial_lr` into each group.
    """
    optimizer = made.optimizer
    vars(optimizer).pop("step", None)
    for group in optimizer.param_groups:
        own = float(group.pop("initial_lr", group["lr"]))
        group["lr"] = lr if own == made.lr else lr * (own / made.lr)
    return optimizer
