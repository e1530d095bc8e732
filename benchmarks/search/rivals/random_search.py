"""Random search: a batch size of the table and a rate, log-uniform, each trial to its end."""

from __future__ import annotations

import math

from replay import Game, rate_bounds

__all__ = ["search"]


def search(game: Game) -> None:
    """Draw and train until the budget is gone (Bergstra and Bengio 2012)."""
    low, high = rate_bounds(game.optimizer)
    while game.open:
        lr = math.exp(game.random.uniform(math.log(low), math.log(high)))
        game.pay(game.trial(game.random.choice(game.table.batch_sizes), lr))
