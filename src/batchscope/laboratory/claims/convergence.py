"""Statements about how fast and how smoothly training goes, by batch size, at equally many epochs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from ...fits import intervals
from ...store.ranges import SHARE
from ...store.records import Estimate
from ...wording import number
from ..records import StudyRow
from ..summary import Evaluation
from .comparisons import (
    TIME,
    at,
    better,
    epoch_time_falls,
    log_roughness,
    loss_ratio_above,
    minimum_effect,
    score_change,
    versus,
)
from .outcome import Outcome, above, all_of, any_of, below, differs, exactly, parts, undecided
from .plan import FIXED
from .results import Setting, TaskResults

__all__ = ["DECISIONS", "epochs_to_common_loss", "rough_per_update", "roughness_of_small"]

_CLEARLY = -0.5
_STRETCHES = 20
_STABLE = 0.1


def _epoch(e: Evaluation) -> float:
    return e.epoch


def epochs_to_common_loss(e: TaskResults, arm: Setting | None, other: Setting | None) -> tuple[Estimate, str]:
    """Epochs to a training loss that both reach: those of `other` over those of `arm`."""
    level = e.common_level((arm, other))
    what = f"the epochs to a training loss of {number(level)}, {versus(arm, other)}, as a ratio,"
    if level is None:
        return intervals.geometric_ratio([]), what
    first, second = (e.passages(a, level, _epoch) for a in (arm, other))
    return intervals.geometric_ratio(intervals.matched(second, first)), what


def _in_epochs(
    e: TaskResults,
    arm: Setting | None,
    other: Setting | None,
    rule: Callable[[Estimate, float, float, str, Sequence[str]], Outcome],
) -> Outcome:
    """Whether `other` takes more epochs than `arm` to a common training loss (`above`), or fewer (`below`)."""
    effect, what = epochs_to_common_loss(e, arm, other)
    return rule(effect, 1.0, TIME, what, e.ids(arm, other))


def _smallest_slower(e: TaskResults) -> Outcome:
    """Than some other batch size."""

    def than_some(arm_of: Callable[[int], Setting | None]) -> Outcome:
        small = arm_of(e.plan.smallest)
        others = [arm_of(b) for b in e.plan.batch_sizes[1:]]
        return any_of(*(_in_epochs(e, small, other, below) for other in others))

    return parts(
        "the learning rate",
        {"at one learning rate": than_some(e.at_one_rate), "each at its best": than_some(e.at_best)},
    )


def _speed_differs(e: TaskResults) -> Outcome:
    small, large = e.ends_at_one_rate
    effect, what = epochs_to_common_loss(e, small, large)
    return differs(effect, 1.0, 0.1, what, e.ids(small, large))


def _curve_differs(e: TaskResults) -> Outcome:
    small, large = e.ends_at_one_rate

    def loss_after(share: float) -> Callable[[StudyRow], float | None]:
        return lambda row: at(e.course(row), share).metrics.get(e.train_loss)

    outcomes = [
        differs(
            e.compared(small, large, loss_after(share), ratio=True),
            1.0,
            0.1,
            f"the training loss after {name} of the epochs, {versus(small, large)}, as a ratio,",
            e.ids(small, large),
        )
        for share, name in ((1 / 3, "a third"), (1.0, "all"))
    ]
    return any_of(*outcomes)


def _worse_in_the_end(e: TaskResults) -> Outcome:
    small, large = e.ends_at_one_rate
    worse = [_score_lower(e, small, large, "final")]
    if e.loss and e.loss != e.score.metric:
        worse.append(loss_ratio_above(e, f"final_{e.loss}", small, large, "the validation loss at the end"))
    return all_of(*worse)


def _score_lower(e: TaskResults, arm: Setting | None, other: Setting | None, when: str) -> Outcome:
    change = score_change(e, arm, other, when)
    what = f"the change of {better(e, e.score)}, {versus(arm, other)},"
    return below(change, 0.0, minimum_effect(e, e.score, arm), what, e.ids(arm, other))


def _less_accurate(e: TaskResults) -> Outcome:
    return parts(
        "the learning rate",
        {
            "at one learning rate": _score_lower(e, *e.ends_at_one_rate, "final"),
            "each at its best": _score_lower(e, *e.ends_at_best, "best"),
        },
    )


def _accuracy_for_speed(e: TaskResults) -> Outcome:
    return all_of(epoch_time_falls(e), _score_lower(e, *e.ends_at_one_rate, "final"))


def _faster_but_less_accurate(e: TaskResults) -> Outcome:
    return all_of(epoch_time_falls(e), _less_accurate(e))


def _learns_more_from_each(e: TaskResults) -> Outcome:
    name = f"final_{e.train_loss}"
    what = "the training loss after the same examples"
    return parts(
        "the learning rate",
        {
            "at one learning rate": loss_ratio_above(e, name, *e.ends_at_one_rate, what),
            "each at its best": loss_ratio_above(e, name, *e.ends_at_best, what),
        },
    )


# --- smoothness and stability ---------------------------------------------------------------------------------------


def roughness_of_small(e: TaskResults) -> dict[str, tuple[Estimate, str, tuple[str, ...]]]:
    """Jumps of the logarithm of the training loss: the smallest batch's over the largest's, on two axes."""
    found: dict[str, tuple[Estimate, str, tuple[str, ...]]] = {}
    for axis, variant in (("from epoch to epoch", ""), ("over equally many updates", FIXED)):
        small, large = (e.at_one_rate(b, variant) for b in e.ends)

        def rough(row: StudyRow, spaced: bool = bool(variant)) -> float | None:
            course = evenly(e.course(row)) if spaced else e.course(row)
            return log_roughness(course, e.train_loss)

        ratio = e.compared(large, small, rough, ratio=True)
        what = f"the roughness of the log training loss, {axis}, {versus(large, small)}, as a ratio,"
        found[axis] = ratio, what, e.ids(small, large)
    return found


def evenly(course: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations nearest to 20 equal stretches of steps: runs evaluated more or less often then compare."""
    end = course[-1].step
    chosen = (min(course, key=lambda x: abs(x.step - end * i / _STRETCHES)) for i in range(_STRETCHES + 1))
    return list({x.step: x for x in chosen}.values())


def _small_rougher(e: TaskResults) -> Outcome:
    found = roughness_of_small(e)
    return parts("the axis", {axis: above(r, 1.0, 0.1, what, ids) for axis, (r, what, ids) in found.items()})


def _small_smoother(e: TaskResults) -> Outcome:
    found = roughness_of_small(e)
    return parts("the axis", {axis: below(r, 1.0, 0.1, what, ids) for axis, (r, what, ids) in found.items()})


def rough_per_update(e: TaskResults) -> Outcome:
    """Whether the smallest batch's loss jumps more from update to update."""
    ratio, what, ids = roughness_of_small(e)["over equally many updates"]
    return above(ratio, 1.0, 0.1, what, ids)


def _lost_share(e: TaskResults, batch_size: int) -> dict[int, float]:
    """Share of each seed's runs that diverged, over the learning rates of the grid."""
    found: dict[int, list[bool]] = {}
    for arm in e.arms(""):
        if arm.batch_size == batch_size:
            for row in e.rows(arm):
                found.setdefault(row.seed, []).append(e.lost(row))
    return {seed: sum(lost) / len(lost) for seed, lost in found.items()}


def more_lost(e: TaskResults) -> Outcome:
    """Whether more runs of the smallest batch are lost, over all learning rates of the grid."""
    small, large = (_lost_share(e, b) for b in e.ends)
    effect = intervals.paired_difference(intervals.matched(small, large), within=SHARE)
    what = f"the share of runs that diverge or end no better than they began, batch size {e.ends[0]} minus {e.ends[1]},"
    return above(
        effect, 0.0, 0.02, what, tuple(r for arm in e.arms("") for r in e.ids(arm) if arm.batch_size in e.ends)
    )


def _unstable(e: TaskResults) -> Outcome:
    def highest(batch_size: int) -> dict[int, float]:
        stable: dict[int, float] = {}
        for arm in e.arms(""):
            for row in e.rows(arm) if arm.batch_size == batch_size else ():
                if not e.lost(row):
                    stable[row.seed] = max(stable.get(row.seed, 0.0), arm.lr)
        return stable

    small, large = (highest(b) for b in e.ends)
    none = (
        e.plan.lrs[0] / e.plan.lrs[1] * e.plan.lrs[0]
    )  # no learning rate of the grid is stable: as if the next lower were
    seeds = [seed for seed in e.plan.seeds if seed in small or seed in large]
    ratio = intervals.geometric_ratio((large.get(seed, none), small.get(seed, none)) for seed in seeds)
    what = f"the highest stable learning rate of the grid at batch size {e.ends[1]} over that at {e.ends[0]}"
    return all_of(more_lost(e), above(ratio, 1.0, _STABLE, what))


def _progress(e: TaskResults) -> Outcome:
    found = [
        r
        for arm in map(e.at_one_rate, e.plan.batch_sizes)
        for row in e.rows(arm)
        if not e.lost(row) and (r := intervals.rank_correlation(*_loss_against_steps(e, row))) is not None
    ]
    what = "the rank correlation of the training loss with the step, mean over the runs at one learning rate,"
    return below(intervals.mean_correlation(found), _CLEARLY, 0.0, what, e.ids(*map(e.at_one_rate, e.plan.batch_sizes)))


def _loss_against_steps(e: TaskResults, row: StudyRow) -> tuple[Sequence[float], Sequence[float]]:
    course = [x for x in e.course(row) if math.isfinite(x.metrics[e.train_loss])]
    return [x.step for x in course], [x.metrics[e.train_loss] for x in course]


def _fewer_updates(e: TaskResults) -> Outcome:
    steps = {b: {row.steps for row in e.rows(e.at_one_rate(b)) if not e.lost(row)} for b in e.plan.batch_sizes}
    if any(len(found) != 1 for found in steps.values()):
        return undecided("runs of whole length are not there for every batch size")
    counted = [next(iter(found)) for found in steps.values()]
    falling = all(a > b for a, b in itertools.pairwise(counted))
    phrase = ", ".join(f"{n} at batch size {b}" for b, n in zip(steps, counted, strict=True))
    ids = e.ids(*map(e.at_one_rate, e.plan.batch_sizes))
    return exactly(falling, counted[-1] / counted[0], f"updates counted in equally many epochs: {phrase}", runs=ids)


DECISIONS: Mapping[str, Callable[[TaskResults], Outcome]] = {
    "S0.5a": lambda e: _in_epochs(e, *e.ends_at_one_rate, above),
    "S2.7b": lambda e: _in_epochs(e, *e.ends_at_one_rate, above),
    "S3.7d": lambda e: _in_epochs(e, *e.ends_at_one_rate, below),
    "S3.9b": _smallest_slower,
    "S1.12a": _speed_differs,
    "S1.12c": _curve_differs,
    "S0.8b": _worse_in_the_end,
    "S2.11c": _worse_in_the_end,
    "S1.10b": _less_accurate,
    "S1.10a": _accuracy_for_speed,
    "S2.6a": _accuracy_for_speed,
    "S2.6b": _faster_but_less_accurate,
    "S2.11a": _learns_more_from_each,
    "S1.4b": _small_rougher,
    "S3.6b": _small_smoother,
    "S0.5c": lambda e: all_of(rough_per_update(e), more_lost(e)),
    "S3.9c": _unstable,
    "S2.10a": _progress,
    "S1.13b": _fewer_updates,
}
