"""Shen's conclusions on SGD and Adam, each with its numbers. Numbers only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ....fits import intervals
from ....wording import count, number, with_interval
from ...conclusions import paired_difference, runs_of
from ...published import conclusion, is_above
from ...readings import end_metric_of
from ...records import Finding, Study
from ...travel import HARDLY, travelled, within
from .pairs import LARGER, Pair, pairs_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["SOURCE", "conclude"]

SOURCE = "Shen 2018, SGD against Adam (A7)"
_RATIO = "geometric mean over the seeds with a 90 % t interval of its logarithm"


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Shen's conclusions at each batch size: either optimizer at its best learning rate, and at the usual one."""
    return tuple(finding for pair in pairs_of(study) for finding in _compared(study, runs, pair))


def _compared(study: Study, runs: Sequence[StoredRun], pair: Pair) -> Iterator[Finding]:
    where = (
        f"{pair.how}, batch size {count(pair.sgd.batch_size)}, SGD at {number(pair.sgd.lr)} and Adam at "
        f"{number(pair.adam.lr)}"
    )
    ids = tuple(row.run for arm in (pair.sgd, pair.adam) for row in runs_of(study, arm))
    for statement, quantity, what in LARGER:
        (first, a), (last, b) = (travelled(study, runs, arm, quantity=quantity) for arm in (pair.sgd, pair.adam))
        if first.value is None or last.value is None:
            continue
        share = intervals.geometric_ratio(intervals.matched(b, a))
        yield conclusion(
            statement,
            is_above(share, 1.0),
            f"{where}: {what} is {with_interval(first)} with SGD and {with_interval(last)} with Adam, "
            f"{with_interval(share)} times as much",
            source=f"{SOURCE}; the ratio is a {_RATIO}",
            effect=share,
            runs=ids,
        )
    yield from _on_the_sphere(study, runs, pair, where, ids)
    yield from _accuracy(study, pair, where, ids)


def _on_the_sphere(
    study: Study, runs: Sequence[StoredRun], pair: Pair, where: str, ids: tuple[str, ...]
) -> Iterator[Finding]:
    sgd, adam = (travelled(study, runs, arm, quantity="norm_change")[0] for arm in (pair.sgd, pair.adam))
    if sgd.value is None or adam.value is None:
        return
    stays, leaves = within(sgd, HARDLY), is_above(adam, HARDLY)
    yield conclusion(
        "SGD keeps the norm that it starts with, and Adam does not",
        False if False in (stays, leaves) else None if None in (stays, leaves) else True,
        f"{where}: the norm over the initial norm, minus 1, is {with_interval(sgd)} with SGD and {with_interval(adam)} "
        "with Adam",
        source=f"{SOURCE}; so if the 90 % t interval of SGD lies within {HARDLY:g} either way, and Adam's above that",
        effect=adam,
        runs=ids,
    )


def _accuracy(study: Study, pair: Pair, where: str, ids: tuple[str, ...]) -> Iterator[Finding]:
    outcome = end_metric_of(study)
    change = paired_difference(study, f"final_{outcome.name}", pair.sgd, pair.adam)
    if change.value is None:
        return
    above = is_above(change)
    yield conclusion(
        "Adam ends at a lower test accuracy",
        None if above is None else above != outcome.larger_is_better,
        f"{where}: {outcome.name} changes from SGD to Adam by {with_interval(change)}",
        source=f"{SOURCE}; differences at the end seed by seed, 90 % t interval",
        effect=change,
        runs=ids,
    )
