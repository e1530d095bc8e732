"""Runs that all begin at the same weights, so that nothing but the order of the examples tells them apart."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..hardware.random_state import preserved_random_state

__all__ = ["fixed_start"]


def fixed_start(make: Callable[[], nn.Module], seed: int = 0) -> Callable[[], nn.Module]:
    """A factory of models whose initial weights are always those that `make` draws from `seed`.

    The seed of a run then decides the order of the examples, and what is random within the model (dropout).

    Example:
        >>> make = fixed_start(lambda: nn.Linear(3, 2), seed=4)
        >>> bool((make().weight == make().weight).all())
        True
    """

    def model() -> nn.Module:
        with preserved_random_state(seed):
            return make()

    return model
