"""All that a search has found, and what follows from it: step time, belief, choices. Numbers only, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..fits.step_time import StepTime, step_time_of
from ..fits.steps_to_target import Observation, StepsPosterior
from ..store.records import Bench, Environment, Estimate, RateRange, Target
from ..store.runs import StoredRun
from .observations import best_on_clock, noise_scale_of, observe, prior_from, update_belief
from .question import Question
from .strategies.anchors import Choices, Decision, decide, sizes_between

__all__ = ["Findings"]

_REST_OF_A_RUN = 0.6
"""What is left of a run at the milestone, in trainings."""
_MISFIT = 0.15


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The state of a search, from which every decision follows.

    Attributes:
        task: its name.
        question: what was asked.
        target: asked for or chosen from the pilot; `None` until then.
        examples: in the training set.
        bench: of the hardware that the answer is for.
        bench_counts: whether the bench ran on that hardware as part of this search.
        rate_range: the range test, once made.
        runs: every run so far, unfinished ones included.
        seconds: on the clock, over all processes that worked on this search.
        environment: where it ran.
        notes: of the preflight.
        milestone: where runs are set aside on their way to the target; `None`: nowhere.
    """

    task: str
    question: Question
    target: Target | None
    examples: int
    bench: Bench
    bench_counts: bool
    rate_range: RateRange | None
    runs: tuple[StoredRun, ...]
    seconds: float
    environment: Environment
    notes: tuple[str, ...] = ()
    milestone: Target | None = None

    @cached_property
    def step_time(self) -> StepTime:
        """Step-time model of the hardware that the answer is for."""
        return step_time_of(self.bench)

    def seconds_of(self, batch_size: int) -> float:
        """Seconds of one step of a batch size, accumulated where it does not fit at once."""
        return self.step_time.of_batch(batch_size)

    def cost_of(self, batch_size: int) -> float:
        """What is to be least of one step: its seconds, or its examples."""
        return float(batch_size) if self.question.counts_examples else self.seconds_of(batch_size)

    def most_steps(self, batch_size: int) -> int | None:
        """How long one training may be, in steps; `None` where the question sets no length."""
        within = self.question.within
        if within is None:
            return None
        step = self.seconds_of(batch_size) if within.unit == "seconds" else batch_size / self.examples
        return max(1, math.floor(within.amount / step))

    @property
    def law(self) -> str:
        """What steps are predicted by, in words."""
        return "joint law of steps against batch size and rate, fitted to the runs"

    @property
    def misfit(self) -> float:
        """Standard deviation, in log steps, of what the law and its spread miss.

        With it nine of ten fresh runs fall inside their intervals on the tasks of `benchmarks/`, 86 % without
        (docs/log.md).
        """
        return _MISFIT

    def step_time_spread(self, batch_size: int) -> float:
        """Standard deviation, in log seconds, of a step time that was not measured at this batch size."""
        return self.step_time.relative_spread

    @cached_property
    def finished(self) -> tuple[StoredRun, ...]:
        """Runs with a result."""
        return tuple(run for run in self.runs if run.result is not None)

    @cached_property
    def observations(self) -> list[Observation]:
        """What the runs say about steps to target."""
        assert self.target is not None
        return observe(self.finished, self.target, self.cost_of, self.milestone)

    @cached_property
    def noise_scale(self) -> Estimate:
        """The gradient noise scale of the pilot."""
        return noise_scale_of(self.runs, self.examples)

    @cached_property
    def belief(self) -> StepsPosterior:
        """About steps to target."""
        prior = prior_from(self.rate_range, self.noise_scale)
        return update_belief(self.observations, prior, seed=self.question.seed)

    @cached_property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes to choose from."""
        most = min(self.examples, self.question.max_batch_size or self.examples)
        return sizes_between(min(self.bench.smallest_micro_batch_size, most), most)

    def choices(
        self, batch_sizes: tuple[int, ...] | None = None, cost: Callable[[int], float] | None = None
    ) -> Choices:
        """What can be chosen, at the price that the objective names or at another cost."""
        return Choices(
            batch_sizes=batch_sizes or self.batch_sizes,
            step_cost=cost or self.cost_of,
            step_time=self.seconds_of,
            trainings=self.question.trainings,
            by_milestone=self.milestone is not None,
        )

    @cached_property
    def reached(self) -> dict[tuple[int, float], list[float]]:
        """Steps to target of the runs that reached it, by batch size and rate."""
        found: dict[tuple[int, float], list[float]] = {}
        for observation in self.observations:
            if observation.kind == "reached" and observation.to == "target":
                found.setdefault((observation.batch_size, observation.lr), []).append(observation.steps)
        return found

    @cached_property
    def tried(self) -> list[tuple[int, float]]:
        """Pairs of batch size and rate that some run was made at."""
        return [(o.batch_size, o.lr) for o in self.observations]

    @cached_property
    def set_aside(self) -> set[tuple[int, float]]:
        """Pairs of which a run waits at the milestone."""
        return {(o.batch_size, o.lr) for o in self.observations if o.kind == "reached" and o.to == "milestone"}

    def decide(
        self,
        *,
        batch_sizes: tuple[int, ...] | None = None,
        cost: Callable[[int], float] | None = None,
        known: Mapping[tuple[int, float], float] | None = None,
        failed: Collection[tuple[int, float]] = (),
    ) -> Decision:
        """The choice of least expected regret, among some batch sizes or at another cost; the rest as in `search`."""
        return decide(self.belief, self.choices(batch_sizes, cost), known, failed)

    @cached_property
    def candidate(self) -> Decision:
        """The choice of least expected regret now; where runs at it were made and none got through, another."""
        return self.decide(known=self.known, failed=set(self.tried) - set(self.known))

    @cached_property
    def decision(self) -> Decision:
        """What would be answered now: the candidate.

        Where a length is given, the run that got furthest within it; where another strategy chose the runs, the best.
        """
        if self.question.search != "anchors" and self.best_run_at is not None:
            return self.decide(known={self.best_run_at: math.inf})
        if self.question.within is None:
            return self.candidate
        return self.decide(known=dict.fromkeys(self.reached, math.inf))

    @cached_property
    def best_run_at(self) -> tuple[int, float] | None:
        """Where the run was made that reached the target at the least cost."""
        run = self.cheapest()
        return None if run is None else (run.config.batch_size, run.config.lr)

    @cached_property
    def known(self) -> dict[tuple[int, float], float]:
        """Pairs that a run stands behind, with the expected regret up to which each is preferred to one without.

        A run at another pair costs about one training (the rest of one, where the other waits at the milestone), and
        pays if it saves that over all trainings.
        """
        once = 1.0 / self.question.trainings
        waiting = dict.fromkeys(self.set_aside, (1.0 - _REST_OF_A_RUN) * once)
        return waiting | dict.fromkeys(self.reached, once)

    def cheapest(self, target: Target | None = None) -> StoredRun | None:
        """The finished run that reached the target, or another, at the least cost; runs are compared with it."""
        goal = target or self.target
        assert goal is not None
        best = best_on_clock(self.finished, goal, self.cost_of)
        return best[1] if best else None

    @cached_property
    def closest(self) -> tuple[float, StoredRun] | None:
        """The best value of the target's metric in any run, and that run."""
        assert self.target is not None
        metric, smaller = self.target.metric, self.target.mode == "min"
        values = [
            (float(run.result.best[metric]), run)
            for run in self.finished
            if run.result and math.isfinite(run.result.best.get(metric, math.nan))
        ]
        return min(values, key=lambda v: v[0] if smaller else -v[0], default=None)

    def device_seconds(self) -> float:
        """What every training step of the search takes on the hardware that the answer is for."""
        total = self.bench.device_seconds if self.bench_counts else 0.0
        if self.rate_range is not None:
            total += self.rate_range.steps * self.seconds_of(self.rate_range.batch_size)
        for run in self.runs:
            steps = run.result.steps if run.result else max((int(r["step"]) for r in run.rows), default=0)
            step = self.seconds_of(run.config.batch_size)
            total += steps * step
            for row in run.rows:
                if row["kind"] == "noise":
                    parts = self.step_time.of_batch(run.config.batch_size, int(row["group_size"]))
                    total += max(0.0, parts - step)
        return total

    def examples_seen(self) -> int:
        """Training examples that the search looked at, the bench apart."""
        seen = sum(run.result.examples if run.result else 0 for run in self.runs)
        return seen + (self.rate_range.steps * self.rate_range.batch_size if self.rate_range else 0)
