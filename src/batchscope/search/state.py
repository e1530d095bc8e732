"""The state of a search: data, and the parts that answer for it (observations, law, choices). Numbers only, no torch.

A search derives its parts from its runs. Measurements made elsewhere (`table/`) bring parts of their own, and say in
`recorded` what was measured at all: recipe and plan leave open what was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..fits.curves import best_held, steps_to_target
from ..fits.step_time import StepTime, step_time_of
from ..fits.steps_to_target import Observation, Prior, StepsPosterior
from ..store.records import Bench, Environment, Estimate, RateRange, RunStatus, Target
from ..store.runs import StoredRun
from .clock import Correction, correction_of
from .confirmation import Confirmation
from .ends import lengths_of
from .law import Law, Posterior, fit_joint, joint_law, prior_from
from .observations import best_on_clock, evaluation_seconds, noise_scale_of, observe
from .question import Question
from .strategies.anchors import Choices, Decision, sizes_between
from .strategies.space import Pair
from .within import Lengths

__all__ = ["Parts", "Recorded", "SearchState"]

_REST_LEFT = 0.4
"""A run at the milestone has 0.6 trainings left, so it is preferred to one not begun by this share of a training."""
_MINIMUM_TIME_SPREAD, _LOWEST_AT = 0.02, 2.5
_WITHOUT_A_RUN, _NOT_THERE = 2.0, 0.25
"""Expected regret up to which a pair with a run is answered when none can follow, and how much less where it did not
come to the target."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What was measured: all of it in a search, a part of it in a table.

    Attributes:
        step_times: of the hardware that the answer is for.
        memory: of its steps.
        lrs: learning rates of the runs.
        evaluations: along the runs; without them a run is known by its steps to target alone.
    """

    step_times: bool = True
    memory: bool = True
    lrs: bool = True
    evaluations: bool = True


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of a state that do not follow from stored runs.

    Attributes:
        observations: of steps to target.
        batch_sizes: to choose from, ascending.
        law: of steps to target; `None`: the joint law, fitted to the observations.
        log_seconds: logarithm of the seconds of a step at some batch sizes for each draw of the law's posterior, shape
            (draws, batch sizes), where step times are uncertain; `None`: as the step-time model has them.
    """

    observations: tuple[Observation, ...]
    batch_sizes: tuple[int, ...]
    law: Law | None = None
    log_seconds: Callable[[Sequence[int]], NDArray[np.float64]] | None = None


@dataclass(frozen=True, kw_only=True)
class SearchState:
    """The state of a search, from which every decision follows.

    Attributes:
        task: its name.
        question: what was asked.
        target: asked for or chosen from the pilot; `None` until then.
        examples: in the training set, or in an epoch of its sampler; `None`: not known, or a stream.
        bench: of the hardware that the answer is for.
        bench_counts: whether the bench ran on that hardware as part of this search.
        rate_range: the range test, once made.
        runs: every run so far, unfinished ones included.
        seconds: on the clock, over all processes that worked on this search.
        environment: where it ran.
        notes: of the preflight.
        milestone: where runs are paused on their way to the target; `None`: nowhere.
        parts: brought along by a table; `None`: they follow from the runs.
        recorded: what was measured at all.
        drawn_within: a curve is drawn where its 90 % interval reaches less than this many times its value; `None`:
            everywhere.
        cut_off: whether the budget ended the search before it came to its own end.
        largest_batch: the largest batch size to choose; `None`: as large as the training set and the question allow.
        confirmation: how many evaluations confirm the target, once a run has settled it.
        constant: metrics of the best prediction that is the same for every input, as far as measured.
    """

    task: str
    question: Question
    target: Target | None
    examples: int | None
    bench: Bench
    bench_counts: bool
    rate_range: RateRange | None
    runs: tuple[StoredRun, ...]
    seconds: float
    environment: Environment
    notes: tuple[str, ...] = ()
    milestone: Target | None = None
    parts: Parts | None = None
    recorded: Recorded = Recorded()
    drawn_within: float | None = None
    cut_off: bool = False
    largest_batch: int | None = None
    confirmation: Confirmation | None = None
    constant: Mapping[str, float] = field(default_factory=dict[str, float])

    @cached_property
    def finished(self) -> tuple[StoredRun, ...]:
        """Runs with a result."""
        return tuple(run for run in self.runs if run.result is not None)

    @cached_property
    def observations(self) -> Sequence[Observation]:
        """What the runs say about steps to target."""
        if self.parts is not None:
            return self.parts.observations
        assert self.target is not None
        return observe(self.finished, self.target, self.cost_of, self.milestone)

    @cached_property
    def reached(self) -> dict[Pair, list[float]]:
        """Steps to target of the runs that reached it, by batch size and learning rate."""
        found: dict[Pair, list[float]] = {}
        for observation in self.observations:
            if observation.kind == "reached" and observation.to == "target":
                found.setdefault((observation.batch_size, observation.lr), []).append(observation.steps)
        return found

    @cached_property
    def tried(self) -> list[Pair]:
        """Pairs of batch size and learning rate that some run was made at."""
        return [(o.batch_size, o.lr) for o in self.observations]

    @cached_property
    def paused(self) -> set[Pair]:
        """Pairs of which a run waits on its way: paused at the milestone or beyond it, by a rule or by the budget."""
        waiting = {(o.batch_size, o.lr) for o in self.observations if o.kind == "reached" and o.to == "milestone"}
        stops = (RunStatus.OUT_OF_TIME, RunStatus.PAUSED)
        late = (run for run in self.finished if run.result and run.result.status in stops)
        cut = {(run.config.batch_size, run.config.lr) for run in late}
        return waiting | (cut & set(self.passed_after)) - set(self.reached)

    @cached_property
    def passed_after(self) -> dict[Pair, float]:
        """Steps after which a run passed the milestone, by batch size and learning rate; of several runs the fewest."""
        found: dict[Pair, float] = {}
        for run in self.finished:
            if self.milestone and (steps := steps_to_target(run.rows, self.milestone)) is not None:
                pair = run.config.batch_size, run.config.lr
                found[pair] = min(steps, found.get(pair, math.inf))
        return found

    @cached_property
    def answerable(self) -> bool:
        """Whether a recipe can be named: a run reached the target, or waits on its way when the budget has ended.

        Where a length is given, a run of that length; or any that trained, when the budget has ended.
        """
        if self.question.within is not None:
            decided = self.target is not None and self.lengths.decision is not None
            return decided and bool(self.lengths.whole or self.cut_off)
        return self.target is not None and bool(self.reached or (self.cut_off and self.paused))

    def cheapest(self, target: Target | None = None) -> StoredRun | None:
        """The finished run that reached the target, or another, at the lowest cost; runs are compared with it."""
        goal = target or self.target
        assert goal is not None
        return best_on_clock(self.finished, goal, self.cost_of)

    @cached_property
    def best_run_at(self) -> Pair | None:
        """Batch size and learning rate of the run that reached the target at the lowest cost."""
        run = self.cheapest()
        return None if run is None else (run.config.batch_size, run.config.lr)

    @cached_property
    def closest(self) -> tuple[float, int, StoredRun] | None:
        """The hardest value that any run would have reached as a target, the step, and that run."""
        assert self.target is not None
        smaller = self.target.mode == "min"
        values = [(*held, run) for run in self.finished if (held := best_held(run.rows, self.target)) is not None]
        return min(values, key=lambda v: v[0] if smaller else -v[0], default=None)

    @cached_property
    def noise_scale(self) -> Estimate:
        """The gradient noise scale of the pilot."""
        return noise_scale_of(self.runs, self.examples)

    @cached_property
    def prior(self) -> Prior:
        """Prior of the joint law, before any steps to target were observed."""
        return prior_from(self.rate_range, self.noise_scale)

    @cached_property
    def joint_posterior(self) -> StepsPosterior:
        """Posterior of the joint law of batch size and learning rate."""
        return fit_joint(self.observations, self.prior, seed=self.question.seed)

    @cached_property
    def law(self) -> Law:
        """The law of steps to target."""
        given = self.parts.law if self.parts is not None else None
        return given or joint_law(self.joint_posterior)

    @property
    def posterior(self) -> Posterior:
        """Posterior of the law."""
        return self.law.posterior

    @cached_property
    def measured_step_time(self) -> StepTime:
        """Step-time model of the hardware that the answer is for, as it was measured before any run."""
        return step_time_of(self.bench)

    @cached_property
    def clock(self) -> Correction:
        """Correction of that model by the runs' own clocks, where they were made on that hardware."""
        if not (self.bench_counts and self.parts is None and self.recorded.step_times and self.recorded.evaluations):
            return Correction()
        return correction_of(self.finished, self.bench, self.measured_step_time)

    @cached_property
    def corrected_bench(self) -> Bench:
        """The bench with what the runs say of its step times."""
        return replace(self.bench, in_training=self.clock.factors) if self.clock.factors else self.bench

    @cached_property
    def step_time(self) -> StepTime:
        """Step-time model of a training on the hardware that the answer is for."""
        return step_time_of(self.corrected_bench)

    def seconds_of(self, batch_size: int) -> float:
        """Seconds of one step of a batch size, accumulated where it does not fit at once."""
        return self.step_time.of_batch(batch_size)

    def step_time_spread(self, batch_size: int) -> float:
        """Standard deviation of the logarithm of a step time."""
        if self.parts is None or self.parts.log_seconds is None:
            return self.clock.spread(batch_size, self.step_time.spread_of_batch(batch_size))
        return max(_MINIMUM_TIME_SPREAD, float(self.parts.log_seconds((batch_size,)).std()))

    def cost_of(self, batch_size: int) -> float:
        """The cost of one step that is to be minimised: its seconds, or its examples."""
        return float(batch_size) if self.question.counts_examples else self.seconds_of(batch_size)

    def most_steps(self, batch_size: int) -> int | None:
        """How long one training may be, in steps, under a schedule by the bench alone; `None`: no length was asked."""
        within = self.question.within
        if within is None:
            return None
        if within.unit == "steps":
            return int(within.amount)
        if within.unit == "seconds":
            fixed = self.question.schedule not in (None, "constant")
            step_time = self.measured_step_time if fixed else self.step_time
            return max(1, math.floor(within.amount / step_time.of_batch(batch_size)))
        assert self.examples is not None
        return max(1, math.floor(within.amount / (batch_size / self.examples)))

    @cached_property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes to choose from."""
        if self.parts is not None:
            return self.parts.batch_sizes
        most = self.largest_batch
        if most is None:
            assert self.examples is not None
            most = min(self.examples, self.question.max_batch_size or self.examples)
        return self._with_room_to_warm_up(sizes_between(min(self.bench.smallest_micro_batch_size, most), most))

    def _with_room_to_warm_up(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Those at which a run of the given length is longer than its warm-up, by what a step took in the bench.

        Where it is so at none, the first.
        """
        warmup = self.question.warmup
        if warmup is None or self.question.within is None:
            return sizes
        before = replace(self, runs=())
        lengths = {size: before.most_steps(size) or 0 for size in sizes}
        return tuple(size for size in sizes if warmup.steps(size, lengths[size]) < lengths[size]) or sizes[:1]

    def choices(
        self, batch_sizes: tuple[int, ...] | None = None, cost: Callable[[int], float] | None = None
    ) -> Choices:
        """What can be chosen, at the price that the objective names or at another cost."""
        in_time = cost is None and not self.question.counts_examples
        return Choices(
            batch_sizes=batch_sizes or self.batch_sizes,
            step_cost=cost or self.cost_of,
            step_time=self.seconds_of,
            trainings=self.question.trainings,
            by_milestone=self.milestone is not None,
            log_cost_draws=self.parts.log_seconds if in_time and self.parts is not None else None,
            lowest_lr=self.lowest_lr,
        )

    def lowest_lr(self, batch_size: int) -> float:
        """The lowest learning rate to look at; 0 without a range test.

        It lies two and a half standard deviations of the prior below where the range test expects the best one, and for
        batch sizes below that of the test in proportion lower, as the best one itself is at most.
        """
        test = self.rate_range
        if test is None:
            return 0.0
        return test.best_lr / test.expected_factor**_LOWEST_AT * min(1.0, batch_size / test.batch_size)

    @cached_property
    def preferred(self) -> dict[Pair, float]:
        """Pairs that a run stands behind, with the expected regret up to which each is preferred to one without.

        A run at another pair costs about one training (the rest of one, where the other is paused at the milestone),
        and pays if it saves that over all trainings. When the budget has ended no run can follow: then a pair without
        one is chosen only if those with one are expected to take three times as long, and one whose run waits on its
        way rather than one that reached the target if it is expected to save a quarter of a training.
        """
        once = 1.0 / self.question.trainings
        tolerances = (_WITHOUT_A_RUN, _WITHOUT_A_RUN - _NOT_THERE) if self.cut_off else (once, _REST_LEFT * once)
        return dict.fromkeys(self.paused, tolerances[1]) | dict.fromkeys(self.reached, tolerances[0])

    def decide(
        self,
        *,
        batch_sizes: tuple[int, ...] | None = None,
        cost: Callable[[int], float] | None = None,
        preferred: Mapping[Pair, float] | None = None,
        failed: Collection[Pair] = (),
    ) -> Decision:
        """The choice of minimum expected regret, among some batch sizes or at another cost; see `Law.decide`."""
        return self.law.decide(self.choices(batch_sizes, cost), preferred or {}, failed)

    @cached_property
    def candidate(self) -> Decision:
        """The choice of minimum expected regret now; where runs at it were made and none got through, another."""
        return self.decide(preferred=self.preferred, failed=set(self.tried) - set(self.preferred))

    @cached_property
    def decision(self) -> Decision:
        """What would be answered now: the candidate.

        Where a length is given, what is expected to end best; with another strategy, the best.
        """
        if self.question.search != "anchors" and self.best_run_at is not None:
            return self.decide(preferred={self.best_run_at: math.inf})
        if self.question.within is None:
            return self.candidate
        decision = self.lengths.decision
        assert decision is not None
        return decision

    @cached_property
    def lengths(self) -> Lengths:
        """What the runs say where the length of a training is given."""
        return lengths_of(self)

    def device_seconds(self) -> float:
        """Seconds of all training steps of the search on the hardware that the answer is for; 0 without step times."""
        if not self.recorded.step_times:
            return 0.0
        total = self.bench.device_seconds if self.bench_counts else 0.0
        if self.rate_range is not None:
            total += self.rate_range.steps * self.seconds_of(
                self.rate_range.tested_batch_size or self.rate_range.batch_size
            )
        for run in self.runs:
            steps = run.result.steps if run.result else max((int(r["step"]) for r in run.rows), default=0)
            step = self.seconds_of(run.config.batch_size)
            total += steps * step
            for row in run.rows:
                if row["kind"] == "noise":
                    parts = self.step_time.of_batch(run.config.batch_size, int(row["group_size"]))
                    total += max(0.0, parts - step)
        return total

    def evaluation_seconds(self) -> float:
        """Seconds that the evaluations of all runs took on this machine, as far as they were recorded."""
        return sum(map(evaluation_seconds, self.runs))

    def examples_seen(self) -> int:
        """Training examples that the search looked at, the bench apart."""
        seen = sum(run.result.examples if run.result else 0 for run in self.runs)
        return seen + (self.rate_range.examples if self.rate_range else 0)
