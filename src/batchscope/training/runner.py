"""One run after another: made here, or read where it is finished; with an eye on this machine's clock and memory.

A run that is set aside at the milestone stays in memory, so that it can go on from there. Where it is gone (another
process, too many of them), it is made again from its seed when it is wanted, and comes to the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import OutOfMemory
from ..fits.memory import HEADROOM, fit_memory
from ..fits.step_time import accumulation
from ..hardware.device import Device
from ..probes.noise_scale import probes_of
from ..store.records import Bench, HardwareProfile, RunConfig, RunStatus, Target, Timing
from ..store.runs import RunWriter, Store, StoredRun, run_id
from ..tasks.workload import Workload
from .loop import Training
from .milestone import as_set_aside
from .progress import Progress
from .stopping import DeadlineRule, PauseRule, StopRule
from .weights import keep

__all__ = ["Runner", "largest_here"]

_MOST_WAITING = 8
_COMPLETE = (RunStatus.REACHED, RunStatus.OUT_OF_STEPS)


@dataclass
class Runner:
    """Makes the runs of a search.

    Attributes:
        workload: the task on this machine's device.
        store: where runs are kept.
        progress: told what happens.
        timing: what the search has taken until its latest run, over all processes; one that only reads adds nothing.
        budget_s: seconds for the whole search, earlier processes included.
        micro_here: the largest micro-batch of this machine, which may not be the one that the answer is for.
        started: when this process would have begun if it had made all runs itself, on the monotonic clock.
        keep_models: whether the models of complete runs are kept with them, where they are at their best in the end.
    """

    workload: Workload
    store: Store
    progress: Progress
    timing: Timing
    budget_s: float
    micro_here: int
    started: float
    keep_models: bool = False
    _waiting: dict[str, Training] = field(default_factory=dict)

    @property
    def deadline(self) -> float:
        """When the budget is used up, on the monotonic clock."""
        return self.started + self.budget_s

    def keep_time(self) -> None:
        """Write down what the search has taken, after something was measured or trained."""
        self.timing = replace(self.timing, spent_s=time.monotonic() - self.started)
        self.store.note("timing", self.timing)

    def end(self) -> None:
        """Write down within which budget the search has come to its end."""
        self.timing = replace(self.timing, given_s=max(self.timing.given_s, self.budget_s))
        self.store.note("timing", self.timing)

    def finished(
        self, config: RunConfig, milestone: Target | None = None, limit: int | None = None
    ) -> StoredRun | None:
        """The run of this configuration as far as it is asked for, if it need not be made.

        One that a smaller budget cut off must be; one that was set aside must go on, unless it is asked for up to the
        milestone only, and one that went on is then seen as it was there; or up to a number of steps that it has made.
        """
        run = self.store.finished(config)
        if run is None or run.result is None:
            return None
        if milestone is not None:
            run = as_set_aside(run, milestone, limit)
        result = run.result
        assert result is not None
        if result.status is RunStatus.PAUSED:
            passed = milestone is not None and milestone.met_by(result.last.get(milestone.metric, math.nan))
            if not passed and (limit is None or result.steps < limit):
                return None
        longer = 0.0 < self.timing.given_s < self.budget_s
        return None if longer and result.status is RunStatus.OUT_OF_TIME else run

    def too_late_for(self, config: RunConfig, milestone: Target | None = None, limit: int | None = None) -> bool:
        """Whether the run would have to be made, and there is no time left for it."""
        return time.monotonic() >= self.deadline and self.finished(config, milestone, limit) is None

    def fitted(self, config: RunConfig) -> RunConfig:
        """The configuration in the micro-batches that this machine holds."""
        micro, parts = accumulation(config.batch_size, self.micro_here)
        return replace(config, micro_batch_size=micro, grad_accum_steps=parts)

    def shrink(self, error: OutOfMemory) -> str:
        """Halve the micro-batch after a step that did not fit; says so.

        Raises:
            OutOfMemory: a step of one example did not fit.
        """
        if error.micro_batch_size == 1:
            raise error
        self.micro_here = error.micro_batch_size // 2
        said = f"{error}, although it should have: at most {self.micro_here} at once from there on"
        self.progress.stage(said)
        return said

    def make(
        self,
        config: RunConfig,
        why: str,
        rules: Sequence[StopRule],
        *,
        share: float = 1.0,
        milestone: Target | None = None,
    ) -> StoredRun:
        """Train a run and keep it.

        Args:
            config: of the run.
            why: for whoever watches.
            rules: that end it, besides the deadline.
            share: of the budget that it may take.
            milestone: where it is set aside; `None`: it goes on to its end.

        Raises:
            OutOfMemory: a step did not fit; the run is left unfinished.
            TaskError: the task failed in the middle.
            StoreError: the disk refuses.
        """
        now = time.monotonic()
        self.progress.run_started(config, why, f"at most {max(0.0, self.deadline - now):.0f} s left")
        deadline = DeadlineRule(clock=time.monotonic, deadline=min(self.deadline, now + share * self.budget_s))
        pause = [PauseRule(milestone=milestone)] if milestone is not None else []
        training = self._waiting.pop(run_id(config), None)
        writer = self._writer(config, goes_on=training is not None)

        def on_row(row: Any) -> None:
            writer.append(row)
            self.progress.row(row)

        try:
            if training is None:
                training = Training(self.workload, config, probes=probes_of(config), on_row=on_row)
            training.back()
            result = training.advance([*pause, deadline, *rules], on_row)
        except BaseException:
            writer.close()
            raise
        run = writer.finish(result)
        if result.status is RunStatus.PAUSED:
            self._set_aside(run.id, training)
        elif self.keep_models and result.status in _COMPLETE and result.best_step == result.steps:
            keep(training.model, self.store.folder(run.id))
        self.keep_time()
        return run

    def _writer(self, config: RunConfig, *, goes_on: bool) -> RunWriter:
        if goes_on:
            return self.store.go_on(config)
        if self.store.finished(config) is not None:
            self.store.reopen(config)
        return self.store.start(config)

    def _set_aside(self, name: str, training: Training) -> None:
        """Keep a run that was set aside; the oldest is let go when there are too many."""
        training.aside()
        self._waiting[name] = training
        while len(self._waiting) > _MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]


def largest_here(device: Device, bench: Bench, profile: HardwareProfile | None) -> int:
    """The largest micro-batch to use on this machine: of a profile's, what this one's free memory holds as well."""
    largest = bench.largest_micro_batch_size
    if profile is None or not profile.peak_memory_bytes:
        return largest
    usable = device.free_bytes() * (1.0 - HEADROOM)
    return max(1, fit_memory(profile.peak_memory_bytes).largest_for(usable, most=largest))
