"""Corners of the grid of batch sizes and learning rates; what is lost and won back between them. Numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ....fits import intervals
from ....store.records import Estimate
from ....wording import number
from ...conclusions import best_rates, paired_difference, runs_of
from ...demands import needs_several_sizes
from ...readings import arm_of
from ...records import Arm, Study, StudyQuestion, SummaryRow, grid

__all__ = [
    "arms",
    "cells_of",
    "difference_at_one_lr",
    "ends_at_one_lr",
    "left_share",
    "named_arm",
    "signed",
    "won_back",
]

_SMALL = 64
"""The published small batch, where it was asked for; else the smallest."""
_TENFOLD = 10.0


class _Cells(NamedTuple):
    """The three arms of Shen's comparison."""

    small: SummaryRow
    large: SummaryRow
    raised: SummaryRow


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """The grid, and the largest batch at ten times the smallest learning rate."""
    needs_several_sizes("learning_rate_compensation", question)
    cells = tuple(grid(question, examples))
    large, lr = max(question.batch_sizes), _tenfold(question)
    if any(cell.batch_size == large and cell.lr == lr for cell in cells):
        return cells
    return (*cells, Arm(batch_size=large, lr=lr, length=question.length, **question.course))


def _tenfold(question: StudyQuestion) -> float:
    """Ten times the smallest learning rate, as the user would write it."""
    return float(f"{_TENFOLD * min(question.lrs):.12g}")


def cells_of(study: Study) -> _Cells | None:
    """The cells that Shen compared, as far as they were run without diverging where it matters."""
    sizes, low = study.question.batch_sizes, min(study.question.lrs)
    small = _SMALL if _SMALL in sizes and max(sizes) > _SMALL else min(sizes)
    found = (
        arm_of(study, small, low),
        arm_of(study, max(sizes), low),
        arm_of(study, max(sizes), _tenfold(study.question)),
    )
    present = [arm for arm in found if arm is not None]
    return _Cells(*present) if len(present) == len(found) else None


def won_back(study: Study, name: str, raised: SummaryRow, cells: _Cells) -> Estimate:
    """`(raised - large) / (small - large)`, means over the seeds that all three have."""
    rows = _by_seed(study, name, cells.small, cells.large, raised)
    return intervals.ratio_of_paired_means((r - b, a - b) for a, b, r in rows)


def _by_seed(study: Study, name: str, *arms: SummaryRow) -> list[list[float]]:
    """A value of each arm, for each seed that has all of them."""
    columns = [{r.seed: r.values.get(name) for r in runs_of(study, arm)} for arm in arms]
    rows = [[column.get(seed) for column in columns] for seed in study.question.seeds]
    measured = [[value for value in row if value is not None] for row in rows]
    return [row for row in measured if len(row) == len(arms)]


def difference_at_one_lr(study: Study) -> Estimate | None:
    """Paired difference of the best value between the ends of the batch sizes, both at the smallest learning rate."""
    ends = ends_at_one_lr(study)
    return None if ends is None else paired_difference(study, f"best_{study.metric}", *ends)


def ends_at_one_lr(study: Study) -> tuple[SummaryRow, SummaryRow] | None:
    """The smallest and the largest batch at the smallest learning rate; `None` where a run diverged or is missing."""
    low = min(study.question.lrs)
    small, large = (
        arm_of(study, size, low) for size in (min(study.question.batch_sizes), max(study.question.batch_sizes))
    )
    return None if small is None or large is None or small.diverged or large.diverged else (small, large)


def left_share(study: Study) -> Estimate | None:
    """The difference with learning rates of their own over that at one learning rate, means over the seeds."""
    own, one = best_rates(study, ""), ends_at_one_lr(study)
    if one is None or len(own) < 2:
        return None
    rows = _by_seed(study, f"best_{study.metric}", own[0], own[-1], *one)
    return intervals.ratio_of_paired_means((row[1] - row[0], row[3] - row[2]) for row in rows)


def signed(change: Estimate, sign: float) -> Estimate:
    """The change, mirrored where the sign is negative."""
    if sign > 0:
        return change
    value, low, high = (None if v is None else -v for v in (change.value, change.high, change.low))
    return replace(change, value=value, low=low, high=high)


def named_arm(arm: SummaryRow) -> str:
    """The batch size and the learning rate of an arm, in words."""
    return f"batch size {arm.batch_size:,} at learning rate {number(arm.lr)}"
