"""What `optimizer` may not bring along: a scheduler, or other optimizers.

A scheduler of torch leaves two marks on its optimizer when it is made, also when nobody keeps the scheduler: it puts a
function with the attribute `_wrapped_by_lr_sched` in the place of `optimizer.step`, and `initial_lr` into every
parameter group (torch 2.13, `torch/optim/lr_scheduler.py`, `LRScheduler.__init__`; those of timm put the latter). It
has changed the learning rate by then, to the first of a warm-up. `ReduceLROnPlateau` leaves neither, and changes
nothing until it is told a metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ...errors import TaskError

__all__ = ["refusal_of", "refuse_scheduler"]

_SCHEDULE = (
    "leave it out, and say the schedule with --warmup and --schedule, or with a member of the task, "
    "`def schedule(self, progress: float) -> float`, the factor of the learning rate at a share of the run"
)


def refuse_scheduler(optimizer: Any) -> None:
    """Refuse an optimizer whose learning rate a scheduler sets.

    Raises:
        TaskError: a scheduler was made with it.
    """
    wrapped = hasattr(optimizer.step, "_wrapped_by_lr_sched")
    first = optimizer.param_groups[0]
    if wrapped or "initial_lr" in first:
        before = first.get("initial_lr")
        changed = f", and set its learning rate to {float(first['lr']):.4g}" if before != first["lr"] else ""
        said = f" from {float(before):.4g}" if changed and before is not None else ""
        raise TaskError(
            f"optimizer(params, lr) made a scheduler for the optimizer{changed}{said}; nothing steps it here: "
            f"{_SCHEDULE}"
        )


def refusal_of(returned: Any) -> TaskError | None:
    """Message on schedulers or several optimizers among what `optimizer` returned; `None` where there are none."""
    parts = list(_parts(returned))
    optimizers = [part for part in parts if isinstance(part, Optimizer)]
    schedulers = [part for part in parts if _is_scheduler(part)]
    if not optimizers and not schedulers:
        return None
    kinds = ", ".join(type(part).__name__ for part in (*optimizers, *schedulers))
    held = "" if parts[0] is returned else f" ({kinds})"
    what = f"optimizer(params, lr) returned a {type(returned).__name__}{held}"
    if len(optimizers) > 1:
        return TaskError(
            f"{what}, and a task has one optimizer: give one optimizer a parameter group for each part, or return an "
            "Optimizer whose step() steps all of them (docs/tasks.md, several optimizers)"
        )
    if schedulers:
        return TaskError(f"{what}, and a task's optimizer comes without a scheduler: return the optimizer; {_SCHEDULE}")
    return TaskError(f"{what}: return the optimizer itself")


def _is_scheduler(value: Any) -> bool:
    return isinstance(value, LRScheduler) or (not isinstance(value, Optimizer) and hasattr(value, "get_last_lr"))


def _parts(value: Any) -> Iterator[Any]:
    """What a nest of tuples, lists and dicts holds."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item)
    else:
        yield value
