"""The path of a sequence of trials through time and quality, among the runs of a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....report.blocks import Figure, Json, Key
from ....report.charts import CENSORED, layout, line, log_axis, metric_axis, points, safe
from ....wording import count, duration, number
from ...records import Study, StudyRow
from .sequence import Followed, TrialTraining

__all__ = ["trial_path"]

_COLOURS = ("var(--series-1)", "var(--series-2)")


def trial_path(study: Study, ways: Mapping[str, Followed], grid: Sequence[StudyRow], seed: int) -> Figure:
    """Path of the trials, each at its training time and its best value; the grid's whole runs beside it."""
    name = f"best_{study.metric}"
    measured = [row for row in grid if row.values.get(name) is not None]
    x = [row.values.get("train_time_s") or 0.0 for row in measured]
    y = [row.values.get(name) for row in measured]
    hover = [
        f"grid: batch size {count(row.batch_size)}, learning rate {number(row.lr)}<br>{safe(study.metric)} "
        f"{number(value)}<br>{duration(spent)}"
        for row, value, spent in zip(measured, y, x, strict=True)
    ]
    traces: list[Json] = [points(x, y, hover, mark="open", colour=CENSORED)]
    keys: list[Key] = []
    times, values = [*x], [*y]
    labelled: set[TrialTraining] = set()
    for i, ((way, followed), colour) in enumerate(zip(ways.items(), _COLOURS, strict=False)):
        made = [trial for trial in followed.trials if trial.value is not None]
        spent, reached = [trial.seconds for trial in made], [trial.value for trial in made]
        details = [
            f"{safe(way)}: batch size {count(t.batch_size)}, {number(t.epochs)} epochs<br>{safe(study.metric)} "
            f"{number(t.value)}<br>{duration(t.seconds)}"
            for t in made
        ]
        marks = {
            **points(spent, reached, details, colour=colour),
            "mode": "markers+text",
            "text": ["" if t in labelled else f"{t.batch_size} × {t.epochs:g}" for t in made],
            "hovertext": details,
            "hovertemplate": "%{hovertext}<extra></extra>",
            "textposition": "top right" if i == 0 else "bottom right",
            "textfont": {"size": 10, "color": colour},
        }
        course = line(spent, reached, colour=colour)
        traces += [{**course, "line": {"color": colour, "width": 1, "dash": "dot"}, "legendgroup": way}]
        traces.append({**marks, "legendgroup": way})
        keys.append(Key("disc", colour, way, way))
        labelled.update(made)
        times, values = [*times, *spent], [*values, *reached]
    keys.append(Key("open", CENSORED, "the grid's runs"))
    frame = layout(
        log_axis([t for t in times if t > 0], duration, "seconds of training steps (log scale)", 6),
        metric_axis([[v] for v in values]),
        height=420,
    )
    title = f"best {study.metric} of each trial, seed {seed}; labels: batch size × epochs"
    return Figure("trials", title, tuple(traces), frame, _conclude(study, ways), tuple(keys))


def _conclude(study: Study, ways: Mapping[str, Followed]) -> str:
    phrases: list[str] = []
    for way, followed in ways.items():
        choice = followed.choice
        if choice is None or choice.trial is None:
            phrases.append(f"With {way}, {'no choice was come to' if choice is None else choice.reason}.")
            continue
        chosen = choice.trial
        phrases.append(
            f"With {way}, {len(followed.trials)} trials of {duration(followed.seconds)} together come to batch size "
            f"{count(chosen.batch_size)} for {number(chosen.epochs)} epochs: {study.metric} {number(chosen.value)} in "
            f"{duration(chosen.seconds)}."
        )
    return " ".join(phrases)
