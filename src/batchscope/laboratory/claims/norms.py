"""Statements about batch normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ...fits import intervals
from ...store.not_applicable import not_applicable
from ...wording import number
from .comparisons import (
    TIME,
    better,
    called,
    gap_change,
    last,
    minimum_effect,
    minimum_gap_change,
    score_change,
    versus,
)
from .convergence import epochs_to_common_loss
from .outcome import Outcome, above, all_of, any_of, below, differs, not_testable, parts, undecided
from .plan import NORM, NormPlace, norm_variant, order_variant, robustness_note
from .results import TaskResults

__all__ = ["DECISIONS"]

_BEFORE, _AFTER = norm_variant("before"), norm_variant("after")
_WITHOUT_AND_WITH: tuple[NormPlace, NormPlace] = ("none", "before")
_KINDS = ("noise", "shift", "outliers")


def _there(decide: Callable[[TaskResults], Outcome]) -> Callable[[TaskResults], Outcome]:
    """Decides where the model could be configured and the runs were made."""

    def decided(e: TaskResults) -> Outcome:
        if (reason := not_applicable(e.read_note(NORM))) is not None:
            return not_testable(reason)
        if not e.arms(_BEFORE):
            return undecided("the runs with batch normalisation were not made before the budget was used up")
        return decide(e)

    return decided


def _softens(e: TaskResults) -> Outcome:
    """The range over the batch sizes at one learning rate, with batch normalisation over without."""
    name = f"best_{e.loss or e.study.metric}"
    small, large = e.plan.norm_sizes

    def ranges(variant: str) -> dict[int, float]:
        pairs = e.per_seed([e.at_one_rate(b, variant) for b in (small, large)], name)
        return {seed: abs(b - a) for seed, (a, b) in pairs.items()}

    without, with_norm = ranges(e.without), ranges(_BEFORE)
    ratio = intervals.geometric_ratio(intervals.matched(with_norm, without))
    what = f"the range of {name.replace('_', ' ', 1)} over batch sizes {small} and {large} with it over that without"
    ids = e.ids(*(e.at_one_rate(b, v) for b in (small, large) for v in (e.without, _BEFORE)))
    return below(ratio, 1.0, TIME, what, ids)


def _faster(e: TaskResults) -> Outcome:
    outcomes: dict[str, Outcome] = {}
    for size in dict.fromkeys(e.plan.norm_sizes):
        without, with_norm = e.at_best(size, e.without), e.at_best(size, _BEFORE)
        effect, what = epochs_to_common_loss(e, without, with_norm)
        ids = e.ids(without, with_norm)
        outcomes[f"batch size {size}"] = below(effect, 1.0, TIME, f"{what} with it against without,", ids)
    return parts("the batch size", outcomes)


def _generalises(e: TaskResults) -> Outcome:
    outcomes: dict[str, Outcome] = {}
    for size in dict.fromkeys(e.plan.norm_sizes):
        without, with_norm = e.at_best(size, e.without), e.at_best(size, _BEFORE)
        ids = e.ids(without, with_norm)
        change = score_change(e, without, with_norm, "best")
        what = f"the change of {better(e, e.score)} with it, {versus(without, with_norm)},"
        improved = above(change, 0.0, minimum_effect(e, e.score, without), what, ids)
        gap = gap_change(e, without, with_norm, last)
        smaller = below(gap, 0.0, minimum_gap_change(e, without), "the change of the gap with it")
        outcomes[f"batch size {size}"] = all_of(improved, smaller)
    return parts("the batch size", outcomes)


def _less_order(e: TaskResults) -> Outcome:
    """The spread over orders of the data from the same weights, with it over without; an F interval of the ratio."""
    name = f"final_{e.loss or e.study.metric}"
    spreads: list[list[float]] = []
    for where in _WITHOUT_AND_WITH:
        arms = e.arms(order_variant(where))
        values = [math.log(v) for arm in arms for v in e.values(arm, name).values() if v > 0]
        spreads.append(values)
    if min(map(len, spreads)) < 3:
        return undecided("the runs in several orders were not made before the budget was used up")
    without, with_norm = spreads
    effect = intervals.ratio_of_standard_deviations(with_norm, without)
    what = f"the spread of the log of {name.replace('_', ' ', 1)} over {len(without)} orders with it over that without"
    ids = e.ids(*(arm for w in _WITHOUT_AND_WITH for arm in e.arms(order_variant(w))))
    return below(effect, 1.0, 0.1, what, ids)


def _more_robust(e: TaskResults) -> Outcome:
    """Cost of the strongest disturbance of each kind, with normalisation against without, seed by seed."""
    losses: dict[str, dict[str, dict[int, float]]] = {}
    runs: list[str] = []
    for where in _WITHOUT_AND_WITH:
        for seed in e.plan.seeds:
            stored = e.read_note(robustness_note(where, seed))
            if stored is None:
                continue
            found = stored["found"]
            if (why := not_applicable(found)) is not None:
                return not_testable(why)
            runs.append(stored["run"])
            plain = found[0]["metrics"][e.score.metric]
            for kind in _KINDS:
                strongest = [r for r in found if r["kind"] == kind][-1]["metrics"][e.score.metric]
                losses.setdefault(kind, {}).setdefault(where, {})[seed] = e.score.sign * (plain - strongest)
    if not losses or any(len(by) < 2 for by in losses.values()):
        return undecided("robustness was not measured before the budget was used up")
    outcomes: dict[str, Outcome] = {}
    within = e.range_of(e.score.metric).of_differences
    for kind, by in losses.items():
        without, with_norm = (by[where] for where in _WITHOUT_AND_WITH)
        change = intervals.paired_difference(intervals.matched(with_norm, without), within=within)
        cost = number(intervals.mean(without.values()).value)
        what = f"the change with it of what {kind} costs in {e.score.metric} ({cost})"
        outcomes[kind] = below(change, 0.0, 2 * minimum_effect(e, e.score, e.at_best(e.plan.middle)), what, runs)
    return parts("the disturbance", outcomes)


def _worth_trying(e: TaskResults) -> Outcome:
    """Whether none, before and after differ in the best metric, each at its best learning rate."""
    size = e.plan.norm_sizes[0]
    arms = [e.at_best(size, variant) for variant in (e.without, _BEFORE, _AFTER)]
    outcomes: list[Outcome] = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        change = score_change(e, arms[a], arms[b], "best")
        what = (
            f"the change of {better(e, e.score)} from {_name(a)} ({called(arms[a])}) to {_name(b)} ({called(arms[b])})"
        )
        outcomes.append(differs(change, 0.0, minimum_effect(e, e.score, arms[a]), what, e.ids(arms[a], arms[b])))
    return any_of(*outcomes)


def _name(index: int) -> str:
    return ("none", "before the activation", "after it")[index]


DECISIONS: Mapping[str, Callable[[TaskResults], Outcome]] = {
    "S0.9b": _there(_softens),
    "S3.13a": _there(_faster),
    "S3.13b": _there(_generalises),
    "S3.13c": _there(_less_order),
    "S3.13d": _there(_more_robust),
    "S3.14c": _there(_worth_trying),
}
