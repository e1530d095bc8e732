"""Training, validation and test curves of each batch size, against epoch, step or second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ....report.blocks import Figure, Json, Key, Option, Section, Switch, Text
from ....report.charts import LINE, finite, layout, log_axis, metric_axis, safe
from ....wording import duration, joined, number, plural
from ...courses import Course
from ...records import Study
from ..lines import Line, courses_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun

_PARTS = (("validation", "val_{}", "solid"), ("training", "train_{}_eval", "dot"), ("test", "test_{}", "dash"))


class MetricByPart(NamedTuple):
    """What one position of the vertical switch shows: a metric's name in each part."""

    label: str
    metrics: tuple[str, str, str]


def build(study: Study, runs: Sequence[StoredRun]) -> Section:
    """The figure, or why there is none."""
    drawn = courses_of(study, runs)
    if not drawn:
        return Section("curves", "Curves", (Text(("No run ended without diverging.",)),))
    return Section("curves", "Training, validation and test curves", (draw(study, drawn),))


def kinds_of(study: Study, courses: Sequence[Course]) -> list[MetricByPart]:
    """The metrics by what they are of; the one that choices are made by first."""
    names = list(dict.fromkeys(name for course in courses for name in course.mean))
    shared = [n.removeprefix("val_") for n in names if n.startswith("val_")]
    kinds = [MetricByPart(name, (f"val_{name}", f"train_{name}_eval", f"test_{name}")) for name in shared]
    covered = {metric for kind in kinds for metric in kind.metrics}
    others = [n for n in names if n not in covered and not n.startswith(("test_", "train_"))]
    kinds += [MetricByPart(name, (name, f"train_{name}_eval", f"test_{name}")) for name in others]
    return sorted(kinds, key=lambda kind: study.metric not in kind.metrics)


def draw(study: Study, drawn: Sequence[tuple[Line, Course]]) -> Figure:
    """Three traces a batch size, mean over the seeds, and a band from the minimum to the maximum of validation."""
    kinds = kinds_of(study, [course for _, course in drawn])
    traces = [trace for line, course in drawn for trace in _traces(line, course)]
    across, up = _horizontal(drawn), _vertical(drawn, kinds)
    first = {**across.options[0].layout, **up.options[0].layout}
    keys = [Key("line", line.colour, line.label, line.group) for line, _ in drawn]
    keys += [Key("line", LINE, "validation"), Key("dot", LINE, "training"), Key("dash", LINE, "test")]
    keys.append(Key("band", "var(--band)", "validation, all seeds"))
    frame = layout(first["xaxis"], first["yaxis"], height=460)
    return Figure(
        "study-curves", "mean over the seeds", tuple(traces), frame, conclude(study, drawn), tuple(keys), (across, up)
    )


def _traces(line: Line, course: Course) -> list[Json]:
    name = f"{safe(line.label)}<br>mean of {plural(course.runs, 'seed')}"
    band: Json = {
        "type": "scatter",
        "mode": "lines",
        "x": [],
        "y": [],
        "fill": "toself",
        "fillcolor": line.colour,
        "opacity": 0.15,
        "line": {"width": 0},
        "hoverinfo": "skip",
        "legendgroup": line.group,
    }
    return [
        band,
        *(
            {
                "type": "scatter",
                "mode": "lines" if len(course.steps) > 1 else "markers",
                "x": [],
                "y": [],
                "name": f"{name}, {part}",
                "legendgroup": line.group,
                "line": {"color": line.colour, "width": 2 if part == "validation" else 1.3, "dash": dash},
                "marker": {"color": line.colour},
                "hovertemplate": "%{fullData.name}<br>%{y:.4g}<extra></extra>",
            }
            for part, _, dash in _PARTS
        ),
    ]


def _horizontal(drawn: Sequence[tuple[Line, Course]]) -> Switch:
    axes: tuple[tuple[str, str, Callable[[Course], Sequence[float]], Callable[[float], str]], ...] = (
        ("epoch", "epochs (log scale)", lambda c: c.epochs, number),
        ("step", "steps (log scale)", lambda c: c.steps, number),
        ("second", "seconds of training steps (log scale)", lambda c: c.seconds, duration),
    )
    options: list[Option] = []
    for label, title, take, format in axes:
        values: list[tuple[float | None, ...]] = []
        for _, course in drawn:
            x = tuple(finite(take(course)[1:]))
            values += [(*x, *reversed(x)), x, x, x]
        axis = log_axis([v for x in values for v in x], format, title, 6)
        options.append(Option(label, tuple(values), {"xaxis": axis}))
    return Switch("x", "against", tuple(options))


def _vertical(drawn: Sequence[tuple[Line, Course]], kinds: Sequence[MetricByPart]) -> Switch:
    options: list[Option] = []
    for kind in kinds:
        values: list[tuple[float | None, ...]] = []
        for _, course in drawn:
            low, high = (_after_start(side.get(kind.metrics[0], ())) for side in (course.low, course.high))
            values.append((*low, *reversed(high)))
            values += [_after_start(course.mean.get(metric, ())) for metric in kind.metrics]
        axis = metric_axis([v for i, v in enumerate(values) if i % 4 and v])
        options.append(Option(kind.label, tuple(values), {"yaxis": axis}))
    return Switch("y", "of", tuple(options))


def _after_start(values: Sequence[float]) -> tuple[float | None, ...]:
    """The start, at step 0, has no place on a log scale."""
    return tuple(finite(values[1:]))


def conclude(study: Study, drawn: Sequence[tuple[Line, Course]]) -> str:
    """What the figure says of under- and over-training."""
    better = max if study.larger_is_better else min
    phrases: list[str] = []
    for line, course in drawn:
        values = course.mean.get(study.metric)
        if values:
            at = course.epochs[values.index(better(values))]
            phrases.append(f"{number(better(values))} at epoch {number(at)} for batch size {line.arm.batch_size:,}")
    return (
        f"The best mean {study.metric} is {joined(phrases)}. " if phrases else ""
    ) + "The training curve is of a fixed part of the training data, in evaluation mode as the others."
