"""What batch normalisation changes, from the stored runs of the study `batch_norm`. Numbers only.

Variants are compared at equal batch size and seed by seed: a seed draws the same weights of the model's own layers and
the same order of the examples in all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ....fits import intervals
from ....fits.curves import first_passage
from ....store.ranges import NOT_NEGATIVE
from ....store.records import Estimate
from ...conclusions import runs_of
from ...readings import Reading, arm_of, readings
from ...records import Study, SummaryRow
from ...summary import evaluations

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = [
    "AFTER",
    "BEFORE",
    "NONE",
    "NORMALISED",
    "WORKS",
    "CommonLoss",
    "Pair",
    "Tolerance",
    "at_one_rate",
    "best_of",
    "difference",
    "epochs_to_common_loss",
    "focus",
    "ghost",
    "ghost_size",
    "ghost_variant",
    "higher",
    "ids",
    "middle_of",
    "middle_pair",
    "one_example",
    "ordered",
    "pairs",
    "runs_by_seed",
    "seeds_mean",
    "shown_sizes",
    "size_mean",
    "sizes_of",
    "tolerances",
    "variants_of",
    "worse_by",
]

NONE, BEFORE, AFTER = "no norm", "norm before", "norm after"
"""Variants: without batch normalisation, with it in front of each activation function, and after it."""
NORMALISED = "normalised"
"""The measurement that is there, not applicable, where normalisation cannot be configured in the model."""
_GHOST = "ghost norm"
_ORDERS = "orders"
WORKS = 0.9
"""A learning rate works where it gains at least this share of what the best of any variant gains since the start."""


def ghost(examples: int) -> str:
    """The variant with ghost batches of so many examples, in front of each activation function."""
    return f"{_GHOST} {examples}"


def ghost_size(variant: str) -> int | None:
    """Examples in the ghost batches of a variant; `None` for a variant without them.

    >>> ghost_size(ghost(16)), ghost_size(BEFORE)
    (16, None)
    """
    name, _, examples = variant.rpartition(" ")
    return int(examples) if name == _GHOST else None


def ordered(variant: str) -> str:
    """The variant of runs that all begin at the same weights."""
    return f"{_ORDERS}, {variant}"


def one_example(variant: str) -> str:
    """The variant of runs on batches of one example."""
    return f"one example, {variant}"


class Pair(NamedTuple):
    """The arms without and with batch normalisation of one batch size, each at its best learning rate."""

    without: SummaryRow
    with_: SummaryRow


def sizes_of(study: Study) -> list[int]:
    """The batch sizes of the grid, the smallest first."""
    return sorted(set(study.question.batch_sizes))


def shown_sizes(study: Study) -> list[int]:
    """The smallest, the middle and the largest of the batch sizes."""
    sizes = sizes_of(study)
    return sorted({sizes[0], middle_of(sizes), sizes[-1]})


def best_of(study: Study, variant: str, batch_size: int) -> SummaryRow | None:
    """The arm at the best learning rate; `None` where none was run, or a seed diverged at each."""
    return next((s for s in study.summary if s.best_lr and s.key[:2] == (variant, batch_size)), None)


def pairs(study: Study, variant: str = BEFORE, other: str = NONE) -> list[Pair]:
    """Pairs of the other variant and this one for each batch size, the smallest first."""
    found = ((best_of(study, other, size), best_of(study, variant, size)) for size in sizes_of(study))
    return [Pair(a, b) for a, b in found if a is not None and b is not None]


def variants_of(study: Study) -> list[str]:
    """The configurations of the grid, in the order in which they were first run."""
    seen = dict.fromkeys(s.variant for s in study.summary)
    return [v for v in seen if v in (NONE, BEFORE, AFTER) or ghost_size(v) is not None]


def ghost_variant(study: Study) -> str | None:
    """The configuration with ghost batches, where it was run."""
    return next((v for v in variants_of(study) if ghost_size(v) is not None), None)


def focus(study: Study) -> int:
    """The middle one of the batch sizes, at which orders are tried; the smaller of two."""
    return middle_of(sizes_of(study))


def middle_of(batch_sizes: Sequence[int]) -> int:
    """The middle one, of an even number the smaller of the two in the middle; a batch of one is no middle.

    >>> middle_of((512, 16, 128)), middle_of((8, 64)), middle_of((1, 64)), middle_of((1,))
    (128, 8, 64, 1)
    """
    several = sorted(size for size in batch_sizes if size > 1) or [1]
    return several[(len(several) - 1) // 2]


def middle_pair(study: Study, variant: str = BEFORE, other: str = NONE) -> Pair | None:
    """The pair of the middle batch size."""
    return next((pair for pair in pairs(study, variant, other) if pair.with_.batch_size == focus(study)), None)


def ids(study: Study, *arms: SummaryRow) -> list[str]:
    """The ids of the runs of these arms."""
    return [row.run for arm in arms for row in runs_of(study, arm)]


def seeds_mean(values: Mapping[int, float], unit: str = "") -> Estimate:
    """Mean of what each seed gave."""
    return intervals.mean(values.values(), unit)


def size_mean(values: Mapping[int, float]) -> Estimate:
    """Mean of what each seed gave of a norm, a distance or a standard deviation, which are never below zero."""
    return intervals.mean(values.values(), within=NOT_NEGATIVE)


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Estimate:
    """Paired difference `second − first` over the seeds that both have."""
    return intervals.paired_difference(intervals.matched(second, first))


# --- how fast -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CommonLoss:
    """Epochs until the training loss is first as low as all runs of two arms come."""

    loss: float
    without: Estimate
    with_: Estimate
    ratio: Estimate
    """Epochs without over epochs with batch normalisation."""


def epochs_to_common_loss(study: Study, runs: Sequence[StoredRun], pair: Pair) -> CommonLoss | None:
    """Epochs of two arms to the lowest training loss that each of their runs reaches, interpolated in log steps.

    The loss is that of the training part in evaluation mode, else the running mean. `None`: a run diverged, or some run
    never falls below where it began, so that there is nothing to reach.
    """
    courses = [_loss_courses(study, runs, arm) for arm in pair]
    seeds = sorted(courses[0].keys() & courses[1].keys())
    if not seeds or pair.without.diverged or pair.with_.diverged:
        return None
    used = [by_seed[seed] for by_seed in courses for seed in seeds]
    target = max(min(r.value for r in course) for course in used)
    if not all(math.isfinite(r.value) for course in used for r in course) or any(c[0].value <= target for c in used):
        return None
    epochs = [[_epoch_of(by_seed[seed], target) for seed in seeds] for by_seed in courses]
    return CommonLoss(
        loss=target,
        without=intervals.mean(epochs[0], "epochs", within=NOT_NEGATIVE),
        with_=intervals.mean(epochs[1], "epochs", within=NOT_NEGATIVE),
        ratio=intervals.geometric_ratio(zip(*epochs, strict=True)),
    )


def _epoch_of(course: Sequence[Reading], target: float) -> float:
    found = first_passage([r.epoch for r in course], [r.value for r in course], target, rising=False)
    assert found is not None
    return found


def _loss_courses(study: Study, runs: Sequence[StoredRun], arm: SummaryRow) -> dict[int, tuple[Reading, ...]]:
    found: dict[int, tuple[Reading, ...]] = {}
    for seed, run in runs_by_seed(study, runs, arm).items():
        course = readings(study, run, "train_loss_eval") or tuple(
            Reading(e.step, e.epoch, e.seconds, e.train_loss)
            for e in evaluations(run, study.examples_of(run))
            if e.train_loss is not None
        )
        if course:
            found[seed] = course
    return found


def runs_by_seed(study: Study, runs: Sequence[StoredRun], arm: SummaryRow) -> dict[int, StoredRun]:
    """The stored runs of an arm that did not diverge."""
    by_id = {run.id: run for run in runs}
    return {row.seed: by_id[row.run] for row in runs_of(study, arm) if row.run in by_id and row.status != "diverged"}


# --- which learning rates
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """The learning rates at which a variant works at one batch size (`WORKS`)."""

    decades: Mapping[int, float]
    """By seed, how wide the range of learning rates is: log₁₀ of the largest over the smallest, gaps left out."""
    highest: Mapping[int, float]
    """By seed, the highest learning rate of the grid that works; seeds without one are missing."""
    at_top: bool
    """Whether some seed's highest is the end of the grid: it is a bound."""
    at_bottom: bool

    @property
    def width(self) -> Estimate:
        """Mean over the seeds of `decades`."""
        return intervals.mean(list(self.decades.values()), "decades", within=NOT_NEGATIVE)

    @property
    def limit(self) -> float | None:
        """Geometric mean over the seeds of `highest`."""
        return intervals.geometric_mean(self.highest.values()).value


def higher(one: Tolerance, other: Tolerance) -> Estimate:
    """Ratio of the top learning rates, `other` over `one`: geometric mean over the seeds, t interval of the logarithm.

    Only seeds count in which both have one.
    """
    return intervals.geometric_ratio(intervals.matched(other.highest, one.highest))


def tolerances(study: Study, runs: Sequence[StoredRun], batch_size: int) -> dict[str, Tolerance]:
    """Tolerance of each variant: at which learning rates it works; the bar is the same for all, seed by seed.

    The gain of a run is how much better the metric is at its best epoch than at the start. The bar is a share of the
    largest gain of any variant and learning rate. Between two learning rates of the grid the gain is taken as straight
    in log learning rate, and next to a learning rate at which the run diverged nothing works. Empty with fewer than two
    learning rates.
    """
    lrs = sorted(set(study.question.lrs))
    gains: dict[str, dict[int, Gains]] = {}
    for variant, seed in itertools.product(variants_of(study), study.question.seeds):
        found_there = _gains(study, runs, variant, batch_size, seed, lrs)
        if found_there is not None:
            gains.setdefault(variant, {})[seed] = found_there
    if len(lrs) < 2:
        return {}
    bars: dict[int, float] = {}
    for seed in study.question.seeds:
        measured = [g for by_seed in gains.values() for g in by_seed.get(seed, ()) if g is not None]
        bars[seed] = WORKS * max(measured, default=math.inf)
    logs = [math.log10(lr) for lr in lrs]
    found: dict[str, Tolerance] = {}
    for variant, by_seed in gains.items():
        working = {s: [lr for lr, g in zip(lrs, gain, strict=True) if _at(g, bars[s])] for s, gain in by_seed.items()}
        found[variant] = Tolerance(
            decades={seed: _width(logs, gain, bars[seed]) for seed, gain in by_seed.items()},
            highest={seed: rates[-1] for seed, rates in working.items() if rates},
            at_top=any(lrs[-1] in rates for rates in working.values()),
            at_bottom=any(lrs[0] in rates for rates in working.values()),
        )
    return found


Gains = list[float | None]


def _gains(
    study: Study, runs: Sequence[StoredRun], variant: str, batch_size: int, seed: int, lrs: Sequence[float]
) -> Gains | None:
    """Gains at each learning rate; `None` for one that diverged, and for all where a learning rate was not run."""
    by_id = {run.id: run for run in runs}
    rows = {r.lr: r for r in study.rows if (r.variant, r.batch_size, r.seed) == (variant, batch_size, seed)}
    if not set(lrs) <= rows.keys():
        return None
    found: Gains = []
    for lr in lrs:
        run, best = by_id.get(rows[lr].run), rows[lr].values.get(f"best_{study.metric}")
        course = evaluations(run, study.examples_of(run)) if run else []
        start = course[0].metrics.get(study.metric) if course else None
        usable = best is not None and start is not None and rows[lr].status != "diverged"
        found.append(worse_by(study, best or 0.0, start or 0.0) if usable else None)
    return found


def _at(gain: float | None, bar: float) -> bool:
    return gain is not None and gain >= bar


def _width(logs: Sequence[float], gains: Sequence[float | None], bar: float) -> float:
    """Width of the axis with a gain above the bar, on straight lines between neighbours."""
    total = 0.0
    for (x, a), (y, b) in itertools.pairwise(zip(logs, gains, strict=True)):
        if a is None or b is None or max(a, b) < bar:
            continue
        share = 1.0 if min(a, b) >= bar else (max(a, b) - bar) / abs(b - a)
        total += share * (y - x)
    return total


def worse_by(study: Study, value: float, other: float) -> float:
    """Loss in a metric, `other` against `value`: above 0 where it is worse."""
    return value - other if study.larger_is_better else other - value


def at_one_rate(study: Study, variant: str, lr: float) -> list[SummaryRow]:
    """The arms of a variant at one learning rate where no seed diverged, the smallest batch first."""
    found = (arm_of(study, size, lr, variant) for size in sizes_of(study))
    return [arm for arm in found if arm is not None and not arm.diverged]
