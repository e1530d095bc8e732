"""The runs of a search: read as far as they are asked for, else made within its budget and this machine's memory.

A search may take several commands on the same folder. What they have taken together for the same question counts
against the budget, and another question begins with an account of its own; the micro-batch is halved for all later runs
once a step did not fit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutOfMemory, StoreError
from ..fits.memory import HEADROOM, fit_memory
from ..fits.step_time import accumulation, step_time_of
from ..fits.threads import num_threads_at
from ..hardware.device import Device
from ..store.aims import aim_of
from ..store.answers import Questions
from ..store.records import Bench, HardwareProfile, RateRange, RunConfig, RunResult, RunStatus, Target, Timing
from ..store.runs import Store, StoredRun, run_id
from ..tasks.workload import Workload
from ..training.attempts import Trials
from ..training.checkpoint import Checkpoints
from ..training.limits import CutOff, Deadline
from ..training.lr_range import measure_rate_range
from ..training.prepare import Prepared
from ..training.progress import Progress
from ..training.runner import Runner
from ..training.stopping import PauseRule, StepLimitRule, StopRule
from ..training.unwritten import TIME, Hears, if_possible
from ..training.weights import are_whole, copy_weights, save_weights
from ..wording import about
from .forecast import Pace, seconds_in
from .question import as_option
from .requests import Request, Requests

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MEASURED_WITHIN", "TIMING", "SearchRuns", "end_s", "largest_here", "used_earlier"]

MEASURED_WITHIN = ("profile", "memory_limit", "max_batch_size")
"""Members of a question that bench and range test depend on: runs do not, they say how their batches are split."""

TIMING = "timing"
"""Note of what a search has taken: of its question, after that of the folder."""

_FEWEST_STEPS = 10
"""Of a run that is worth beginning."""
_SHARE_FOR_RATES = 0.3
"""Of the time that is left, for the range test."""
_SHARE_FOR_END, _MOST_END_S = 0.05, 1.5
"""Of the budget, for plan and page."""

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
        bench: of this machine; `None` where the answer is for another one.
        started: when this process would have begun if it had made all runs itself, on the deadline's clock.
        keep_models: whether the models of complete runs are kept with them, where they are at their best in the end or
            had all their steps.
        cut_off: whether a run was asked for when the budget had ended.
        earlier_s: seconds that earlier commands on the folder took.
        made: runs that this command has made.
        first_made: when it began with the first of them, on the deadline's clock.
        inside_s: seconds that their steps and evaluations took.
    """

    runner: Runner
    questions: Questions
    requests: Requests
    timing: Timing
    budget_s: float
    largest_micro_batch_size: int
    bench: Bench | None
    started: float
    keep_models: bool = False
    cut_off: bool = False
    earlier_s: float = 0.0
    made: int = 0
    first_made: float = 0.0
    inside_s: float = 0.0

    @classmethod
    def begin(
        cls,
        workload: Workload,
        store: Store,
        questions: Questions,
        prepared: Prepared,
        *,
        deadline: Deadline,
        budget_s: float,
        progress: Progress,
        profile: HardwareProfile | None = None,
        keep_models: bool = False,
        checkpoints: Checkpoints | None = None,
    ) -> SearchRuns:
        """The runs of a search that is to end with its budget, of which earlier commands may have used a part."""
        timing = prepared.timing
        runner = Runner(
            workload=workload,
            store=store,
            progress=progress,
            deadline=deadline.before(end_s(budget_s)),
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
            bench=prepared.bench if profile is None else None,
            started=deadline.at - budget_s,
            keep_models=keep_models,
            earlier_s=timing.spent_s,
        )

    @property
    def deadline(self) -> Deadline:
        """When the last run must have ended: plan and page follow."""
        return self.runner.deadline

    @property
    def pace(self) -> Pace:
        """What is known of the search's own time."""
        now = self.deadline.now
        return Pace(
            timing=self.timing,
            budget_s=self.budget_s,
            spent_s=now - self.started - self.earlier_s,
            earlier_s=self.earlier_s,
            runs=self.made,
            between_s=now - self.first_made - self.inside_s if self.made else 0.0,
        )

    def keep_time(self) -> None:
        """Write down what the search has taken, after something was measured or trained."""
        self.timing = replace(self.timing, spent_s=self.deadline.now - self.started)
        self.questions.note(TIMING, self.timing)

    def end(self, unwritten: Hears) -> tuple[str, ...]:
        """Write down what the search has taken, and within which budget, and let go of paused runs.

        Args:
            unwritten: hears why it could not be written.

        Returns:
            A note where the budget ended it.
        """
        self.runner.close()
        counts = self.made or not self.earlier_s
        spent_s = self.deadline.now - self.started if counts else self.timing.spent_s
        self.timing = replace(self.timing, spent_s=spent_s, given_s=max(self.timing.given_s, self.budget_s))
        with if_possible(unwritten, TIME):
            self.questions.note(TIMING, self.timing)
        if not (self.cut_off or (self.deadline.passed and self.requests.out_of_time)):
            return ()
        return (
            f"the budget of {about(self.budget_s)} ended the search. It counts all commands with this question on the "
            f"folder: the same command with {_twice(self.budget_s)}",
        )

    def read_rate_range(self) -> RateRange | None:
        """The range test, if one was made within the limits of this question; not one cut short before any run."""
        found = self.runner.store.read_note(self._named("rate-range"), RateRange)
        return None if found is not None and found.cut_short and not self.runner.store.runs() else found

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

    def too_late_for(
        self, config: RunConfig, milestone: Target | None = None, limit: int | None = None, *, needs_s: float = 0.0
    ) -> bool:
        """Whether the run would have to be made, and no more time is left than `needs_s`, or than a few steps take.

        A run that is cut off at its first steps says nothing. It is kept that the search was cut off, where it was not
        for `needs_s`.
        """
        step_s = self.timing.step_s if self.bench is None else step_time_of(self.bench).of_batch(config.batch_size)
        left_s, few_s = self.deadline.left_s, _FEWEST_STEPS * step_s + 2 * self.timing.evaluation_s
        late = left_s <= max(needs_s, few_s) and self.finished(config, milestone, limit) is None
        self.cut_off |= late and left_s <= few_s
        return late

    def split(self, batch_size: int) -> dict[str, Any]:
        """The members of a configuration that fit a batch to this machine: micro-batches that it holds, and threads."""
        micro, parts = accumulation(batch_size, self.largest_micro_batch_size)
        return {
            "batch_size": batch_size,
            "micro_batch_size": micro,
            "grad_accum_steps": parts,
            "num_threads": None if self.bench is None else num_threads_at(self.bench, micro),
        }

    def test_rates(self, batch_size: int, seed: int) -> RateRange:
        """The range test of the learning rate. Errors as for `measure_rate_range`."""
        split, workload = self.split(batch_size), self.runner.workload
        micro, trials = split["micro_batch_size"], Trials(self.runner.store, workload.device)
        with (
            self.deadline.spending("the range test of the learning rate"),
            trials.of("the range test of the learning rate", micro),
            workload.device.using_threads(split["num_threads"]),
        ):
            how: dict[str, Any] = {"micro_batch_size": micro, "seed": seed}
            until = self.deadline.share(_SHARE_FOR_RATES)
            return measure_rate_range(workload, batch_size=batch_size, **how, until=until)

    def shrink(self, error: OutOfMemory) -> str:
        """Halve the micro-batch after a step that did not fit; returns a sentence that says so.

        Raises:
            OutOfMemory: a step of one example did not fit, or it was no step.
        """
        if error.micro_batch_size is None or error.micro_batch_size == 1:
            raise error
        self.largest_micro_batch_size = error.micro_batch_size // 2
        note = f"{error}; at most {self.largest_micro_batch_size} at once from there on"
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
        expected_steps: float | None = None,
    ) -> StoredRun:
        """Train a run and keep it. Errors as for `Runner.make`.

        Args:
            config: of the run.
            why: for whoever watches.
            rules: that end it, besides the deadline.
            share: of the budget that it may take.
            milestone: where it is paused; `None`: it goes on to its end.
            limit: number of steps after which it is paused.
            expected_steps: step at which it is expected to end, for whoever watches.
        """
        if not self.made:
            self.first_made = self.deadline.now
        request = Request(config=config, milestone=milestone, limit=limit)
        made, stored = self.requests.to_make(request)
        name = stored.id if stored else run_id(made)
        run = self.runner.make(
            made,
            why,
            f"at most {about(self.deadline.left_s)} of the budget left",
            expected_steps=expected_steps,
            pauses=[PauseRule(milestone=milestone)] if milestone is not None else [],
            rules=[*rules, *([StepLimitRule(steps=limit)] if limit is not None else [])],
            deadline=self.deadline.before(self.timing.evaluation_s).within(share * self.budget_s),
            at_end=lambda model, result: self._keep_model(model, self._model_file(name, made, result), result),
            stored=stored,
        )
        self.made += 1
        self.inside_s += seconds_in(run, self.timing.evaluation_s)
        if stored is not None and run.rows[: len(stored.rows)] == stored.rows:
            self.inside_s -= seconds_in(stored, self.timing.evaluation_s)
        self.requests.keep(request, run)
        self.keep_time()
        return run

    def copy_model(self, run: StoredRun, path: Path, *, at_end: bool = False) -> None:
        """Write the trained model of a run to a file, a `state_dict` for `torch.load`.

        It has the averaged weights where the run is judged by a metric of theirs, and loads into `task.model()` either
        way. It is that of the last evaluation where the run reached its target, or `at_end`, else of its best one.
        Where it was not kept, or is not what was written, the run is trained again up to there: it follows from its
        configuration.

        Raises:
            StoreError: it cannot be written.
            CutOff: no time is left to train it again.
        """
        assert run.result is not None
        step = run.result.steps if at_end else _model_step(run.result)
        kept = self._model_file(run.id, run.config, replace(run.result, steps=step))
        if not are_whole(kept):
            if seconds_in(run, self.timing.evaluation_s) * step / max(1, run.result.steps) > self.deadline.left_s:
                raise CutOff
            damaged = f": {kept.name} is not what was written" if os.path.lexists(kept) else ""
            again: dict[str, Any] = {"steps": step, "deadline": self.deadline, "why": f"for its weights{damaged}"}
            self.runner.train_again(run, (), **again, at_end=partial(_save, path=kept))
        copy_weights(kept, path)

    def _keep_model(self, model: nn.Module, path: Path, result: RunResult) -> None:
        whole = result.status is RunStatus.OUT_OF_STEPS or _model_step(result) == result.steps
        if self.keep_models and result.status in _COMPLETE and whole:
            with suppress(StoreError):  # `copy_model` trains it again, and says what the disk refuses
                _save(model, path)

    def _model_file(self, name: str, config: RunConfig, result: RunResult) -> Path:
        """File of the model at the end of a run, which has several where it went on, and one for averaged weights."""
        averaged = self.runner.workload.judges_averaged(aim_of(config, result.first).metric)
        return self.runner.store.folder(name) / f"weights-step-{result.steps}{'-averaged' if averaged else ''}.pt"


def _save(model: nn.Module, path: Path) -> None:
    save_weights(model.state_dict(), path)


def _model_step(result: RunResult) -> int:
    """Step of the evaluation whose model counts as the trained one."""
    return result.steps if result.status is RunStatus.REACHED else result.best_step


def end_s(budget_s: float) -> float:
    """Seconds at the end of a budget that plan and page take, and no run."""
    return min(_MOST_END_S, _SHARE_FOR_END * budget_s)


def used_earlier(spent_s: float, budget_s: float) -> str:
    """Sentence on what earlier commands with the same question used of the budget; empty where they used nothing.

    >>> used_earlier(240.0, 600.0)
    '4 min of the budget of 10 min were used by earlier commands with this question; --budget 20m gives 10 min more'
    """
    if not spent_s:
        return ""
    return (
        f"{about(spent_s)} of the budget of {about(budget_s)} were used by earlier commands with this question; "
        f"{_twice(budget_s)}"
    )


def _twice(budget_s: float) -> str:
    return f"--budget {as_option(2 * budget_s)} gives {about(budget_s)} more"


def largest_here(device: Device, bench: Bench, profile: HardwareProfile | None) -> int:
    """The largest micro-batch to use on this machine: of a profile's, what this one's free memory holds as well."""
    largest = bench.largest_micro_batch_size
    if profile is None or not profile.peak_memory_bytes:
        return largest
    usable = device.free_bytes() * (1.0 - HEADROOM)
    return max(1, fit_memory(profile.peak_memory_bytes).largest_for(usable, most=largest))
