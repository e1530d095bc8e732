"""A measurement by itself, kept in a results folder: what `batchscope bench` and `batchscope noise` do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..fits.step_time import step_time_of
from ..hardware.device import Device, within_memory_of
from ..hardware.random_state import preserved_random_state
from ..store.quantities import checked_members
from ..store.question import asked_of
from ..store.records import Bench, Estimate
from ..store.runs import Store
from ..tasks.loading import LoadedTask
from .attempts import Trials
from .limits import deadline_of, named_out_of_time
from .noise import NoiseReport, measure_noise
from .prepare import Wanted, bench_of, check_task, workload_of
from .progress import Progress, Silent
from .unwritten import ANSWER, Hears, if_possible, logged

__all__ = ["BenchLimits", "NoiseRun", "hardware_knee", "keep_bench", "keep_noise", "question_of"]

_MOST_BENCH_S = 60.0


@dataclass(frozen=True, kw_only=True)
class BenchLimits:
    """What a bench stays within.

    Attributes:
        max_batch_size: no larger micro-batch is tried; default: the training set.
        memory_limit: bytes that a step may take; default: what is free on the device.
        seed: of the weights and the batches.
    """

    max_batch_size: int | None = None
    memory_limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {"max_batch_size": "--max-batch-size", "memory_limit": "--memory-limit"}
        checked_members(self, whole=limits)


@dataclass(frozen=True, kw_only=True)
class NoiseRun:
    """The run that the noise scale is measured along.

    Attributes:
        lr: learning rate; default: found by a short test.
        batch_size: examples a step; default: 64, less on a small data set.
        steps: its length.
        seed: of the weights and of the order of the examples.
    """

    lr: float | None = None
    batch_size: int | None = None
    steps: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        whole = {"batch_size": "--batch-size", "steps": "--steps"}
        checked_members(self, whole=whole, finite={"lr": "--lr"})


def question_of(command: str, loaded: LoadedTask, device: Device, what: BenchLimits | NoiseRun) -> dict[str, Any]:
    """Everything that makes a measurement another one; a results folder holds one."""
    return asked_of(command, loaded.identity(str(device.torch_device)), **vars(what))


def keep_bench(
    loaded: LoadedTask,
    limits: BenchLimits,
    *,
    out: Path,
    device: Device,
    budget_s: float,
    started: float | None = None,
    progress: Progress | None = None,
    unwritten: Hears = logged,
) -> Bench:
    """Measure memory and step time, and write `bench.json`; an earlier one in the folder is replaced.

    Args:
        loaded: the task.
        limits: what the bench stays within.
        out: results folder.
        device: where it runs.
        budget_s: how many seconds it may take; at most 60 of them go to steps.
        started: when the command began, on the device's wall clock; default: now.
        progress: hears what happens.
        unwritten: hears that the file could not be written; what was measured is returned all the same.

    Raises:
        TaskError: the task fails the preflight.
        UsageError: a limit makes no sense, or not even the smallest step fits.
        StoreError: the folder cannot be used.
        OutOfMemory: something does not fit into memory.
        OutOfTime: the budget ended before a step was timed.
    """
    deadline = deadline_of(device, budget_s, started)
    with within_memory_of(device), named_out_of_time(deadline, budget_s):
        asked = question_of("bench", loaded, device, limits)
        timing_s = min(budget_s, _MOST_BENCH_S)
        wanted = Wanted(budget_s=budget_s, timing_s=timing_s, until=deadline, **vars(limits))
        with preserved_random_state(limits.seed), Store(out, asked) as store:
            workload = workload_of(loaded, device, deadline)
            preflight = check_task(workload, wanted, progress, store)
            bench = bench_of(workload, wanted, preflight, progress, each=True, store=store)
            bench = replace(bench, notes=(*preflight.notes, *bench.notes))
            with if_possible(unwritten, ANSWER):
                store.answer("bench", bench)
        return bench


def keep_noise(
    loaded: LoadedTask,
    run: NoiseRun,
    *,
    out: Path,
    device: Device,
    budget_s: float,
    started: float | None = None,
    progress: Progress | None = None,
    unwritten: Hears = logged,
) -> NoiseReport:
    """Measure the gradient noise scale along a short run, and write `noise.json`; an earlier one is replaced.

    Args:
        loaded: the task.
        run: the run that it is measured along.
        out: results folder.
        device: where it runs.
        budget_s: seconds on the clock.
        started: when the command began, on the device's wall clock; default: now.
        progress: hears what happens.
        unwritten: hears that the file could not be written; what was measured is returned all the same.

    Raises:
        TaskError: the task fails the preflight, or its examples are not independent of one another.
        UsageError: the learning rate, the batch size or the number of steps makes no sense.
        StoreError: the folder cannot be used.
        OutOfMemory: something does not fit into memory.
        OutOfTime: the budget ended before the run began.
    """
    deadline = deadline_of(device, budget_s, started)
    with within_memory_of(device), named_out_of_time(deadline, budget_s):
        progress = progress or Silent()
        asked = question_of("noise", loaded, device, run)
        with preserved_random_state(run.seed), Store(out, asked) as store:
            workload = workload_of(loaded, device, deadline)
            progress.stage("training a short run")
            with Trials(store, device).of("the short run"):
                how: dict[str, Any] = {"budget_s": budget_s, "deadline": deadline, "on_row": progress.row}
                report = measure_noise(workload, **vars(run), **how)
            with if_possible(unwritten, ANSWER):
                store.answer("noise", report)
        return report


def hardware_knee(bench: Bench) -> Estimate:
    """Fixed ÷ per-example cost of a step, in examples."""
    return step_time_of(bench).hardware_knee
