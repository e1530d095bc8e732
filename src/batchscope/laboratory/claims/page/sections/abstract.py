"""What the task says, in short: how many statements hold, and what stands out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .....fits import intervals
from .....report.blocks import Section, Shares, Tagged, Text
from .....store.records import Estimate
from .....wording import count, joined, metric_in_words, number, percent, plural, times, with_interval
from ...comparisons import score_change
from ...convergence import epochs_to_common_loss
from ...plan import LONG, norm_variant
from ...records import Claims, Verdict
from ...results import TaskResults
from ...targets import seconds_against_largest
from ..disputes import contradictions
from ..drawing import estimate
from ..wording import changed

_MOST = 6


class Headline(NamedTuple):
    """One result as a sentence."""

    topic: str
    sentence: str
    clear: bool
    """Whether an interval lies wholly on one side."""


def build(claims: Claims, e: TaskResults) -> Section:
    """Counts, what was run, and the results that stand out."""
    found = [headline for write in _HEADLINES if (headline := write(e)) is not None]
    shown = sorted(found, key=lambda h: not h.clear)[:_MOST]
    items = tuple((h.sentence, h.topic, "") for h in shown)
    blocks = (Text((_counts(claims),), tone="lead"), _bar(claims), Text((_run(claims, e),)))
    return Section("summary", "In short", (*blocks, Tagged(items)) if items else blocks)


def _counts(claims: Claims) -> str:
    """The answer in one sentence or two."""
    counts = {v: sum(c.verdict is v for c in claims.claims) for v in Verdict}
    if not claims.decided:
        n = count(len(claims.testable))
        return f"None of the {n} statements that can be tested was decided: the evidence is not enough."
    rest = "" if counts[Verdict.HELD] else " hold"
    words = (
        (Verdict.HELD, "holds", "hold"),
        (Verdict.NOT_HELD, f"does not{rest}", f"do not{rest}"),
        (Verdict.DEPENDS, "depends on a condition", "depend on a condition"),
        (Verdict.UNDECIDED, "stays open", "stay open"),
    )
    phrases = [f"{count(n)} {one if n == 1 else several}" for v, one, several in words if (n := counts[v])]
    return f"Of {count(len(claims.testable))} statements on batch size that this task can test, {joined(phrases)}."


def _bar(claims: Claims) -> Shares:
    counts = [(v.value, sum(c.verdict is v for c in claims.claims)) for v in Verdict]
    return Shares(tuple((name, n) for name, n in counts if n))


def _run(claims: Claims, e: TaskResults) -> str:
    plan, found = e.plan, contradictions(claims)
    taken = sum(one.taken is not None for one in found)
    sides = (
        f" In {count(taken)} of {plural(len(found), 'contradiction')} between the texts one side holds here and the "
        "other does not."
        if found
        else ""
    )
    runs = f"in all {plural(len(e.study.rows), 'run')} were made" if e.study.rows else "no run was made"
    ended = " The budget ended before all of it was measured; what is missing is undecided, and says so."
    cut = "" if e.study.complete else ended
    return (
        f"Four public texts, taken apart into {count(len(claims.claims))} statements, against one task: batch sizes "
        f"{joined([count(b) for b in plan.batch_sizes])} at {plural(len(plan.lrs), 'learning rate')} from "
        f"{number(plan.lrs[0])} to {number(plan.lrs[-1])}, {number(plan.epochs)} epochs and "
        f"{plural(len(plan.seeds), 'seed')} each; {runs}. “One learning rate” is {number(e.one_rate)}, the best of the "
        f"smallest batch.{sides}{cut}"
    )


# --- what stands out --------------------------------------------------------------------------------------------------


def _clear(effect: Estimate, bound: float = 1.0) -> bool:
    return (effect.low is not None and effect.low > bound) or (effect.high is not None and effect.high < bound)


def _as_many(effect: Estimate, noun: str = "many") -> str:
    """A ratio in words: clearly another number, or about the same."""
    if _clear(effect):
        return f"{with_interval(effect, times)} as {noun}"
    return f"about as {noun} ({with_interval(effect, times)})"


def _convergence(e: TaskResults) -> Headline | None:
    one, _ = epochs_to_common_loss(e, *map(e.at_one_rate, e.ends))
    best, _ = epochs_to_common_loss(e, *map(e.at_best, e.ends))
    if one.value is None:
        return None
    tuned = f"; with each at its own best learning rate, {_as_many(best)}" if best.value is not None else ""
    phrase = (
        f"At one learning rate, batch size {count(e.ends[1])} needs {_as_many(one)} epochs as batch size "
        f"{count(e.ends[0])} to the same training loss{tuned}."
    )
    return Headline("epochs", phrase, _clear(one) or _clear(best))


def _tuning(e: TaskResults) -> Headline | None:
    one = score_change(e, e.at_one_rate(e.ends[0]), e.at_one_rate(e.ends[1]), "final")
    best = score_change(e, e.at_best(e.ends[0]), e.at_best(e.ends[1]), "best")
    if one.value is None or best.value is None:
        return None
    phrase = (
        f"The {metric_in_words(e.score.metric)} of batch size {count(e.ends[1])}, against {count(e.ends[0])}, is "
        f"{changed(one)} at one learning rate, and {changed(best)} when each has its best."
    )
    return Headline("learning rate", phrase, _clear(one, 0.0) or _clear(best, 0.0))


def _hardware(e: TaskResults) -> Headline | None:
    small, large = e.ends
    step = intervals.geometric_mean(e.step_ratios(small, large), "times")
    if step.value is None:
        return None
    epoch = intervals.geometric_mean((r * small / large for r in e.step_ratios(small, large)), "times")
    phrase = (
        f"A step on {count(large)} examples takes {_as_many(step, 'long')} as one on {count(small)}, and so an epoch "
        f"{_as_many(epoch, 'long')}."
    )
    return Headline("speed", phrase, _clear(epoch))


def _soonest(e: TaskResults) -> Headline | None:
    found = {b: effect for b, (effect, _) in seconds_against_largest(e, e.at_best).items() if effect.value is not None}
    if not found:
        return None
    best = min(found, key=lambda b: found[b].value or 0.0)
    effect = found[best]
    long, largest = with_interval(effect, times), count(e.ends[1])
    if effect.high is not None and effect.high < 1:
        winner = f"batch size {count(best)} is the soonest, in {long} the time of {largest}"
    elif effect.low is not None and effect.low > 1:
        winner = f"the largest batch is the soonest; the next, {count(best)}, takes {long} as long"
    else:
        winner = f"no batch size is clearly sooner than {largest}: {count(best)} takes {long} as long"
    phrase = (
        f"To a {metric_in_words(e.loss or e.study.metric)} that all reach, each at its best learning rate, {winner}."
    )
    return Headline("time", phrase, _clear(effect))


def _noise(e: TaskResults) -> Headline | None:
    records = e.measured("gradients")
    if not isinstance(records, list):
        return None
    variance = {r["batch_size"]: estimate(r["variance"]) for r in records}
    small, large = min(variance), max(variance)
    ratio = intervals.ratio_of_independent_means(variance[small], variance[large])
    if ratio.value is None:
        return None
    phrase = (
        f"From batch size {count(small)} to {count(large)} the variance of the gradient falls by a factor of "
        f"{with_interval(ratio)}; one over the batch size would be {count(large / small)}."
    )
    return Headline("gradients", phrase, _clear(ratio))


def _overfitting(e: TaskResults) -> Headline | None:
    arm = e.at_one_rate(e.plan.long_sizes[0], LONG)
    name = e.loss
    courses = [e.course(row) for row in e.rows(arm) if row.status != "diverged"]
    if name is None or not courses:
        return None
    ends = [(course[-1].metrics[name], min(x.metrics[name] for x in course)) for course in courses]
    rise = intervals.geometric_ratio(ends)
    if rise.value is None:
        return None
    far = f"{percent(rise.value - 1) if rise.value > 1.005 else 'no more than 0.5 %'} above its minimum"
    phrase = (
        f"After {number(e.plan.long_epochs)} epochs at batch size {count(arm.batch_size)} the "
        f"{metric_in_words(name)} lies {far} on average."
    )
    return Headline("length", phrase, _clear(rise, 1.02))


def _normalised(e: TaskResults) -> Headline | None:
    size = e.plan.norm_sizes[-1]
    without, with_norm = e.at_best(size), e.at_best(size, norm_variant("before"))
    effect, _ = epochs_to_common_loss(e, without, with_norm)
    if effect.value is None:
        return None
    phrase = (
        f"With batch normalisation, batch size {count(size)} needs {_as_many(effect)} epochs to the same training "
        "loss as without, each at its best learning rate."
    )
    return Headline("batch norm", phrase, _clear(effect))


_HEADLINES: tuple[Callable[[TaskResults], Headline | None], ...] = (
    _convergence,
    _tuning,
    _hardware,
    _soonest,
    _noise,
    _overfitting,
    _normalised,
)
