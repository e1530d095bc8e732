"""How much memory a training step needs, and the largest micro-batch that fits: predicted, then verified by running it."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch.nn.modules.batchnorm import _BatchNorm

from ..device import is_out_of_memory
from ..errors import BatchscopeError, TaskError, UsageError
from ..fits.memory import MemoryModel, fit_memory
from ..records import MemorySplit, Reading
from ..trial import Trial, unique_bytes
from ..workload import Workload, preserved_random_state

__all__ = ["Capacity", "measure_capacity"]

HEADROOM = 0.08
"""Share of the limit kept free, for fragmentation and for what no counter sees."""

_HOP = 4
"""The next size is at most this many times the largest that was run: further out, the line is not trusted."""

_CLOSE_ENOUGH = 1.01
"""Within this factor of the largest size that could fit, another step is not worth its time."""

_SMALL_SIZES = (1, 2, 4)
_MOST_STEPS = 60


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the memory bench found."""

    readings: tuple[Reading, ...]
    split: MemorySplit
    model: MemoryModel
    smallest: int
    """The smallest micro-batch that the model can be trained with."""
    largest: int
    """The largest micro-batch that stays within the limit."""
    largest_run: int
    """The largest micro-batch at which a step was run and stayed within the limit."""
    memory_bound: bool
    device_seconds: float
    notes: tuple[str, ...]


def measure_capacity(
    workload: Workload,
    *,
    top: int,
    limit_bytes: int,
    seed: int = 0,
    longest_step_s: float = 2.0,
    progress: Callable[[str], None] | None = None,
) -> Capacity:
    """Find the largest micro-batch, of up to `top` examples, whose training step stays within `limit_bytes`.

    Steps are run at sizes that grow by four at most; after each, the line through the readings says how far the next
    may go, so that no step is tried that is expected to fail. A step is measured as the second micro-batch of an
    accumulated step: gradients and optimizer state exist already, the most that any recipe needs.

    Args:
        workload: the task on its device.
        top: the largest size of interest: the number of examples, or a user's cap.
        limit_bytes: memory that the step may take; 8 % of it stay free.
        seed: of the weights and the batches; the caller's generators are left as they were.
        longest_step_s: no step is run that is expected to take longer; the answer is then predicted, and says so.
        progress: receives a line before each step.

    Returns:
        Readings, model, split, the smallest size that runs and the largest that fits.

    Raises:
        UsageError: not even the smallest step fits.
        TaskError: a step fails for another reason at every small size.

    Cost: about log4(top) + 2 training steps; the largest dominates.
    """
    with preserved_random_state(seed):
        runner = _Runner(workload, seed=seed, progress=progress or (lambda line: None))
        smallest, note = _smallest(runner, top=top, limit_bytes=limit_bytes)
        search = _Search(runner=runner, top=top, limit_bytes=limit_bytes, longest_step_s=longest_step_s)
        search.notes += [note] if note else []
        search.grow(smallest)
        return search.result(smallest)


@dataclass(frozen=True, kw_only=True)
class _Step:
    size: int
    peak: int
    update_extra: int
    """What the optimizer took beyond all that stays."""
    seconds: float


class _Runner:
    """Runs single steps on a fresh model and reads their memory."""

    def __init__(self, workload: Workload, *, seed: int, progress: Callable[[str], None]) -> None:
        self.workload, self.seed, self.progress = workload, seed, progress
        self.device_seconds = 0.0
        self.trial = Trial(workload, seed=seed)
        self.weights = self.gradients = self.state = 0

    def run(self, size: int) -> _Step | None:
        """One step at a size; `None` if the device ran out of memory, all of which is given back then."""
        self.progress(f"memory of a step of {size} examples")
        started = self.workload.device.clock()
        try:
            return self._step(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        finally:
            self.device_seconds += self.workload.device.clock() - started
        del self.trial  # the error and its frames are gone here, so this frees what the failed step held
        gc.collect()
        self.workload.device.release()
        self.trial = Trial(self.workload, seed=self.seed)
        return None

    def _step(self, size: int) -> _Step:
        trial, device = self.trial, self.workload.device
        batch = trial.heaviest_batch(size)
        with device.memory_watch([*trial.lasting_tensors(), *trial.tensors_of(batch)]) as watch:
            started = device.clock()
            trial.optimizer.zero_grad(set_to_none=False)
            trial.gradients(batch)
            gradient_peak = watch.peak_bytes()
            watch.restart()
            trial.update()
            seconds = device.clock() - started
            update_peak = watch.peak_bytes()
        self.weights = unique_bytes(trial.weights())
        self.gradients = unique_bytes(trial.gradient_tensors())
        self.state = unique_bytes(trial.optimizer_state())
        extra = update_peak - self.lasting - unique_bytes(trial.tensors_of(batch))
        return _Step(size=size, peak=max(gradient_peak, update_peak), update_extra=max(0, extra), seconds=seconds)

    @property
    def lasting(self) -> int:
        """Bytes that stay between steps."""
        return self.weights + self.gradients + self.state


def _smallest(runner: _Runner, *, top: int, limit_bytes: int) -> tuple[int, str]:
    """The smallest size at which a step runs, and a note if that is not 1; leaves gradients and optimizer state made."""
    refusals: dict[int, Exception] = {}
    for size in (s for s in _SMALL_SIZES if s <= top):
        try:
            step = runner.run(size)
        except BatchscopeError:
            raise
        except Exception as error:  # noqa: BLE001 - a model may refuse a size with any exception
            refusals[size] = error
            continue
        if step is None:
            raise _nothing_fits(size, "the device ran out of memory", limit_bytes)
        if not refusals:
            return size, ""
        refused, error = list(refusals.items())[-1]
        return size, f"the smallest micro-batch is {size}: at {refused} the model refuses ({_first_line(error)})"
    sizes = ", ".join(map(str, refusals))
    error = list(refusals.values())[-1]
    raise TaskError(
        f"a training step fails at micro-batch size {sizes}: {type(error).__name__}: {_first_line(error)}; "
        "correct the model or loss() so that one step runs"
    ) from error


@dataclass(kw_only=True)
class _Search:
    runner: _Runner
    top: int
    limit_bytes: int
    longest_step_s: float
    steps: dict[int, _Step] = field(default_factory=dict)
    predicted: dict[int, float] = field(default_factory=dict)
    fits: int = 0
    """The largest size that was run and stayed within the limit."""
    fails: int = 0
    """The smallest size that did not."""
    too_slow: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def usable_bytes(self) -> float:
        return self.limit_bytes * (1.0 - HEADROOM)

    @property
    def model(self) -> MemoryModel:
        points = [(step.size, float(step.peak)) for step in self.steps.values()]
        return fit_memory(points, base_bytes=float(self.runner.lasting))

    def grow(self, smallest: int) -> None:
        """Run steps at growing sizes until the largest that fits is known."""
        self.fails = self.top + 1
        if not self.holds(smallest):
            seen = f"it needs {_mebibytes(self.steps[smallest].peak)}" if smallest in self.steps else "the device ran out of memory"
            raise _nothing_fits(smallest, seen, self.limit_bytes)
        for _ in range(_MOST_STEPS):
            size = self.next_size()
            if size is None:
                if self.fits == self.top or self.too_slow or self.holds(self.fits):
                    return  # a size that memory sets is run twice
                self.fits = max(size for size, step in self.steps.items() if step.peak <= self.usable_bytes)
                continue
            self.predicted[size] = self.model.peak_bytes(size)
            self.holds(size)

    def holds(self, size: int) -> bool:
        """Run a step; whether it stayed within the limit."""
        step = self.runner.run(size)
        if step is None:
            self.notes.append(f"a step of {size} examples ran out of memory although it was expected to fit; smaller ones were tried")
        else:
            known = self.steps.get(size)
            self.steps[size] = step if known is None or step.peak > known.peak else known
        if step is None or step.peak > self.usable_bytes:
            self.fails = min(self.fails, size)
            return False
        self.fits = max(self.fits, size)
        return True

    def next_size(self) -> int | None:
        """The next size to run, or `None` when no larger one is worth a step or may be run."""
        reach = min(self.top, self.model.largest_for(self.usable_bytes, most=self.top, cautious=True))
        if reach >= self.fails:
            reach = math.isqrt(self.fits * self.fails)
        size = min(reach, _HOP * self.fits)
        if size <= self.fits or (size < self.top and size <= self.fits * _CLOSE_ENOUGH):
            return None
        last = self.steps[self.fits]
        self.too_slow = last.seconds * size / last.size > self.longest_step_s
        return None if self.too_slow else size

    def result(self, smallest: int) -> Capacity:
        """What was found, in records."""
        model, runner = self.model, self.runner
        largest = self.fits
        if self.too_slow:
            largest = max(largest, min(self.fails - 1, model.largest_for(self.usable_bytes, most=self.top, cautious=True)))
        memory_bound = largest < self.top
        if largest > self.fits:
            self.notes.append(
                f"a step of {largest} examples was not run, because it would take over {self.longest_step_s:.3g} s; its memory "
                f"({_mebibytes(model.peak_bytes(largest))}) is predicted from steps of up to {self.fits} examples"
            )
        elif largest in self.predicted:
            self.notes.append(
                f"a step of {largest} examples was predicted to need {_mebibytes(self.predicted[largest])} "
                f"and needed {_mebibytes(self.steps[largest].peak)}"
            )
        if any(isinstance(module, _BatchNorm) for module in runner.trial.model.modules()):
            self.notes.append("BatchNorm normalises each micro-batch by itself: an accumulated batch is not the same as one large batch")
        method = "allocator peak" if runner.workload.device.keeps_peak else "bytes of living tensors"
        return Capacity(
            readings=tuple(
                Reading(micro_batch_size=s.size, step_time_s=None, peak_memory_bytes=s.peak, memory_method=method)
                for _, s in sorted(self.steps.items())
            ),
            split=MemorySplit(
                weights=runner.weights,
                gradients=runner.gradients,
                optimizer_state=runner.state,
                activations_per_example=model.per_example_bytes,
                optimizer_step_extra=max(step.update_extra for step in self.steps.values()),
                other=max(0, round(model.line_at_zero_bytes - model.base_bytes)),
            ),
            model=model,
            smallest=smallest,
            largest=largest,
            largest_run=self.fits,
            memory_bound=memory_bound,
            device_seconds=runner.device_seconds,
            notes=tuple([*runner.trial.notes, *self.notes]),
        )


def _nothing_fits(size: int, seen: str, limit_bytes: int) -> UsageError:
    return UsageError(
        f"not even a training step of {size} example{'s' if size > 1 else ''} fits: {seen}, and of the limit of "
        f"{_mebibytes(limit_bytes)} {HEADROOM:.0%} stay free; use a smaller model, a device with more memory, or raise --memory-limit"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:.4g} MiB"
