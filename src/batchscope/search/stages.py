"""The stages of a search: range test, first look, probes up to the milestone, the recipe to its target.

Every decision follows from the question, the kept measurements and the runs before it, so the same command on the same
folder comes to the same runs in the same order: finished ones are read, not repeated, whatever stopped the search.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import OutOfMemory, OutOfTime, TaskError
from ..hardware.environment import environment_of
from ..store.records import HardwareProfile, RateRange, Recipe, RunConfig, RunStatus, Target
from ..store.runs import StoredRun
from ..tasks.workload import Workload
from ..training.limits import CutOff
from ..training.prepare import Prepared
from ..training.progress import Progress
from ..training.stopping import BehindRule, StallRule, StopRule
from .completion import steps_allowed
from .confirmation import aimed, settled
from .constant import beyond_constant, plateau_rule
from .earlier import with_earlier
from .evaluation_spacing import note_before, spacing_at
from .first_looks import FirstLooks
from .follow import run_strategy
from .forecast import expected_steps, renewed
from .horizon import schedule_members, shortest_horizon
from .neighbour import neighbour
from .observations import curve_on_clock, has_diverged
from .plan import answered
from .question import Question
from .recipe import run_at
from .runs import SearchRuns
from .state import SearchState
from .strategies.anchors import BEHIND, LAG, Decision, propose
from .strategies.space import Request

__all__ = ["Search", "beginning"]

_TRIAL_SHARE = 0.25
_MOST_PROBES = 20
_MOST_COMPLETIONS, _LAST, _MOST_UNREACHED = 9, 2, 6
"""Runs to the target, of which the last are bounded by the rules of every run alone; and more while none got there."""
_CURRENT_BEHIND = 4.0
_STALL_PATIENCE = 0.5
_MOST_STEPS = 10_000_000


def beginning(
    question: Question,
    prepared: Prepared,
    workload: Workload,
    profile: HardwareProfile | None,
    rate_range: RateRange | None = None,
) -> SearchState:
    """The state of a search before its first run: what was measured before, and nothing else."""
    dear = note_before(prepared.timing, question.evaluation_share)
    return SearchState(
        task=workload.name,
        question=question,
        target=question.target,
        examples=workload.examples_in_epoch,
        largest_batch=prepared.preflight.max_batch_size,
        bench=prepared.bench,
        bench_counts=profile is None,
        rate_range=rate_range,
        runs=(),
        seconds=prepared.timing.spent_s,
        environment=environment_of(workload.device),
        notes=(*prepared.preflight.notes, *filter(None, [dear])),
        constant=prepared.preflight.constant,
    )


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
        rate_range = None if question.tries_current_first else runs.read_rate_range()
        state = beginning(question, prepared, runs.runner.workload, profile, rate_range)
        return cls(question=question, prepared=prepared, runs=runs, state=state)

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
        looks = self._first_looks
        if self.state.rate_range is None and not self.question.tries_current_first:
            try:
                looks.test_rates()
            except OutOfTime:
                self._update(cut_off=True)
                return self.state
        if self.question.within is not None:
            self._train_whole()
        else:
            looks.pilot()
            self._update(**beyond_constant(self.state))
        if self.question.within is None and self.state.target is not None:
            if self.ours:
                self._update(**with_earlier(self.state, self.runs, self._config))
                self._probe()
                self._try_current()
                self._complete()
            elif self.state.finished:
                self._update(**settled(self.state, self.state.finished[-1], at_its_end=True))
                self._follow_strategy()
            self._shorten()
        self._update(cut_off=self.runs.cut_off)
        return self.state

    def write_model(self, recipe: Recipe, path: Path) -> str:
        """Write the trained model of the recipe to a file; trains one where no run stands behind the recipe.

        Returns:
            A note where the budget left no time to train it, or training it again failed; else empty.
        """
        assert recipe.lr is not None
        run = run_at(self.state, recipe.batch_size, recipe.lr)
        if run is None:
            config = self._config(recipe.batch_size, recipe.lr, "recipe")
            late = self.runs.too_late_for(config)
            run = None if late else self._run(config, "to keep its model")
        try:
            if run is not None:
                self.runs.copy_model(run, path, at_end=self.question.within is not None)
                return ""
        except (OutOfMemory, OutOfTime, TaskError) as error:
            return f"no model was written to {path}: {error}"
        except CutOff:
            pass
        return f"the budget ended before a model of the recipe was trained for {path}: repeat with a longer --budget"

    def _train_whole(self) -> None:
        """Make trainings of the given length, while one is worth its time; the first goes on from an earlier one."""
        self._update(**with_earlier(self.state, self.runs, self._config))
        self._update(target=self.state.lengths.target)
        while (following := self.state.lengths.next) is not None:
            first = not self.state.lengths.ends
            groups = 2 if first and self.prepared.preflight.independent and following.batch_size >= 2 else 0
            more = {"noise_scale_groups": groups, "stall_patience": None}
            config = self._config(following.batch_size, following.lr, "pilot" if first else "probe", **more)
            if self.runs.too_late_for(config):
                return
            self._run(config, following.why)
            self._update(target=self.state.lengths.target)

    @property
    def _first_looks(self) -> FirstLooks:
        return FirstLooks(
            question=self.question,
            prepared=self.prepared,
            runs=self.runs,
            state=lambda: self.state,
            update=self._update,
            config=self._config,
            run=self._run,
            shrink=self._shrink,
            stall_patience=_STALL_PATIENCE,
        )

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
        """Runs at exactly the recipe, to the target, until one stands behind the decision.

        While none got there, some more are made.
        """
        for left in range(_MOST_COMPLETIONS, -_MOST_UNREACHED, -1):
            choice = self.state.candidate
            if self._stands(choice) or (left <= 0 and self.state.reached):
                return
            config = self._paused_at(choice) or self._config(choice.batch_size, choice.lr, "recipe")
            limit = steps_allowed(self.state, choice.batch_size, choice.lr) if left > _LAST else None
            if self.runs.too_late_for(config, limit=limit):
                return
            self._run(config, "a run at exactly the recipe", behind=BEHIND, limit=limit)

    def _stands(self, decision: Decision) -> bool:
        """Whether a run at the decision's batch size and learning rate reached the target, and did not diverge then."""
        pair = (decision.batch_size, decision.lr)
        runs = [run for run in self.state.finished if (run.config.batch_size, run.config.lr) == pair]
        return pair in self.state.reached and not all(map(has_diverged, runs))

    def _paused_at(self, decision: Decision) -> RunConfig | None:
        """The configuration of a run that is paused at the decision's batch size and learning rate, if there is one."""
        for run in self.state.finished:
            same = (run.config.batch_size, run.config.lr) == (decision.batch_size, decision.lr)
            if same and run.result is not None and run.result.status is RunStatus.PAUSED:
                return run.config
        return None

    def _shorten(self) -> None:
        """Where a target is to be reached under a schedule: runs that find its length at the recipe."""
        if not self.question.decays_to_target or not self.state.reached:
            return
        batch_size, lr = answered(self.state)

        def over(steps: int) -> StoredRun | None:
            config = self._config(batch_size, lr, "horizon", max_steps=steps)
            late = self.runs.too_late_for(config)
            return None if late else self._run(config, f"schedule {config.schedule} over {steps} steps")

        shortest_horizon(self.state, (batch_size, lr), over)

    def _config(self, batch_size: int, lr: float, purpose: str, **more: Any) -> RunConfig:
        lasts = self.state.most_steps(batch_size) or more.get("max_steps")
        how_often = spacing_at(self.state, self.prepared.timing, batch_size, lr, purpose=purpose, length=lasts)
        defaults: dict[str, Any] = {
            "task": self.workload.name,
            "settings": self.workload.settings,
            "seed": self.question.seed,
            "target": None if self.question.within else self.state.target,
            "metric": self.question.judged_by if self.question.target is None else None,
            "max_steps": self.state.most_steps(batch_size) or _MOST_STEPS,
            **schedule_members(self.question, batch_size, lasts),
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
        if self.question.within is not None:
            return self.state.lengths.rules(config.max_steps, config.warmup_steps)
        rules: list[StopRule] = []
        if config.target is None:
            rules.append(plateau_rule(self.state, config.warmup_steps))
        elif config.stall_patience is not None and config.schedule == "constant":
            least = max(StallRule.least_steps, config.warmup_steps)
            rules.append(StallRule(patience=config.stall_patience, least_steps=least))
        goal = milestone or self.state.target
        reference = self.state.cheapest(goal) if goal and behind else None
        if goal is not None and behind is not None and reference is not None:
            clock = self.state.cost_of
            curve = curve_on_clock(reference, goal, clock(reference.config.batch_size))
            own = clock(config.batch_size)
            rules.append(BehindRule(reference=curve, step_time=own, end=behind, lag=max(LAG, behind)))
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
        config = aimed(self.state, config)
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
        if run is None:  # out of the handler, whose error holds the model and all that did not fit
            fitted = replace(config, **self.runs.split(config.batch_size))
            return self._run(fitted, why, share=share, behind=behind, milestone=milestone, limit=limit)
        others = [other for other in self.state.runs if other.id != run.id]
        self._update(runs=(*others, run), **settled(self.state, run))
        if aimed(self.state, config) != config:
            return self._run(config, why, share=share, behind=behind, milestone=milestone, limit=limit)
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
        if not self.state.answerable:
            return ""
        measured = None if self.ours else self.state.best_run_at
        batch_size, lr = measured or (self.state.decision.batch_size, self.state.decision.lr)
        return f"batch size {batch_size}, learning rate {lr:.3g}"

    def _update(self, **changes: Any) -> None:
        self.state = replace(self.state, seconds=self.runs.timing.spent_s, **changes)
