"""How far from the initial weights a run ends, and how sharp the place is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .....fits import intervals
from .....report.blocks import Block, Figure, Json, Key, Row, Section
from .....report.charts import PointMark, batch_axis, layout, points
from .....store.not_applicable import not_applicable
from .....store.ranges import NOT_NEGATIVE
from .....store.records import Estimate
from .....wording import count, joined, number, times, with_interval
from ....page.figures.against_size import Series, against_size
from ...geometry import distance, sharpness_of
from ...plan import FIXED
from ...records import Claims
from ...results import Setting, TaskResults
from ..drawing import BEST_COLOUR, ONE_COLOUR, by_size, extent, named
from ..themes import THEMES
from ..wording import no_runs, note, theme_section

_TEXTBOOKS = (
    "Small batches are said to explore more, and to end in flat minima that lie farther from where training began, "
    "while large ones stay near it in sharp ones. How sharp a minimum looks depends on the box in which one looks: "
    "in Keskar's it grows with the size of each weight plus one, in the relative one with the size alone."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """Distances by batch size, and sharpness of the models at the two ends."""
    far = _distances(e)
    sharp = tuple(f for f in (_sharpness(e, *shown) for shown in _SHOWN) if f is not None)
    drawn: list[Block] = [far if far is not None else no_runs("the distance from the initial weights")]
    drawn += [Row(sharp)] if sharp else [note(f"No figure of sharpness: {_why_not(e)}.")]
    return theme_section(claims, THEMES[6], _TEXTBOOKS, [_farther(e)], drawn)


# --- distance ---------------------------------------------------------------------------------------------------------


def _far(e: TaskResults, arm: Setting) -> Estimate:
    found = [far for row in e.rows(arm) if (far := distance(e, row)) is not None]
    return intervals.mean(found, within=NOT_NEGATIVE)


def _distances(e: TaskResults) -> Figure | None:
    sizes = e.plan.batch_sizes
    epochs = by_size(sizes, lambda b: _far(e, e.at_one_rate(b)))
    steps = by_size(sizes, lambda b: _far(e, e.at_one_rate(b, FIXED)))
    best = by_size(sizes, lambda b: intervals.mean([]) if (arm := e.at_best(b)) is None else _far(e, arm))
    series = (
        Series(label="equally many epochs, one learning rate", colour=ONE_COLOUR, values=epochs),
        Series(
            label="equally many updates, one learning rate",
            colour="var(--series-2)",
            values=steps,
            mark="open",
            dash="dot",
        ),
        Series(
            label="equally many epochs, best learning rates", colour=BEST_COLOUR, values=best, mark="open", dash="dash"
        ),
    )
    shown = [one for one in series if one.values]
    if not shown:
        return None
    details = [
        f"from {number(one.values[min(one.values)].value)} to {number(one.values[max(one.values)].value)} ({one.label})"
        for one in shown
    ]
    caption = (
        f"From batch size {count(sizes[0])} to {count(sizes[-1])} the distance goes {joined(details)}. What differs at "
        "equal epochs and not at equal updates is the number of updates, not the batch."
    )
    return against_size("distances", "distance from the initial weights", shown, caption=caption, scale="from zero")


def _farther(e: TaskResults) -> str:
    small, large = map(e.at_one_rate, e.ends)
    ratio = e.compared(large, small, lambda row: distance(e, row), ratio=True)
    if ratio.value is None:
        return ""
    return (
        f"At one learning rate and equally many epochs, batch size {count(e.ends[0])} ends "
        f"{with_interval(ratio, times)} as far from its initial weights as {count(e.ends[1])}."
    )


# --- sharpness --------------------------------------------------------------------------------------------------------


def _box(found: Mapping[str, Any], box: str) -> float | None:
    return found[box][-1]["value"] if isinstance(found[box], list) else None


def _eigenvalue(found: Mapping[str, Any]) -> float | None:
    return found["curvature"].get("sharpness", {}).get("value")


_SHOWN: tuple[tuple[str, str, Callable[[Mapping[str, Any]], float | None]], ...] = (
    ("keskar", "sharpness in Keskar's box", lambda found: _box(found, "keskar")),
    ("relative", "sharpness in the relative box", lambda found: _box(found, "relative")),
    ("eigenvalue", "largest Hessian eigenvalue", _eigenvalue),
)


def _settings(e: TaskResults) -> Sequence[tuple[str, PointMark, str, Callable[[int], Setting | None]]]:
    return (
        ("at one learning rate", "disc", ONE_COLOUR, e.at_one_rate),
        ("at its best learning rate", "open", BEST_COLOUR, e.at_best),
    )


def _by_seed(e: TaskResults, arm: Setting | None, of: Callable[[Mapping[str, Any]], float | None]) -> dict[int, float]:
    found = {} if arm is None else sharpness_of(e, arm)
    return {seed: value for seed, one in found.items() if (value := of(one)) is not None}


def _sharpness(e: TaskResults, name: str, title: str, of: Callable[[Mapping[str, Any]], float | None]) -> Figure | None:
    """One point a seed at the smallest and the largest batch size."""
    traces: list[Json] = []
    keys: list[Key] = []
    shown: list[float] = []
    for i, (words, mark, colour, arm_of) in enumerate(_settings(e)):
        by_size = {b: _by_seed(e, arm_of(b), of) for b in e.ends}
        # the smallest batch's one learning rate is its best: its points move apart a little, so that both are seen
        x = [b * 1.12 ** (2 * i - 1) for b, values in by_size.items() for _ in values]
        y = [v for values in by_size.values() for v in values.values()]
        hover = [
            f"{named(arm_of(b))}, seed {seed}<br>{number(v)}" for b, vs in by_size.items() for seed, v in vs.items()
        ]
        if y:
            traces.append({**points(x, y, hover, mark=mark, colour=colour), "legendgroup": f"{name}-{i}"})
            keys.append(Key(mark, colour, words, f"{name}-{i}"))
            shown += y
    if not traces:
        return None
    across = batch_axis([e.ends[0] / 2, e.ends[1] * 2], labels=6)
    ticks = {"tickvals": list(e.ends), "ticktext": [count(b) for b in e.ends]}
    frame = layout({**across, **ticks}, extent(shown), height=280)
    return Figure(f"sharpness-{name}", title, tuple(traces), frame, _steeper(e, of), tuple(keys))


def _steeper(e: TaskResults, of: Callable[[Mapping[str, Any]], float | None]) -> str:
    details: list[str] = []
    for words, _, _, arm_of in _settings(e):
        ratio = _ratio(e, arm_of, of)
        if ratio.value is not None:
            details.append(f"{with_interval(ratio, times)} {words}")
    if not details:
        return "One point a seed."
    return f"At batch size {count(e.ends[1])} over that at {count(e.ends[0])}: {', '.join(details)}. One point a seed."


def _ratio(
    e: TaskResults, arm_of: Callable[[int], Setting | None], of: Callable[[Mapping[str, Any]], float | None]
) -> Estimate:
    small, large = (_by_seed(e, arm_of(b), of) for b in e.ends)
    return intervals.geometric_ratio(intervals.matched(large, small))


def _why_not(e: TaskResults) -> str:
    found = next(iter(sharpness_of(e, e.at_one_rate(e.plan.smallest)).values()), None)
    if found is None:
        return "it was not measured before the budget was used up"
    return not_applicable(found["keskar"]) or "it has no value"
