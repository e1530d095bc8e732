"""A whole search played against a known truth, with nothing trained: what is decided, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from batchscope.belief import prior_from
from batchscope.fits.steps_to_target import Observation, fit
from batchscope.records import RateRange
from batchscope.search.anchors import Choices, Decision, decide, propose

Truth = Callable[[int, float, int], float]
"""Steps to target of one run: batch size, rate, seed; infinite where it never arrives."""

_BEHIND = 1.5
_MOST_RUNS = 10
_PARTICLES = 128
_UNTIL_DIVERGED = 30


@dataclass(frozen=True)
class Played:
    """What a search decided after the runs it bought, and their price in seconds."""

    decision: Decision
    tried: tuple[tuple[int, float], ...]
    reached: tuple[tuple[int, float], ...]
    seconds: float


def on_hardware(knee: float, largest: int = 4096, *, examples: bool = False) -> Choices:
    """Powers of two up to `largest`, at 1 ms (1 + B / knee) a step."""

    def seconds(batch_size: int) -> float:
        return 1e-3 * (1 + batch_size / knee)

    sizes = tuple(2**k for k in range(int(math.log2(largest)) + 1))
    return Choices(batch_sizes=sizes, step_cost=float if examples else seconds, step_time=seconds, trainings=20.0)


def play(truth: Truth, choices: Choices, *, ceiling: float, first_size: int, seed: int = 0) -> Played:
    """Pilot at a twelfth of the ceiling, then runs as they are proposed, then one at the recipe."""
    test = RateRange(
        batch_size=first_size, ceiling_lr=ceiling, broke=True, normalised=False, lrs=(), losses=(), steps=20
    )
    prior = prior_from(test, None)
    seen: list[Observation] = []
    seconds, fastest = 0.0, math.inf

    def buy(batch_size: int, lr: float, factor: float) -> None:
        nonlocal seconds, fastest
        step = choices.step_time(batch_size)
        needed, limit = truth(batch_size, lr, seed), factor * fastest / step
        seconds += (min(needed, limit) if math.isfinite(needed) else _UNTIL_DIVERGED) * step
        if needed <= limit and math.isfinite(needed):
            seen.append(Observation(batch_size=batch_size, lr=lr, steps=needed, kind="reached"))
            fastest = min(fastest, needed * step)
        elif math.isfinite(needed):
            seen.append(Observation(batch_size=batch_size, lr=lr, steps=needed, kind="lagging"))
        else:
            seen.append(Observation(batch_size=batch_size, lr=lr, steps=1.0, kind="diverged"))

    def pairs(*kinds: str) -> list[tuple[int, float]]:
        return [(o.batch_size, o.lr) for o in seen if o.kind in kinds]

    buy(first_size, float(f"{ceiling / 12:.3g}"), math.inf)
    for _ in range(_MOST_RUNS):
        belief = fit(seen, prior, particles=_PARTICLES, seed=len(seen))
        arrived, tried = pairs("reached"), pairs("reached", "lagging", "diverged")
        proposal = propose(belief, choices, tried, seed=len(seen), must=not arrived)
        decision = decide(belief, choices, arrived)
        if proposal is not None:
            buy(proposal.batch_size, proposal.lr, _BEHIND)
        elif (decision.batch_size, decision.lr) not in arrived:
            buy(decision.batch_size, decision.lr, 2 * _BEHIND)
        else:
            break
    belief = fit(seen, prior, particles=_PARTICLES, seed=len(seen))
    decision = decide(belief, choices, pairs("reached"))
    return Played(decision, tuple(pairs("reached", "lagging", "diverged")), tuple(pairs("reached")), seconds)


def geometric_mean(steps: np.ndarray) -> float:
    return float(np.exp(np.log(steps).mean()))
