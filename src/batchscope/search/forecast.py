"""How long a search takes by the clock: forecast before its first run, and renewed as its real pace is known.

The wall time of a search is what has passed, plus the trainings that are left times the wall time of one, plus what
passes between runs. A search takes N trainings at its recipe, N log-normal; once n of them are spent, what is left is
N - n given N > n. One training is its steps (in the loop: loading included) and its evaluations; before any run its
length is a guess, afterwards the posterior of the search knows it. Numbers only, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from ..store.records import Estimate, RunConfig, Target, Timing
from ..store.runs import StoredRun
from ..training.progress import Prediction
from ..wording import plural
from .evaluation_spacing import Spacing, evaluations_in, spacing_before
from .follow import TYPICAL_RUNS
from .horizon import TYPICAL_HORIZONS
from .observations import best_on_clock, evaluation_seconds
from .question import Question
from .state import SearchState

__all__ = [
    "STEPS",
    "STEPS_OF",
    "Here",
    "Pace",
    "expected_steps",
    "forecast",
    "renewed",
    "seconds_in",
    "training_here",
    "trainings_left",
]

Array = NDArray[np.float64]

_TRAININGS_SD = 0.5
"""Standard deviation of the logarithm of N: 0.30 and 0.41 in the recorded searches (`benchmarks/search/results`)."""
STEPS, STEPS_OF, _STEPS_FACTOR = 100.0, 128, 10.0
"""Length of a training in steps at batch size 128, and the factor to either side that holds 90 %: 21 to 398 steps,
70 in the median, for the best cells of all tables in `benchmarks/search/tables`; 30 to 260 in `benchmarks/real`."""
_RUNS_OF_A_TRAINING = 2.0
"""Runs for each training that a search takes: 5 for 2.7 in the median of the recorded searches."""
_WITHIN = 4.0
"""Trainings of a search for a given length, which has five at most."""
_BETWEEN_RUNS_S = 0.6
"""Choosing the next run, before the real pace is known."""
_KNOWN = math.log(100.0)
"""Widest 90 % interval, in log steps, of an end of a run that is told."""
_END_S = 2.0
"""Plan and page."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a search knows of its own time.

    Attributes:
        timing: measured before the first run.
        budget_s: of the search.
        spent_s: since this command began.
        earlier_s: in earlier commands on the folder.
        runs: that this command has made.
        between_s: since the first of them began, outside their steps and evaluations.
    """

    timing: Timing
    budget_s: float
    spent_s: float
    earlier_s: float = 0.0
    runs: int = 0
    between_s: float = 0.0

    @property
    def between_runs_s(self) -> float:
        """Seconds beside steps and evaluations for each run: choosing it, and starting it."""
        return (_BETWEEN_RUNS_S + max(0.0, self.between_s)) / (1 + self.runs)


@dataclass(frozen=True, kw_only=True)
class Here:
    """How long trainings take on this machine, which may not be the one that the answer is for.

    Attributes:
        step_ratio: seconds of a step in the runs here ÷ those of the step-time model.
        evaluation_s: seconds of one evaluation.
        spacing: of the evaluations of the latest run.
    """

    step_ratio: float
    evaluation_s: float
    spacing: Spacing

    @classmethod
    def of(cls, state: SearchState, timing: Timing | None = None) -> Here | None:
        """Read off the runs of a search; `None` before the first one.

        Args:
            state: of the search.
            timing: what an evaluation was measured to take, for runs that do not tell.
        """
        plain = [run for run in state.finished if not run.config.noise_scale_groups] or state.finished
        here = sum(run.result.device_seconds for run in plain if run.result)
        model = sum(run.result.steps * state.seconds_of(run.config.batch_size) for run in plain if run.result)
        if not here or not model:
            return None
        evaluations, latest = sum(_evaluations(run) for run in state.finished), state.finished[-1].config
        told = sum(evaluation_seconds(run) for run in state.finished)
        return cls(
            step_ratio=here / model,
            evaluation_s=told / evaluations if told else timing.evaluation_s if timing else 0.0,
            spacing=Spacing(every=latest.evaluation_every, gap=latest.evaluation_gap),
        )

    def seconds(self, steps: Array, step_s: Array) -> Array:
        """Wall time of trainings of so many steps, of so many seconds each by the step-time model."""
        return steps * step_s * self.step_ratio + evaluations_in(steps, self.spacing) * self.evaluation_s


def trainings_left(typical: float, spent: float = 0.0) -> tuple[float, float, float]:
    """Trainings that a search has left after so many: 5 % quantile, median, 95 % quantile of N - n given N > n.

    >>> [round(n, 1) for n in trainings_left(2.8)], [round(n, 1) for n in trainings_left(2.8, 2.8)]
    ([1.2, 2.8, 6.4], [0.1, 1.1, 4.7])
    """
    beyond = float(ndtr(-math.log(max(spent, 1e-9) / typical) / _TRAININGS_SD))
    low, middle, high = (
        typical * math.exp(-_TRAININGS_SD * float(ndtri(share * beyond))) - spent for share in (0.95, 0.5, 0.05)
    )
    return max(0.0, low), max(0.0, middle), max(0.0, high)


def seconds_in(run: StoredRun, evaluation_s: float) -> float:
    """Seconds that the steps and evaluations of a run took here; where its rows do not tell, one takes so many."""
    steps = run.result.device_seconds if run.result else 0.0
    return steps + (evaluation_seconds(run) or _evaluations(run) * evaluation_s)


def _evaluations(run: StoredRun) -> int:
    return sum(row["kind"] == "evaluation" for row in run.rows)


def forecast(question: Question, pace: Pace, *, examples: int, stored: Sequence[StoredRun] = ()) -> Prediction:
    """How long a search will take, before its first run, or before it goes on from what its folder holds.

    Args:
        question: what is asked.
        pace: with what was measured.
        examples: in the training set.
        stored: finished runs of the folder.
    """
    timing = pace.timing
    own = _of_stored(question, timing, stored)
    if own is not None:
        training, spent = own
        assumption = f"what {plural(len(stored), 'stored run')} showed"
    elif question.within is not None:
        per = 1.0 if question.within.unit == "steps" else examples / STEPS_OF
        steps = question.within.amount * per
        by_steps = _training_s(steps, timing, question.evaluation_share)
        seconds = question.within.amount if question.within.unit == "seconds" else by_steps
        training, spent = _estimate(seconds, seconds, seconds), 0.0
        assumption = f"trainings of {question.within}"
    else:
        low, value, high = (
            _training_s(STEPS * factor, timing, question.evaluation_share)
            for factor in (1 / _STEPS_FACTOR, 1.0, _STEPS_FACTOR)
        )
        training, spent = _estimate(low, value, high), 0.0
        assumption = (
            f"a target that takes about {STEPS:.0f} steps of {STEPS_OF} examples, give or take a factor of "
            f"{_STEPS_FACTOR:.0f}: the first runs will tell"
        )
    left = trainings_left(_typical(question), spent)
    if stored and _ended(pace):
        left, assumption = (0.0, 0.0, 0.0), "that nothing is left to train"
    return _prediction(pace, training, left, assumption)


def renewed(state: SearchState, pace: Pace) -> Prediction | None:
    """How long a search will take by the runs that it has made; `None` while they do not tell."""
    here = Here.of(state, pace.timing)
    training = here and _training_now(state, here)
    if here is None or training is None or not training.value:
        return None
    seconds = [(run.result.steps, state.seconds_of(run.config.batch_size)) for run in state.finished if run.result]
    steps, step_s = np.array(seconds, dtype=np.float64).T
    spent = float(here.seconds(steps, step_s).sum()) / training.value
    left = trainings_left(_typical(state.question), spent)
    return _prediction(pace, training, left, f"what {plural(len(state.finished), 'run')} showed")


def training_here(state: SearchState, seconds: float, batch_size: int) -> float | None:
    """Wall time on this machine of one training, evaluations included; `None` where nothing was trained here.

    Args:
        state: of the search.
        seconds: of its training steps by the step-time model, which may be another machine's.
        batch_size: that it is made at.
    """
    here, step_s = Here.of(state), state.seconds_of(batch_size)
    return None if here is None else float(here.seconds(np.array(seconds / step_s), np.array(step_s)))


def expected_steps(
    state: SearchState, config: RunConfig, milestone: Target | None = None, limit: int | None = None
) -> float | None:
    """Step at which a run of a search is expected to end: at its length, a limit, the milestone or the target.

    `None` where that is not known, or known so badly that the ends of its 90 % interval are a factor of 100 apart.
    """
    length = float(config.max_steps) if state.question.within is not None or config.schedule != "constant" else math.inf
    if config.target is not None and state.target is not None and state.finished and state.question.search == "anchors":
        to = state.joint_posterior.log_milestone_steps if milestone is not None else state.joint_posterior.log_steps
        low, median, high = np.quantile(to(config.batch_size, config.lr), (0.05, 0.5, 0.95))
        if high - low <= _KNOWN:
            length = min(length, math.exp(median))
    ends = min(length, float(limit or math.inf))
    return ends if math.isfinite(ends) else None


def _typical(question: Question) -> float:
    """Trainings that a search takes in the median, those that find the length of a schedule included."""
    if question.within is not None:
        return _WITHIN
    return TYPICAL_RUNS[question.search] + (TYPICAL_HORIZONS if question.decays_to_target else 0.0)


def _training_now(state: SearchState, here: Here) -> Estimate | None:
    """Wall time of one training at the best recipe, as it is known now."""
    within = state.question.within
    if within is not None:
        run = state.finished[-1]
        steps = state.most_steps(run.config.batch_size) or run.config.max_steps
        seconds = float(here.seconds(np.array(float(steps)), np.array(state.seconds_of(run.config.batch_size))))
        return _estimate(seconds, seconds, seconds)
    if state.target is None:
        return None
    if state.question.search != "anchors":
        run = state.cheapest()
        steps = run and run.result and (run.result.steps_to_target or run.result.steps)
        if not run or not steps:
            return None
        seconds = float(here.seconds(np.array(float(steps)), np.array(state.seconds_of(run.config.batch_size))))
        return _estimate(seconds / 1.5, seconds, seconds * 1.5)
    sizes = np.array(state.batch_sizes)
    step_s = np.array([state.seconds_of(int(size)) for size in sizes])
    log_steps = np.minimum(state.joint_posterior.log_best_steps(sizes), 50.0)
    best = (log_steps + np.log([state.cost_of(int(size)) for size in sizes])).argmin(axis=1)
    seconds = here.seconds(np.exp(log_steps[np.arange(len(best)), best]), step_s[best])
    low, value, high = np.quantile(seconds, (0.05, 0.5, 0.95))
    return _estimate(float(low), float(value), float(high))


def _of_stored(question: Question, timing: Timing, stored: Sequence[StoredRun]) -> tuple[Estimate, float] | None:
    """Wall time of the quickest stored run to the target, and as long as how many of it all of them took."""
    if question.target is None:
        return None
    clock = {run.config.batch_size: _step_seconds(run) for run in stored}
    run = best_on_clock(stored, question.target, lambda batch_size: clock[batch_size])
    if run is None:
        return None
    seconds = seconds_in(run, timing.evaluation_s)
    if not seconds:
        return None
    return _estimate(seconds / 1.5, seconds, seconds * 1.5), sum(
        seconds_in(r, timing.evaluation_s) for r in stored
    ) / seconds


def _step_seconds(run: StoredRun) -> float:
    return max(run.result.device_seconds / max(1, run.result.steps), 1e-9) if run.result else math.inf


def _ended(pace: Pace) -> bool:
    """Whether the search had come to its end before, and not because of a budget smaller than this one."""
    given_s = pace.timing.given_s
    return given_s >= pace.budget_s or 0.0 < pace.earlier_s < given_s


def _training_s(steps: float, timing: Timing, evaluation_share: float) -> float:
    evaluations = float(evaluations_in(np.array(steps), spacing_before(timing, evaluation_share, steps)))
    return steps * timing.step_s + evaluations * timing.evaluation_s


def _estimate(low: float, value: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=0, unit="s", method="wall time of one training, forecast")


def _prediction(pace: Pace, training: Estimate, left: Iterable[float], assumption: str) -> Prediction:
    """The trainings that are left times the time of one, both log-normal, and what comes between and after them."""
    few, trainings, many = left
    low_s, value_s, high_s = training.low, training.value, training.high
    assert low_s is not None
    assert value_s is not None
    assert high_s is not None
    between_s = _RUNS_OF_A_TRAINING * pace.between_runs_s
    middle = trainings * (value_s + between_s)
    faster = math.exp(-_both(few / trainings, _ratio(low_s, value_s))) if few else 0.0
    slower = math.exp(_both(many / trainings, _ratio(high_s, value_s))) if trainings else 1.0
    fixed = pace.spent_s + _END_S
    return Prediction(
        seconds=fixed + middle,
        low=max(pace.spent_s, fixed + middle * faster - 0.5 * _END_S),
        high=fixed + middle * slower + _END_S,
        budget_s=pace.budget_s,
        assumption=assumption,
        training_s=training,
        trainings=trainings,
        spent_s=pace.spent_s,
        earlier_s=pace.earlier_s,
    )


def _ratio(seconds: float, other: float) -> float:
    return seconds / other if seconds > 0 and other > 0 else 1.0


def _both(first: float, second: float) -> float:
    """Logarithm of the factor that two independent factors come to together, each at the same quantile."""
    return math.hypot(math.log(first), math.log(second))
