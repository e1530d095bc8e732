"""What a step costs in time and memory, by batch size."""

from __future__ import annotations

from .....fits import intervals
from .....report.blocks import Block, Figure, Row, Section
from .....report.charts import LINE, batch_axis, layout, line, memory_axis, points
from .....wording import bytes_, count, duration, number, with_interval
from ....page.figures.against_size import Series, against_size
from ...records import Claims
from ...results import TaskResults
from ..themes import THEMES
from ..wording import missing, note, theme_section

_TEXTBOOKS = (
    "The examples of a batch are computed side by side, so that a larger batch should use the hardware better: fewer "
    "steps an epoch, and each of them only a little dearer. The price is memory, which grows with the batch. That is "
    "the speed of computing; how fast a model learns is another speed, and comes below."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """Step time and throughput side by side, then memory."""
    figures = (_step_time(e), _throughput(e)) if e.measured("timing") else ()
    memory = _memory(e)
    figures += (memory,) if memory is not None else ()
    drawn: list[Block] = [Row(figures)] if figures else []
    drawn += [] if e.measured("timing") else [missing(e, "step times", "timing")]
    drawn += [] if memory is not None else [note("No figure of memory: it was not read on this device.")]
    return theme_section(claims, THEMES[1], _TEXTBOOKS, [_epoch(e)], drawn)


def _times(e: TaskResults) -> dict[int, list[float]]:
    """Seconds of a step in each round that nothing disturbed, by batch size."""
    return {size: [r[size] for r in e.rounds if size in r] for size in e.measured("timing")["sizes"]}


def _step_time(e: TaskResults) -> Figure:
    times = _times(e)
    found = {size: intervals.geometric_mean(values, "s") for size, values in times.items()}
    small, large = min(found), max(found)
    ratios = intervals.geometric_mean(e.step_ratios(small, large), "times")
    caption = (
        f"A step takes {duration(found[small].value)} at batch size {count(small)} and {duration(found[large].value)} "
        f"at {count(large)}: {with_interval(ratios)} times as long for {count(large / small)} times the examples."
    )
    series = Series(label="step", colour=LINE, values=found)
    return against_size(
        "step-time", "time of a step", [series], caption=caption, scale="log", format=duration, height=300
    )


def _throughput(e: TaskResults) -> Figure:
    found = {
        size: intervals.geometric_mean((size / seconds for seconds in values if seconds > 0), "examples/s")
        for size, values in _times(e).items()
    }
    most = max(found, key=lambda size: found[size].value or 0.0)
    fastest = min(found)
    caption = (
        f"Most examples a second, {number(found[most].value)}, come at batch size {count(most)}, against "
        f"{number(found[fastest].value)} at batch size {count(fastest)}."
    )
    series = Series(label="examples a second", colour=LINE, values=found)
    return against_size("examples-a-second", "examples a second", [series], caption=caption, scale="log", height=300)


def _memory(e: TaskResults) -> Figure | None:
    found = sorted(e.memory.items())
    if not found:
        return None
    sizes, peaks = [size for size, _ in found], [peak for _, peak in found]
    hover = [f"batch size {count(size)}: {bytes_(peak)}" for size, peak in found]
    frame = layout(batch_axis(sizes, labels=4), memory_axis(peaks), height=300)
    caption = (
        f"The peak of a step is {bytes_(peaks[0])} at batch size {count(sizes[0])} and {bytes_(peaks[-1])} at "
        f"{count(sizes[-1])}: {number(peaks[-1] / peaks[0])} times as much."
    )
    return Figure("memory", "peak memory of a step", (line(sizes, peaks), points(sizes, peaks, hover)), frame, caption)


def _epoch(e: TaskResults) -> str:
    small, large = e.ends
    ratio = intervals.geometric_mean((r * small / large for r in e.step_ratios(small, large)), "times")
    if ratio.value is None:
        return ""
    return f"An epoch at batch size {count(large)} takes {with_interval(ratio)} of the time of one at {count(small)}."
