"""Hardware: step time, throughput and memory against micro-batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...fits.step_time import step_time_of
from ...store.records import Bench, Estimate, Plan
from ...wording import bytes_, count, duration, number, percent, plural, sentence, times, with_interval
from ..blocks import Figure, Json, Key, Row, Section, Text
from ..charts import (
    CENSORED,
    MARKED,
    RECIPE,
    batch_axis,
    horizontal,
    layout,
    line,
    log_axis,
    memory_axis,
    points,
    value_axis,
    vertical,
)

if TYPE_CHECKING:
    from ...store.runs import StoredRun

TITLE = "Step time, throughput and memory"


class Hardware(NamedTuple):
    """Data of the three figures and their captions."""

    times: tuple[tuple[int, float], ...]
    """Micro-batch size and seconds of a step."""
    memory: tuple[tuple[int, float], ...]
    """Micro-batch size and peak bytes."""
    limit: int | None
    largest: int
    verified: bool
    memory_bound: bool
    knee: Estimate
    micro: int | None
    """The recipe's micro-batch size."""
    micro_time_s: float | None
    """Seconds of a step of it, by the plan's step-time model."""
    compute: tuple[tuple[int, float], ...] = ()
    """Micro-batch size and seconds of computing, where loading counts and was timed apart."""
    loading: tuple[tuple[int, float], ...] = ()
    """Micro-batch size and seconds of loading the batch, where that counts."""
    workers: int = 0

    @property
    def throughput(self) -> tuple[tuple[int, float], ...]:
        """Pairs of micro-batch size and examples per second."""
        return tuple((b, b / s) for b, s in self.times if s > 0)


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with three figures side by side, or those that there are numbers for."""
    if plan.bench is None:
        return Section("hardware", TITLE, (Text(("The hardware was not measured: nothing to draw.",)),))
    data = collect(plan, plan.bench)
    figures = (draw_step_time(data), draw_throughput(data)) if data.times else ()
    figures += (draw_memory(data),) if data.memory else ()
    missing: list[str] = []
    if not data.times:
        missing.append("No step time was measured.")
    if not data.memory:
        missing.append("Peak memory was not measured on this device.")
    notes = (
        (Text((*missing, *(sentence(note) for note in plan.bench.notes)), tone="note"),)
        if missing or plan.bench.notes
        else ()
    )
    where = f"Measured on {plan.bench.profile.name}." if plan.bench.profile.name else ""
    head = (Text((where,), tone="note"),) if where and figures else ()
    return Section("hardware", TITLE, (*head, *((Row(figures),) if figures else ()), *notes))


def collect(plan: Plan, bench: Bench) -> Hardware:
    """Collect the readings in order of size."""
    micro = plan.recipe.micro_batch_size if plan.recipe is not None else None
    loading = tuple((r.micro_batch_size, r.loading_time_s) for r in bench.readings if r.loading_time_s)
    compute = tuple((r.micro_batch_size, r.compute_time_s) for r in bench.readings if loading and r.compute_time_s)
    return Hardware(
        tuple(sorted((b, s) for b, s in bench.profile.step_time_s if s > 0)),
        tuple(sorted((b, m) for b, m in bench.profile.peak_memory_bytes if m > 0)),
        bench.limit_bytes if bench.limit_bytes is not None else bench.profile.capacity_bytes,
        bench.largest_micro_batch_size,
        bench.largest_verified,
        bench.memory_bound,
        plan.measured.hardware_knee,
        micro,
        step_time_of(bench).seconds(micro) if micro is not None and bench.profile.step_time_s else None,
        compute,
        loading,
        bench.loader_workers,
    )


def draw_step_time(data: Hardware) -> Figure:
    """Figure of the time of a step."""
    (small, fast), (large, slow) = data.times[0], data.times[-1]
    if len(data.times) == 1:
        caption = f"A step of {count(small)} examples takes {duration(fast)}; one reading cannot tell its fixed cost."
    else:
        caption = f"{count(large // max(1, small))} times the examples take {times(slow / fast)} the time: "
        caption += f"{duration(fast)} for a step of {count(small)}, {duration(slow)} for {count(large)}."
    if data.knee.value is not None:
        caption += f" Fixed and per-example cost are equal at the knee, {with_interval(data.knee, number)} examples."
    axis = log_axis([s for _, s in (*data.times, *data.compute, *data.loading)], duration)
    if not data.loading:
        return _draw("step-time", "time of a step (log scale)", data, data.times, axis, duration, caption)
    caption += " " + _parts_in_words(data)
    figure = _draw("step-time", "time of a step (log scale)", data, data.times, axis, duration, caption)
    parts = [(name, readings, colour) for name, readings, colour in _parts(data) if readings]
    drawn: list[Json] = []
    for name, readings, colour in parts:
        x, y = [float(b) for b, _ in readings], [s for _, s in readings]
        texts = [f"micro-batch size {count(b)}<br>{name} {duration(s)}" for b, s in readings]
        drawn += [line(x, y, colour=colour), points(x, y, texts, mark="small", colour=colour)]
    keys = (*(Key("line", colour, name) for name, _, colour in parts), *figure.keys)
    return Figure(figure.name, figure.title, (*drawn, *figure.data), figure.layout, figure.caption, keys)


def _parts(data: Hardware) -> tuple[tuple[str, tuple[tuple[int, float], ...], str], ...]:
    return ("computing", data.compute, MARKED), ("loading", data.loading, CENSORED)


def _parts_in_words(data: Hardware) -> str:
    """Both parts of the step of the largest size, and how they come together."""
    size, loading = data.loading[-1]
    if not data.compute:
        return f"Loading a batch of {count(size)} takes {duration(loading)}, which is part of its step."
    how = "a step waits for its batch, and takes both together"
    if data.workers:
        workers = plural(data.workers, "worker loads", "workers load")
        how = f"{workers} while a step computes, and a step takes the longer of the two"
    computing = dict(data.compute).get(size)
    return f"Of {count(size)} examples, computing takes {duration(computing)} and loading {duration(loading)}: {how}."


def draw_throughput(data: Hardware) -> Figure:
    """Figure of the throughput."""
    best_size, best = max(data.throughput, key=lambda pair: pair[1])
    first, last = _about_best(data.throughput)
    near = f"micro-batches from about {count(first)} to {count(last)} are within 10 % of that"
    if first == last:
        near = "no other size measured is within 10 % of that"
    caption = f"Up to {number(best)} examples/s, at {count(best_size)}; {near}."
    if data.micro is not None and data.micro_time_s is not None:
        here = data.micro / data.micro_time_s
        caption += (
            f" The recipe's micro-batch of {count(data.micro)} gets about {percent(min(1.0, here / best))} of it."
        )
    axis = value_axis([throughput for _, throughput in data.throughput])
    return _draw("throughput", "examples per second", data, data.throughput, axis, _throughput, caption)


def _about_best(throughput: Sequence[tuple[int, float]]) -> tuple[int, int]:
    """Smallest and largest size of the stretch around the best one in which all are within 10 % of it.

    >>> _about_best([(256, 5.0), (1024, 14.0), (2048, 14.5), (6000, 9.0), (8000, 14.4)])
    (1024, 2048)
    """
    rates = [rate for _, rate in throughput]
    first = last = rates.index(max(rates))
    while first > 0 and rates[first - 1] >= 0.9 * max(rates):
        first -= 1
    while last + 1 < len(rates) and rates[last + 1] >= 0.9 * max(rates):
        last += 1
    return throughput[first][0], throughput[last][0]


def draw_memory(data: Hardware) -> Figure:
    """Figure of peak memory against the limit."""
    checked = "verified by one real step" if data.verified else "predicted, not tried"
    caption = f"The largest micro-batch is {count(data.largest)} ({checked})"
    caption += "; memory sets it." if data.memory_bound else "; memory does not set it."
    last_size, last = data.memory[-1]
    if data.limit is not None:
        caption += f" A step of {count(last_size)} needs {bytes_(last)} of {bytes_(data.limit)}."
    close = data.limit is not None and data.limit <= 30 * last
    values = [m for _, m in data.memory] + ([float(data.limit)] if close and data.limit is not None else [])
    axis = memory_axis(values)
    figure = _draw("memory", "peak memory (log scale)", data, data.memory, axis, bytes_, caption, knee=False)
    if not close or data.limit is None:
        return figure
    figure.layout["shapes"].append(horizontal(data.limit, CENSORED))
    keys = (*figure.keys, Key("dash", CENSORED, f"limit {bytes_(data.limit)}"))
    return Figure(figure.name, figure.title, figure.data, figure.layout, figure.caption, keys)


def _throughput(x: float) -> str:
    return f"{number(x)} examples/s"


def _draw(
    name: str,
    title: str,
    data: Hardware,
    readings: Sequence[tuple[int, float]],
    axis: Json,
    format: Callable[[float], str],
    caption: str,
    *,
    knee: bool = True,
) -> Figure:
    x, y = [float(b) for b, _ in readings], [v for _, v in readings]
    texts = [f"micro-batch size {count(b)}<br>{format(v)}" for b, v in readings]
    traces = (line(x, y), points(x, y, texts))
    shapes: list[Json] = []
    keys: list[Key] = []
    sizes = list(x)
    if knee and data.knee.value is not None:
        shapes += vertical(data.knee.value, MARKED, dash="dash", low=data.knee.low, high=data.knee.high)
        keys.append(Key("dash", MARKED, "hardware knee"))
    if data.micro is not None:
        shapes += vertical(data.micro, RECIPE)
        sizes.append(data.micro)
        keys.append(Key("line", RECIPE, f"recipe's micro-batch: {count(data.micro)}"))
    frame = layout(batch_axis(sizes, "micro-batch size (log scale)", 5), axis, shapes=shapes, height=280)
    return Figure(name, title, traces, frame, caption, tuple(keys))
