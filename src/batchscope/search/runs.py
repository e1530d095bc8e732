"""The runs of a search: read as far as they are asked for, else made within its budget and this machine's memory.

A search may take several commands on the same folder. What they have taken together for the same question counts
against the budget, and another question begins with an account of its own; the micro-batch is halved for all later runs
once a step did not fit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutOfMemory
from ..fits.memory import HEADROOM, fit_memory
from ..fits.step_time import accumulation
from ..hardware.device import Device
from ..store.answers import Questions
from ..store.records import Bench, HardwareProfile, RateRange, RunConfig, RunResult, RunStatus, Target, Timing
from ..store.runs import Store, StoredRun, run_id
from ..tasks.workload import Workload
from ..training.checkpoint import Checkpoints
from ..training.limits import Deadline
from ..training.prepare import Prepared
from ..training.progress import Progress
from ..training.runner import Runner
from ..training.stopping import PauseRule, StepLimitRule, StopRule
from ..training.weights import copy_weights, save_weights
from .requests import Request, Requests

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MEASURED_WITHIN", "TIMING", "SearchRuns", "largest_here"]

MEASURED_WITHIN = ("profile", "memory_limit", "max_batch_size")
"""Members of a question that bench and range test depend on: runs do not, they say how their batches are split."""

TIMING = "timing"
"""Note of what a search has taken: of its question, after that of the folder."""

_COMPLETE = (RunStatus.REACHED, RunStatus.OUT_OF_STEPS)


@dataclass(kw_only=True)
class SearchRuns:
    """Makes the runs of a search, and knows its clock and this machine's memory.

    Attributes:
        runner: makes and keeps them.
        questions: of the folder.
        requests: what the folder has for this one.
        timing: what the search has taken until its latest run, over all processes; one that only reads adds nothing.
        budget_s: seconds for the whole search, earlier processes included.
        largest_micro_batch_size: of this machine, which may not be the one that the answer is for.
        started: when this process would have begun if it had made all runs itself, on the monotonic clock.
        keep_models: whether the models of complete runs are kept with them, where they are at their best in the end.
    """

    runner: Runner
    questions: Questions
    requests: Requests
    timing: Timing
    budget_s: float
    largest_micro_batch_size: int
    started: float
    keep_models: bool = False

    @classmethod
    def begin(
        cls,
        workload: Workload,
        store: Store,
        questions: Questions,
        prepared: Prepared,
        *,
        started: float,
        budget_s: float,
        progress: Progress,
        profile: HardwareProfile | None = None,
        keep_models: bool = False,
        checkpoints: Checkpoints | None = None,
    ) -> SearchRuns:
        """The runs of a search that began at `started`, on the monotonic clock, or goes on since then."""
        timing = prepared.timing
        started -= timing.spent_s
        runner = Runner(
            workload=workload,
            store=store,
            progress=progress,
            deadline=Deadline(started + budget_s),
            at_deadline="end",
            checkpoints=checkpoints,
        )
        return cls(
            runner=runner,
            questions=questions,
            requests=Requests(store, questions, longer=0.0 < timing.given_s < budget_s),
            timing=timing,
            budget_s=budget_s,
            largest_micro_batch_size=largest_here(workload.device, prepared.bench, profile),
            started=started,
            keep_models=keep_models,
        )

    def keep_time(self) -> None:
        """Write down what the search has taken, after something was measured or trained."""
        self.timing = replace(self.timing, spent_s=time.monotonic() - self.started)
        self.questions.note(TIMING, self.timing)

    def end(self) -> None:
        """Write down within which budget the search has come to its end."""
        self.timing = replace(self.timing, given_s=max(self.timing.given_s, self.budget_s))
        self.questions.note(TIMING, self.timing)

    def read_rate_range(self) -> RateRange | None:
        """The range test, if one was made within the limits of this question."""
        return self.runner.store.read_note(self._named("rate-range"), RateRange)

    def keep_rate_range(self, test: RateRange) -> None:
        """Write down a range test."""
        self.runner.store.note(self._named("rate-range"), test)

    def keep_bench(self, bench: Bench) -> None:
        """Write down a bench that was corrected."""
        self.runner.store.note(self._named("bench"), bench)

    def _named(self, name: str) -> str:
        return self.questions.name_for(name, MEASURED_WITHIN)

    def finished(
        self,
        config: RunConfig,
        milestone: Target | None = None,
        limit: int | None = None,
        rules: Sequence[StopRule] | None = None,
    ) -> StoredRun | None:
        """The run of this configuration as far as it is asked for, if it need not be made; see `Requests.answered`."""
        return self.requests.answered(Request(config=config, milestone=milestone, limit=limit), rules)

    def too_late_for(self, config: RunConfig, milestone: Target | None = None, limit: int | None = None) -> bool:
        """Whether the run would have to be made, and there is no time left for it."""
        return self.runner.deadline.passed and self.finished(config, milestone, limit) is None

    def split(self, batch_size: int) -> dict[str, Any]:
        """The members of a configuration that cut a batch into micro-batches that this machine holds."""
        micro, parts = accumulation(batch_size, self.largest_micro_batch_size)
        return {"batch_size": batch_size, "micro_batch_size": micro, "grad_accum_steps": parts}

    def shrink(self, error: OutOfMemory) -> str:
        """Halve the micro-batch after a step that did not fit; returns a sentence that says so.

        Raises:
            OutOfMemory: a step of one example did not fit.
        """
        if error.micro_batch_size == 1:
            raise error
        self.largest_micro_batch_size = error.micro_batch_size // 2
        note = f"{error}, although it should have: at most {self.largest_micro_batch_size} at once from there on"
        self.runner.progress.stage(note)
        return note

    def make(
        self,
        config: RunConfig,
        why: str,
        rules: Sequence[StopRule],
        *,
        share: float = 1.0,
        milestone: Target | None = None,
        limit: int | None = None,
    ) -> StoredRun:
        """Train a run and keep it. Errors as for `Runner.make`.

        Args:
            config: of the run.
            why: for whoever watches.
            rules: that end it, besides the deadline.
            share: of the budget that it may take.
            milestone: where it is paused; `None`: it goes on to its end.
            limit: number of steps after which it is paused.
        """
        request = Request(config=config, milestone=milestone, limit=limit)
        made, stored = self.requests.to_make(request)
        name = stored.id if stored else run_id(made)
        run = self.runner.make(
            made,
            why,
            f"at most {self.runner.deadline.left_s:.0f} s left",
            pauses=[PauseRule(milestone=milestone)] if milestone is not None else [],
            rules=[*rules, *([StepLimitRule(steps=limit)] if limit is not None else [])],
            deadline=self.runner.deadline.within(share * self.budget_s),
            at_end=lambda model, result: self._keep_model(model, name, result),
            stored=stored,
        )
        self.requests.keep(request, run)
        self.keep_time()
        return run

    def copy_model(self, run: StoredRun, path: Path) -> None:
        """Write the trained model of a run to a file, a `state_dict` for `torch.load`.

        It is that of the run's best evaluation, which is the last one where it had a target. Where it was not kept, the
        run is trained again up to there: it follows from its configuration.

        Raises:
            StoreError: it cannot be written.
        """
        assert run.result is not None
        kept = self._model_file(run.id, run.result.best_step)
        if not kept.exists():
            states = self.runner.train_again(run, ("last",), steps=run.result.best_step)
            save_weights(states["last"], kept)
        copy_weights(kept, path)

    def _keep_model(self, model: nn.Module, name: str, result: RunResult) -> None:
        if self.keep_models and result.status in _COMPLETE and result.best_step == result.steps:
            save_weights(model.state_dict(), self._model_file(name, result.steps))

    def _model_file(self, name: str, step: int) -> Path:
        """Where the model of a run after so many steps is kept: a run that went on has several."""
        return self.runner.store.folder(name) / f"weights-step-{step}.pt"


def largest_here(device: Device, bench: Bench, profile: HardwareProfile | None) -> int:
    """The largest micro-batch to use on this machine: of a profile's, what this one's free memory holds as well."""
    largest = bench.largest_micro_batch_size
    if profile is None or not profile.peak_memory_bytes:
        return largest
    usable = device.free_bytes() * (1.0 - HEADROOM)
    return max(1, fit_memory(profile.peak_memory_bytes).largest_for(usable, most=largest))
