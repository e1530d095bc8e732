"""Before the first run: the task is tried, steps are timed and their memory read, the duration is predicted.

Every command that measures prepares here, from plain arguments. What was measured is kept in the results folder
(`bench.json`, `timing.json`), and read there when the command goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ..errors import OutOfMemory, UsageError
from ..fits.step_time import StepTime, fit_step_time
from ..hardware.bench import measure
from ..hardware.device import Device
from ..hardware.host_memory import load_libraries
from ..hardware.profile import bench_from_profile
from ..hardware.step_memory import measure_step_memory
from ..hardware.step_times import measure_step_times
from ..hardware.time_limit import NO_LIMIT, TimeLimit
from ..hardware.training_guess import TrainingGuess
from ..hardware.trying import STEP_TIMES
from ..store.records import Bench, HardwareProfile, Metric, Target, Timing
from ..store.runs import Store
from ..tasks.loading import LoadedTask
from ..tasks.preflight.check import Preflight, check
from ..tasks.preflight.constant import ConstantPrediction, best_constant
from ..tasks.workload import Workload
from .attempts import CHECK, CONSTANT, Trials
from .forked_trial import CopyDied
from .progress import Progress, Silent
from .timing import PRIOR_CRITICAL_BATCH_SIZE, timing_of

__all__ = [
    "PRIOR_CRITICAL_BATCH_SIZE",
    "Prepared",
    "Wanted",
    "bench_of",
    "check_task",
    "prepare",
    "with_constant",
    "workload_of",
]

_MOST_BENCH_S, _BENCH_SHARE = 16.0, 0.25
_SHARE_FOR_CONSTANT, _SHARE_FOR_BENCH = 0.1, 0.35
"""Of the time that is left when each begins: for the constant prediction, and the bench."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a command wants to know before its first run."""

    budget_s: float
    """Seconds that the whole command may take."""
    batch_sizes: tuple[int, ...] = ()
    """Where steps are timed and their memory is read; empty: over all micro-batches that fit."""
    memory: bool = True
    """Whether memory is read at `batch_sizes` at all."""
    profile: HardwareProfile | None = None
    """The hardware that the answer is for; of this machine only a few steps are timed then."""
    max_batch_size: int | None = None
    """No larger batch is of interest; default: the training set."""
    memory_limit: int | None = None
    """Bytes that a step may take; default: what is free on the device."""
    target: Target | None = None
    """That training is to reach, tried on the metrics of the task."""
    metric: Metric | None = None
    """That runs without a target are judged by, as it was asked for."""
    lr: float | None = None
    """That the optimizer is tried at."""
    seed: int = 0
    """Of the weights and batches of the bench."""
    training: TrainingGuess | None = None
    """That all this serves: steps that are long beside it are not run."""
    timing_s: float | None = None
    """Seconds that timing may take; default: a quarter of the budget, at most 16."""
    until: TimeLimit = NO_LIMIT
    """Of the command: each measurement has a share of what is left when it begins."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known before the first run."""

    preflight: Preflight
    bench: Bench
    timing: Timing

    @property
    def step_time(self) -> StepTime:
        """Seconds of a step by batch size, fitted to those that were timed; a step is one micro-batch."""
        return fit_step_time(self.bench.profile.step_time_s)


def workload_of(loaded: LoadedTask, device: Device, until: TimeLimit = NO_LIMIT) -> Workload:
    """A task as it was loaded, on its device, with its training data.

    Raises:
        OutOfTime: the time ended before they were there.
    """
    with until.spending("making the training data"):
        return Workload(loaded.task, name=loaded.name, settings=loaded.settings, device=device, until=until)


def prepare(
    workload: Workload,
    wanted: Wanted,
    *,
    preflight: Preflight | None = None,
    at_evaluation: Callable[[nn.Module], object] | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
    bench_note: str = "bench",
) -> Prepared:
    """Try the task, time steps and an evaluation, and read memory.

    Args:
        workload: the task on its device.
        wanted: what is to be known.
        preflight: of `check_task`, where the caller had to look at it first.
        at_evaluation: what is measured of the model at each evaluation beside the task's metrics, and is timed with it.
        store: what was measured before is read there, and what is measured now is kept.
        progress: hears what happens.
        bench_note: name under which the bench is kept: another bench of the same folder has another.

    Raises:
        TaskError: the task fails the preflight.
        TargetError: the target cannot be used with this task.
        UsageError: a batch size makes no sense, or a step does not fit into memory.
        OutOfTime: the time ended before it was known what a step and an evaluation take.
    """
    progress = progress or Silent()
    preflight = preflight or check_task(workload, wanted, progress, store)
    if store:
        _load_as_before(workload, store)
    bench = store.read_note(bench_note, Bench) if store else None
    if bench is None or (store and bench.cut_short and not store.runs()):
        bench = bench_of(workload, wanted, preflight, progress, store=store, note=bench_note)
        if store:
            store.note(bench_note, bench)
    timing = store.read_note("timing", Timing) if store else None
    if timing is None:
        with (
            wanted.until.spending("timing an evaluation"),
            workload.limited(wanted.until),
            Trials(store, workload.device).of("the timing of an evaluation"),
        ):
            timing = timing_of(
                workload,
                preflight,
                bench,
                at_evaluation,
                budget_s=wanted.budget_s,
                elsewhere=wanted.profile is not None,
                at_sizes=bool(wanted.batch_sizes),
                until=wanted.until,
            )
        if store:
            store.note("timing", timing)
    return Prepared(preflight=preflight, bench=bench, timing=timing)


@dataclass(frozen=True, kw_only=True)
class _Loader:
    """Loader workers that were chosen by the time that an example takes."""

    workers: int


def _load_as_before(workload: Workload, store: Store) -> None:
    """Load with as many workers as the first command on the folder did.

    They are chosen by the clock, and what examples draw at random depends on whether workers load them: only so a run
    that goes on in another process comes to the same steps.
    """
    known = store.read_note("loader", _Loader)
    if known is None:
        store.note("loader", _Loader(workers=workload.loader_workers))
    else:
        workload.load_with(known.workers)


def check_task(
    workload: Workload, wanted: Wanted, progress: Progress | None = None, store: Store | None = None
) -> Preflight:
    """Try the task on a few examples, and refuse batch sizes that it cannot be trained with. Errors of `prepare`."""
    (progress or Silent()).stage("checking the task")
    sizes, examples = wanted.batch_sizes, workload.largest_batch(max(wanted.batch_sizes, default=None))
    if sizes and max(sizes) > examples:
        raise UsageError(
            f"a batch size of {max(sizes)} is larger than the training set of {examples} examples; "
            f"give --batch-sizes of at most {examples}"
        )
    trials = Trials(store, workload.device)
    with wanted.until.spending("checking the task"):
        how: dict[str, Any] = {"target": wanted.target or wanted.metric, "lr": wanted.lr, "until": wanted.until}
        how["trying"] = lambda examples: trials.of(CHECK, examples)
        preflight = check(workload, max_batch_size=wanted.max_batch_size, **how)
    if sizes and min(sizes) < preflight.smallest_micro_batch_size:
        raise UsageError(
            f"a batch of {min(sizes)} example cannot be trained on by this model (batch normalisation); "
            f"give --batch-sizes of at least {preflight.smallest_micro_batch_size}"
        )
    return preflight


def with_constant(
    workload: Workload, preflight: Preflight, store: Store | None = None, until: TimeLimit = NO_LIMIT
) -> Preflight:
    """The preflight with the metrics of the best constant prediction, which a results folder keeps.

    Raises:
        TaskError: there is nothing to learn, as `best_constant` says.
    """
    found = store.read_note("constant-prediction", ConstantPrediction) if store else None
    if found is None:
        share = until.share(_SHARE_FOR_CONSTANT)
        late = preflight.evaluation_s > share.left_s
        try:
            with until.spending("fitting constant predictions"), Trials(store, workload.device).of(CONSTANT):
                found = ConstantPrediction(cut_short=True) if late else best_constant(workload, share)
        except OutOfMemory as error:
            if isinstance(error.__cause__, Exception) and not isinstance(error.__cause__, CopyDied):
                raise
            note = f"no constant prediction was evaluated: {error}"
            return replace(preflight, notes=(*preflight.notes, note))
        if store and not found.cut_short:
            store.note("constant-prediction", found)
    return replace(preflight, constant=found.metrics, notes=(*preflight.notes, *found.notes))


def bench_of(
    workload: Workload,
    wanted: Wanted,
    preflight: Preflight,
    progress: Progress | None = None,
    *,
    each: bool = False,
    store: Store | None = None,
    note: str = "bench",
) -> Bench:
    """Step time and memory of this machine, or of a profile's.

    Args:
        workload: the task on its device.
        wanted: at which batch sizes, within which limits.
        preflight: of the task.
        progress: hears what happens.
        each: whether it hears of each part.
        store: where steps are announced; what killed an earlier process there is not tried again.
        note: name under which the bench is kept there.

    Raises:
        UsageError: a step does not fit into memory, or a limit makes no sense.
    """
    progress = progress or Silent()
    progress.stage("reading the hardware profile" if wanted.profile else "measuring step time and memory")
    load_libraries()
    wanted.until.require()
    trials = Trials(store, workload.device)
    with wanted.until.spending("measuring step time and memory"):
        if wanted.batch_sizes:
            return _bench_at(workload, sorted(wanted.batch_sizes), wanted, preflight, trials)
        if wanted.profile is None:
            if why := trials.note(note):
                progress.stage(why)
            return _bench(workload, wanted, preflight, trials, progress.stage if each else None, why)
        return bench_from_profile(
            wanted.profile,
            examples=preflight.max_batch_size,
            max_batch_size=preflight.max_batch_size,
            memory_limit=wanted.memory_limit,
        )


def _bench(
    workload: Workload,
    wanted: Wanted,
    preflight: Preflight,
    trials: Trials,
    progress: Callable[[str], None] | None,
    why: str,
) -> Bench:
    """Step time and memory over all micro-batches that fit; `why` an earlier process died is noted."""
    trials.refuse_all(preflight.smallest_micro_batch_size)
    bench = measure(
        workload,
        max_batch_size=preflight.max_batch_size,
        memory_limit=wanted.memory_limit,
        seed=wanted.seed,
        budget_s=wanted.timing_s or min(_MOST_BENCH_S, _BENCH_SHARE * wanted.budget_s),
        training=wanted.training,
        until=wanted.until if progress else wanted.until.share(_SHARE_FOR_BENCH),
        progress=progress,
        trying=trials,
        most=trials.most,
    )
    if not bench.largest_verified and (most := trials.most_unproven) is not None:
        bench = replace(bench, largest_micro_batch_size=max(most, bench.smallest_micro_batch_size), memory_bound=True)
    return replace(bench, notes=(*bench.notes, why)) if why else bench


def _bench_at(workload: Workload, sizes: Sequence[int], wanted: Wanted, preflight: Preflight, trials: Trials) -> Bench:
    """Step time and memory at given batch sizes, each one micro-batch."""
    smallest = preflight.smallest_micro_batch_size
    until = wanted.until.share(_SHARE_FOR_BENCH)
    how: dict[str, Any] = {"smallest": smallest, "trying": trials, "most": trials.most, "until": until.share(0.5)}
    memory = measure_step_memory(workload, sizes, wanted.memory_limit, **how) if wanted.memory else ()
    budget_s = min(wanted.timing_s or _MOST_BENCH_S, _BENCH_SHARE * wanted.budget_s)
    with trials.of(STEP_TIMES, sizes[-1]):
        times = measure_step_times(workload, sizes, seed=wanted.seed, budget_s=budget_s, until=until)
    profile = HardwareProfile(
        name=workload.device.name,
        step_time_s=tuple((r.micro_batch_size, r.step_time_s) for r in times.readings if r.step_time_s is not None),
        loading_time_s=tuple((r.micro_batch_size, r.loading_time_s) for r in times.readings if r.loading_time_s),
        peak_memory_bytes=memory,
    )
    peaks = {size: round(peak) for size, peak in memory}
    return Bench(
        profile=profile,
        readings=tuple(replace(r, peak_memory_bytes=peaks.get(r.micro_batch_size)) for r in times.readings),
        split=None,
        largest_micro_batch_size=sizes[-1],
        largest_verified=wanted.memory,
        smallest_micro_batch_size=smallest,
        device_seconds=times.device_seconds,
        notes=times.notes,
        disturbance=times.disturbance,
        loader_workers=workload.loader_workers,
        loader_options=workload.loader_options,
        in_memory=workload.in_memory,
        cut_short=times.short or (wanted.memory and len(memory) < len(sizes)),
    )
