"""Scheduler of a module as a factor of the learning rate at a share of the run, where it can be expressed as one.

The scheduler is stepped through a training, and its learning rate divided by the one that it begins from. Of whose
training:

* of the user's own, where a `Trainer` says how long that is: share `p` of a run then has the factor of step
  `p · steps` (between two steps linearly), or of epoch `⌊p · epochs⌋` where it steps by epochs;
* else of one of 1,000 and one of 2,000 steps, which `estimated_stepping_batches` announces: the factor is one of the
  share alone where both agree within 1 % of the largest, as schedules do that end one step sooner or later.

What a run with the user's number of steps has is then exactly what the scheduler would have set.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from ...wording import count, plural
from .library import silenced
from .optimizers import Configured

__all__ = ["Schedule", "schedule_of"]

_TRIED = 1000
_MOST_STEPS = 200_000
_SAME = 1e-6
_OFF_BY_ONE = 0.01
"""Share of the largest factor by which two lengths may differ: a schedule that ends at the last step or after it."""


@dataclass(frozen=True)
class Schedule:
    """Factor of the learning rate along a run.

    Attributes:
        factors: at the beginning of each unit of the training that it was read from, and at the end of the last.
        by_epoch: whether it stays in each unit, an epoch, as it is.
    """

    factors: tuple[float, ...]
    by_epoch: bool = False

    def __call__(self, progress: float) -> float:
        """Factor at a share of the run in [0, 1]."""
        units = len(self.factors) - 1
        place = min(max(progress, 0.0), 1.0) * units
        if abs(place - round(place)) < _SAME:
            return self.factors[round(place)]
        below = math.floor(place)
        if self.by_epoch:
            return self.factors[below]
        return self.factors[below] + (place - below) * (self.factors[below + 1] - self.factors[below])


@dataclass(frozen=True)
class _Refused:
    why: str


def schedule_of(
    made_for: Callable[[int], Configured], own_steps: int | None, own_epochs: int | None
) -> tuple[Schedule | None, float, list[str]]:
    """The schedule of a module.

    Args:
        made_for: what `configure_optimizers` returns for a training of so many steps; called a few times.
        own_steps: of the user's own training; `None`: not known.
        own_epochs: of the same.

    Returns:
        The schedule, where there is one that can be taken over; the learning rate that its factor 1 stands for; and
        what to say of both.
    """
    first = made_for(own_steps or _TRIED)
    if not first.schedulers:
        return None, first.lr, []
    kind = type(first.schedulers[0]).__name__
    by_epoch = first.interval == "epoch"
    said = "as a share of a run"
    if (refused := _refused_at_once(first)) is not None:
        found: Schedule | _Refused = refused
    elif by_epoch and own_epochs is None:
        found = _Refused("it counts epochs, and no Trainer says how many there are: give trainer=... with max_epochs")
    elif own_steps is not None:
        units = own_epochs or 0 if by_epoch else own_steps
        found = _read(first, units)
        said = f"over the {plural(units, 'epoch' if by_epoch else 'step')} of the Trainer, as a share of a run"
    else:
        found = _of_share(made_for, first)
    if not isinstance(found, Schedule):
        return (
            None,
            first.lr,
            [f"the scheduler {kind} is not taken over: {found.why}; --schedule and --warmup choose one"],
        )
    peak = max(found.factors)
    notes = [f"the scheduler {kind} is taken over as the task's schedule, {said}"]
    if peak > 1.0 + _SAME:
        notes.append(f"the learning rate is the largest one of {kind}, {count(peak)} times the one that it begins from")
        found = Schedule(tuple(factor / peak for factor in found.factors), found.by_epoch)
    else:
        peak = 1.0
    if getattr(first.schedulers[0], "cycle_momentum", False):
        notes.append(f"the momentum that {kind} changes along the training is not taken over: it stays as it begins")
    return found, first.lr * peak, notes


def _refused_at_once(made: Configured) -> _Refused | None:
    """What cannot be a factor of the share of a run, whatever its numbers."""
    scheduler = made.schedulers[0]
    if len(made.schedulers) > 1:
        return _Refused(f"there are {len(made.schedulers)} schedulers")
    if isinstance(scheduler, ReduceLROnPlateau):
        return _Refused("it follows a metric, not the share of a run")
    if made.interval not in ("step", "epoch"):
        return _Refused(f"its interval is {made.interval!r}")
    return None


def _of_share(made_for: Callable[[int], Configured], made: Configured) -> Schedule | _Refused:
    """The schedule where it is the same function of the share in trainings of two lengths."""
    short, long = _read(made, _TRIED), _read(made_for(2 * _TRIED), 2 * _TRIED)
    if isinstance(short, _Refused):
        return short
    if isinstance(long, _Refused):
        return long
    allowed = _OFF_BY_ONE * max(short.factors)
    if all(abs(a - b) <= allowed for a, b in zip(short.factors, long.factors[::2], strict=True)):
        return long
    warmup = _warmup(short.factors)
    if warmup is not None and warmup == _warmup(long.factors):
        return _Refused(f"its warm-up has {warmup} steps, whatever the length: --warmup {warmup}steps says the same")
    return _Refused(
        "it counts steps whose number does not follow from the length of the training: give trainer=... with max_steps "
        "or max_epochs, and it is taken as a share of that"
    )


def _warmup(factors: Sequence[float]) -> int | None:
    """Steps of a linear warm-up after which the factor stays 1; `None`: it is something else."""
    steps = next((i for i, factor in enumerate(factors) if factor >= 1.0 - _SAME), len(factors))
    rising = all(b >= a for a, b in itertools.pairwise(factors[: steps + 1]))
    stays = all(abs(factor - 1.0) <= _SAME for factor in factors[steps:])
    return steps if rising and stays and 0 < steps < len(factors) else None


def _read(made: Configured, units: int) -> Schedule | _Refused:
    """Step a scheduler through a training of so many units, steps or epochs."""
    if not 0 < units <= _MOST_STEPS:
        return _Refused(f"it would have to be stepped {units:,} times, and at most {_MOST_STEPS:,} steps are looked at")
    groups, scheduler = made.optimizer.param_groups, made.schedulers[0]
    own = [float(group.get("initial_lr", group["lr"])) for group in groups]
    factors: list[float] = []
    with silenced():  # it is stepped without the optimizer
        for unit in range(units + 1):
            each = [float(group["lr"]) / lr for group, lr in zip(groups, own, strict=True) if lr > 0.0]
            if max(each) - min(each) > _SAME:
                return _Refused("its parameter groups have schedules of their own")
            factors.append(each[0])
            if unit < units and (unit + 1) % made.frequency == 0 and not _step(scheduler):
                factors += [factors[-1]] * (units - unit)
                break
    if not all(math.isfinite(factor) and factor >= 0.0 for factor in factors):
        return _Refused("it gave a learning rate below 0, or none")
    return Schedule(tuple(factors), made.interval == "epoch")


def _step(scheduler: Any) -> bool:
    """Step a scheduler; false where it has come to its end (`OneCycleLR` counts its steps)."""
    try:
        scheduler.step()
    except ValueError:
        return False
    return True
