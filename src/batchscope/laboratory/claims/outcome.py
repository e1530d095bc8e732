"""How a number decides a statement: rules fixed beforehand, the same for all.

A statement says that some effect lies above a bound (a ratio above 1, a difference above 0). Its 90 % confidence
interval decides:

    not held    the whole interval lies below `bound + minimum`, the smallest effect that would count
    held        otherwise, if the whole interval lies above `bound`
    undecided   otherwise: the interval is too wide

`minimum` keeps an effect of no consequence from being called one, however sure it is. Where the bound is a threshold
already (a count ten times as large, a correlation below -0.5), `minimum` is 0. A statement with several parts is held
if all of them are, not held if one is not; where its parts are conditions, and they disagree, each beyond its interval,
it depends on what parts them. (The verdicts of one task are many: nine in ten intervals hold the truth, so that a few
of a hundred verdicts are wrong by chance alone.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...store.records import Estimate
from .records import NOTHING, Comparison, Verdict, in_words

__all__ = [
    "Outcome",
    "above",
    "all_of",
    "any_of",
    "below",
    "differs",
    "exactly",
    "not_testable",
    "parts",
    "undecided",
    "within",
]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A verdict with the comparisons that it rests on."""

    verdict: Verdict
    comparisons: tuple[Comparison, ...]
    effect: Estimate = NOTHING
    on: str | None = None
    runs: tuple[str, ...] = ()
    agrees: bool | None = None
    """Of a definition: whether what was counted is as the text has it."""

    @property
    def reason(self) -> str:
        """The comparisons in words."""
        return in_words(self.comparisons)


def above(
    effect: Estimate, bound: float, minimum: float, what: str, runs: Sequence[str] = (), *, decides: str = ""
) -> Outcome:
    """Whether an effect lies above a bound, by the rule of this module.

    Args:
        effect: with its interval; an open end decides nothing.
        bound: above which the statement is so.
        minimum: the smallest effect that would count, in the same unit.
        what: the effect in words, for the reason.
        runs: ids of the runs behind it.
        decides: words for the rule, where the numbers alone do not say it.

    >>> e = Estimate(value=1.5, low=1.2, high=1.9, n=5, unit="", method="")
    >>> above(e, 1.0, 0.05, "the ratio").verdict.value, above(e, 2.0, 0.05, "the ratio").verdict.value
    ('held', 'not held')
    """
    return _compared(_above(effect, bound, minimum), effect, what, "above", (bound,), minimum, runs, decides)


def below(
    effect: Estimate, bound: float, minimum: float, what: str, runs: Sequence[str] = (), *, decides: str = ""
) -> Outcome:
    """Whether an effect lies below a bound; the mirror image of `above`."""
    return _compared(_below(effect, bound, minimum), effect, what, "below", (bound,), minimum, runs, decides)


def differs(effect: Estimate, bound: float, minimum: float, what: str, runs: Sequence[str] = ()) -> Outcome:
    """Whether an effect lies off a value by more than `minimum`, on whichever side."""
    sides = {_above(effect, bound + minimum, 0.0), _below(effect, bound - minimum, 0.0)}
    if Verdict.HELD in sides:
        verdict = Verdict.HELD
    elif sides == {Verdict.NOT_HELD}:
        verdict = Verdict.NOT_HELD
    else:
        verdict = Verdict.UNDECIDED
    return _compared(verdict, effect, what, "off", (bound,), minimum, runs)


def within(effect: Estimate, low: float, high: float, what: str, runs: Sequence[str] = ()) -> Outcome:
    """Whether an effect lies inside a range: the whole interval inside, or wholly outside."""
    if effect.low is None or effect.high is None:
        verdict = Verdict.UNDECIDED
    elif low <= effect.low and effect.high <= high:
        verdict = Verdict.HELD
    elif effect.high < low or effect.low > high:
        verdict = Verdict.NOT_HELD
    else:
        verdict = Verdict.UNDECIDED
    return _compared(verdict, effect, what, "within", (low, high), 0.0, runs)


def exactly(holds: bool, value: float, what: str, *, unit: str = "", runs: Sequence[str] = ()) -> Outcome:
    """A verdict on what was counted or read, without any chance in it."""
    effect = Estimate(value=value, low=value, high=value, n=1, unit=unit, method="counted or read, without chance")
    verdict = Verdict.HELD if holds else Verdict.NOT_HELD
    return Outcome(
        verdict=verdict, comparisons=(Comparison(what=what, effect=effect),), effect=effect, runs=tuple(runs)
    )


def undecided(reason: str) -> Outcome:
    """A verdict for too little evidence."""
    return Outcome(verdict=Verdict.UNDECIDED, comparisons=(Comparison(what=reason),))


def not_testable(reason: str) -> Outcome:
    """A verdict for what nothing here decides."""
    return Outcome(verdict=Verdict.NOT_TESTABLE, comparisons=(Comparison(what=reason),))


def all_of(*outcomes: Outcome) -> Outcome:
    """Held if all are, not held if one is not: no condition parts them. The effect is that of the part that decides."""
    order = (Verdict.NOT_HELD, Verdict.NOT_TESTABLE, Verdict.UNDECIDED, Verdict.DEPENDS, Verdict.HELD)
    return _joined(min(outcomes, key=lambda o: order.index(o.verdict)), outcomes)


def any_of(*outcomes: Outcome) -> Outcome:
    """Held if one is, not held if none is."""
    order = (Verdict.HELD, Verdict.DEPENDS, Verdict.UNDECIDED, Verdict.NOT_HELD, Verdict.NOT_TESTABLE)
    return _joined(min(outcomes, key=lambda o: order.index(o.verdict)), outcomes)


def parts(on: str, outcomes: Mapping[str, Outcome]) -> Outcome:
    """Held if all are, not held if none is; `depends` where both occur and nothing is open.

    Args:
        on: what the parts differ in, as a user reads it after "depends on".
        outcomes: by the condition under which each was measured.
    """
    verdicts = {outcome.verdict for outcome in outcomes.values()}
    first = next(iter(outcomes.values()))
    compared = tuple(
        replace(c, conditions=(condition, *c.conditions)) for condition, o in outcomes.items() for c in o.comparisons
    )
    runs = _runs(outcomes.values())
    if len(verdicts) == 1:
        return replace(first, comparisons=compared, runs=runs)
    if verdicts == {Verdict.HELD, Verdict.NOT_HELD}:
        return Outcome(verdict=Verdict.DEPENDS, on=on, comparisons=compared, effect=first.effect, runs=runs)
    worst = Verdict.UNDECIDED if Verdict.UNDECIDED in verdicts else Verdict.NOT_TESTABLE
    effect = next(o.effect for o in outcomes.values() if o.verdict is worst)
    return Outcome(verdict=worst, comparisons=compared, effect=effect, runs=runs)


def _above(effect: Estimate, bound: float, minimum: float) -> Verdict:
    if effect.high is not None and effect.high < bound + minimum:
        return Verdict.NOT_HELD
    return Verdict.HELD if effect.low is not None and effect.low > bound else Verdict.UNDECIDED


def _below(effect: Estimate, bound: float, minimum: float) -> Verdict:
    return _above(_mirrored(effect), -bound, minimum)


def _compared(
    verdict: Verdict,
    effect: Estimate,
    what: str,
    relation: Literal["above", "below", "off", "within"],
    bounds: tuple[float, ...],
    minimum: float,
    runs: Sequence[str],
    rule: str = "",
) -> Outcome:
    found = Comparison(what=what, effect=effect, relation=relation, bounds=bounds, minimum_effect=minimum, rule=rule)
    return Outcome(verdict=verdict, comparisons=(found,), effect=effect, runs=tuple(runs))


def _joined(decisive: Outcome, outcomes: Sequence[Outcome]) -> Outcome:
    compared = tuple(comparison for outcome in outcomes for comparison in outcome.comparisons)
    return replace(decisive, comparisons=compared, runs=_runs(outcomes))


def _runs(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run for outcome in outcomes for run in outcome.runs))


def _mirrored(effect: Estimate) -> Estimate:
    value, low, high = (None if v is None else -v for v in (effect.value, effect.high, effect.low))
    return replace(effect, value=value, low=low, high=high)
