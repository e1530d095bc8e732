"""Before a study: what it will train, the metric that it chooses by, and how long it will take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..fits.step_time import StepTime
from ..hardware.time_limit import NO_LIMIT, TimeLimit
from ..probes.train_part import TrainPart
from ..store.not_applicable import NotApplicable
from ..store.records import Metric, Target
from ..store.runs import Store
from ..tasks.preflight.check import Preflight
from ..tasks.preflight.evaluation import judged_by
from ..tasks.workload import Workload
from ..training.attempts import Trials
from ..training.prepare import Prepared, Wanted, check_task, prepare
from ..training.progress import Prediction, Progress
from .configuration import check_schedule_of
from .outlook import Outlook
from .records import Arm, NamedStudy, StudyQuestion

__all__ = [
    "StudyPrepared",
    "forecast_of",
    "limit_before_runs",
    "metric_asked",
    "metric_of",
    "most_at_once",
    "outlook_of",
    "prepare_study",
]

_TIMING_S = 4.0
_SPREAD = 1.5
_MOST_AT_ONCE = 1000
_STOPS_AT = (0.03, 0.3, 1.0)
"""Where a run that stops early is expected to end, as a share of the most epochs: at least, typically, at most."""


@dataclass(frozen=True, kw_only=True)
class StudyPrepared:
    """What is known before the first run."""

    target: Target
    arms: tuple[Arm, ...]
    measured: Prepared
    notes: tuple[str, ...]
    part: TrainPart | NotApplicable
    """Of the task as it came, its examples loaded; or why they are not."""

    @property
    def step_time(self) -> StepTime:
        """Seconds of a step by batch size on this machine."""
        return self.measured.step_time

    @property
    def evaluation_s(self) -> float:
        """Seconds of an evaluation, that on the training data included."""
        return self.measured.timing.evaluation_s

    @property
    def memory_bytes(self) -> dict[int, float]:
        """Peak of one training step, by batch size."""
        return dict(self.measured.bench.profile.peak_memory_bytes)


def prepare_study(
    workload: Workload,
    question: StudyQuestion,
    named: NamedStudy,
    *,
    budget_s: float,
    progress: Progress,
    until: TimeLimit = NO_LIMIT,
    store: Store | None = None,
) -> StudyPrepared:
    """Try the task, and measure; with a store, what was measured before is read, not measured again.

    Raises:
        TaskError: the task fails the preflight.
        TargetError: the metric is not there, or its direction is not known.
        UsageError: a batch size is larger than the training set, too small for the model, or too large for memory.
        OutOfTime: the time ended before it was known what a step and an evaluation take.
    """
    arms = tuple(named.arms(question, workload.epoch))
    wanted = Wanted(
        budget_s=budget_s,
        batch_sizes=tuple(sorted({arm.batch_size for arm in arms})),
        memory_limit=question.memory_limit,
        metric=metric_asked(question.metric),
        timing_s=_TIMING_S,
        until=until,
    )
    for arm in arms:
        check_schedule_of(arm, workload)
    preflight = check_task(workload, wanted, progress, store)
    target = metric_of(question.metric, preflight)
    part, refusal = _train_part(workload, question, until, store)
    measured = prepare(
        workload,
        wanted,
        preflight=preflight,
        at_evaluation=part.measure if isinstance(part, TrainPart) and refusal is None else None,
        store=store,
        progress=progress,
    )
    notes = [*preflight.notes, *([f"the training part is not evaluated: {refusal.reason}"] if refusal else [])]
    return StudyPrepared(target=target, arms=arms, measured=measured, notes=tuple(notes), part=part)


def _train_part(
    workload: Workload, question: StudyQuestion, until: TimeLimit, store: Store | None
) -> tuple[TrainPart | NotApplicable, NotApplicable | None]:
    """What evaluates runs on training data, and why it cannot, if so: the loss refuses, or loading it killed before."""
    trials, what = Trials(store, workload.device), "the loading of the training part"
    if refused := trials.refusal(what):
        why = NotApplicable(reason=str(refused))
        return why, why
    with until.spending("evaluating on training data"), workload.limited(until), trials.of(what):
        part = TrainPart(workload, chunk=most_at_once(question))
        return part, part.why_not()


def limit_before_runs(store: Store, deadline: TimeLimit) -> TimeLimit:
    """What bounds the time before the runs: nothing in a folder that holds finished ones, which are read again."""
    return NO_LIMIT if any(run.result is not None for run in store.runs(at_once=False)) else deadline


def most_at_once(question: StudyQuestion) -> int:
    """Examples of the training part in one forward pass."""
    return min(_MOST_AT_ONCE, max(question.batch_sizes))


def metric_of(asked: str | None, preflight: Preflight) -> Target:
    """The metric that choices are made by, as a target that no run reaches.

    `NAME:max` or `NAME:min` says which way a metric is better whose name does not say it.

    Raises:
        TargetError: there is no such metric, or the direction is not known.
    """
    return judged_by(preflight.metrics, metric_asked(asked)).endless


def metric_asked(asked: str | None) -> Metric | None:
    """The metric of `--metric`, if it was given.

    Raises:
        TargetError: it is none, or its direction is not known.
    """
    return None if asked is None else Metric.parse(asked)


def forecast_of(
    prepared: StudyPrepared,
    question: StudyQuestion,
    examples: int,
    budget_s: float,
    made: Callable[[Arm, int], bool] = lambda arm, seed: False,
) -> Prediction:
    """How long the runs of a study will take that are not `made` yet, each an arm and a seed."""
    low = typical = high = 0.0
    runs = 0
    for arm in prepared.arms:
        left = sum(not made(arm, seed) for seed in question.seeds)
        quick, usual, slow = _seconds_of(arm, examples, prepared.step_time, prepared.evaluation_s)
        low, typical, high = low + left * quick, typical + left * usual, high + left * slow
        runs += left
    assumption = f"{runs} runs at the speed that was just measured"
    return Prediction(seconds=typical, low=low, high=high, budget_s=budget_s, assumption=assumption, what="study")


def outlook_of(
    prepared: StudyPrepared, question: StudyQuestion, examples: int, budget_s: float, *, drops_seeds: bool
) -> Outlook:
    """The outlook of a study on its budget; its runs take what `forecast_of` expects, until they show more."""

    def expected_s(arm: Arm) -> float:
        return _seconds_of(arm, examples, prepared.step_time, prepared.evaluation_s)[1]

    return Outlook(expected_s, prepared.arms, question.seeds, budget_s=budget_s, drops_seeds=drops_seeds)


def _seconds_of(arm: Arm, examples: int, step_time: StepTime, evaluation_s: float) -> tuple[float, float, float]:
    """Seconds of one run of an arm: at least, typically, at most."""
    length, step_s = arm.length, step_time.of_batch(arm.batch_size)
    steps = length.steps(examples, arm.batch_size)
    if steps is None:
        return length.amount, length.amount * 1.1, length.amount * _SPREAD
    evaluations = min(steps, max(30.0, steps * arm.batch_size / examples))
    whole = steps * step_s + evaluations * evaluation_s
    if length.unit == "until-stopped":
        early, usual, late = _STOPS_AT
        return whole * early, whole * usual, whole * late
    return whole / _SPREAD, whole, whole * _SPREAD
