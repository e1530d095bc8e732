"""Answer of a search whose budget ended before its first run: what the time went on, and which budget would do."""

from __future__ import annotations

from ..hardware.device import Device
from ..hardware.environment import environment_of
from ..hardware.time_limit import TimeLimit
from ..store.records import Measured, Plan, PlanStatus, SearchCost
from ..training.limits import out_of_time_in_words
from .forecast import Pace, forecast
from .plan import without_recipe
from .question import Question, as_option
from .recipe import NOT_MEASURED
from .remaining_time import rounded_up
from .state import SearchState

__all__ = ["before_first_run", "nothing_measured"]


def before_first_run(state: SearchState, pace: Pace, deadline: TimeLimit) -> Plan:
    """Plan of a search that measured the hardware, and had no time to train.

    Args:
        state: of the search.
        pace: what it knows of its own time.
        deadline: with its account.
    """
    predicted = forecast(state.question, pace, examples=state.examples or 0)
    budget = as_option(rounded_up(max(predicted.seconds + pace.earlier_s, 2.0 * pace.budget_s)))
    message = out_of_time_in_words(deadline, pace.budget_s, would_do=budget)
    return without_recipe(state, PlanStatus.INSUFFICIENT_DATA, message)


def nothing_measured(task: str, question: Question, device: Device, message: str, spent_s: float) -> Plan:
    """Plan of a search whose budget ended before it was known what a step takes.

    Args:
        task: its name.
        question: what is asked.
        device: of this machine.
        message: of the lack of time.
        spent_s: seconds of the search.
    """
    unknown = NOT_MEASURED
    return Plan(
        task=task,
        objective=question.objective,
        target=question.target,
        status=PlanStatus.INSUFFICIENT_DATA,
        message=message,
        recipe=None,
        probability_within_5_percent=None,
        predicted=None,
        measured=Measured(
            critical_batch_size=unknown,
            gradient_noise_scale=unknown,
            knee_exponent=unknown,
            hardware_knee=unknown,
            largest_micro_batch_size=unknown,
        ),
        verified=None,
        alternatives=(),
        search=SearchCost(seconds=spent_s, device_seconds=0.0, examples=0, runs=0, run_equivalents=None),
        evidence=(),
        environment=environment_of(device),
        within=str(question.within) if question.within else None,
    )
