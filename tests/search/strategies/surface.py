"""Runs whose whole course is known: cost to target by batch size and rate, and the metric on the way there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from batchscope.search.strategies.space import Pair, Request, Space, Strategy, Trial, follow

SPACE = Space.below(3.0, tuple(2**k for k in range(13)))
START, TARGET = 1.0, 0.1
_EVALUATIONS = np.linspace(0.0, 1.0, 401)
_DIVERGED = 0.5

Status = Literal["reached", "stopped", "failed"]


@dataclass
class Surface:
    """A bowl over log batch size and log rate, least at (64, 0.05); the loss falls exponentially to the target.

    `spent` counts every unit of cost that was trained, each once.
    """

    floor: float = 100.0
    edge: float = math.inf
    """Rates above diverge."""
    crossing: bool = False
    """Whether the slower a run is, the better it looks early."""
    larger_is_better: bool = False
    spent: float = 0.0
    requests: list[Request] = field(default_factory=list)
    costs: dict[Pair, float] = field(default_factory=dict)
    ends: dict[Pair, set[float]] = field(default_factory=dict)

    def cost_to_target(self, batch_size: int, lr: float) -> float:
        return self.floor * math.exp(0.15 * math.log(batch_size / 64) ** 2 + 0.3 * math.log(lr / 0.05) ** 2)

    def curve(self, batch_size: int, lr: float, cost: float) -> list[tuple[float, float]]:
        """Evaluations on a fixed grid and wherever the run was set aside."""
        needed = self.cost_to_target(batch_size, lr)
        power = self.floor / needed if self.crossing else 1.0
        ends = self.ends.setdefault((batch_size, lr), set())
        ends.add(cost)
        costs = np.array(sorted({c for c in (needed * _EVALUATIONS).tolist() if c <= cost} | ends))
        return list(
            zip(costs.tolist(), (START * (TARGET / START) ** ((costs / needed) ** power)).tolist(), strict=True)
        )

    def make(self, request: Request) -> Trial:
        """The run as far as it is asked for."""
        self.requests.append(request)
        pair = request.batch_size, request.lr
        needed, limit = self.cost_to_target(*pair), math.inf if request.limit is None else request.limit
        if request.lr > self.edge:
            return self._seen(pair, _DIVERGED, "failed", [(0.0, START), (_DIVERGED, math.nan)])
        cost = min(needed, limit)
        return self._seen(pair, cost, "reached" if needed <= limit else "stopped", self.curve(*pair, cost))

    def _seen(self, pair: Pair, cost: float, status: Status, curve: list[tuple[float, float]]) -> Trial:
        self.spent += cost - self.costs.get(pair, 0.0)
        self.costs[pair] = cost
        return Trial(
            batch_size=pair[0],
            lr=pair[1],
            status=status,
            cost=cost,
            cost_to_target=cost if status == "reached" else None,
            curve=[(c, -v) for c, v in curve] if self.larger_is_better else curve,
            larger_is_better=self.larger_is_better,
        )


def search(
    strategy: Strategy,
    surface: Surface,
    *,
    space: Space = SPACE,
    seed: int = 0,
    given: Sequence[Trial] = (),
) -> list[Trial]:
    return follow(strategy, space, surface.make, seed, given)


def requests_after_a_kill(strategy: Strategy, surface: Surface, killed_after: int, seed: int = 0) -> list[Request]:
    """What a second process asks for, once it has read what the first requests of a search left behind."""
    again = replace(surface, spent=0.0, requests=[], costs={}, ends={})
    left = {trial.pair: trial for trial in map(again.make, surface.requests[:killed_after])}
    again.requests.clear()
    search(strategy, again, seed=seed, given=list(left.values()))
    return again.requests
