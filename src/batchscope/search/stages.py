"""The stages of a search: range test, first look, probes up to the milestone, the recipe to its target.

Every decision follows from the question, the kept measurements and the runs before it, so the same command on the same
folder comes to the same runs in the same order: finished ones are read, not repeated, whatever stopped the search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import OutOfMemory
from ..fits.targets import best_value, choose_target, gets_further, milestone_of
from ..hardware.environment import environment_of
from ..store.records import HardwareProfile, Recipe, RunConfig, RunStatus, Target
from ..store.runs import StoredRun
from ..tasks.workload import Workload
from ..training.prepare import PRIOR_CRITICAL_BATCH_SIZE, Prepared
from ..training.progress import Progress
from ..training.stopping import BehindRule, PlateauRule, StallRule, StopRule
from .completion import steps_allowed
from .earlier import with_earlier
from .evaluation_spacing import note_before, spacing_at
from .follow import run_strategy
from .forecast import expected_steps, renewed
from .neighbour import neighbour
from .observations import curve_on_clock
from .question import Question
from .recipe import run_at
from .runs import SearchRuns
from .state import SearchState
from .strategies.anchors import BEHIND, Decision, propose
from .strategies.space import Request

__all__ = ["Search"]

_PILOT_SHARE, _UNAIMED_PILOT_SHARE = 0.4, 0.15
_TRIAL_SHARE = 0.25
_MOST_LOOKS, _LOOK_STEP, _LOOK_STEPS = 4, 4.0, 60
_MOST_PROBES = 20
_MOST_COMPLETIONS, _LAST = 9, 2
"""Runs to the target, of which the last are bounded by the rules of every run alone."""
_MOST_LENGTHS = 3
_CURRENT_BEHIND = 4.0
_STALL_PATIENCE = 0.5
_MOST_STEPS = 10_000_000
_HORIZONS = 4


@dataclass(kw_only=True)
class Search:
    """A search at work, and its stages in order: range test, first look, probes, recipe.

    Attributes:
        question: what is asked.
        prepared: what was measured before.
        runs: reads and makes the runs.
        state: all that was found, from which every decision follows.
    """

    question: Question
    prepared: Prepared
    runs: SearchRuns
    state: SearchState

    @classmethod
    def begin(cls, question: Question, prepared: Prepared, runs: SearchRuns, profile: HardwareProfile | None) -> Search:
        """A search with nothing but what was measured before; runs that the folder holds are read when asked for."""
        workload = runs.runner.workload
        dear = note_before(prepared.timing, question.evaluation_share)
        state = SearchState(
            task=workload.name,
            question=question,
            target=question.target,
            examples=workload.examples_in_epoch,
            largest_batch=prepared.preflight.max_batch_size,
            bench=prepared.bench,
            bench_counts=profile is None,
            rate_range=None if question.tries_current_first else runs.read_rate_range(),
            runs=(),
            seconds=prepared.timing.spent_s,
            environment=environment_of(workload.device),
            notes=(*prepared.preflight.notes, *filter(None, [dear])),
        )
        return cls(
            question=question,
            prepared=prepared,
            runs=runs,
            state=state,
        )

    @property
    def workload(self) -> Workload:
        """The task on this machine."""
        return self.runs.runner.workload

    @property
    def progress(self) -> Progress:
        """Hears what happens."""
        return self.runs.runner.progress

    @property
    def ours(self) -> bool:
        """Whether the runs are chosen by our own search."""
        return self.question.search == "anchors"

    def run(self) -> SearchState:
        """Go through all stages; returns what is known then, from which the plan follows."""
        if self.state.rate_range is None and not self.question.tries_current_first:
            self._test_rates()
        self._pilot()
        if self.state.target is not None:
            if self.ours:
                self._update(runs=with_earlier(self.state, self.runs, self._config))
                self._probe()
                self._try_current()
                self._complete()
            elif self.state.finished:
                self._follow_strategy()
            self._shorten()
        self._update(cut_off=self.runs.cut_off)
        return self.state

    def write_model(self, recipe: Recipe, path: Path) -> None:
        """Write the trained model of the recipe to a file; trains one where no run stands behind the recipe."""
        assert recipe.lr is not None
        run = run_at(self.state, recipe.batch_size, recipe.lr)
        if run is None:
            run = self._run(self._config(recipe.batch_size, recipe.lr, "recipe"), "to keep its model")
        self.runs.copy_model(run, path)

    def _test_rates(self) -> None:
        size = self._first_batch_size()
        self.progress.stage(f"range test of the learning rate at batch size {size}")
        try:
            test = self.runs.test_rates(size, self.question.seed)
        except OutOfMemory as error:
            self._shrink(error)
            return self._test_rates()
        self.runs.keep_rate_range(test)
        self.runs.keep_time()
        self._update(rate_range=test)

    def _first_batch_size(self) -> int:
        """Where the best batch size is expected before anything is measured of the task."""
        cost, allowed = self.state.choices().step_cost, self.state.batch_sizes
        sizes = [b for b in allowed if b >= min(16, allowed[-1])]
        return min(sizes, key=lambda b: (1.0 + PRIOR_CRITICAL_BATCH_SIZE / b) * cost(b))

    def _pilot(self) -> None:
        """The first run: reaches the target, or shows what target is within reach."""
        current, test = self.question.current, self.state.rate_range
        if current is not None:
            batch_size, lr = current.batch_size, current.lr
        else:
            assert test is not None
            batch_size, lr = test.batch_size, test.pilot_lr
        groups = 2 if self.prepared.preflight.independent and batch_size >= 2 else 0
        config = self._config(
            batch_size,
            lr,
            "pilot",
            noise_scale_groups=groups,
            stall_patience=_STALL_PATIENCE,
            target=self.question.target,
        )
        share = _PILOT_SHARE if self.question.target else _UNAIMED_PILOT_SHARE
        if self.runs.runner.deadline.passed and not self.runs.runner.store.runs():
            return None
        if self.state.target is not None:
            with self.workload.device.using_threads(config.num_threads):
                start = self.workload.evaluate(self.workload.model(config.seed))
            first = {"kind": "evaluation", "step": 0, "metrics": start}
            self._update(milestone=milestone_of([first], self.state.target))
        if self.ours and current is None and self.state.milestone is not None:
            return self._look(config, self.state.milestone, share)
        run = self._run(config, "first look", share=share)
        if self.state.target is None:
            best = self._furthest(config, run)
            if self.question.within is not None:
                self._raise_target()
            else:
                self._choose_target(best)

    def _look(self, config: RunConfig, milestone: Target, share: float) -> None:
        """The pilot up to the milestone; where it is not there soon, the better of it and a lower learning rate."""
        first = self._run(config, "first look", share=share, milestone=milestone, limit=_LOOK_STEPS)
        lower = replace(config, lr=float(f"{config.lr / _LOOK_STEP:.3g}"), noise_scale_groups=0)
        paused = first.result is not None and first.result.status is RunStatus.PAUSED
        if not paused or self.state.paused or self.runs.too_late_for(lower, milestone, _LOOK_STEPS):
            return
        why = "does a lower learning rate get further?"
        second = self._run(lower, why, share=share, milestone=milestone, limit=_LOOK_STEPS)
        if not self.state.paused:
            best = lower if gets_further(second.rows, first.rows) else config
            self._run(best, "first look", share=share, milestone=milestone)

    def _raise_target(self) -> None:
        """Where the length is given, the target is the best value reached so far by a run of that length."""
        whole = [run for run in self.state.finished if run.result and run.result.status is not RunStatus.PAUSED]
        target = best_value(whole)
        if target is not None and target != self.state.target:
            self._update(target=target, milestone=self.state.milestone or milestone_of(whole[0].rows, target))

    def _furthest(self, config: RunConfig, run: StoredRun) -> StoredRun:
        """The run that gets furthest: the pilot, or one at a lower learning rate, while these get clearly further."""
        best = run
        for _ in range(_MOST_LOOKS):
            config = replace(config, lr=float(f"{config.lr / _LOOK_STEP:.3g}"), noise_scale_groups=0)
            run = self._run(config, "does a lower learning rate get further?", share=_UNAIMED_PILOT_SHARE)
            if not gets_further(run.rows, best.rows):
                break
            best = run
        return best

    def _choose_target(self, run: StoredRun) -> None:
        try:
            target = choose_target(run.rows)
        except ValueError as error:
            self._update(notes=(*self.state.notes, f"no target could be chosen: {error}"))
        else:
            self._update(target=target, milestone=milestone_of(run.rows, target))

    def _probe(self) -> None:
        """Buy runs up to the milestone while one is worth its price."""
        for _ in range(_MOST_PROBES):
            proposal = propose(
                self.state.joint_posterior,
                self.state.choices(),
                self.state.tried,
                seed=self.question.seed + len(self.state.tried),
                must=not (self.state.reached or self.state.paused),
            )
            proposal = proposal or neighbour(self.state)
            if proposal is None:
                return
            config = self._config(proposal.batch_size, proposal.lr, "probe")
            milestone = self.state.milestone
            if self.runs.too_late_for(config, milestone, needs_s=proposal.needs_s):
                return
            self._run(config, proposal.why, behind=BEHIND, milestone=milestone)

    def _follow_strategy(self) -> None:
        """Make the runs that another strategy asks for."""

        def run(request: Request, limit: int | None) -> StoredRun | None:
            config = self._config(request.batch_size, request.lr, "trial")
            late = self.runs.too_late_for(config, limit=limit)
            return None if late else self._run(config, request.why, share=_TRIAL_SHARE, limit=limit)

        run_strategy(self.state, run)

    def _try_current(self) -> None:
        current = self.question.current
        if current is None or (current.batch_size, current.lr) in self.state.tried:
            return
        config = self._config(current.batch_size, current.lr, "current")
        if not self.runs.too_late_for(config):
            self._run(config, "the current recipe, to compare with", behind=_CURRENT_BEHIND)

    def _complete(self) -> None:
        """Runs at exactly the recipe, to the target, until one stands behind the decision."""
        rounds = _MOST_COMPLETIONS if self.question.within is None else _MOST_LENGTHS
        for left in range(rounds, 0, -1):
            choice = self.state.candidate
            if (choice.batch_size, choice.lr) in self.state.reached:
                return
            config = self._paused_at(choice) or self._config(choice.batch_size, choice.lr, "recipe")
            limit = steps_allowed(self.state, choice.batch_size, choice.lr) if left > _LAST else None
            if self.runs.too_late_for(config, limit=limit):
                return
            behind = None if self.question.within else BEHIND
            self._run(config, "a run at exactly the recipe", behind=behind, limit=limit)
            if self.question.within is not None:
                self._raise_target()

    def _paused_at(self, decision: Decision) -> RunConfig | None:
        """The configuration of a run that is paused at the decision's batch size and learning rate, if there is one."""
        for run in self.state.finished:
            same = (run.config.batch_size, run.config.lr) == (decision.batch_size, decision.lr)
            if same and run.result is not None and run.result.status is RunStatus.PAUSED:
                return run.config
        return None

    def _shorten(self) -> None:
        """Where the learning rate decays: the shortest horizon at which the decision reaches the target."""
        if self.question.schedule == "constant" or self.question.within or not self.state.reached:
            return
        decision: Decision = self.state.decision
        steps = math.ceil(math.exp(float(self.state.posterior.log_steps(decision.batch_size, decision.lr).mean())))
        outcomes: set[bool] = set()
        for _ in range(_HORIZONS):
            config = self._config(
                decision.batch_size, decision.lr, "horizon", schedule=self.question.schedule, max_steps=max(2, steps)
            )
            if self.runs.too_late_for(config):
                return
            run = self._run(config, f"{self.question.schedule} decay over {steps} steps")
            reached = run.result is not None and run.result.status is RunStatus.REACHED
            outcomes.add(reached)
            if len(outcomes) == 2:
                return
            steps = math.ceil(steps * (0.8 if reached else 1.3))

    def _config(self, batch_size: int, lr: float, purpose: str, **more: Any) -> RunConfig:
        lasts = self.state.most_steps(batch_size) or more.get("max_steps")
        how_often = spacing_at(self.state, self.prepared.timing, batch_size, lr, purpose=purpose, length=lasts)
        defaults: dict[str, Any] = {
            "task": self.workload.name,
            "settings": self.workload.settings,
            "seed": self.question.seed,
            "target": None if self.question.within else self.state.target,
            "max_steps": self.state.most_steps(batch_size) or _MOST_STEPS,
            "schedule": self.question.schedule if self.question.within else "constant",
            **how_often.members(),
            "stall_patience": _STALL_PATIENCE,
            "device": str(self.workload.device.torch_device),
        }
        return RunConfig(
            **(defaults | more),
            **self.runs.split(batch_size),
            lr=lr,
            purpose=purpose,
        )

    def _rules(self, config: RunConfig, behind: float | None, milestone: Target | None) -> list[StopRule]:
        rules: list[StopRule] = []
        if config.target is None and self.question.within is None:
            rules.append(PlateauRule())
        elif config.stall_patience is not None and config.schedule == "constant" and self.question.within is None:
            rules.append(StallRule(patience=config.stall_patience))
        goal = milestone or self.state.target
        reference = self.state.cheapest(goal) if goal and behind else None
        if goal is not None and behind is not None and reference is not None:
            clock = self.state.cost_of
            curve = curve_on_clock(reference, goal, clock(reference.config.batch_size))
            rules.append(BehindRule(reference=curve, step_time=clock(config.batch_size), factor=behind))
        return rules

    def _run(
        self,
        config: RunConfig,
        why: str,
        *,
        share: float = 1.0,
        behind: float | None = None,
        milestone: Target | None = None,
        limit: int | None = None,
    ) -> StoredRun:
        """A finished run of this configuration, from the store or made now, as far as the milestone or the step."""
        rules = self._rules(config, behind, milestone)
        run = self.runs.finished(config, milestone, limit, rules)
        made = run is None
        if run is None:
            try:
                ends = expected_steps(self.state, config, milestone, limit)
                if prediction := renewed(self.state, self.runs.pace):
                    self.progress.renewed(prediction)
                how: dict[str, Any] = {"share": share, "milestone": milestone, "limit": limit, "expected_steps": ends}
                run = self.runs.make(config, why, rules, **how)
            except OutOfMemory as error:
                self._shrink(error)
                fitted = replace(config, **self.runs.split(config.batch_size))
                return self._run(fitted, why, share=share, behind=behind, milestone=milestone, limit=limit)
        others = [other for other in self.state.runs if other.id != run.id]
        self._update(runs=(*others, run))
        if made:
            self.progress.run_finished(run, self._best_in_words())
        return run

    def _shrink(self, error: OutOfMemory) -> None:
        """Smaller micro-batches from here on, also in the answer where the bench ran on this machine."""
        note = self.runs.shrink(error)
        if self.state.bench_counts:
            bench = replace(
                self.state.bench,
                largest_micro_batch_size=self.runs.largest_micro_batch_size,
                largest_verified=False,
                memory_bound=True,
                notes=(*self.state.bench.notes, note),
            )
            self.runs.keep_bench(bench)
            self._update(bench=bench)

    def _best_in_words(self) -> str:
        if self.state.target is None or not self.state.reached:
            return ""
        measured = None if self.ours else self.state.best_run_at
        batch_size, lr = measured or (self.state.decision.batch_size, self.state.decision.lr)
        return f"batch size {batch_size}, learning rate {lr:.3g}"

    def _update(self, **changes: Any) -> None:
        self.state = replace(self.state, seconds=self.runs.timing.spent_s, **changes)
