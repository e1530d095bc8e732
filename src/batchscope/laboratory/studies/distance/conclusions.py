"""What a study of travel concludes: Shen's sentences on the distance from the initial weights, each with what decides.

Arms are compared seed by seed, as a seed draws the same initial weights for all of them. Numbers only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ....fits import intervals
from ....store.records import Estimate
from ....wording import count, joined, number, with_interval
from ...conclusions import best_arm, runs_of
from ...published import conclusion, is_above
from ...readings import arm_of, over_seeds
from ...records import Finding, Study, SummaryRow
from ...travel import HARDLY, Moment, Update, groups_of, travelled, update_of, update_range, within

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["SOURCE", "travel_findings"]

SOURCE = "Shen 2018, distance from the initial weights (A6)"
_RATIO = "the ratio is a geometric mean over the seeds with a 90 % t interval of its logarithm"
_MOST_LAYERS = 6
"""Layers that a sentence names."""
_UPDATES: tuple[tuple[Update, str], ...] = (
    ("mean_norm", "the mean size of one update"),
    ("norm_of_sum", "the distance gone in an epoch"),
)


def travel_findings(study: Study, runs: Sequence[StoredRun]) -> tuple[Finding, ...]:
    """Shen's conclusions, and what one update and an epoch of them do; the first learning rate is the published one."""
    return (
        *_nearer(study, runs),
        *_in_every_layer(study, runs),
        *_farther_with_rate(study, runs),
        *_best_lie_farther(study, runs),
        *_out_of_reach(study, runs),
        *_on_the_sphere(study, runs),
        *_updates(study, runs),
    )


def _ends(study: Study, lr: float) -> tuple[SummaryRow, SummaryRow] | None:
    """The smallest and the largest batch at a learning rate, where no run diverged."""
    sizes = study.question.batch_sizes
    small, large = (arm_of(study, size, lr) for size in (min(sizes), max(sizes)))
    if small is None or large is None or small.diverged or large.diverged:
        return None
    return small, large


def _nearer(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    for lr in study.question.lrs:
        ends = _ends(study, lr)
        if ends is None:
            continue
        (first, a), (last, b) = (travelled(study, runs, arm) for arm in ends)
        share = intervals.geometric_ratio(intervals.matched(b, a))
        yield conclusion(
            "a large batch at the same learning rate stays nearer to where it began",
            _below(share, 1.0),
            f"at learning rate {number(lr)}, after {study.question.length}, the distance is {with_interval(first)} "
            f"with batch size {count(ends[0].batch_size)} and {with_interval(last)} with {count(ends[1].batch_size)}, "
            f"{with_interval(share)} times as much",
            source=f"{SOURCE}; {_RATIO}, so if it lies below 1",
            effect=share,
            runs=_ids(study, *ends),
        )


def _in_every_layer(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    lr = study.question.lrs[0]
    ends, layers = _ends(study, lr), [group for group in groups_of(runs) if group.is_layer]
    if ends is None or not layers:
        return
    by_layer = [[travelled(study, runs, arm, group=group)[1] for arm in ends] for group in layers]
    shares = [intervals.geometric_ratio(intervals.matched(b, a)) for a, b in by_layer]
    holds = [_below(share, 1.0) for share in shares]
    measured = sorted((e.value, i) for i, e in enumerate(shares) if e.value is not None)
    chosen = range(len(layers)) if len(layers) <= _MOST_LAYERS else [i for _, i in (*measured[:1], *measured[-1:])]
    phrase = joined([f"{with_interval(shares[i])} in {layers[i].label}" for i in chosen])
    between = f"the smallest and the largest of {count(len(layers))} layers: " if len(layers) > _MOST_LAYERS else ""
    yield conclusion(
        "so it is in every layer",
        False if False in holds else None if None in holds else True,
        f"at learning rate {number(lr)} the distance with batch size {count(ends[1].batch_size)} is, as a share of "
        f"that with {count(ends[0].batch_size)}, {between}{phrase}",
        source="the sentence on layers is probably Chang and Pathak's (2020); for each layer "
        f"{_RATIO}, so if each lies below 1",
        effect=shares[measured[-1][1]] if measured else None,
        runs=_ids(study, *ends),
    )


def _farther_with_rate(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    low, high, largest = min(study.question.lrs), max(study.question.lrs), max(study.question.batch_sizes)
    slow, fast = (arm_of(study, largest, lr) for lr in (low, high))
    if low == high or slow is None or fast is None or slow.diverged or fast.diverged:
        return
    (first, a), (last, b) = (travelled(study, runs, arm) for arm in (slow, fast))
    share = intervals.geometric_ratio(intervals.matched(b, a))
    small = arm_of(study, min(study.question.batch_sizes), low)
    beside = f"; batch size {count(small.batch_size)} at {number(low)} gets {_far(study, runs, small)}" if small else ""
    yield conclusion(
        "a higher learning rate lets a large batch go farther",
        is_above(share, 1.0),
        f"from learning rate {number(low)} to {number(high)} at batch size {count(largest)}, the distance goes from "
        f"{with_interval(first)} to {with_interval(last)}, {with_interval(share)} times as much{beside}",
        source=f"{SOURCE}; {_RATIO}, so if it lies above 1",
        effect=share,
        runs=_ids(study, slow, fast),
    )


def _best_lie_farther(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    chosen = [arm for arm in study.summary if not arm.diverged]
    sign = 1.0 if study.larger_is_better else -1.0
    distances = [travelled(study, runs, arm, moment="best")[1] for arm in chosen]
    scores = [{row.seed: row.values.get(f"best_{study.metric}") for row in runs_of(study, arm)} for arm in chosen]
    found: list[float] = []
    for seed in study.question.seeds:
        pairs = [
            (d[seed], sign * value)
            for d, s in zip(distances, scores, strict=True)
            if seed in d and (value := s.get(seed)) is not None
        ]
        correlation = intervals.rank_correlation([d for d, _ in pairs], [v for _, v in pairs])
        found += [] if correlation is None else [correlation]
    best = best_arm(study)
    if not found or best is None:
        return
    mean = intervals.mean_correlation(found)
    yield conclusion(
        "the best solutions lie farther out",
        is_above(mean),
        f"over {len(chosen)} arms, the rank correlation of the distance at the best epoch with how good {study.metric} "
        f"is there is {with_interval(mean)}; the best arm, {_named(best)}, has gone {_far(study, runs, best, 'best')}",
        source=f"{SOURCE}; Spearman's coefficient over the arms of each seed, its mean with a 90 % t interval",
        effect=mean,
    )


def _out_of_reach(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    best, ends = best_arm(study), _ends(study, study.question.lrs[0])
    if best is None or ends is None:
        return
    (there, a), (here, b) = travelled(study, runs, best, moment="best"), travelled(study, runs, ends[1])
    short = intervals.geometric_ratio(intervals.matched(a, b))
    yield conclusion(
        "a large batch at the common learning rate does not get as far as the best solutions lie",
        False if best.key == ends[1].key else is_above(short, 1.0),
        f"the best arm, {_named(best)}, has gone {with_interval(there)} at its best epoch, and {_named(ends[1])} "
        f"{with_interval(here)} after {study.question.length}: the former is {with_interval(short)} times as far",
        source=f"{SOURCE}; {_RATIO}, so if it lies above 1",
        effect=short,
        runs=_ids(study, best, ends[1]),
    )


def _on_the_sphere(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    chosen = [arm for arm in study.summary if arm.lr == study.question.lrs[0] and not arm.diverged]
    changes = [travelled(study, runs, arm, quantity="norm_change")[0] for arm in chosen]
    turned = [travelled(study, runs, arm, quantity="turned_degrees")[0] for arm in chosen]
    holds = [within(change, HARDLY) for change in changes]
    if not chosen or all(change.value is None for change in changes):
        return
    phrase = joined(
        [
            f"{with_interval(c)} at batch size {count(arm.batch_size)} (turned by {number(t.value)}°)"
            for arm, c, t in zip(chosen, changes, turned, strict=True)
        ]
    )
    most = max(range(len(chosen)), key=lambda i: abs(changes[i].value or 0.0))
    yield conclusion(
        "the norm of the weights hardly changes: they walk along the sphere of their initial radius",
        False if False in holds else None if None in holds else True,
        f"at learning rate {number(study.question.lrs[0])} the norm over the initial norm, minus 1, is at the end "
        f"{phrase}",
        source=f"Shen 2018, closing notes; Chang and Pathak 2020, log of four epochs; 90 % t interval over the seeds, "
        f"so if it lies within {HARDLY:g} either way",
        effect=changes[most],
        runs=_ids(study, *chosen),
    )


def _updates(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    """The numbers of Chang and Pathak (B6) could not be read, so that there is nothing published to compare with."""
    ends = _ends(study, study.question.lrs[0])
    if ends is not None:
        for quantity, what in _UPDATES:
            yield from _update(study, runs, ends, quantity, what)


def _update(
    study: Study, runs: Sequence[StoredRun], ends: tuple[SummaryRow, SummaryRow], quantity: Update, what: str
) -> Iterator[Finding]:
    possible = update_range(quantity)
    (first, a), (last, b) = (
        over_seeds(study, runs, arm, lambda run: update_of(run, quantity), within=possible) for arm in ends
    )
    if first.value is None or last.value is None:
        return
    share = intervals.geometric_ratio(intervals.matched(b, a))
    yield Finding(
        statement=f"from batch size {count(ends[0].batch_size)} to {count(ends[1].batch_size)} at learning rate "
        f"{number(ends[0].lr)}, {what} goes from {with_interval(first)} to {with_interval(last)}, "
        f"{with_interval(share)} times as much",
        tag="measured",
        source=f"means over all whole epochs; {_RATIO}",
        effect=share,
        runs=_ids(study, *ends),
    )


def _below(estimate: Estimate, bound: float) -> bool | None:
    above = is_above(estimate, bound)
    return None if above is None else not above


def _far(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, moment: Moment = "end") -> str:
    return with_interval(travelled(study, runs, arm, moment=moment)[0])


def _named(arm: SummaryRow) -> str:
    return f"batch size {count(arm.batch_size)} at learning rate {number(arm.lr)}"


def _ids(study: Study, *arms: SummaryRow) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.run for arm in arms for row in runs_of(study, arm)))
