"""The runs of the recovery study: from scratch, and what goes on from the large batch's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ....errors import UsageError
from ....wording import plural
from ...demands import needs_constant_lr
from ...records import Arm, StudyQuestion

__all__ = ["RecoveryPlan", "arms", "branches_of", "plan_of", "switched_after", "unchanged_after"]

_EARLY = 2.0
"""Epochs after which the early switch is made, as published; in a run that is no longer, half of them."""
_TENFOLD = 10.0


class RecoveryPlan(NamedTuple):
    """Settings that the runs of a question follow from."""

    small: int
    large: int
    lr: float
    higher: float
    """The learning rate that is switched to."""
    early: float
    """Epochs after which the early switch is made."""
    late: float
    """Epochs after which the late switch is made: the length of every run."""


def plan_of(question: StudyQuestion) -> RecoveryPlan:
    """The two batch sizes, the two learning rates and the epochs of the late switch.

    Raises:
        UsageError: they are not two, or a run is not of more than one epoch at a constant learning rate.
    """
    sizes, lrs, length = sorted(question.batch_sizes), sorted(question.lrs), question.length
    if len(sizes) != 2:
        raise UsageError(
            f"recovery switches from a large batch to a small one, and --batch-sizes has {plural(len(sizes), 'size')}; "
            "give two, for example --batch-sizes 64,1024"
        )
    if len(lrs) > 2:
        raise UsageError(
            f"recovery switches from one learning rate to a higher one, and --lrs has {len(lrs)}; give one, which is "
            "multiplied by ten, or two, for example --lrs 0.01,0.1"
        )
    if length.unit != "epochs" or length.amount <= _EARLY / 2:
        raise UsageError(
            f"recovery switches early and at the end of a run of so many epochs, and a run lasts {length}; "
            f"give --epochs above {_EARLY / 2:g}"
        )
    needs_constant_lr("recovery", question, "continues runs at their learning rate")
    higher = lrs[1] if len(lrs) == 2 else float(f"{_TENFOLD * lrs[0]:.12g}")
    early = _EARLY if length.amount > _EARLY else _EARLY / 2
    return RecoveryPlan(small=sizes[0], large=sizes[1], lr=lrs[0], higher=higher, early=early, late=length.amount)


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """The large and the small batch from scratch, and the five branches."""
    plan = plan_of(question)
    scratch = (
        Arm(batch_size=plan.large, lr=plan.lr, length=question.length),
        Arm(batch_size=plan.small, lr=plan.lr, length=question.length),
    )
    return (*scratch, *(arm for _, arm in branches_of(question)))


def branches_of(question: StudyQuestion) -> tuple[tuple[float, Arm], ...]:
    """After how many epochs of the large batch, and what then."""
    plan, length = plan_of(question), question.length
    switched = [
        (after, Arm(batch_size=size, lr=lr, length=length, variant=switched_after(after)))
        for after in (plan.early, plan.late)
        for size, lr in ((plan.small, plan.lr), (plan.large, plan.higher))
    ]
    unchanged = Arm(batch_size=plan.large, lr=plan.lr, length=length, variant=unchanged_after(plan.late))
    return (*switched, (plan.late, unchanged))


def switched_after(after: float) -> str:
    """The variant of runs that are switched after an epoch of the large batch."""
    return f"switched after epoch {after:g}"


def unchanged_after(after: float) -> str:
    """The variant of the runs that go on unchanged after an epoch of the large batch."""
    return f"carried on after epoch {after:g}"
