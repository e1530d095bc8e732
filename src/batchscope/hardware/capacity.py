"""Memory capacity: the largest micro-batch that fits, and what a step needs: predicted, then verified by a step."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from ..errors import BatchscopeError, OutOfMemory, TaskError, UsageError
from ..fits.memory import HEADROOM, MemoryModel, fit_memory
from ..store.records import MemorySplit, Reading
from ..wording import bytes_
from .device import is_out_of_memory
from .live_bytes import tensors_in, unique_bytes
from .random_state import preserved_random_state
from .step import MeasuredTask
from .step_memory import StepMemory, read_step
from .time_limit import NO_LIMIT, TimeLimit
from .training_guess import TrainingGuess
from .trying import STEP, Trying, unannounced

__all__ = ["Capacity", "measure_capacity"]

_HOP = 4
"""The next size is at most this many times the largest that was run: further out, the line is not trusted."""

_FAR_HOP = 16
"""The same while memory that grew with the square of the size would still stay within the limit."""

_CLOSE_ENOUGH = 1.01
"""Within this factor of the largest size that could fit, another step is not worth its time."""

_SMALL_SIZES = (1, 2, 4)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_MOST_STEPS = 60
_LEAST_GROWTH = 0.1
"""Of growth in proportion to the examples: so much a step is expected to grow where two sizes show less."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Result of the memory bench."""

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
    short: bool = False
    """Whether the time was too short for larger steps."""


def measure_capacity(
    workload: MeasuredTask,
    *,
    top: int,
    limit_bytes: int,
    seed: int = 0,
    longest_step_s: float = 2.0,
    training: TrainingGuess | None = None,
    until: TimeLimit = NO_LIMIT,
    progress: Callable[[str], None] | None = None,
    trying: Trying = unannounced,
    most: int | None = None,
) -> Capacity:
    """Find the largest micro-batch, of up to `top` examples, whose training step stays within `limit_bytes`.

    Steps are run at sizes that grow by four at most (by sixteen where not even growth with the square of the size would
    reach the limit); after each, the readings say how far the next may go, so that no step is tried that could fail. A
    step is measured as the second micro-batch of an accumulated step: gradients and optimizer state exist already,
    which is the most that any recipe needs.

    Args:
        workload: the task on its device.
        top: the largest size of interest: the number of examples, or a user's cap.
        limit_bytes: memory that the step may take; 8 % of it stay free.
        seed: of the weights and the batches; the caller's generators are left as they were.
        longest_step_s: no step is run that is expected to take longer; the answer is then predicted, and says so.
        training: that the answer serves, where there is one: no step is run that takes too large a share of it.
        until: no step but the first two is run that is expected to end after it; the answer is then predicted, too.
        progress: receives a line before each step.
        trying: announces each step.
        most: no larger step is tried, though one might fit: an earlier process died in it.

    Returns:
        Readings, model, split, the smallest size that runs and the largest that fits.

    Raises:
        UsageError: not even the smallest step fits.
        TaskError: a step fails for another reason at every small size.

    Cost: about log16(top) + 3 training steps; the largest dominates.
    """
    tried = top if most is None else min(top, most)
    with preserved_random_state(seed):
        runner = _Runner(workload, seed=seed, progress=progress or (lambda line: None), trying=trying)
        smallest, note = _smallest(runner, top=tried, limit_bytes=limit_bytes)
        search = _Search(
            runner=runner,
            top=tried,
            limit_bytes=limit_bytes,
            longest_step_s=longest_step_s,
            training=training,
            until=until,
        )
        search.notes += [note] if note else []
        search.grow(smallest)
        return search.result(smallest, top)


class _Runner:
    """Runner of single steps on a fresh model and reads their memory."""

    def __init__(self, workload: MeasuredTask, *, seed: int, progress: Callable[[str], None], trying: Trying) -> None:
        self.workload, self.seed, self.progress, self.trying = workload, seed, progress, trying
        self.device_seconds, self.survived, self.killed = 0.0, 0, False
        self.disposable = workload.disposable(seed)
        self.weights = self.gradients = self.state = self.update_extra = 0

    def run(self, size: int) -> StepMemory | None:
        """Run one step at a size; `None` if memory ran out, all of which is given back then, or it killed."""
        self.progress(f"memory of a step of batch size {size}")
        try:
            with self.trying(STEP, size, self.survived):
                step = self._step(size)
            self.survived = max(self.survived, size)
            return step
        except OutOfMemory:  # of `trying`
            self.killed = True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.killed = False
        del self.disposable  # the error and its frames are gone here, so this frees what the failed step held
        gc.collect()
        self.workload.device.release()
        self.disposable = self.workload.disposable(self.seed)
        return None

    def _step(self, size: int) -> StepMemory:
        disposable = self.disposable
        batch = disposable.largest_batch(size)
        step = read_step(disposable, batch, accumulated=True)
        self.device_seconds += step.seconds
        self.weights = unique_bytes(disposable.weights())
        self.gradients = unique_bytes(disposable.gradient_tensors())
        self.state = unique_bytes(disposable.optimizer_state())
        batch_bytes = unique_bytes(tensors_in(batch))
        self.update_extra = max(self.update_extra, step.update_peak - self.lasting - batch_bytes)
        return step

    @property
    def seen(self) -> str:
        """How the last step failed."""
        return "it killed the process that tried it" if self.killed else "the device ran out of memory"

    @property
    def lasting(self) -> int:
        """Bytes that stay between steps."""
        return self.weights + self.gradients + self.state


def _smallest(runner: _Runner, *, top: int, limit_bytes: int) -> tuple[int, str]:
    """The smallest size at which a step runs, and a note if that is not 1.

    That step makes the gradients and the optimizer state; it loads libraries too, so its time does not count.
    """
    refusals, sizes = dict[int, str](), [s for s in _SMALL_SIZES if s <= top]
    for size in sizes:
        try:
            step = runner.run(size)
        except Exception as error:  # a model may refuse a size with any exception
            if isinstance(error, BatchscopeError) and not isinstance(error, TaskError):
                raise
            refusals[size] = _first_line(error)
            if size == sizes[-1]:
                raise TaskError(
                    f"a training step fails at micro-batch size {', '.join(map(str, sizes))}: {refusals[size]}; "
                    "correct the model or loss() so that one step runs"
                ) from error
            continue
        if step is None:
            raise _nothing_fits(size, runner.seen, limit_bytes)
        runner.device_seconds = 0.0
        if not refusals:
            return size, ""
        refused, why = list(refusals.items())[-1]
        return size, f"the smallest micro-batch is {size}: at {refused} the model refuses ({why})"
    raise AssertionError(f"no micro-batch size was tried up to {top}")


@dataclass(kw_only=True)
class _Search:
    runner: _Runner
    top: int
    limit_bytes: int
    longest_step_s: float
    training: TrainingGuess | None = None
    until: TimeLimit = NO_LIMIT
    took_s: float = 0.0
    """Of the latest step by the clock, with making its batch."""
    short: bool = False
    """Whether no time was left for a larger step."""
    steps: dict[int, StepMemory] = field(default_factory=dict)
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
        points = [(size, float(step.gradient_peak)) for size, step in self.steps.items()]
        floor = max(step.update_peak for step in self.steps.values())
        return fit_memory(points, base_bytes=float(self.runner.lasting), floor_bytes=float(floor))

    def grow(self, smallest: int) -> None:
        """Run steps at growing sizes until the largest that fits is known."""
        self.fails = self.top + 1
        if not self.holds(smallest):
            step = self.steps.get(smallest)
            seen = f"it needs {bytes_(step.peak)}" if step else self.runner.seen
            raise _nothing_fits(smallest, seen, self.limit_bytes)
        for _ in range(_MOST_STEPS):
            size = self.next_size()
            if size is None:
                self.short |= self.took_s > self.until.left_s
                if self.fits == self.top or self.too_slow or self.short or self.holds(self.fits):
                    return  # a size that memory sets is run twice
                self.fits = max(size for size, step in self.steps.items() if step.peak <= self.usable_bytes)
                continue
            self.predicted[size] = self.model.peak_bytes(size)
            self.holds(size)

    def holds(self, size: int) -> bool:
        """Run a step; whether it stayed within the limit."""
        began = self.until.now
        step = self.runner.run(size)
        self.took_s = self.until.now - began
        if step is None:
            how = "killed the process that tried it" if self.runner.killed else "ran out of memory"
            self.notes.append(f"a step of {size} examples {how}, though it was expected to fit")
        else:
            known = self.steps.get(size)
            self.steps[size] = step if known is None or step.peak > known.peak else known
        if step is None or step.peak > self.usable_bytes:
            self.fails = min(self.fails, size)
            return False
        self.fits = max(self.fits, size)
        return True

    @property
    def reach(self) -> int:
        """The largest size that is expected to fit, cannot reach the limit, and is not known to fail.

        A step may lead into the upper half of the headroom in no case, and into the lower half only by surprise.
        """
        if self.fails <= self.top:
            return self.between()
        model = self.model
        safe = model.largest_for(self.limit_bytes * (1.0 - HEADROOM / 2), most=self.top, cautious=True)
        reach = min(safe, model.largest_for(self.usable_bytes, most=self.top))
        return self.fits + 1 if reach <= self.fits and self.may_add_one() else reach

    def between(self) -> int:
        """A size between the largest that fits and the smallest that does not: where the line between them says."""
        gap = self.fails - self.fits
        failed = self.steps.get(self.fails)
        if failed is None:
            return math.isqrt(self.fits * self.fails)
        room = (self.usable_bytes - self.steps[self.fits].peak) / max(1, failed.peak - self.steps[self.fits].peak)
        return self.fits + int(gap * min(0.9, max(0.1, room)))

    def may_add_one(self) -> bool:
        """Whether one example more stays below the limit if half of what a step needs beyond `base` grows with size.

        Asked where the readings prove nothing, so that a large constant part does not end the search at one example.
        """
        peak, base = self.steps[self.fits].peak, self.runner.lasting
        if self.fits == self.top or peak + (peak - base) / (2 * self.fits) > self.limit_bytes:
            return False
        return len(self.steps) == 1 or self.model.bent_bytes(self.fits + 1) <= self.usable_bytes

    @property
    def longest_s(self) -> float:
        """Seconds of the longest step that is run."""
        if self.training is None:
            return self.longest_step_s
        seconds = {size: step.seconds for size, step in self.steps.items()}
        return min(self.longest_step_s, self.training.longest_step_s(seconds))

    @property
    def affordable(self) -> int:
        """The largest size whose step is expected to take no longer: in proportion to its examples at most.

        Beside a training a size is asked for only if its step is short, so less growth counts where it was seen.
        """
        last_s = max(1e-9, self.steps[self.fits].seconds)
        before = max((size for size in self.steps if size < self.fits), default=None)
        if self.training is None or before is None:
            return int(self.fits * self.longest_s / last_s)
        seen = (last_s - self.steps[before].seconds) / (self.fits - before)
        each = min(1.0, max(_LEAST_GROWTH, seen * self.fits / last_s)) * last_s / self.fits
        return self.fits + int((self.longest_s - last_s) / each)

    def next_size(self) -> int | None:
        """The next size to run, or `None` when no larger one is worth a step or may be run."""
        base = self.runner.lasting
        far = base + (self.steps[self.fits].peak - base) * _FAR_HOP**2 <= self.usable_bytes
        size = min(self.reach, (_FAR_HOP if far else _HOP) * self.fits)
        if size <= self.fits or (size < self.top and size <= self.fits * _CLOSE_ENOUGH):
            return None
        in_time = self.fits * self.until.left_s / self.took_s if self.took_s > 0.0 else math.inf
        affordable = int(min(self.affordable, in_time))
        self.too_slow = affordable < min(size, 2 * self.fits)
        self.short = self.too_slow and in_time < self.affordable
        return None if self.too_slow else min(size, affordable)

    def result(self, smallest: int, top: int) -> Capacity:
        """Result of the search, in records; `top` is the largest size of interest."""
        model, runner = self.model, self.runner
        largest = self.fits
        if self.too_slow:
            largest = max(largest, self.reach)
        memory_bound = largest < top
        if largest > self.fits:
            why = "the budget has no time for it" if self.short else f"it may take over {self.longest_s:.3g} s"
            self.notes.append(
                f"a step of {largest} examples was not run, because {why}; "
                f"its memory ({_mebibytes(model.peak_bytes(largest))}) is predicted from steps of up to {self.fits}"
            )
        elif largest in self.predicted:
            self.notes.append(
                f"a step of {largest} examples was predicted to need {_mebibytes(self.predicted[largest])} "
                f"and needed {_mebibytes(self.steps[largest].peak)}"
            )
        if any(isinstance(module, _BATCH_NORMS) for module in runner.disposable.model.modules()):
            self.notes.append(
                "BatchNorm normalises each micro-batch by itself: an accumulated batch is not the same as one large one"
            )
        method = "allocator peak" if runner.workload.device.keeps_peak else "bytes of living tensors"
        return Capacity(
            readings=tuple(
                Reading(micro_batch_size=size, step_time_s=None, peak_memory_bytes=step.peak, memory_method=method)
                for size, step in sorted(self.steps.items())
            ),
            split=MemorySplit(
                weights=runner.weights,
                gradients=runner.gradients,
                optimizer_state=runner.state,
                activations_per_example=model.per_example_bytes,
                optimizer_step_extra=runner.update_extra,
                other=max(0, round(model.line_at_zero_bytes - model.base_bytes)),
            ),
            model=model,
            smallest=smallest,
            largest=largest,
            largest_run=self.fits,
            memory_bound=memory_bound,
            device_seconds=runner.device_seconds,
            notes=tuple([*runner.disposable.notes, *self.notes]),
            short=self.short,
        )


def _nothing_fits(size: int, seen: str, limit_bytes: int) -> UsageError:
    return UsageError(
        f"not even a training step of {size} example{'s' if size > 1 else ''} fits: {seen}, and of the limit of "
        f"{bytes_(limit_bytes)} {HEADROOM:.0%} stay free; use a smaller model or a device with more memory, "
        "or raise --memory-limit"
    )


def _first_line(error: Exception) -> str:
    message = (str(error) or type(error).__name__).splitlines()[0]
    return message if isinstance(error, TaskError) else f"{type(error).__name__}: {message}"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:.4g} MiB"
