"""Time to the target against batch size: the curve that the recommendation is read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...store.records import Curve, Plan, RunStatus
from ...wording import count, duration, percent, plural, target_in_words, times
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
from ..outcomes import RunOutcome, best_by_size, curve_at, hover, outcomes, step_times
from ..thinning import MOST_POINTS, evenly, left_out

if TYPE_CHECKING:
    from ...store.runs import StoredRun

ALLOWANCE = 1.05
"""A time within 5 % of the lowest counts as equal."""


class Timed(NamedTuple):
    """Run with its time to the target on the hardware that the answer is for, in seconds."""

    outcome: RunOutcome
    seconds: float


class TimeToTarget(NamedTuple):
    """Data of the figure and its caption."""

    curve: Curve | None
    best: tuple[Timed, ...]
    others: tuple[Timed, ...]
    censored: tuple[Timed, ...]
    diverged: int
    """Runs that diverged: not drawn, for they say nothing about time."""
    recipe: int | None
    current: int | None
    flat: tuple[int, int] | None
    """The smallest and the largest batch size of the curve within 5 % of its minimum, around the minimum."""
    current_ratio: float | None
    """The curve at the current batch size ÷ at the recipe's."""
    above_lowest: float | None
    """The curve at the recipe's batch size ÷ its minimum."""


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with the figure, or why there is none."""
    data = collect(plan, runs)
    title = "Time to target against batch size"
    if data.curve is None and not (data.best or data.censored):
        return Section("time", title, (Text((why_not(plan, runs),)),))
    return Section("time", title, (draw(data, plan),))


def collect(plan: Plan, runs: Sequence[StoredRun]) -> TimeToTarget:
    """Sort the runs into the best of each batch size, the others that reached the target, and those that did not."""
    found = outcomes(plan, runs)
    kept = [o for o in found if o.status is not RunStatus.DIVERGED]
    seconds_of = step_times(plan)
    timed = [(o, seconds_of(o.batch_size)) for o in kept]
    known = [Timed(o, o.steps * seconds) for o, seconds in timed if seconds is not None and o.steps > 0]
    best = {o.id for o in best_by_size([t.outcome for t in known]).values()}
    curve = plan.curves.time_to_target_s if plan.curves is not None else None
    curve = curve if curve is not None and curve.batch_size else None
    current, recipe = plan.current, plan.recipe
    here = curve_at(curve, recipe.batch_size) if curve is not None and recipe is not None else None
    before = curve_at(curve, current.batch_size) if curve is not None and current is not None else None
    return TimeToTarget(
        curve,
        tuple(t for t in known if t.outcome.id in best),
        tuple(t for t in known if t.outcome.reached and t.outcome.id not in best),
        tuple(t for t in known if not t.outcome.reached),
        len(found) - len(kept),
        recipe.batch_size if recipe else None,
        current.batch_size if current else None,
        flat_part(curve) if curve is not None else None,
        before / here if before and here else None,
        here / min(curve.value) if here and curve is not None else None,
    )


def flat_part(curve: Curve) -> tuple[int, int]:
    """Batch sizes around the minimum whose value is within 5 % of it."""
    lowest = min(range(len(curve.value)), key=lambda i: curve.value[i])
    allowed = ALLOWANCE * curve.value[lowest]
    first = last = lowest
    while first > 0 and curve.value[first - 1] <= allowed:
        first -= 1
    while last < len(curve.value) - 1 and curve.value[last + 1] <= allowed:
        last += 1
    return curve.batch_size[first], curve.batch_size[last]


def draw(data: TimeToTarget, plan: Plan) -> Figure:
    """Figure with every run, the fitted curve, the recipe and the current one."""
    traces: list[Json] = []
    keys: list[Key] = []
    shapes: list[Json] = []
    sizes: list[float] = [t.outcome.batch_size for t in (*data.best, *data.others, *data.censored)]
    seconds: list[float] = [t.seconds for t in (*data.best, *data.others, *data.censored)]
    if (curve := data.curve) is not None:
        traces += [band(curve.batch_size, curve.low, curve.high), line(curve.batch_size, curve.value)]
        keys += [Key("line", LINE, "fitted"), Key("band", BAND, "90 % credible interval")]
        sizes += curve.batch_size
        seconds += [*curve.value, *curve.low, *curve.high]
    marks: tuple[tuple[tuple[Timed, ...], PointMark, str, str], ...] = (
        (data.others, "small", "var(--faint)", "reached, another run"),
        (data.censored, "arrow", CENSORED, "not reached: at least this"),
        (data.best, "disc", LINE, "reached, best of its size"),
    )
    for timed, mark, colour, label in marks:
        if timed:
            traces.append(_points(evenly(timed, MOST_POINTS), mark, colour))
            keys.append(Key(mark, colour, label))
    same = data.recipe == data.current
    if data.recipe is not None:
        shapes += vertical(data.recipe, RECIPE)
        sizes.append(data.recipe)
        keys.append(Key("line", RECIPE, f"recommended{' and current' if same else ''}: {count(data.recipe)}"))
    if data.current is not None and not same:
        shapes += vertical(data.current, CURRENT, dash="dash")
        sizes.append(data.current)
        keys.append(Key("dash", CURRENT, f"current: {count(data.current)}"))
    frame = layout(batch_axis(sizes), log_axis(seconds, duration), shapes=shapes, height=400)
    title = f"time to {target_in_words(plan.target)}" if plan.target else "time to target"
    return Figure("time-to-target", f"{title} (log scale)", tuple(traces), frame, conclude(data), tuple(keys))


def _points(timed: Sequence[Timed], mark: PointMark, colour: str) -> Json:
    texts = [hover(t.outcome, f"{'' if t.outcome.reached else 'at least '}{duration(t.seconds)}") for t in timed]
    return points([t.outcome.batch_size for t in timed], [t.seconds for t in timed], texts, mark=mark, colour=colour)


def conclude(data: TimeToTarget) -> str:
    """Conclusion from the figure."""
    sentences: list[str] = []
    if data.curve is not None and data.flat is not None:
        lowest = min(data.curve.value)
        at = data.curve.batch_size[data.curve.value.index(lowest)]
        first, last = data.flat
        if first == last:
            sentences.append(
                f"The fitted time is lowest at batch size {count(at)}, {duration(lowest)}; "
                "no other size drawn is within 5 % of it."
            )
        else:
            sentences.append(
                f"Any batch size from {count(first)} to {count(last)} is within 5 % of the lowest fitted time, "
                f"{duration(lowest)} at {count(at)}."
            )
    else:
        sentences.append("No curve could be fitted; the points are what was measured.")
    if data.current_ratio is not None and data.current != data.recipe and data.current is not None:
        longer = f"{times(data.current_ratio)} as long as the recommended one"
        sentences.append(
            f"With its best learning rate the current batch size {count(data.current)} would take {longer}."
        )
    if data.above_lowest is not None and data.recipe is not None and data.above_lowest > ALLOWANCE:
        sentences.append(f"The recommended {count(data.recipe)} is {percent(data.above_lowest - 1)} above it.")
    reached = len(data.best) + len(data.others)
    missed = len(data.censored)
    if missed and not reached:
        sentences.append("No run reached the target: an arrow is the time that a run used without reaching it.")
    elif reached:
        without = f", {count(missed)} did not (arrows)" if missed else ""
        sentences.append(f"{plural(reached, 'run')} reached the target{without}.")
    if data.diverged:
        sentences.append(
            f"{plural(data.diverged, 'run')} diverged and {'is' if data.diverged == 1 else 'are'} not drawn."
        )
    kinds = (data.best, data.others, data.censored)
    drawn = sum(min(len(timed), MOST_POINTS) for timed in kinds)
    return " ".join(sentences) + left_out(drawn, sum(map(len, kinds)))


def why_not(plan: Plan, runs: Sequence[StoredRun]) -> str:
    """Reason why there is nothing to draw."""
    if not runs:
        return "No run was made, so there is no time to draw."
    if plan.bench is None and plan.curves is None:
        return "No step time was measured and no curve fitted, so steps cannot be turned into time."
    return "No finished run had this target, so there is no time to draw."
