"""What a search cost, in words: terminal and page share them."""

from __future__ import annotations

from ..store.records import Plan, SearchCost
from ..wording import elapsed, joined, number, plural

__all__ = ["cost_in_words", "parts_of"]

_SHORT_S = 10.0
"""A search is not told in trainings that are shorter: seconds say more."""


def parts_of(cost: SearchCost) -> dict[str, float]:
    """The wall time of a search in parts that add up to it.

    >>> cost = SearchCost(seconds=9.0, device_seconds=0.0, examples=0, runs=1, run_equivalents=None)
    >>> parts_of(cost)
    {'training steps': 0.0, 'evaluations': 0.0, 'loading, timing, setting up and choosing the runs': 9.0}
    """
    evaluations = min(cost.evaluation_seconds, cost.seconds)
    steps = min(cost.training_seconds, cost.seconds - evaluations)
    rest = cost.seconds - evaluations - steps
    return {
        "training steps": steps,
        "evaluations": evaluations,
        "loading, timing, setting up and choosing the runs": rest,
    }


def cost_in_words(plan: Plan) -> str:
    """Price of a search: its wall time and the parts of it, and how many trainings it was as long as."""
    cost = plan.search
    if plan.table is not None:
        return f"Nothing was trained: this follows from the {plural(cost.runs, 'run')} in {plan.table}."
    parts = joined([f"{elapsed(seconds)} of {what}" for what, seconds in parts_of(cost).items() if seconds > 0])
    said = f"The search took {elapsed(cost.seconds)} for {plural(cost.runs, 'run')}{f': {parts}' if parts else ''}."
    each_s = cost.training_here_s
    if each_s:
        said += f" One training with the recipe takes {elapsed(each_s)} on this machine, evaluations included"
        said += "." if each_s < _SHORT_S else f": the search took as long as {_trainings(cost.seconds / each_s)}."
    answered_for = plan.bench.profile.name if plan.bench is not None else plan.environment.device_name
    if cost.run_equivalents is None or answered_for == plan.environment.device_name:
        return said
    worth = _trainings(cost.run_equivalents)
    there = f"On {answered_for}, which the answer is for, the training steps of the search would take"
    return f"{said} {there} {elapsed(cost.device_seconds)}, as long as those of {worth} with the recipe."


def _trainings(number_of_them: float) -> str:
    words = number(float(f"{number_of_them:.2g}"))
    return "1 training" if words == "1" else f"{words} trainings"
