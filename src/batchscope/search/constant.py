"""The best constant prediction beside a search: what its target must lie beyond, and what is said where it does not.

A prediction that is the same for every input is measured before the first run (`tasks.preflight.constant`). A target
that the search chooses counts from there where that is better than fresh weights; where no run got beyond it, nothing
was learnt, and there is no target. A target that the user asks for, and that a constant prediction reaches too, is
answered, and that is said. Numbers only, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..fits.curves import curve_of
from ..fits.targets import choose_target, gets_further, milestone_of
from ..store.records import RunStatus
from ..training.stopping import PlateauRule
from ..wording import plural
from .confirmation import settled
from .observations import has_diverged

if TYPE_CHECKING:
    from ..store.records import Metric
    from .state import SearchState

__all__ = ["beyond_constant", "constant_in_words", "nothing_learnt", "plateau_rule"]

_SMALL = 0.02
"""Share of what a constant prediction leaves, below which a gain over it is said to be small."""


def plateau_rule(state: SearchState, least_steps: int) -> PlateauRule:
    """The rule that ends a run without a target once it gains little beyond the best constant prediction."""
    return PlateauRule(least_steps=max(PlateauRule.least_steps, least_steps), start=_value(state))


def beyond_constant(state: SearchState) -> dict[str, Any]:
    """Changes of a search's state after its first runs: the target that was chosen, counted from a constant prediction.

    Where no run got beyond that, there is none. Empty where the user gave the target, or the constant prediction is not
    known or worse than fresh weights.
    """
    value, metric = _value(state), _metric(state)
    if state.question.target is not None or state.target is None or value is None or metric is None:
        return {}
    if _short_of_constant(state) is not None:
        return {"target": None, "milestone": None, "confirmation": None}
    furthest = state.finished[0]
    for run in state.finished[1:]:
        furthest = run if gets_further(run.rows, furthest.rows, metric) else furthest
    try:
        target = choose_target(furthest.rows, metric, value)
    except ValueError:  # the furthest run is further by less than what counts
        return {}
    if replace(target, confirm=state.target.confirm) == state.target:
        return {}
    milestone = milestone_of(furthest.rows, target, value)
    anew = replace(state, target=target, confirmation=None)
    return {"milestone": milestone, "target": target, "confirmation": None, **settled(anew, furthest, at_its_end=True)}


def nothing_learnt(state: SearchState) -> str:
    """Message where no run had a better value than the best constant prediction; empty where one had.

    Also empty where the user gave the target, or all runs diverged: these have messages of their own.
    """
    value, metric, best = _value(state), _metric(state), _short_of_constant(state)
    if value is None or metric is None or best is None or all(map(has_diverged, state.finished)):
        return ""
    late = any(run.result and run.result.status is RunStatus.OUT_OF_TIME for run in state.finished)
    longer = "--within" if state.question.within is not None else "--budget"
    return (
        f"nothing was learnt: the best {metric.name} of {plural(len(state.finished), 'run')} is {best:.4g}, and the "
        f"best constant prediction, the same for every input, has {value:.4g}. Look whether inputs and labels belong "
        "together (not shuffled, shifted or sorted apart), and whether the inputs tell anything about the labels"
        f"{f'. Give a longer {longer}' if late or state.question.within is not None else ''}"
    )


def _short_of_constant(state: SearchState) -> float | None:
    """The best value of runs none of which got beyond the best constant prediction.

    `None`: one did, or that is not known, or the user gave the target.
    """
    value, metric = _value(state), _metric(state)
    if state.question.target is not None or value is None or metric is None:
        return None
    values = [found for run in state.finished for found in _values(run.rows, metric)]
    if not values:
        return None
    best = min(values) if metric.mode == "min" else max(values)
    return None if best != value and (best < value) == (metric.mode == "min") else best


def constant_in_words(state: SearchState, reached: float | None) -> str:
    """Sentence where a constant prediction is as good as what is answered, or nearly; else empty.

    Args:
        state: of the search.
        reached: value of the metric that the answer reaches, or is expected to end at.
    """
    value, metric = _value(state), _metric(state)
    if value is None or reached is None or metric is None:
        return ""
    gain = value - reached if metric.mode == "min" else reached - value
    what = f"a constant prediction, the same for every input, has {metric.name} {value:.4g} at best"
    if gain <= 0.0:
        asked = state.question.target is not None
        return f"{what}, {'and reaches the target too: ask for a better value' if asked else 'and is as good'}"
    left = 1.0 - value if metric.mode == "max" and 0.0 <= value < 1.0 else abs(value)
    fresh = [found[0] for run in state.finished if (found := _values(run.rows, metric))]
    if not fresh or gain >= min(_SMALL * left, abs(fresh[0] - value)):
        return ""
    return f"{what}, and the answer is better by only {gain:.2g}: look whether inputs and labels belong together"


def _metric(state: SearchState) -> Metric | None:
    return state.question.metric if state.question.target is None else state.question.target.judged_by


def _value(state: SearchState) -> float | None:
    """Value of the best constant prediction, in the metric that runs are judged by; `None`: not known."""
    metric = _metric(state)
    return None if metric is None else state.constant.get(metric.name)


def _values(rows: Sequence[Any], metric: Metric) -> list[float]:
    return [value for _, value in curve_of(rows, metric.endless)]
