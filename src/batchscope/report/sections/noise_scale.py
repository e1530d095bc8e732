"""Gradient noise scale along training, in blocks of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...fits.noise_scale import NoiseBlock, trace
from ...store.records import Estimate, Plan
from ...wording import count, number, with_interval
from ..blocks import Figure, Json, Key, Section, Text
from ..charts import MARKED, RECIPE, horizontal, layout, line, log_axis, points, safe
from ..thinning import MOST_CURVES

if TYPE_CHECKING:
    from ...store.runs import StoredRun

TITLE = "Gradient noise scale along training"
BLOCKS = 8
FEWEST_READINGS = 4
"""Fewer readings than this make no block: the ratio of a few steps says nothing."""
MOST_RUNS = 4
_MOST_LOOKED_AT = 50
"""Runs of a large folder whose readings are counted: those of the most steps."""


class Trail(NamedTuple):
    """Blocks of one run."""

    id: str
    batch_size: int
    blocks: tuple[NoiseBlock, ...]


class NoiseScale(NamedTuple):
    """Data of the figure and its caption."""

    trails: tuple[Trail, ...]
    whole: Estimate
    recipe: int | None


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with the figure, or why there is none."""
    data = collect(plan, runs)
    if not any(b.value is not None for t in data.trails for b in t.blocks):
        return Section("noise", TITLE, (Text((why_not(data, runs),)),))
    return Section("noise", TITLE, (draw(data),))


def collect(plan: Plan, runs: Sequence[StoredRun]) -> NoiseScale:
    """Collect the runs with the most readings, cut into blocks."""
    trails: list[tuple[int, Trail]] = []
    for run in _candidates(runs):
        rows = [row for row in run.rows if row.get("kind") == "noise" and row.get("groups", 0) > 1]
        found = trace(rows, examples=plan.examples_in_training_set or None, blocks=BLOCKS)
        if len(rows) >= FEWEST_READINGS:
            trails.append((len(rows), Trail(run.id, run.config.batch_size, found)))
    chosen = sorted(trails, key=lambda pair: -pair[0])[:MOST_RUNS]
    recipe = plan.recipe.batch_size if plan.recipe is not None else None
    return NoiseScale(tuple(trail for _, trail in chosen), plan.measured.gradient_noise_scale, recipe)


def _candidates(runs: Sequence[StoredRun]) -> Sequence[StoredRun]:
    """Runs that may have the most readings: a run is measured at a share of its steps."""
    if len(runs) <= MOST_CURVES:
        return runs
    measured = [run for run in runs if run.config.noise_scale_groups > 1 and run.result is not None]
    return sorted(measured, key=lambda run: -(run.result.steps if run.result else 0))[:_MOST_LOOKED_AT]


def draw(data: NoiseScale) -> Figure:
    """Figure with the blocks of each run, the whole run and the recommended batch size."""
    traces: list[Json] = []
    keys: list[Key] = []
    steps: list[float] = []
    values: list[float] = []
    for i, trail in enumerate(data.trails):
        known = [(b.step + 1.0, b, b.n) for b in trail.blocks if b.value is not None]
        if not known:
            continue
        colour = f"var(--series-{i})"
        x, y = [step for step, _, _ in known], [float(b.value or 0.0) for _, b, _ in known]
        head = f"{safe(trail.id)}<br>"
        texts = [
            f"{head}{with_interval(_estimate(b))} examples<br>{count(n)} readings around step {count(s)}"
            for s, b, n in known
        ]
        traces += [line(x, y, colour=colour), points(x, y, texts, colour=colour)]
        keys.append(Key("disc", colour, f"block ratios of a run at batch size {count(trail.batch_size)}"))
        steps += x
        values += y
    shapes: list[Json] = []
    if (whole := data.whole.value) is not None and whole > 0:
        shapes.append(horizontal(whole, MARKED))
        values.append(whole)
        keys.append(Key("dash", MARKED, "whole run"))
    if data.recipe is not None:
        shapes.append(horizontal(data.recipe, RECIPE, dash="solid"))
        values.append(data.recipe)
        keys.append(Key("line", RECIPE, "recommended batch size"))
    frame = layout(log_axis(steps, title="step (log scale)", labels=6), log_axis(values), shapes=shapes)
    return Figure("noise-scale", "noise scale, examples (log scale)", tuple(traces), frame, conclude(data), tuple(keys))


def _estimate(block: NoiseBlock) -> Estimate:
    return Estimate(value=block.value, low=block.low, high=block.high, n=block.n, unit="examples", method="")


def conclude(data: NoiseScale) -> str:
    """Conclusion from the figure."""
    trail = next(t for t in data.trails if any(b.value is not None for b in t.blocks))
    known = [b.value for b in trail.blocks if b.value is not None]
    lowest, highest = min(known), max(known)
    caption = f"Block by block the noise scale is {number(known[0])} examples at first and {number(known[-1])} at last"
    caption += f", between {number(lowest)} and {number(highest)}" if {lowest, highest} != {known[0], known[-1]} else ""
    caption += f" ({with_interval(data.whole, number)} over the whole run)." if data.whole.value is not None else "."
    if data.recipe is not None:
        if data.recipe < lowest / 2:
            caption += f" The recommended {count(data.recipe)} is below it throughout: noise dominates each step."
        elif data.recipe > highest * 2:
            caption += f" The recommended {count(data.recipe)} is above it throughout: steps average out most noise."
        else:
            caption += f" The recommended {count(data.recipe)} is of the same order."
    open_blocks = sum(b.value is None for t in data.trails for b in t.blocks)
    if open_blocks:
        caption += f" In {count(open_blocks)} further blocks it was larger than could be measured."
    ratio = "Each point is a block ratio, the mean tr(Σ) of a block of steps ÷ its mean ‖G‖²"
    return f"{caption} {ratio}; its 90 % Fieller interval shows when you point at it."


def why_not(data: NoiseScale, runs: Sequence[StoredRun]) -> str:
    """Reason why there is nothing to draw."""
    if not any(row.get("kind") == "noise" for run in _candidates(runs) for row in run.rows):
        return "The gradient noise scale was not measured: it needs micro-batch groups of independent examples."
    if data.trails:
        return "In every block of steps the noise hid the gradient: the noise scale is larger than could be measured."
    return f"There are fewer than {FEWEST_READINGS} readings of the gradient noise scale, too few for a block."
