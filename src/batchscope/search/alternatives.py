"""Other recipes that somebody may prefer, each with what it is better at. Numbers only, no torch.

One that is predicted to cost less than the recommended recipe says why it was not taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..store.records import Alternative, Predicted
from ..wording import percent, plural
from .recipe import predicted_at, recipe_of
from .state import SearchState
from .strategies.space import Pair

__all__ = ["alternative", "alternatives_to", "looks_better"]

_LITTLE_COST = 1.5
_NEAR = 2.0
"""A batch size is taken to work up to this many times the largest that reached the target."""
_MOST_EXAMPLES = 2.0
"""Times the fewest examples that the largest batch size at little loss may need."""
_TOLD = 0.005
"""A gain below this is not told from none."""


def alternatives_to(state: SearchState, batch_size: int, lr: float) -> tuple[Alternative, ...]:
    """Other recipes than the given one, each with what it is better at; those equal to it left out."""
    if not state.reached:
        return ()
    preferred = {pair: tolerance for pair, tolerance in state.preferred.items() if pair in state.reached}

    def best(batch_sizes: tuple[int, ...] | None = None, cost: Callable[[int], float] | None = None) -> Pair:
        decision = state.decide(batch_sizes=batch_sizes, cost=cost, preferred=preferred)
        return decision.batch_size, decision.lr

    offers: dict[str, Pair] = {}
    if state.question.objective == "time":
        offers["fewest examples"] = best(cost=float)
    else:
        offers["shortest training time"] = best(cost=state.seconds_of)
    if (small := _smallest_at_little_cost(state, batch_size)) is not None:
        offers[f"least memory for at most {_LITTLE_COST:g} times the time"] = best((small,))
    own = predicted_at(state, batch_size, lr)
    fewest = min(_examples_at(state, *best(cost=float)), own.examples_to_target.value or math.inf)
    for size in _larger_at_no_loss(state, batch_size):
        if _examples_at(state, *(large := best((size,)))) <= _MOST_EXAMPLES * fewest:
            offers["largest batch size that needs at most twice the fewest examples"] = large
            break
    found: dict[Pair, Alternative] = {}
    for why, pair in offers.items():
        if pair not in found and pair != (batch_size, lr):
            found[pair] = alternative(state, why, *pair, recommended=own)
    return tuple(found.values())


def alternative(
    state: SearchState, why: str, batch_size: int, lr: float, recommended: Predicted | None = None
) -> Alternative:
    """A recipe with what it is better at, and what training at it is expected to take.

    Args:
        state: of the search.
        why: what it is better at.
        batch_size: of the recipe.
        lr: of the recipe.
        recommended: what the recommended recipe takes; where this one looks better than that, `why` says why it was not
            taken.
    """
    predicted = predicted_at(state, batch_size, lr)
    gain = None if recommended is None else _gain(state, predicted, recommended)
    run = (batch_size, lr) in state.reached
    if gain is not None and gain >= _TOLD:
        why = f"{why} ({_why_not_taken(state, gain, run)})"
    elif recommended is not None and not run:
        why = f"{why} (predicted)"
    return Alternative(why=why, recipe=recipe_of(state, batch_size, lr), predicted=predicted)


def looks_better(state: SearchState, alternatives: Sequence[Alternative], recommended: Predicted) -> str:
    """Clause on the alternative that is predicted to cost less than the recommended recipe; empty where none is."""
    gains = [(_gain(state, other.predicted, recommended) or 0.0, other) for other in alternatives]
    gain, other = max(gains, key=lambda pair: pair[0], default=(0.0, None))
    if other is None or gain < _TOLD:
        return ""
    run = (other.recipe.batch_size, other.recipe.lr) in state.reached
    but = "but is more at risk" if run else "but was not run"
    return f"batch size {other.recipe.batch_size} is predicted to be {percent(gain)} {_better(state)}, {but}"


def _gain(state: SearchState, predicted: Predicted, recommended: Predicted) -> float | None:
    """Share of the recommended recipe's cost that another one saves; `None` where that is not predicted."""
    both = (predicted, recommended)
    examples = state.question.counts_examples
    own, other = ((p.examples_to_target if examples else p.time_to_target_s).value for p in both)
    return None if own is None or not other else 1.0 - own / other


def _why_not_taken(state: SearchState, gain: float, run: bool) -> str:
    """What speaks against a recipe that is predicted to cost less than the recommended one."""
    better, trainings = f"predicted {percent(gain)} {_better(state)}", state.question.trainings
    expected = f"its expected {'cost' if state.question.counts_examples else 'time'}, nearby learning rates counted,"
    if state.parts is not None:
        return f"{better}, {'measured, but less sure' if run else 'not measured: make a run there first'}"
    if run:
        return f"{better} in the median and run, but more at risk: {expected} is higher"
    if state.cut_off:
        return f"{better}, not run: the budget ended first"
    if state.question.current is not None:
        return f"{better}, not run: no clear gain is expected of a change"
    if gain * trainings <= 1.0:
        return f"{better}, not run: over {plural(trainings, 'training')} that saves less than a run at it costs"
    return f"{better} in the median, not run: {expected} is not lower by what a run at it costs"


def _better(state: SearchState) -> str:
    return "cheaper in examples" if state.question.counts_examples else "faster"


def _smallest_at_little_cost(state: SearchState, batch_size: int) -> int | None:
    """The smallest batch size that takes little longer than the given one."""
    best = np.exp(np.median(state.posterior.log_best_steps(np.array(state.batch_sizes)), axis=0))
    times = [steps * state.seconds_of(size) for steps, size in zip(best, state.batch_sizes, strict=True)]
    own = times[state.batch_sizes.index(batch_size)] if batch_size in state.batch_sizes else min(times)
    smaller = [s for s, t in zip(state.batch_sizes, times, strict=True) if s < batch_size and t <= _LITTLE_COST * own]
    return min(smaller, default=None)


def _larger_at_no_loss(state: SearchState, batch_size: int) -> list[int]:
    """Batch sizes above the given one that may be at no loss, the largest first.

    They go up to the critical size, and to twice the largest one that reached the target; those at which every run
    failed are left out.
    """
    critical = state.posterior.critical_batch_size().value or 0.0
    limit = min(critical, _NEAR * max(b for b, _ in state.reached))
    failed = {b for b, _ in state.tried} - {b for b, _ in state.preferred}
    return sorted((b for b in state.batch_sizes if batch_size < b <= limit and b not in failed), reverse=True)


def _examples_at(state: SearchState, batch_size: int, lr: float) -> float:
    """Examples that a training at a recipe is predicted to need; infinite where it is not predicted to get there."""
    value = predicted_at(state, batch_size, lr).examples_to_target.value
    return math.inf if value is None else value
