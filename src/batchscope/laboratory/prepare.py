"""Before a study: the task is tried, steps are timed and their memory read, the duration predicted. No run yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import OutOfMemory, TargetError, UsageError
from ..fits.memory import fit_memory
from ..fits.step_time import StepTime, fit_step_time
from ..hardware.device import Device, lack_of_memory_named
from ..hardware.live_bytes import tensors_in
from ..hardware.random_state import preserved_random_state
from ..hardware.step_times import measure_step_times
from ..probes.train_part import TrainPart
from ..store.metrics import target_metric, without_end
from ..store.records import Target
from ..store.runs import Store
from ..tasks.disposable_model import DisposableModel
from ..tasks.preflight.check import Preflight, check
from ..tasks.workload import Workload
from ..training.progress import Prediction, Progress
from .engine import Laboratory
from .records import Arm, NamedStudy, StudyQuestion

__all__ = ["StudyPrepared", "metric_of", "prediction_of", "prepare_study", "step_memory"]

_PACE_S = 4.0
_SMALL_SIZES = (4, 16)
"""Their memory is read first, so that the next size is foreseen before it is tried."""
_SPREAD = 1.5
_STOPS_AT = (0.03, 0.3, 1.0)
"""Where a run that stops early is expected to end, as a share of the most epochs: at least, typically, at most."""


@dataclass(frozen=True, kw_only=True)
class StudyPrepared:
    """What is known before the first run."""

    target: Target
    arms: tuple[Arm, ...]
    step_time: StepTime
    evaluation_s: float
    memory_bytes: tuple[tuple[int, float], ...]
    """Peak of one training step, by batch size."""
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Times:
    """Seconds of a training step by batch size, and of an evaluation, as they were read."""

    step_s: tuple[tuple[int, float], ...]
    evaluation_s: float


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What is measured once for a folder, as it stands in the note `measured`."""

    pace: _Times
    memory_bytes: tuple[tuple[int, float], ...]


def prepare_study(
    workload: Workload, question: StudyQuestion, named: NamedStudy, told: Progress, store: Store | None
) -> StudyPrepared:
    """Try the task, and measure; with a store, what was measured before is read, not measured again.

    Raises:
        TaskError: the task fails the preflight.
        TargetError: the metric is not there, or its direction is not known.
        UsageError: a batch size is larger than the training set, too small for the model, or too large for memory.
    """
    told.stage("checking the task")
    arms = tuple(named.arms(question, workload.examples))
    sizes = sorted({arm.batch_size for arm in arms})
    if sizes[-1] > workload.examples:
        raise UsageError(
            f"a batch size of {sizes[-1]} is larger than the training set of {workload.examples} examples; "
            f"give --batch-sizes of at most {workload.examples}"
        )
    preflight = check(workload)
    if sizes[0] < preflight.smallest_micro_batch_size:
        raise UsageError(
            f"a batch of {sizes[0]} example cannot be trained on by this model (batch normalisation); "
            f"give --batch-sizes of at least {preflight.smallest_micro_batch_size}"
        )
    target = metric_of(question.metric, preflight)
    measured = store.noted("measured", _Measured) if store else None
    part = TrainPart(workload, chunk=sizes[-1])
    refusal = part.why_not()
    if measured is None:
        told.stage("measuring step time and memory")
        measured = _measure(workload, sizes, question.memory_limit, preflight, None if refusal else part)
        if store:
            store.note("measured", measured)
    notes = [*preflight.notes, *([f"the training part is not evaluated: {refusal.reason}"] if refusal else [])]
    return StudyPrepared(
        target=target,
        arms=arms,
        step_time=fit_step_time(measured.pace.step_s),
        evaluation_s=measured.pace.evaluation_s,
        memory_bytes=measured.memory_bytes,
        notes=tuple(notes),
    )


def metric_of(asked: str | None, preflight: Preflight) -> Target:
    """The metric that choices are made by, as a target that no run reaches.

    `NAME:max` or `NAME:min` says which way a metric is better whose name does not say it.

    Raises:
        TargetError: there is no such metric, or the direction is not known.
    """
    there = sorted(preflight.metrics)
    if asked is None:
        return without_end(there)
    name, _, mode = asked.partition(":")
    if name not in there:
        raise TargetError(f"--metric {name!r} is not among what the task evaluates: {', '.join(there)}")
    if mode not in ("", "min", "max"):
        raise TargetError(f"--metric {asked!r} ends with {mode!r}; write {name}:min or {name}:max")
    if not mode:
        try:
            mode = "max" if target_metric([name])[1] else "min"
        except TargetError:
            raise TargetError(f"it is not known which way {name!r} is better; write {name}:min or {name}:max") from None
    end = without_end(["score"] if mode == "max" else ["loss"])
    return Target(metric=name, value=end.value, mode=end.mode)


def prediction_of(
    prepared: StudyPrepared,
    question: StudyQuestion,
    examples: int,
    budget_s: float,
    laboratory: Laboratory | None = None,
) -> Prediction:
    """How long the runs will take that are not there yet."""
    low = typical = high = 0.0
    runs = 0
    for arm in prepared.arms:
        left = [s for s in question.seeds if laboratory is None or not laboratory.made(arm, s)]
        least, usual, most = _seconds_of(arm, examples, prepared.step_time, prepared.evaluation_s)
        low, typical, high = low + len(left) * least, typical + len(left) * usual, high + len(left) * most
        runs += len(left)
    return Prediction(
        seconds=min(typical, budget_s),
        low=min(low, budget_s),
        high=min(high, budget_s),
        budget_s=budget_s,
        assumption=f"{runs} runs at the speed that was just measured"
        + ("" if typical <= budget_s else f"; all of them would take about {typical:.0f} s (--budget {typical:.0f}s)"),
    )


def _seconds_of(arm: Arm, examples: int, step_time: StepTime, evaluation_s: float) -> tuple[float, float, float]:
    length, step_s = arm.length, step_time.of_batch(arm.batch_size)
    steps = length.steps(examples, arm.batch_size)
    if steps is None:
        return length.amount, length.amount * 1.1, length.amount * _SPREAD
    evaluations = min(steps, max(30.0, steps * arm.batch_size / examples))
    whole = steps * step_s + evaluations * evaluation_s
    if length.unit == "until-stopped":
        least, usual, most = _STOPS_AT
        return whole * least, whole * usual, whole * most
    return whole / _SPREAD, whole, whole * _SPREAD


def _measure(
    workload: Workload, sizes: Sequence[int], limit: int | None, preflight: Preflight, part: TrainPart | None
) -> _Measured:
    memory = step_memory(workload, sizes, limit, smallest=preflight.smallest_micro_batch_size)
    readings = measure_step_times(workload, sizes, budget_s=_PACE_S).readings
    device, model = workload.device, workload.model(0)
    workload.evaluate(model)
    started = device.clock()
    workload.evaluate(model)
    if part is not None:
        part.measure(model)
    times = _Times(
        step_s=tuple((r.micro_batch_size, r.step_time_s) for r in readings if r.step_time_s is not None),
        evaluation_s=device.clock() - started,
    )
    return _Measured(pace=times, memory_bytes=memory)


def step_memory(
    workload: Workload, sizes: Sequence[int], limit: int | None = None, *, smallest: int = 1
) -> tuple[tuple[int, float], ...]:
    """Peak memory of one training step, with weights, gradients, optimizer state and batch, at each batch size.

    Args:
        workload: the task on its device.
        sizes: increasing.
        limit: bytes that a step may take; default: what is free on the device.
        smallest: batch that the model can be trained on.

    Returns:
        Batch sizes and bytes.

    Raises:
        UsageError: a step does not fit; a size is not tried whose need, on the line through the two before it, is
            beyond the limit.

    Cost: two training steps at each size, and at two small ones.
    """
    bound = workload.device.free_bytes() if limit is None else limit
    first = {s for s in _SMALL_SIZES if smallest <= s < sizes[-1]}
    readings: list[tuple[int, float]] = []
    for size in sorted({*sizes, *first}):
        expected = fit_memory(readings).peak_bytes(size) if len(readings) > 1 else 0.0
        needed = expected if expected > bound else _peak(workload, size, readings)
        if needed > bound:
            raise _does_not_fit(workload.device, size, needed, bound, [s for s in sizes if s < size])
        readings.append((size, needed))
    return tuple((size, peak) for size, peak in readings if size in sizes)


def _peak(workload: Workload, size: int, readings: Sequence[tuple[int, float]]) -> float:
    try:
        with preserved_random_state(0), lack_of_memory_named(workload.device, size):
            disposable = DisposableModel(workload, seed=0)
            batch = disposable.largest_batch(size)
            disposable.gradients(batch)
            disposable.update()
            disposable.optimizer.zero_grad(set_to_none=True)
            with workload.device.memory_watch([*disposable.lasting_tensors(), *tensors_in(batch)]) as watch:
                disposable.gradients(batch)
                disposable.update()
                return float(watch.peak_bytes())
    except OutOfMemory:
        return math.inf


def _does_not_fit(device: Device, size: int, needed: float, bound: int, smaller: Sequence[int]) -> UsageError:
    need = "more than there is" if math.isinf(needed) else f"about {needed / 2**20:.0f} MiB"
    advice = f"give --batch-sizes of at most {smaller[-1]}" if smaller else "give smaller --batch-sizes"
    return UsageError(
        f"a training step at batch size {size} needs {need} on {device.name}, and {bound / 2**20:.0f} MiB may be used; "
        f"{advice}"
    )
