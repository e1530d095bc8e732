"""Steps and examples to the target against batch size: what a larger batch buys, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...store.records import Curve, Estimate, Plan, RunStatus
from ...wording import count, percent, times, with_interval
from ..blocks import Figure, Json, Key, Row, Section, Text
from ..charts import (
    BAND,
    CENSORED,
    LINE,
    MARKED,
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


class Tradeoff(NamedTuple):
    """Data of the two figures and their captions."""

    steps: Curve | None
    examples: Curve | None
    best: tuple[RunOutcome, ...]
    censored: tuple[RunOutcome, ...]
    """The longest run of each batch size at which no run reached the target."""
    critical: Estimate
    at_critical: float | None
    """Examples at the critical batch size ÷ the fewest possible: 2^(1/knee exponent), by the fitted form."""
    recipe: int | None
    steps_ratio: float | None
    """Fitted steps at the recipe ÷ the fewest on the curve."""
    examples_ratio: float | None


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with two figures side by side, or why there are none."""
    data = collect(plan, runs)
    title = "Steps and examples against batch size"
    if data.steps is None and data.examples is None and not (data.best or data.censored):
        return Section("steps", title, (Text(("No finished run had this target, and no curve was fitted.",)),))
    return Section("steps", title, (Row((draw_steps(data), draw_examples(data))),))


def collect(plan: Plan, runs: Sequence[StoredRun]) -> Tradeoff:
    """Take the best run of each batch size, and the longest of those without one."""
    found = [o for o in outcomes(plan, runs) if o.status is not RunStatus.DIVERGED]
    best = best_by_size(found)
    longest: dict[int, RunOutcome] = {}
    for outcome in found:
        size = outcome.batch_size
        if size not in best and outcome.steps > (longest[size].steps if size in longest else 0):
            longest[size] = outcome
    curves, recipe = plan.curves, plan.recipe
    steps = curves.steps_to_target if curves is not None and curves.steps_to_target.batch_size else None
    examples = curves.examples_to_target if curves is not None and curves.examples_to_target.batch_size else None
    size = recipe.batch_size if recipe is not None else None
    knee = plan.measured.knee_exponent.value
    return Tradeoff(
        steps,
        examples,
        tuple(best.values()),
        tuple(longest.values()),
        plan.measured.critical_batch_size,
        2 ** (1 / knee) if knee and plan.measured.critical_batch_size.value is not None else None,
        size,
        _above_lowest(steps, size),
        _above_lowest(examples, size),
    )


def _above_lowest(curve: Curve | None, size: int | None) -> float | None:
    here = curve_at(curve, size) if curve is not None and size is not None else None
    return here / min(curve.value) if here is not None and curve is not None and min(curve.value) > 0 else None


def draw_steps(data: Tradeoff) -> Figure:
    """Figure of steps to the target against batch size."""
    critical = data.critical.value
    if critical is None:
        caption = "A critical batch size could not be fitted, so it is open where a larger batch stops saving steps."
    else:
        caption = (
            f"Well below the critical batch size, {with_interval(data.critical, count)}, doubling the batch nearly "
            "halves the steps; well above it, hardly a step is saved."
        )
    if data.steps_ratio is not None and data.recipe is not None:
        caption += f" The recipe's {count(data.recipe)} needs {times(data.steps_ratio)} the fewest steps drawn."
    return _draw("steps-to-target", "steps to target (log scale)", data, data.steps, lambda o: o.steps, caption)


def draw_examples(data: Tradeoff) -> Figure:
    """Figure of examples to the target against batch size."""
    if data.examples is None:
        caption = "No curve could be fitted; the points are what was measured."
    elif data.examples_ratio is None:
        caption = "Small batches need the fewest examples; the rise to the right is the price of fewer steps."
    else:
        ratio = data.examples_ratio
        price = "hardly more than" if ratio < 1.03 else f"{percent(ratio - 1)} more than" if ratio < 2 else times(ratio)
        caption = f"At the recommended batch size training reads {price} the fewest examples drawn."
        if data.at_critical is not None:
            caption += f" At the critical batch size it is {times(data.at_critical)} the fewest possible."
    title = "examples to target (log scale)"
    return _draw("examples-to-target", title, data, data.examples, lambda o: o.examples, caption)


def _draw(
    name: str, title: str, data: Tradeoff, curve: Curve | None, value: Callable[[RunOutcome], float], caption: str
) -> Figure:
    traces: list[Json] = []
    keys: list[Key] = []
    shapes: list[Json] = []
    sizes: list[float] = [o.batch_size for o in (*data.best, *data.censored)]
    values = [value(o) for o in (*data.best, *data.censored)]
    if curve is not None:
        traces += [band(curve.batch_size, curve.low, curve.high), line(curve.batch_size, curve.value)]
        keys += [Key("line", LINE, "fitted"), Key("band", BAND, "90 % credible interval")]
        sizes += curve.batch_size
        values += [*curve.value, *curve.low, *curve.high]
    if data.censored:
        traces.append(_points(evenly(data.censored, MOST_POINTS), value, "arrow", CENSORED))
        keys.append(Key("arrow", CENSORED, "not reached"))
    if data.best:
        traces.append(_points(evenly(data.best, MOST_POINTS), value, "disc", LINE))
        keys.append(Key("disc", LINE, "best run of its size"))
    low, at, high = data.critical.low, data.critical.value, data.critical.high
    if at is not None and sizes:
        shapes += vertical(at, MARKED, dash="dash", low=low, high=high)
        sizes.append(min(at, 4 * max(sizes)))
        keys.append(Key("dash", MARKED, "critical batch size"))
    if data.recipe is not None:
        shapes += vertical(data.recipe, RECIPE)
        sizes.append(data.recipe)
        keys.append(Key("line", RECIPE, "recommended"))
    frame = layout(batch_axis(sizes), log_axis(values), shapes=shapes)
    drawn = sum(min(len(found), MOST_POINTS) for found in (data.best, data.censored))
    caption += left_out(drawn, len(data.best) + len(data.censored))
    return Figure(name, title, tuple(traces), frame, caption, tuple(keys))


def _points(found: Sequence[RunOutcome], value: Callable[[RunOutcome], float], mark: PointMark, colour: str) -> Json:
    texts = [hover(o, f"{count(o.examples)} examples") for o in found]
    return points([o.batch_size for o in found], [value(o) for o in found], texts, mark=mark, colour=colour)
