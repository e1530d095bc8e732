"""The first looks of a search: the range test of the learning rate, and the first runs, which show what is in reach.

The range test names a learning rate and how far it may be off. The first run trains there; where it is not at the
milestone soon, or shows what target is within reach, lower learning rates are tried beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import OutOfMemory
from ..fits.targets import choose_target, gets_further, milestone_of
from ..store.records import RunConfig, RunStatus, Target
from ..store.runs import StoredRun
from ..training.prepare import PRIOR_CRITICAL_BATCH_SIZE, Prepared
from .confirmation import settled
from .ends import first_size
from .observations import cut_at_first_steps, has_diverged
from .question import Question
from .runs import SearchRuns
from .state import SearchState

__all__ = ["FirstLooks"]

_PILOT_SHARE, _UNAIMED_PILOT_SHARE = 0.4, 0.15
_MOST_LOOKS, _LOOK_STEP, _LOOK_STEPS = 4, 4.0, 60


@dataclass(frozen=True, kw_only=True)
class FirstLooks:
    """The first looks of one search.

    Attributes:
        question: what is asked.
        prepared: what was measured before.
        runs: reads and makes the runs.
        state: of the search, as it stands.
        update: changes members of that state.
        config: the configuration of a run, from its batch size, learning rate and purpose, and members that differ.
        run: makes a run of a configuration, or reads it, and takes it into the state.
        shrink: smaller micro-batches from here on, after a step that did not fit.
        stall_patience: share of a run after which it counts as stalled.
    """

    question: Question
    prepared: Prepared
    runs: SearchRuns
    state: Callable[[], SearchState]
    update: Callable[..., None]
    config: Callable[..., RunConfig]
    run: Callable[..., StoredRun]
    shrink: Callable[[OutOfMemory], None]
    stall_patience: float

    def test_rates(self) -> None:
        """Make the range test and keep it, in smaller micro-batches where a step does not fit.

        Raises:
            OutOfTime: no time is left for it.
        """
        size = self._first_batch_size()
        self.runs.deadline.require()
        self.runs.runner.progress.stage(f"range test of the learning rate at batch size {size}")
        test = None
        try:
            test = self.runs.test_rates(size, self.question.seed)
        except OutOfMemory as error:
            self.shrink(error)
        if test is None:  # out of the handler, whose error holds the model and all that did not fit
            return self.test_rates()
        self.runs.keep_rate_range(test)
        self.runs.keep_time()
        self.update(rate_range=test)

    def pilot(self) -> None:
        """Make the first run: it reaches the target, or shows what target is within reach."""
        current, test = self.question.current, self.state().rate_range
        if current is not None:
            batch_size, lr = current.batch_size, current.lr
        else:
            assert test is not None
            batch_size, lr = test.batch_size, test.pilot_lr
        groups = 2 if self.prepared.preflight.independent and batch_size >= 2 else 0
        config = self.config(
            batch_size,
            lr,
            "pilot",
            noise_scale_groups=groups,
            stall_patience=self.stall_patience,
            target=self.question.target,
        )
        share = _PILOT_SHARE if self.question.target else _UNAIMED_PILOT_SHARE
        if not self.runs.runner.store.runs() and self.runs.too_late_for(config):
            return None
        if (target := self.state().target) is not None:
            workload = self.runs.runner.workload
            with workload.device.using_threads(config.num_threads):
                start = workload.all_metrics(workload.model(config.seed))
            first = {"kind": "evaluation", "step": 0, "metrics": start}
            self.update(milestone=milestone_of([first], target))
        milestone = self.state().milestone
        if self.question.search == "anchors" and current is None and milestone is not None:
            return self._look(config, milestone, share)
        if self.runs.too_late_for(config):
            return None
        run = self.run(config, "first run", share=share)
        if self.state().target is None:
            self._choose_target(self._furthest(config, run))

    def _first_batch_size(self) -> int:
        """Where the best batch size is expected before anything is measured of the task."""
        state = self.state()
        if self.question.within is not None:
            return first_size(state)
        cost, allowed = state.choices().step_cost, state.batch_sizes
        sizes = [b for b in allowed if b >= min(16, allowed[-1])]
        return min(sizes, key=lambda b: (1.0 + PRIOR_CRITICAL_BATCH_SIZE / b) * cost(b))

    def _look(self, config: RunConfig, milestone: Target, share: float) -> None:
        """The pilot up to the milestone; where it is not there soon, the better of it and a lower learning rate."""
        limit = config.warmup_steps + _LOOK_STEPS
        if self.runs.too_late_for(config, milestone, limit):
            return
        first = self.run(config, "first run", share=share, milestone=milestone, limit=limit)
        lower = replace(config, lr=float(f"{config.lr / _LOOK_STEP:.3g}"), noise_scale_groups=0)
        paused = first.result is not None and first.result.status is RunStatus.PAUSED
        if not paused or self.state().paused or self.runs.too_late_for(lower, milestone, limit):
            return
        why = "does a lower learning rate get further?"
        second = self.run(lower, why, share=share, milestone=milestone, limit=limit)
        if not self.state().paused:
            further = gets_further(second.rows, first.rows, self.question.judged_by, towards=milestone)
            best = lower if further else config
            if not self.runs.too_late_for(best, milestone):
                self.run(best, "first run", share=share, milestone=milestone)

    def _furthest(self, config: RunConfig, run: StoredRun) -> StoredRun:
        """The run that gets furthest: the pilot, or one at a lower learning rate, while these get clearly further.

        One that diverged is not it while a lower learning rate is left to try.
        """
        best = run
        for _ in range(_MOST_LOOKS):
            config = replace(config, lr=float(f"{config.lr / _LOOK_STEP:.3g}"), noise_scale_groups=0)
            if self.runs.too_late_for(config):
                break
            run = self.run(config, "does a lower learning rate get further?", share=_UNAIMED_PILOT_SHARE)
            if not has_diverged(best):
                further = gets_further(run.rows, best.rows, self.question.judged_by)
                if has_diverged(run) or not further:
                    break
            best = run
        return best

    def _choose_target(self, run: StoredRun) -> None:
        if has_diverged(run):  # then all first runs have: what one had reached before is no target
            return
        if cut_at_first_steps(run):  # what its first steps gained says nothing of what a training reaches
            return
        try:
            target = choose_target(run.rows, self.question.judged_by)
        except ValueError as error:
            self.update(notes=(*self.state().notes, f"no target could be chosen: {error}"))
        else:
            milestone = milestone_of(run.rows, target)
            self.update(milestone=milestone, **settled(replace(self.state(), target=target), run, at_its_end=True))
