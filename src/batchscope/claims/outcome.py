"""How a number decides a statement: rules fixed beforehand, the same for all.

A statement says that some effect lies above a bound (a ratio above 1, a difference above 0). Its 90 % interval decides:

    not held    the whole interval lies below `bound + least`, the smallest effect that would count
    held        otherwise, if the whole interval lies above `bound`
    undecided   otherwise: the interval is too wide

`least` keeps an effect of no consequence from being called one, however sure it is. Where the bound is a threshold
already (a count ten times as large, a correlation below -0.5), `least` is 0. A statement with several parts is held if
all of them are, not held if one is not; where its parts are conditions, and they disagree, each beyond its interval, it
depends on what parts them. (The verdicts of one task are many: nine in ten intervals hold the truth, so that a few of a
hundred verdicts are wrong by chance alone.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..records import Estimate
from ..wording import with_interval
from .records import NOTHING, Verdict

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
    """A verdict with its reason."""

    verdict: Verdict
    reason: str
    effect: Estimate = NOTHING
    on: str | None = None
    runs: tuple[str, ...] = ()


def above(
    effect: Estimate, bound: float, least: float, what: str, runs: Sequence[str] = (), *, decides: str = ""
) -> Outcome:
    """Whether an effect lies above a bound, by the rule of this module.

    Args:
        effect: with its interval; an open end decides nothing.
        bound: above which the statement is so.
        least: the smallest effect that would count, in the same unit.
        what: the effect in words, for the reason.
        runs: ids of the runs behind it.
        decides: words for the rule, where the numbers alone do not say it.

    >>> e = Estimate(value=1.5, low=1.2, high=1.9, n=5, unit="", method="")
    >>> above(e, 1.0, 0.05, "the ratio").verdict.value, above(e, 2.0, 0.05, "the ratio").verdict.value
    ('held', 'not held')
    """
    counts = f", and by {least:g} to count" if least else ""
    reason = f"{what} is {with_interval(effect)}; {decides or f'it would have to lie above {bound:g}{counts}'}"
    if effect.high is not None and effect.high < bound + least:
        verdict = Verdict.NOT_HELD
    elif effect.low is not None and effect.low > bound:
        verdict = Verdict.HELD
    else:
        verdict = Verdict.UNDECIDED
    return Outcome(verdict=verdict, reason=reason, effect=effect, runs=tuple(runs))


def below(
    effect: Estimate, bound: float, least: float, what: str, runs: Sequence[str] = (), *, decides: str = ""
) -> Outcome:
    """Whether an effect lies below a bound; the mirror image of `above`."""
    mirrored = above(_mirrored(effect), -bound, least, what, runs)
    counts = f", and by {least:g} to count" if least else ""
    reason = f"{what} is {with_interval(effect)}; {decides or f'it would have to lie below {bound:g}{counts}'}"
    return replace(mirrored, effect=effect, reason=reason)


def differs(effect: Estimate, bound: float, least: float, what: str, runs: Sequence[str] = ()) -> Outcome:
    """Whether an effect lies off a value by more than `least`, on whichever side."""
    up, down = above(effect, bound + least, 0.0, what, runs), below(effect, bound - least, 0.0, what, runs)
    reason = f"{what} is {with_interval(effect)}; it would have to lie off {bound:g} by more than {least:g}"
    if Verdict.HELD in (up.verdict, down.verdict):
        verdict = Verdict.HELD
    elif up.verdict is down.verdict is Verdict.NOT_HELD:
        verdict = Verdict.NOT_HELD
    else:
        verdict = Verdict.UNDECIDED
    return replace(up, verdict=verdict, reason=reason)


def within(effect: Estimate, low: float, high: float, what: str, runs: Sequence[str] = ()) -> Outcome:
    """Whether an effect lies inside a range: the whole interval inside, or wholly outside."""
    reason = f"{what} is {with_interval(effect)}; it would have to lie from {low:g} to {high:g}"
    if effect.low is None or effect.high is None:
        verdict = Verdict.UNDECIDED
    elif low <= effect.low and effect.high <= high:
        verdict = Verdict.HELD
    elif effect.high < low or effect.low > high:
        verdict = Verdict.NOT_HELD
    else:
        verdict = Verdict.UNDECIDED
    return Outcome(verdict=verdict, reason=reason, effect=effect, runs=tuple(runs))


def exactly(holds: bool, value: float, what: str, *, unit: str = "", runs: Sequence[str] = ()) -> Outcome:
    """What was counted or read, without any chance in it."""
    effect = Estimate(value=value, low=value, high=value, n=1, unit=unit, method="counted or read, without chance")
    return Outcome(verdict=Verdict.HELD if holds else Verdict.NOT_HELD, reason=what, effect=effect, runs=tuple(runs))


def undecided(reason: str) -> Outcome:
    """Too little evidence."""
    return Outcome(verdict=Verdict.UNDECIDED, reason=reason)


def not_testable(reason: str) -> Outcome:
    """Nothing here decides it."""
    return Outcome(verdict=Verdict.NOT_TESTABLE, reason=reason)


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
    told = "; ".join(f"{condition}: {outcome.reason}" for condition, outcome in outcomes.items())
    runs = _runs(outcomes.values())
    if len(verdicts) == 1:
        return replace(first, reason=told, runs=runs)
    if verdicts == {Verdict.HELD, Verdict.NOT_HELD}:
        return Outcome(verdict=Verdict.DEPENDS, on=on, reason=told, effect=first.effect, runs=runs)
    worst = Verdict.UNDECIDED if Verdict.UNDECIDED in verdicts else Verdict.NOT_TESTABLE
    effect = next(o.effect for o in outcomes.values() if o.verdict is worst)
    return Outcome(verdict=worst, reason=told, effect=effect, runs=runs)


def _joined(decisive: Outcome, outcomes: Sequence[Outcome]) -> Outcome:
    told = "; ".join(outcome.reason for outcome in outcomes)
    return replace(decisive, reason=told, runs=_runs(outcomes))


def _runs(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run for outcome in outcomes for run in outcome.runs))


def _mirrored(effect: Estimate) -> Estimate:
    value, low, high = (None if v is None else -v for v in (effect.value, effect.high, effect.low))
    return replace(effect, value=value, low=low, high=high)
