"""Other recipes that somebody may prefer, each with what it is better at. Numbers only, no torch."""

from __future__ import annotations

import numpy as np

from ..store.records import Alternative
from .recipe import predicted_at, recipe_of
from .state import Findings

__all__ = ["alternatives_to"]

_NEAR = 2.0
"""A batch size is known to work up to this many times the largest that reached the target."""


def alternatives_to(findings: Findings, batch_size: int, lr: float) -> tuple[Alternative, ...]:
    """Fewest examples (or least time), least memory, largest batch at no loss; those equal to the recipe left out."""
    found: list[Alternative] = []

    def add(why: str, size: int, rate: float) -> None:
        known = {(batch_size, lr), *((a.recipe.batch_size, a.recipe.lr) for a in found)}
        if (size, rate) not in findings.reached:
            why = f"{why} (predicted, not run)"
        if (size, rate) not in known:
            found.append(
                Alternative(
                    why=why, recipe=recipe_of(findings, size, rate), predicted=predicted_at(findings, size, rate)
                )
            )

    tried = {pair: tolerance for pair, tolerance in findings.known.items() if pair in findings.reached}
    if findings.question.objective == "time":
        few = findings.decide(cost=float, known=tried)
        add("fewest examples, for when computing is paid by the example", few.batch_size, few.lr)
    else:
        fast = findings.decide(cost=findings.seconds_of, known=tried)
        add("least time, whatever the number of examples", fast.batch_size, fast.lr)
    small = _least_memory(findings, batch_size)
    if small is not None:
        rate = findings.decide(batch_sizes=(small,), known=tried).lr
        add("least memory at no more than 1.5 times the time", small, rate)
    large = _largest_without_loss(findings)
    if large is not None and large > batch_size:
        why = "largest batch that still reaches the same target at no more than twice the fewest examples"
        add(why, large, findings.decide(batch_sizes=(large,), known=tried).lr)
    return tuple(found)


def _least_memory(findings: Findings, batch_size: int) -> int | None:
    best = np.exp(np.median(findings.belief.log_best_steps(np.array(findings.batch_sizes)), axis=0))
    times = [steps * findings.seconds_of(size) for steps, size in zip(best, findings.batch_sizes, strict=True)]
    own = times[findings.batch_sizes.index(batch_size)] if batch_size in findings.batch_sizes else min(times)
    smaller = [s for s, t in zip(findings.batch_sizes, times, strict=True) if s < batch_size and t <= 1.5 * own]
    return min(smaller, default=None)


def _largest_without_loss(findings: Findings) -> int | None:
    """Up to the critical batch size and to twice the largest batch that reached the target."""
    critical = findings.belief.critical_batch_size().value or 0.0
    limit = min(critical, _NEAR * max(b for b, _ in findings.reached))
    return max((b for b in findings.batch_sizes if b <= limit), default=None)
