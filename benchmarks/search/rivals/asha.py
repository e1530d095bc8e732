"""Ray Tune's asynchronous successive halving: its own scheduler and sampling, one trial at a time.

The scheduler class is Ray's, asked in the order in which `tune.run` with one worker asks it; starting a Ray worker for
each of some hundred thousand played-back trials would take days and decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from replay import REPORTS, Game, rate_bounds

__all__ = ["search"]

_NO_CONTROLLER: Any = None


@dataclass(frozen=True)
class _Named:
    trial_id: str


def search(game: Game) -> None:
    """Random configurations, of which each rung lets the best quarter go on (Li et al. 2020); Ray's defaults."""
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler

    scheduler = AsyncHyperBandScheduler(
        time_attr="time", metric="metric", mode="min", max_t=REPORTS, grace_period=1, reduction_factor=4
    )
    rate = tune.loguniform(*rate_bounds(game.optimizer))
    size = tune.choice(list(game.table.batch_sizes))
    rng = np.random.RandomState(game.random.getrandbits(32))
    while game.open:
        trial = game.trial(size.sample(random_state=rng), rate.sample(random_state=rng))
        named: Any = _Named(str(game.trials))
        scheduler.on_trial_add(_NO_CONTROLLER, named)
        stopped = None
        for unit, seconds, value in game.reports(trial):
            if scheduler.on_trial_result(_NO_CONTROLLER, named, {"time": unit, "metric": value}) == "STOP":
                stopped = seconds
                break
        last = trial.seconds if stopped is None else stopped
        result = {"time": last / game.unit_s, "metric": trial.value_at(last)}
        scheduler.on_trial_complete(_NO_CONTROLLER, named, result)
        game.pay(trial, stopped)
