"""Where runs of a given length ended, against learning rate: what the recipe of such a search is read from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...fits.targets import level_at_end
from ...store.endings import ending_of
from ...store.records import Metric, Plan, RunStatus
from ...wording import count, number, plural
from ..blocks import Figure, Json, Key, Section, Text
from ..charts import CENSORED, MARKED, RECIPE, horizontal, layout, log_axis, metric_axis, points, safe, vertical
from ..thinning import MOST_CURVES, evenly, left_out

if TYPE_CHECKING:
    from ...store.runs import StoredRun

COLOURS = 8
"""How many colours the page's style has for batch sizes, from small to large."""


class RunEnd(NamedTuple):
    """Where one run ended."""

    id: str
    batch_size: int
    lr: float
    value: float
    ending: str
    whole: bool
    """Whether it had the whole length."""


class Ends(NamedTuple):
    """Data of the figure and its caption."""

    runs: tuple[RunEnd, ...]
    metric: Metric
    fresh: float | None
    """The metric with fresh weights."""
    diverged: int
    recipe: tuple[int, float] | None
    whole: int
    """How many runs had the whole length; of all that are finished, as `finished`."""
    finished: int
    left_out: str
    """What is said of the runs that are not drawn."""


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with the figure, or why there is none; left out where no length was asked for."""
    title = "Where the runs ended"
    if plan.within is None:
        return Section("ends", title, ())
    data = collect(plan, runs)
    if data is None or not data.runs:
        return Section("ends", title, (Text(("No run has come to an end that could be drawn.",)),))
    return Section("ends", title, (draw(data),))


def collect(plan: Plan, runs: Sequence[StoredRun]) -> Ends | None:
    """The level at which each run ended; of those that diverged none; `None` where no metric is known."""
    metric = plan.target.judged_by if plan.target else next((r.config.metric for r in runs if r.config.metric), None)
    if metric is None:
        return None
    ended = [run for run in runs if run.result is not None and run.result.status is not RunStatus.DIVERGED]
    some = evenly(ended, MOST_CURVES, _is_best(ended, metric))
    found = [end for run in some if (end := _end(run, metric)) is not None]
    fresh = next((r.result.first[metric.name] for r in ended if r.result and metric.name in r.result.first), None)
    recipe = plan.recipe
    return Ends(
        tuple(sorted(found, key=lambda end: (end.batch_size, end.lr))),
        metric,
        fresh if fresh is not None and math.isfinite(fresh) else None,
        sum(run.result is not None for run in runs) - len(ended),
        (recipe.batch_size, recipe.lr) if recipe is not None and recipe.lr is not None else None,
        sum(run.result is not None and run.result.status is RunStatus.OUT_OF_STEPS for run in ended),
        sum(run.result is not None for run in runs),
        left_out(len(some), len(ended)),
    )


def _is_best(runs: Sequence[StoredRun], metric: Metric) -> Callable[[StoredRun], bool]:
    """Whether a run has the best last value of all that had the whole length."""
    sign = 1.0 if metric.mode == "max" else -1.0
    lasts = {
        run.id: sign * run.result.last.get(metric.name, math.nan)
        for run in runs
        if run.result is not None and run.result.status is RunStatus.OUT_OF_STEPS
    }
    known = {name: last for name, last in lasts.items() if math.isfinite(last)}
    best = max(known, key=lambda name: known[name], default="")
    return lambda run: run.id == best


def _end(run: StoredRun, metric: Metric) -> RunEnd | None:
    """Its level; where the learning rate decays, its last value."""
    level = level_at_end(run.rows, metric)
    assert run.result is not None
    value = run.result.last.get(metric.name) if run.config.schedule != "constant" else level and level.value
    if value is None or not math.isfinite(value) or run.config.lr <= 0:
        return None
    status = run.result.status
    whole = status is RunStatus.OUT_OF_STEPS
    return RunEnd(run.id, run.config.batch_size, run.config.lr, value, ending_of(run), whole)


def draw(data: Ends) -> Figure:
    """Figure with one point a run, coloured by batch size; open where it had not the whole length."""
    sizes = sorted({end.batch_size for end in data.runs})
    traces: list[Json] = []
    keys: list[Key] = []
    for i, size in enumerate(sizes):
        colour = f"var(--size-{round(i * (COLOURS - 1) / (len(sizes) - 1)) if len(sizes) > 1 else COLOURS // 2})"
        keys.append(Key("disc", colour, f"batch size {count(size)}"))
        for whole in (False, True):
            ends = [end for end in data.runs if (end.batch_size, end.whole) == (size, whole)]
            if ends:
                texts = [_hover(end, data.metric.name) for end in ends]
                mark = "disc" if whole else "open"
                traces.append(points([e.lr for e in ends], [e.value for e in ends], texts, mark=mark, colour=colour))
    if not all(end.whole for end in data.runs):
        keys.append(Key("open", CENSORED, "ended early"))
    shapes: list[Json] = []
    if data.fresh is not None:
        shapes.append(horizontal(data.fresh, MARKED))
        keys.append(Key("dash", MARKED, f"fresh weights: {number(data.fresh)}"))
    lrs = [end.lr for end in data.runs]
    if data.recipe is not None:
        size, lr = data.recipe
        shapes += vertical(lr, RECIPE)
        keys.append(Key("line", RECIPE, f"recommended: {number(lr)} at batch size {count(size)}"))
        lrs.append(lr)
    up = metric_axis([[end.value] for end in data.runs], data.fresh)
    frame = layout(log_axis(lrs, title="learning rate (log scale)"), up, shapes=shapes, height=400)
    return Figure("run-ends", f"{data.metric.name} at the end", tuple(traces), frame, conclude(data), tuple(keys))


def _hover(end: RunEnd, metric: str) -> str:
    pair = f"batch size {count(end.batch_size)}, learning rate {number(end.lr)}"
    return f"{safe(end.id)}<br>{pair}<br>{safe(metric)} {number(end.value)}, {end.ending}"


def conclude(data: Ends) -> str:
    """Conclusion from the figure."""
    name, whole = data.metric.name, [end for end in data.runs if end.whole]
    sentences = [f"{plural(data.whole, 'run')} of {count(data.finished)} had the whole length."]
    if whole:
        best = (min if data.metric.mode == "min" else max)(whole, key=lambda end: end.value)
        pair = f"batch size {count(best.batch_size)} and learning rate {number(best.lr)}"
        sentences.append(f"The best end is {name} {number(best.value)}, at {pair}.")
    if data.diverged:
        were = "is" if data.diverged == 1 else "are"
        sentences.append(f"{plural(data.diverged, 'run')} diverged and {were} not drawn.")
    return " ".join(sentences) + data.left_out
