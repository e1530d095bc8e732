"""Loss curves: the course of every run, against steps, examples or seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...fits.curves import steps_to_target
from ...fits.targets import best_value, milestone_of
from ...store.endings import ending_of
from ...store.records import Plan, RunStatus
from ...wording import count, duration, joined, number, plural
from ..blocks import Figure, Json, Key, Option, Section, Switch, Text
from ..charts import MARKED, finite, horizontal, layout, log_axis, metric_axis, safe
from ..outcomes import outcomes
from ..thinning import MOST_CURVES, evenly, left_out

if TYPE_CHECKING:
    from ...store.runs import StoredRun

MOST_POINTS = 100
COLOURS = 8
"""How many colours the page's style has for batch sizes, from small to large."""


class ThinnedRun(NamedTuple):
    """Course of one run, thinned to few points."""

    id: str
    batch_size: int
    lr: float
    status: str
    steps: tuple[float, ...]
    examples: tuple[float, ...]
    seconds: tuple[float | None, ...]
    metric: tuple[float | None, ...]
    train_loss: tuple[float | None, ...]


class Courses(NamedTuple):
    """Data of the figure and its caption."""

    runs: tuple[ThinnedRun, ...]
    metric: str
    target: float | None
    fewest_steps: ThinnedRun | None
    fewest_examples: ThinnedRun | None
    endings: dict[RunStatus, int]
    milestone: float | None
    """Value at which runs were paused."""
    left_out: str = ""
    """What is said of the runs that are not drawn."""


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with the figure, or why there is none."""
    data = collect(plan, runs)
    if not data.runs:
        return Section("curves", "Loss curves", (Text(("No run has been evaluated after a step of training.",)),))
    return Section("curves", "Loss curves", (draw(data),))


def collect(plan: Plan, runs: Sequence[StoredRun]) -> Courses:
    """Thin every run to at most `MOST_POINTS` evaluations; the start, at step 0, has no place on a log scale."""
    metric = plan.target.metric if plan.target is not None else _shared_metric(runs)
    there = [o for o in outcomes(plan, runs) if o.reached and plan.within is None]
    best = {min(there, key=lambda o: o.steps).id, min(there, key=lambda o: o.examples).id} if there else set[str]()
    shown = evenly(runs, MOST_CURVES, lambda run: run.id in best)
    courses = [course(run, metric) for run in shown]
    drawn = {c.id: c for c in courses if any(v is not None for v in (*c.metric, *c.train_loss))}
    reached = [o for o in there if o.id in drawn]
    reached_ids = {o.id for o in there}
    endings: dict[RunStatus, int] = {}
    for run in runs:
        if run.result is not None:
            status = RunStatus.REACHED if run.id in reached_ids else run.result.status
            endings[status] = endings.get(status, 0) + 1
    return Courses(
        tuple(sorted(drawn.values(), key=lambda c: c.batch_size)),
        metric,
        plan.target.value if plan.target is not None and plan.within is None else None,
        drawn[min(reached, key=lambda o: o.steps).id] if reached else None,
        drawn[min(reached, key=lambda o: o.examples).id] if reached else None,
        endings,
        milestone(plan, runs),
        left_out(len(shown), len(runs)),
    )


def milestone(plan: Plan, runs: Sequence[StoredRun]) -> float | None:
    """Milestone at which runs were paused; none where no run ended at it."""
    paused = [run for run in runs if run.result is not None and run.result.status is RunStatus.PAUSED]
    goal = plan.target
    if plan.within is not None:
        goal = plan.target and best_value([run for run in runs if run.config.purpose == "pilot"], plan.target.judged_by)
    found = milestone_of(runs[0].rows, goal) if paused and goal is not None else None
    if found is None:
        return None
    paused = evenly(paused, MOST_CURVES)
    passed = [steps_to_target(run.rows, found) for run in paused]
    earlier = [steps_to_target(run.rows[:-1], found) for run in paused]
    ended_there = any(now is not None and before is None for now, before in zip(passed, earlier, strict=True))
    return found.value if ended_there else None


def course(run: StoredRun, metric: str) -> ThinnedRun:
    """Course of one run: its evaluations after step 0, thinned evenly with the last kept."""
    rows = [row for row in run.rows if row.get("kind") == "evaluation" and row.get("step", 0) > 0]
    if len(rows) > MOST_POINTS:
        chosen = sorted({round(i * (len(rows) - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})
        rows = [rows[i] for i in chosen]
    return ThinnedRun(
        run.id,
        run.config.batch_size,
        run.config.lr,
        ending_of(run) or "unfinished",
        tuple(float(row["step"]) for row in rows),
        tuple(float(row["examples"]) for row in rows),
        tuple(finite([row.get("device_seconds")])[0] for row in rows),
        tuple(_metric(row, metric) for row in rows),
        tuple(finite([row.get("train_loss")])[0] for row in rows),
    )


def _metric(row: Mapping[str, Any], metric: str) -> float | None:
    return finite([(row.get("metrics") or {}).get(metric)])[0]


def _shared_metric(runs: Sequence[StoredRun]) -> str:
    everywhere = [name for run in runs for name in _metrics_of(run)]
    names = [name for name in everywhere if not name.startswith("test_")]
    return "val_loss" if "val_loss" in names or not names else names[0]


def _metrics_of(run: StoredRun) -> Iterable[str]:
    if run.result is not None and run.result.first:
        return run.result.first
    return next((row["metrics"] for row in run.rows if row.get("metrics")), ())


def draw(data: Courses) -> Figure:
    """Figure with one trace a run, coloured by batch size; two switches exchange its axes."""
    sizes = sorted({c.batch_size for c in data.runs})
    colours = {b: f"var(--size-{_shade(i, len(sizes))})" for i, b in enumerate(sizes)}
    width = 1.8 if len(data.runs) <= 30 else 1.0
    traces = tuple(_trace(c, colours[c.batch_size], width) for c in data.runs)
    keys = [Key("line", colours[b], f"batch size {count(b)}", f"b{b}") for b in sizes]
    if data.target is not None:
        keys.append(Key("dash", MARKED, f"target {number(data.target)}"))
    if data.milestone is not None:
        keys.append(Key("dot", MARKED, f"milestone {number(data.milestone)}, where runs were paused"))
    across, up = _horizontal(data), _vertical(data)
    first = {**across.options[0].layout, **up.options[0].layout}
    frame = layout(first["xaxis"], first["yaxis"], shapes=first["shapes"], height=440)
    switches = (across, up) if len(up.options) > 1 else (across,)
    return Figure("loss-curves", "course of every run", traces, frame, conclude(data), tuple(keys), switches)


def _shade(index: int, of: int) -> int:
    return round(index * (COLOURS - 1) / (of - 1)) if of > 1 else COLOURS // 2


def _trace(course: ThinnedRun, colour: str, width: float) -> Json:
    recipe = f"batch size {count(course.batch_size)}, learning rate {number(course.lr)}"
    name = f"{safe(course.id)}<br>{recipe}: {course.status}"
    return {
        "type": "scatter",
        "mode": "lines" if len(course.steps) > 1 else "markers",
        "x": [],
        "y": [],
        "name": name,
        "legendgroup": f"b{course.batch_size}",
        "line": {"color": colour, "width": width},
        "marker": {"color": colour},
        "opacity": 0.85,
        "hovertemplate": "%{fullData.name}<br>%{y:.4g}<extra></extra>",
    }


def _horizontal(data: Courses) -> Switch:
    axes: tuple[tuple[str, str, Callable[[ThinnedRun], Sequence[float | None]], Callable[[float], str]], ...] = (
        ("steps", "steps (log scale)", lambda c: c.steps, number),
        ("examples", "examples read (log scale)", lambda c: c.examples, number),
        ("seconds", "seconds of training where the search ran (log scale)", lambda c: c.seconds, duration),
    )
    options: list[Option] = []
    for label, title, take, format in axes:
        values = tuple(tuple(take(c)) for c in data.runs)
        if any(v for run in values for v in run):
            axis = log_axis([v for run in values for v in run], format, title, 6)
            options.append(Option(label, values, {"xaxis": axis}))
    return Switch("x", "against", tuple(options))


def _vertical(data: Courses) -> Switch:
    shapes = [horizontal(data.target, MARKED)] if data.target is not None else []
    shapes += [horizontal(data.milestone, MARKED, dash="dot")] if data.milestone is not None else []
    hidden = [{**shape, "opacity": 0} for shape in shapes]  # Plotly leaves a removed shape of this layer on screen
    values = tuple(c.metric for c in data.runs)
    losses = tuple(c.train_loss for c in data.runs)
    options: list[Option] = []
    if any(v is not None for run in values for v in run):
        options.append(Option(data.metric, values, {"yaxis": metric_axis(values, data.target), "shapes": shapes}))
    if any(v is not None for run in losses for v in run):
        options.append(Option("training loss", losses, {"yaxis": metric_axis(losses, None), "shapes": hidden}))
    return Switch(
        "y", "of", tuple(options) or (Option(data.metric, values, {"yaxis": log_axis([]), "shapes": shapes}),)
    )


def conclude(data: Courses) -> str:
    """Conclusion from the figure."""
    most_first = sorted(data.endings.items(), key=lambda pair: -pair[1])
    endings = [f"{plural(n, 'run')} {status.ending}" for status, n in most_first]
    sentences = [f"{joined(endings)}." if endings else f"{plural(len(data.runs), 'run')}, none finished."]
    fast, lean = data.fewest_steps, data.fewest_examples
    if fast is not None and lean is not None:
        quick = f"batch size {count(fast.batch_size)} at learning rate {number(fast.lr)}"
        if fast.id == lean.id:
            sentences.append(f"One run was the quickest both in steps and in examples: {quick}.")
        else:
            frugal = f"batch size {count(lean.batch_size)} at learning rate {number(lean.lr)}"
            sentences.append(
                f"In steps {quick} was the quickest, in examples {frugal}: the best depends on what a step costs."
            )
    return " ".join(sentences) + data.left_out
