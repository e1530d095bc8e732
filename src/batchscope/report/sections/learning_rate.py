"""Learning rate against batch size: those that were tried, how they ended, and the rule fitted through the best."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...store.records import Curve, Plan, RunStatus
from ...wording import count, number, plural, times
from ..blocks import Figure, Json, Key, Section, Text
from ..charts import (
    BAND,
    CENSORED,
    CURRENT,
    LINE,
    RECIPE,
    PointMark,
    band,
    batch_axis,
    layout,
    line,
    log_axis,
    points,
    vertical,
)
from ..outcomes import RunOutcome, best_by_size, curve_at, hover, outcomes
from ..thinning import MOST_POINTS, evenly, left_out

if TYPE_CHECKING:
    from ...store.runs import StoredRun

STEPS = (
    (1.05, "within 5 % of the best at its size"),
    (1.3, "5–30 % more steps"),
    (2.0, "30–100 % more"),
    (math.inf, "over twice as many"),
)
"""How far above the fewest steps at its batch size a run ended, in four classes."""


class Tried(NamedTuple):
    """Run that reached the target, with its steps ÷ the fewest steps of any run at the same batch size."""

    outcome: RunOutcome
    ratio: float


class LearningRates(NamedTuple):
    """Data of the figure and its caption."""

    curve: Curve | None
    classes: tuple[tuple[Tried, ...], ...]
    """The runs that reached the target, by the classes of `STEPS`."""
    unreached: tuple[RunOutcome, ...]
    diverged: tuple[RunOutcome, ...]
    exponent: float | None
    """Slope of the fitted line in log learning rate against log batch size, over the range drawn."""
    recipe: tuple[int, float] | None
    recipe_range: tuple[float, float] | None
    """Fitted 90 % interval at the recipe's batch size."""
    current: tuple[int, float] | None


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with the figure, or why there is none."""
    data = collect(plan, runs)
    title = "Learning rate against batch size"
    if data.curve is None and not (any(data.classes) or data.unreached or data.diverged):
        why = "The table has no learning rates." if plan.table else "Neither tried nor fitted for this target."
        return Section("learning-rates", title, (Text((why,)),))
    return Section("learning-rates", title, (draw(data),))


def collect(plan: Plan, runs: Sequence[StoredRun]) -> LearningRates:
    """Class the runs by how far above the best at their batch size they ended."""
    found = tuple(o for o in outcomes(plan, runs) if o.lr > 0)
    best = best_by_size(found)
    tried = [Tried(o, o.steps / best[o.batch_size].steps) for o in found if o.reached]
    limits = [0.0, *(limit for limit, _ in STEPS)]
    classes = tuple(tuple(t for t in tried if lower < t.ratio <= upper) for lower, upper in itertools.pairwise(limits))
    curve = plan.curves.lr if plan.curves is not None and plan.curves.lr.batch_size else None
    recipe, current = plan.recipe, plan.current
    interval = None
    if curve is not None and recipe is not None:
        low = curve_at(Curve(batch_size=curve.batch_size, value=curve.low, low=(), high=()), recipe.batch_size)
        high = curve_at(Curve(batch_size=curve.batch_size, value=curve.high, low=(), high=()), recipe.batch_size)
        interval = (low, high) if low is not None and high is not None else None
    return LearningRates(
        curve,
        classes,
        tuple(o for o in found if not o.reached and o.status is not RunStatus.DIVERGED),
        tuple(o for o in found if not o.reached and o.status is RunStatus.DIVERGED),
        exponent(curve),
        (recipe.batch_size, recipe.lr) if recipe and recipe.lr is not None else None,
        interval,
        (current.batch_size, current.lr) if current and current.lr is not None else None,
    )


def exponent(curve: Curve | None) -> float | None:
    """Exponent of the rule: the slope between the ends of the fitted line, both axes logarithmic."""
    if curve is None or len(curve.batch_size) < 2 or min(curve.value) <= 0:
        return None
    return math.log(curve.value[-1] / curve.value[0]) / math.log(curve.batch_size[-1] / curve.batch_size[0])


def draw(data: LearningRates) -> Figure:
    """Figure with every run, the fitted rule, the recipe and the current one."""
    traces: list[Json] = []
    keys: list[Key] = []
    everything = [t.outcome for c in data.classes for t in c] + [*data.unreached, *data.diverged]
    sizes: list[float] = [o.batch_size for o in everything]
    lrs: list[float] = [o.lr for o in everything]
    if (curve := data.curve) is not None:
        traces += [band(curve.batch_size, curve.low, curve.high), line(curve.batch_size, curve.value)]
        keys += [Key("line", LINE, "fitted"), Key("band", BAND, "90 % credible interval")]
        sizes += curve.batch_size
        lrs += [*curve.value, *curve.low, *curve.high]
    for i in reversed(range(len(STEPS))):
        if data.classes[i]:
            drawn = evenly(data.classes[i], MOST_POINTS)
            texts = [hover(t.outcome, f"{number(t.ratio)} × the fewest at this size") for t in drawn]
            traces.append(_points([t.outcome for t in drawn], texts, "disc", f"var(--ramp-{i})"))
    keys += [Key("disc", f"var(--ramp-{i})", STEPS[i][1]) for i in range(len(STEPS)) if data.classes[i]]
    for runs, mark, colour, label in _without_target(data):
        if runs:
            some = evenly(runs, MOST_POINTS)
            traces.append(_points(some, [hover(o) for o in some], mark, colour))
            keys.append(Key(mark, colour, label))
    shapes: list[Json] = []
    for at, colour, mark, label in (
        (data.recipe, RECIPE, "line", "recommended"),
        (data.current, CURRENT, "dash", "current"),
    ):
        if at is not None and not (mark == "dash" and at == data.recipe):
            shapes += vertical(at[0], colour, dash="dash" if mark == "dash" else "solid")
            sizes.append(at[0])
            lrs.append(at[1])
            keys.append(
                Key("dash" if mark == "dash" else "line", colour, f"{label}: {number(at[1])} at {count(at[0])}")
            )
    frame = layout(batch_axis(sizes), log_axis(lrs), shapes=shapes, height=400)
    return Figure("learning-rate", "learning rate (log scale)", tuple(traces), frame, conclude(data), tuple(keys))


def _without_target(data: LearningRates) -> tuple[tuple[tuple[RunOutcome, ...], PointMark, str, str], ...]:
    return (
        (data.unreached, "open", CENSORED, "not reached, or stopped as too slow"),
        (data.diverged, "cross", CURRENT, "diverged"),
    )


def _points(found: Sequence[RunOutcome], texts: Sequence[str], mark: PointMark, colour: str) -> Json:
    return points([o.batch_size for o in found], [o.lr for o in found], texts, mark=mark, colour=colour)


def conclude(data: LearningRates) -> str:
    """Conclusion from the figure."""
    sentences: list[str] = []
    if data.curve is not None and data.exponent is not None:
        first, last = data.curve.batch_size[0], data.curve.batch_size[-1]
        sentences.append(
            f"From batch size {count(first)} to {count(last)} the fitted learning rate grows as batch size to the "
            f"power {number(round(data.exponent, 2))}: {times(2**data.exponent)} for each doubling "
            "(1.41 would be the square-root rule, 2 the linear one)."
        )
    if data.recipe is not None and data.recipe_range is not None:
        at, lr = data.recipe
        interval = f"{number(data.recipe_range[0])}–{number(data.recipe_range[1])}"
        sentences.append(
            f"At the recommended {count(at)} its 90 % interval is {interval}; the recipe has {number(lr)}."
        )
    if data.diverged:
        lowest = min(data.diverged, key=lambda o: o.lr)
        several = "all with learning rates of at least" if len(data.diverged) > 1 else "with learning rate"
        sentences.append(f"{plural(len(data.diverged), 'run')} diverged, {several} {number(lowest.lr)}.")
    reached = sum(len(c) for c in data.classes)
    if not sentences:
        sentences.append(f"{plural(reached, 'run')} reached the target; no rule could be fitted through them.")
    kinds = [*map(len, data.classes), len(data.unreached), len(data.diverged)]
    return " ".join(sentences) + left_out(sum(min(n, MOST_POINTS) for n in kinds), sum(kinds))
