"""A whole search played against a known truth, with nothing trained: what is decided, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from batchscope.fits.steps_to_target import Observation, Prior, StepsPosterior, fit
from batchscope.search.law import prior_from
from batchscope.search.strategies.anchors import BEHIND, Choices, Decision, decide, propose
from batchscope.store.records import RateRange

Truth = Callable[[int, float, int], tuple[float, float]]
"""Steps to the milestone and to the target of one run: batch size, rate, seed; infinite where it never arrives."""

_MOST_PROBES, _MOST_COMPLETIONS = 20, 6
_PARTICLES = 128
_UNTIL_DIVERGED = 30
_REST_OF_A_RUN = 0.6
Pair = tuple[int, float]


@dataclass(frozen=True)
class Played:
    """What a search decided after the runs it bought, and their price in seconds."""

    decision: Decision
    tried: tuple[Pair, ...]
    reached: tuple[Pair, ...]
    seconds: float


def on_hardware(knee: float, largest: int = 4096, *, examples: bool = False) -> Choices:
    """Powers of two up to `largest`, at 1 ms (1 + B / knee) a step."""

    def seconds(batch_size: int) -> float:
        return 1e-3 * (1 + batch_size / knee)

    sizes = tuple(2**k for k in range(int(math.log2(largest)) + 1))
    return Choices(batch_sizes=sizes, step_cost=float if examples else seconds, step_time=seconds, trainings=12.0)


@dataclass
class _Player:
    """The stages of `stages.Search` with a target given: a pilot and probes to the milestone, then the recipe."""

    truth: Truth
    choices: Choices
    prior: Prior
    seed: int
    seen: dict[Pair, Observation] = field(default_factory=dict)
    seconds: float = 0.0

    def pairs(self, kind: str, to: str) -> list[Pair]:
        return [pair for pair, o in self.seen.items() if (o.kind, o.to) == (kind, to)]

    def posterior(self) -> StepsPosterior:
        return fit(list(self.seen.values()), self.prior, particles=_PARTICLES, seed=len(self.seen))

    def decide(self) -> Decision:
        once = 1 / self.choices.trainings
        preferred = dict.fromkeys(self.pairs("reached", "milestone"), (1 - _REST_OF_A_RUN) * once)
        preferred |= dict.fromkeys(self.pairs("reached", "target"), once)
        return decide(self.posterior(), self.choices, preferred, set(self.seen) - set(preferred))

    def run(self, pair: Pair, *, to: str, limited: bool = True) -> None:
        """Train as far as the milestone or the target, or until it lags `BEHIND` the best run that got there."""
        size, lr = pair
        step = self.choices.step_time(size)
        to_milestone, to_target = self.truth(size, lr, self.seed)
        needed = to_milestone if to == "milestone" else to_target
        least = min((seconds for seconds in map(self.seconds_to(to), self.seen) if seconds), default=math.inf)
        limit = BEHIND * least / step if limited else math.inf
        before = self.seen.get(pair)
        done = before.steps if before is not None and before.to == "milestone" else 0.0
        self.seconds += max(0.0, min(needed, limit) - done) * step if math.isfinite(needed) else _UNTIL_DIVERGED * step
        kind: Any = "reached" if needed <= limit else "lagging"
        observed = Observation(batch_size=size, lr=lr, steps=needed, kind=kind, to=to)  # pyright: ignore
        if not math.isfinite(needed):
            observed = replace(observed, steps=1.0, kind="diverged")
        elif to == "target" and to_milestone < min(needed, limit):
            observed = replace(observed, milestone_steps=to_milestone)
        self.seen[pair] = observed

    def seconds_to(self, to: str) -> Callable[[Pair], float | None]:
        def of(pair: Pair) -> float | None:
            o = self.seen[pair]
            steps = o.milestone_steps if to == "milestone" and o.to == "target" else o.steps
            arrived = (o.to == to and o.kind == "reached") or (to == "milestone" and o.milestone_steps is not None)
            return steps * self.choices.step_time(pair[0]) if arrived and steps is not None else None

        return of


def play(truth: Truth, choices: Choices, *, ceiling: float, first_size: int, seed: int = 0) -> Played:
    """Pilot at a twelfth of the ceiling, then probes as they are proposed, then the recipe until one has arrived."""
    test = RateRange(
        batch_size=first_size, ceiling_lr=ceiling, broke=True, normalised=False, lrs=(), losses=(), steps=20
    )
    player = _Player(truth, replace(choices, by_milestone=True), prior_from(test, None), seed)
    player.run((first_size, float(f"{ceiling / 12:.3g}")), to="milestone", limited=False)
    for _ in range(_MOST_PROBES):
        must = not player.pairs("reached", "milestone")
        tried = list(player.seen)
        proposal = propose(player.posterior(), player.choices, tried, seed=seed + len(tried), must=must)
        if proposal is None:
            break
        player.run((proposal.batch_size, proposal.lr), to="milestone")
    for _ in range(_MOST_COMPLETIONS):
        decision = player.decide()
        pair = decision.batch_size, decision.lr
        if pair in player.pairs("reached", "target"):
            break
        player.run(pair, to="target")
    return Played(player.decide(), tuple(player.seen), tuple(player.pairs("reached", "target")), player.seconds)


def geometric_mean(steps: np.ndarray) -> float:
    return float(np.exp(np.log(steps).mean()))
