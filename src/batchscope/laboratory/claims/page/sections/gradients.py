"""Gradients from one checkpoint: noise and angle by batch size, competition of examples, and sums of many steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from .....report.blocks import Block, Figure, Json, Key, Row, Section
from .....report.charts import LINE, finite, layout, log_axis, value_axis
from .....store.records import Estimate
from .....wording import count, joined, number, percent
from ....page.figures.against_size import Series, against_size
from ....page.figures.branch_curves import shades
from ...plan import competition_note
from ...records import Claims
from ...results import TaskResults
from ..drawing import estimate
from ..themes import THEMES
from ..wording import missing, theme_section

_TEXTBOOKS = (
    "A mini-batch's gradient is a noisy picture of the gradient of all data, and averaging makes it less so: drawn "
    "with replacement, its variance falls as one over the batch size. Shen's hypothesis is that examples in one "
    "batch compete, their gradients cancelling in part. All of it is measured here from one checkpoint, so that only "
    "the batch differs."
)
_BINS = 24


def build(claims: Claims, e: TaskResults) -> Section:
    """Noise and angle, then competition and the entries of summed gradients."""
    records = e.measured("gradients")
    drawn: list[Block] = [
        Row((_variance(records), _cosine(records)))
        if isinstance(records, list)
        else missing(e, "gradient noise", "gradients")
    ]
    competition = _competition(e)
    sums = e.measured("sums")
    entries = _entries(sums) if isinstance(sums, dict) and "histograms" in sums else None
    pair = tuple(figure for figure in (competition, entries) if figure is not None)
    drawn += [Row(pair)] if pair else []
    drawn += [] if competition is not None else [missing(e, "competition between examples", "competition")]
    drawn += [] if entries is not None else [missing(e, "the sums of gradients", "sums")]
    return theme_section(claims, THEMES[5], _TEXTBOOKS, [_kept(e)], drawn)


def _read(records: Sequence[Mapping[str, Any]], name: str) -> dict[int, Estimate]:
    return {record["batch_size"]: estimate(record[name]) for record in records}


def _variance(records: Sequence[Mapping[str, Any]]) -> Figure:
    found = {size: e for size, e in _read(records, "variance").items() if e.value is not None}
    first = min(found)
    start = found[first].value or 0.0
    expected = {
        size: Estimate(value=start * first / size, low=None, high=None, n=0, unit="", method="one over the batch size")
        for size in found
    }
    series = (
        Series(label="measured", colour=LINE, values=found),
        Series(label="one over the batch size", colour="var(--muted)", values=expected, mark="open", dash="dot"),
    )
    return against_size(
        "gradient-variance", "variance of the gradient", series, caption=_falls(records), scale="log", height=300
    )


def _falls(records: object) -> str:
    """The fall of the variance from the smallest batch size to the largest, in words."""
    if not isinstance(records, list):
        return ""
    found = _read(records, "variance")
    small, large = min(found), max(found)
    before, after = found[small].value, found[large].value
    if not before or not after:
        return f"The variance of the gradient at batch size {count(large)} is {number(after)}."
    return (
        f"From batch size {count(small)} to {count(large)} the variance of the gradient falls to "
        f"1/{count(before / after)}; one over the batch size would be 1/{count(large / small)}."
    )


def _cosine(records: Sequence[Mapping[str, Any]]) -> Figure:
    found = {size: e for size, e in _read(records, "cosine").items() if e.value is not None}
    detail = joined([f"{number(found[b].value)} at {count(b)}" for b in (min(found), max(found))])
    caption = (
        f"The cosine of the angle to the gradient of all data is {detail}: 1 is the same direction, and 0 is a right "
        "angle. It says how far one step can be trusted."
    )
    series = Series(label="cosine", colour=LINE, values=found)
    return against_size(
        "cosine", "cosine to the full gradient", [series], caption=caption, scale="from zero", height=300
    )


def _competition(e: TaskResults) -> Figure | None:
    """Histograms of the cosine between the gradients of two examples, and of two batches."""
    names = {"two examples": "competition", **{f"two batches of {count(b)}": competition_note(b) for b in e.ends}}
    measured = {label: found for label, name in names.items() if isinstance(found := e.read_note(name), list)}
    cosines = {
        label: values
        for label, found in measured.items()
        if (values := [r["at_once"]["cosine"] for r in found if r["at_once"]["cosine"] is not None])
    }
    if not cosines:
        return None
    traces: list[Json] = []
    keys: list[Key] = []
    tallest: list[float] = []
    for i, ((label, values), colour) in enumerate(zip(cosines.items(), shades(len(cosines)), strict=True)):
        shares = _shares(values)
        tallest += shares
        centres = [-1 + (2 * j + 1) / _BINS for j in range(_BINS)]
        traces.append(
            {
                "type": "bar",
                "x": finite(centres),
                "y": finite(shares),
                "marker": {"color": colour},
                "opacity": 0.65,
                "legendgroup": f"competition-{i}",
                "hovertemplate": f"{label}: share %{{y:.2g}} about cosine %{{x:.2g}}<extra></extra>",
            }
        )
        keys.append(Key("band", colour, label, f"competition-{i}"))
    across = {**value_axis([1.0], title="cosine between the two gradients"), "range": [-1, 1], **_SIGNED}
    frame = {**layout(across, value_axis(tallest, percent), height=300), "barmode": "overlay", "bargap": 0.05}
    detail = joined([f"{number(fmean(values))} for {label}" for label, values in cosines.items()])
    caption = f"The mean cosine is {detail}: the larger the batch, the more two of them agree, as far as this rises."
    return Figure("competition", "share of pairs", tuple(traces), frame, caption, tuple(keys))


def _kept(e: TaskResults) -> str:
    """What two examples' gradients lose by cancelling."""
    found = e.measured("competition")
    kept = [r["at_once"]["kept"] for r in found if r["at_once"]["kept"] is not None] if isinstance(found, list) else []
    if not kept:
        return ""
    return f"The sum of two examples' gradients keeps {percent(fmean(kept))} of the sum of their norms, on average."


_SIGNED = {"tickvals": [-1, -0.5, 0, 0.5, 1], "ticktext": ["−1", "−0.5", "0", "0.5", "1"]}


def _shares(values: Sequence[float]) -> list[float]:
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, max(0, int((value + 1) / 2 * _BINS)))] += 1
    return [n / len(values) for n in counts]


def _entries(sums: Mapping[str, Any]) -> Figure:
    """How many entries of the summed gradient have which value, at small steps and at one large one."""
    histograms: Mapping[str, Any] = sums["histograms"]
    sizes = sorted(map(int, histograms))
    traces: list[Json] = []
    keys: list[Key] = []
    shares: list[float | None] = []
    reach = 0.0
    for size, colour in zip(sizes, shades(len(sizes)), strict=True):
        counts, limit = histograms[str(size)]["counts"], histograms[str(size)]["limit"]
        total = sum(counts)
        own = [n / total if n else None for n in counts]
        shares += own
        width = 2 * limit / len(counts)
        x = [-limit + (i + 0.5) * width for i in range(len(counts))]
        reach = max([reach, *(abs(at) + width for at, n in zip(x, counts, strict=True) if n)])
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": finite(x),
                "y": finite(own),
                "connectgaps": False,
                "line": {"color": colour, "width": 1.5, "shape": "hvh"},
                "legendgroup": f"entries-{size}",
                "hovertemplate": f"steps of {count(size)}: share %{{y:.2g}} at %{{x:.2g}}<extra></extra>",
            }
        )
        keys.append(Key("line", colour, f"steps of {count(size)}", f"entries-{size}"))
    across: Json = {
        **value_axis([1.0], title="value of an entry, a step"),
        "range": [-reach, reach],
        "tickmode": "auto",
        "nticks": 5,
        "tickvals": None,
        "ticktext": None,
    }
    frame = layout(across, log_axis(shares, labels=6), height=300)
    caption = _tail(sums, sizes)
    return Figure("entries", "share of the entries (log scale)", tuple(traces), frame, caption, tuple(keys))


def _tail(sums: Mapping[str, Any], sizes: Sequence[int]) -> str:
    """How many entries are large at each size of the steps."""
    beyond = {size: sum(sums["beyond"][str(size)]) for size in sizes}
    detail = joined([f"{count(n)} at steps of {count(size)}" for size, n in beyond.items()])
    what = f"entries of the last layer's gradient beyond ±{number(sums['mark'])} are {detail}"
    phrase = f"Summed over the same {count(sums['norms']['samples'])} examples and taken as one step, {what}"
    if beyond[sizes[-1]] > beyond[sizes[0]]:
        return f"{phrase}: the tail of the large step is heavy, the many small ones average theirs away."
    return f"{phrase}."
