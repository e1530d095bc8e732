"""How far one update carries the weights, and how far an epoch's updates carry them together, against batch size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ....report.blocks import Figure, Json, Key, Row
from ....report.charts import batch_axis, layout, line, points, with_errors
from ....store.records import Estimate
from ....wording import count, number, times, with_interval
from ...page.figures.whole_axis import whole_axis
from ...readings import arm_of, over_seeds
from ...records import Study
from ...travel import Update, update_of, update_range

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["update_figures"]

_SERIES = 4
_SHOWN: tuple[tuple[Update, str, str], ...] = (
    ("mean_norm", "size of one update", "The mean norm of one update, over all epochs"),
    ("norm_of_sum", "distance gone in an epoch", "The norm of an epoch's updates together, mean over the epochs"),
    ("straightness", "distance ÷ path in an epoch", "1 where all updates of an epoch point one way, about 1 ÷ √steps "
     "for a random walk"),
)  # fmt: skip


def update_figures(study: Study, runs: Sequence[StoredRun]) -> Row | None:
    """Three small figures with a line for each learning rate; `None` where no run lasted an epoch."""
    found = tuple(figure for shown in _SHOWN if (figure := _figure(study, runs, *shown)) is not None)
    return Row(found) if found else None


def _figure(study: Study, runs: Sequence[StoredRun], quantity: Update, title: str, lead: str) -> Figure | None:
    rates = sorted(study.question.lrs)
    lines: list[tuple[float, list[tuple[int, Estimate]]]] = []
    for lr in rates:
        own: list[tuple[int, Estimate]] = []
        for size in sorted(study.question.batch_sizes):
            arm = arm_of(study, size, lr)
            if arm is not None and not arm.diverged:
                read = partial(update_of, quantity=quantity)
                own.append((size, over_seeds(study, runs, arm, read, within=update_range(quantity))[0]))
        lines.append((lr, [(size, e) for size, e in own if e.value is not None]))
    drawn = [(lr, own) for lr, own in lines if own]
    if not drawn:
        return None
    traces: list[Json] = []
    keys: list[Key] = []
    for i, (lr, own) in enumerate(drawn):
        colour, group = f"var(--series-{i % _SERIES})", f"{quantity}-{i}"
        sizes, values = [float(size) for size, _ in own], [e.value or 0.0 for _, e in own]
        texts = [f"batch size {count(size)}, learning rate {number(lr)}<br>{with_interval(e)}" for size, e in own]
        below = [v - e.low if e.low is not None else 0.0 for v, (_, e) in zip(values, own, strict=True)]
        above = [e.high - v if e.high is not None else 0.0 for v, (_, e) in zip(values, own, strict=True)]
        marks = with_errors(points(sizes, values, texts, colour=colour), below, above)
        traces += [{**one, "legendgroup": group} for one in (line(sizes, values, colour=colour), marks)]
        keys.append(Key("line", colour, f"learning rate {number(lr)}", group))
    inside = [[e.value for _, e in own] for _, own in drawn]
    frame = layout(batch_axis(study.question.batch_sizes, labels=4), whole_axis(inside), height=280)
    name = f"updates-{quantity.replace('_', '-')}"
    return Figure(name, title, tuple(traces), frame, f"{lead}. {_conclude(drawn)}", tuple(keys))


def _conclude(drawn: Sequence[tuple[float, Sequence[tuple[int, Estimate]]]]) -> str:
    lr, own = drawn[0]
    (small, first), (large, last) = own[0], own[-1]
    if small == large or not first.value or last.value is None:
        return f"At learning rate {number(lr)} it is {with_interval(first)} at batch size {count(small)}."
    return (
        f"At learning rate {number(lr)} it goes from {number(first.value)} at batch size {count(small)} to "
        f"{number(last.value)} at {count(large)}, {times(last.value / first.value)} as much."
    )
