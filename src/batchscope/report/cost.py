"""What a search cost, in words: terminal and page share them."""

from __future__ import annotations

from ..store.records import Plan, SearchCost
from ..wording import elapsed, joined, number, plural

__all__ = ["cost_in_words", "parts_of"]


def parts_of(cost: SearchCost) -> dict[str, float]:
    """The wall time of a search in parts that add up to it.

    >>> cost = SearchCost(seconds=9.0, device_seconds=0.0, examples=0, runs=1, run_equivalents=None)
    >>> parts_of(cost)
    {'training steps': 0.0, 'evaluations': 0.0, 'loading the task, bench, set-up and choosing the runs': 9.0}
    """
    evaluations = min(cost.evaluation_seconds, cost.seconds)
    steps = min(cost.training_seconds, cost.seconds - evaluations)
    rest = cost.seconds - evaluations - steps
    return {
        "training steps": steps,
        "evaluations": evaluations,
        "loading the task, bench, set-up and choosing the runs": rest,
    }


def cost_in_words(plan: Plan) -> str:
    """Price of a search: its wall time and the parts of it, and how many trainings it was as long as."""
    cost = plan.search
    if plan.table is not None:
        return f"Nothing was trained: this follows from the {plural(cost.runs, 'run')} in {plan.table}."
    parts = joined([f"{elapsed(seconds)} of {what}" for what, seconds in parts_of(cost).items() if seconds > 0])
    said = f"The search took {elapsed(cost.seconds)} of wall time for {plural(cost.runs, 'run')}"
    said += f" ({parts})" if parts else ""
    if cost.training_here_s:
        said += (
            f", as long as {_trainings(cost.seconds / cost.training_here_s)} at the recipe on this machine, "
            f"evaluations included ({elapsed(cost.training_here_s)} each)"
        )
    if cost.run_equivalents is None:
        return f"{said}."
    worth = _trainings(cost.run_equivalents)
    answered_for = plan.bench.profile.name if plan.bench is not None else plan.environment.device_name
    if answered_for == plan.environment.device_name:
        return f"{said}. Its training steps alone, those of the bench included, took as long as those of {worth}."
    return (
        f"{said}. On {answered_for}, which the answer is for, its training steps would take "
        f"{elapsed(cost.device_seconds)}, as long as those of {worth} at the recipe there."
    )


def _trainings(number_of_them: float) -> str:
    words = number(float(f"{number_of_them:.2g}"))
    return "1 training" if words == "1" else f"{words} trainings"
