"""Made-up searches: runs whose steps to target follow a known law, on hardware with a known step time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from batchscope.fits.step_time import accumulation, step_time_of
from batchscope.search.question import Question
from batchscope.search.state import SearchState
from batchscope.store.records import (
    Bench,
    Environment,
    HardwareProfile,
    RateRange,
    Reading,
    RunStatus,
    Target,
)
from batchscope.store.runs import StoredRun
from batchscope.testing import evaluation, stored_run

TARGET = Target(metric="val_loss", value=0.5, mode="min")
EXAMPLES = 1000
S_MIN, CRITICAL, LR_MAX, SHAPE = 100.0, 64.0, 0.4, 0.5
FIXED_S, PER_EXAMPLE_S = 1e-3, 1e-5
"""Step time 1 ms (1 + B / 100)."""
SIZES = (1, 4, 16, 64, 256, 1024)
ENVIRONMENT = Environment(
    batchscope="0",
    python="3",
    torch=None,
    numpy="2",
    platform="made up",
    device="cpu",
    device_name="made up",
    cpu_count=1,
    threads=1,
)
TRIED = ((64, 0.2), (64, 0.1), (64, 0.4), (128, 0.27), (16, 0.08), (256, 0.32))


def best_lr(batch_size: float) -> float:
    return LR_MAX / (1 + CRITICAL / batch_size)


def true_steps(batch_size: float, lr: float) -> float:
    """Infinite beyond the edge."""
    x = lr / best_lr(batch_size)
    progress = x * ((1 + 1 / SHAPE) - x**SHAPE / SHAPE)
    return S_MIN * (1 + CRITICAL / batch_size) / progress if progress > 0 else math.inf


def step_time(batch_size: int) -> float:
    return FIXED_S + PER_EXAMPLE_S * batch_size


def metric(step: int, steps: float) -> float:
    """Linear in log steps, so that interpolation finds the passage at `steps` exactly."""
    return TARGET.value * (1 + 0.1 * (math.log(steps) - math.log(max(step, 0.5))))


def run(
    batch_size: int,
    lr: float,
    *,
    steps: float | None = None,
    most: int = 100_000,
    status: RunStatus | None = None,
    wobble: tuple[int, int] | None = None,
    largest_micro: int = 1024,
    slower: float = 1.0,
    step_s: float | None = None,
    **config: Any,
) -> StoredRun:
    """A run that needs `steps` (default: the law's), ends after `most`, and does not improve over `wobble`.

    By its own clock a step takes `step_s`, or `slower` times what it does in the bench.
    """
    needed = true_steps(batch_size, lr) if steps is None else steps
    ending = status or (RunStatus.REACHED if needed <= most else RunStatus.OUT_OF_STEPS)
    course, step = [0], 0
    while step < min(needed, most):
        step = min(max(step + 1, int(step * 1.05)), most)
        course.append(step)
    values = [metric(s, min(needed, 1e9)) for s in course]
    if wobble is not None:
        held = metric(wobble[0], needed)
        values = [held + 1e-6 if wobble[0] < s < wobble[1] else v for s, v in zip(course, values, strict=True)]
    rows = [
        evaluation(
            s,
            {TARGET.metric: v},
            batch_size=batch_size,
            train_loss=v,
            device_seconds=s * (step_s or slower * step_time(batch_size)),
        )
        for s, v in zip(course, values, strict=True)
    ]
    micro, parts = accumulation(batch_size, largest_micro)
    return stored_run(
        batch_size,
        lr,
        rows,
        status=ending,
        steps_to_target=needed if ending is RunStatus.REACHED else None,
        result={"best_step": step},
        micro_batch_size=micro,
        grad_accum_steps=parts,
        target=TARGET,
        max_steps=most,
        **config,
    )


def bench(largest: int = 1024, memory_bound: bool = False, update_s: float = 0.0) -> Bench:
    times = tuple((size, step_time(size)) for size in SIZES)
    readings = [
        Reading(micro_batch_size=size, step_time_s=seconds, gradient_time_s=seconds - update_s)
        for size, seconds in times
    ]
    return Bench(
        profile=HardwareProfile(
            name="made up", step_time_s=times, peak_memory_bytes=tuple((s, 1e6 + 1e3 * s) for s in SIZES)
        ),
        readings=tuple(readings),
        split=None,
        largest_micro_batch_size=largest,
        largest_verified=True,
        memory_bound=memory_bound,
        device_seconds=0.25,
    )


def loading_bench(example_s: float, workers: int = 0) -> Bench:
    """A bench whose loader takes so long for an example in each worker."""
    plain, pace = bench(), example_s / max(1, workers)
    readings = tuple(
        replace(
            reading,
            step_time_s=max(compute, pace * reading.micro_batch_size)
            if workers
            else compute + pace * reading.micro_batch_size,
            compute_time_s=compute,
            loading_time_s=pace * reading.micro_batch_size,
        )
        for reading in plain.readings
        if (compute := reading.step_time_s) is not None
    )
    times = tuple((r.micro_batch_size, r.step_time_s) for r in readings if r.step_time_s is not None)
    return replace(plain, readings=readings, profile=replace(plain.profile, step_time_s=times), loader_workers=workers)


def search(runs: Iterable[StoredRun] | None = None, **changes: Any) -> SearchState:
    """The state of a search; `changes` go to the question where it has such a member, else to the state."""
    asked = {key: changes.pop(key) for key in list(changes) if key in Question.__dataclass_fields__ and key != "target"}
    measured = step_time_of(changes.get("bench") or bench())
    defaults: dict[str, Any] = {
        "task": "made-up",
        "question": Question(target=TARGET, **asked),
        "target": TARGET,
        "examples": EXAMPLES,
        "bench": bench(),
        "bench_counts": True,
        "rate_range": RateRange(
            batch_size=64, ceiling_lr=2.0, broke=True, normalised=False, lrs=(1.0, 2.0), losses=(1.0, None), steps=20
        ),
        "runs": tuple(runs) if runs is not None else tuple(run(b, lr, step_s=measured.of_batch(b)) for b, lr in TRIED),
        "seconds": 12.0,
        "environment": ENVIRONMENT,
    }
    return SearchState(**(defaults | changes))


def without_result(unfinished: StoredRun) -> StoredRun:
    return replace(unfinished, result=None)
