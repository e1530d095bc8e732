"""Whether as many updates make a large batch as good as a small one, and carry it as far. Numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....wording import number, with_interval
from ...conclusions import paired_difference, runs_of
from ...published import conclusion, is_above
from ...readings import arm_of, end_metric_of
from ...records import Finding, Study, SummaryRow
from .passages import AS_FAR, MOST_TIMES, as_far_passage, as_good_passage, distance_ratio, longer_arms, smallest_arm

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["SOURCE", "conclude"]

SOURCE = "Hoffer et al. 2017, regime adaptation; Shen 2018, distance from the initial weights"


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Whether more epochs carry the largest batch as far, and make it as good."""
    small, longer = smallest_arm(study), longer_arms(study)
    if small is None or not longer:
        return ()
    return _quality(study, runs, small, longer[-1]), _far(study, runs, small, longer[-1])


def _quality(study: Study, runs: Sequence[StoredRun], small: SummaryRow, large: SummaryRow) -> Finding:
    outcome = end_metric_of(study)
    name = f"final_{outcome.name}"
    change = paired_difference(study, name, small, large)
    short = arm_of(study, large.batch_size, large.lr)
    before = with_interval(paired_difference(study, name, small, short)) if short else "not measured"
    return conclusion(
        "a large batch is as good as a small one if it is trained for as many updates",
        outcome.as_good(change, small.estimates[name].value),
        f"from batch size {small.batch_size:,} to {large.batch_size:,}, {outcome.name} changes by "
        f"{with_interval(change)} after {_length_words(study, large)}, by {before} after as many epochs; it is as good "
        f"{as_good_passage(study, runs, large, small)}",
        source="Hoffer et al. 2017; differences seed by seed, 90 % t interval; as good is worse by at most "
        f"{outcome.margin}; first passage, interpolated in log steps",
        effect=change,
        runs=_ids(study, small, large),
    )


def _far(study: Study, runs: Sequence[StoredRun], small: SummaryRow, large: SummaryRow) -> Finding:
    ratio = distance_ratio(study, runs, large, small)
    short = arm_of(study, large.batch_size, large.lr)
    as_long = f" ({with_interval(distance_ratio(study, runs, short, small))} after as many epochs)" if short else ""
    return conclusion(
        "more epochs carry a large batch as far from its initial weights as a small one",
        is_above(ratio, AS_FAR),
        f"after {_length_words(study, large)}, batch size {large.batch_size:,} has gone {with_interval(ratio)} times "
        f"the distance of {small.batch_size:,}{as_long}; it is as far {as_far_passage(study, runs, large, small)}",
        source="Shen 2018, distance from the initial weights; geometric mean over the seeds, 90 % t interval; "
        f"as far is {AS_FAR:g} times and more",
        effect=ratio,
        runs=_ids(study, small, large),
    )


def _length_words(study: Study, large: SummaryRow) -> str:
    """Length of a longer run, in words."""
    smallest = min(study.question.batch_sizes)
    cut = large.batch_size / smallest > MOST_TIMES
    steps = f"the most, {MOST_TIMES:g} times as many" if cut else "as many steps"
    return f"{number(large.estimates['epochs'].value)} epochs ({steps})"


def _ids(study: Study, *arms: SummaryRow) -> tuple[str, ...]:
    return tuple(row.run for arm in arms for row in runs_of(study, arm))
