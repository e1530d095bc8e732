"""Recipes that cost nothing: the default, and the largest batch size with a scaled rate."""

from __future__ import annotations

from replay import DEFAULT_BATCH_SIZE, Game, default_lr

__all__ = ["default", "largest_linear", "largest_square_root"]


def default(game: Game) -> None:
    """Batch size 32, the optimizer's usual rate."""
    game.recommend(DEFAULT_BATCH_SIZE, default_lr(game.optimizer))


def largest_linear(game: Game) -> None:
    """The largest batch size that fits, the rate scaled with it (Goyal et al. 2017)."""
    _largest(game, 1.0)


def largest_square_root(game: Game) -> None:
    """The largest batch size that fits, the rate scaled with its square root (Krizhevsky 2014)."""
    _largest(game, 0.5)


def _largest(game: Game, power: float) -> None:
    largest = max(game.table.batch_sizes)
    game.recommend(largest, default_lr(game.optimizer) * (largest / DEFAULT_BATCH_SIZE) ** power)
