"""The weights of a run at chosen moments, kept on the host until the run is over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from ..store.records import Row, RunConfig

__all__ = ["Keep", "KeptWeights"]

Keep = float | Literal["best", "last"]
"""After so many epochs (0: before the first step), at the best evaluation of the target's metric, or at the end."""


class KeptWeights:
    """Observer that copies the weights at evaluations.

    Args:
        when: the moments.
        config: of the run, with a target whose metric says which evaluation is best.
        examples: in an epoch; `None`: a stream, of which no weights are kept after so many epochs.

    Attributes:
        states: a `state_dict` for each moment that has come.

    Cost: a copy of the weights at each of the evaluations concerned; `best` at every improvement.
    """

    def __init__(self, when: Sequence[Keep], config: RunConfig, examples: int | None) -> None:
        self.states: dict[Keep, dict[str, Any]] = {}
        self._when, self._config, self._examples = tuple(when), config, examples
        self._best = math.inf
        self._improved = False
        self._model: nn.Module | None = None

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Keep the model whose weights are to be copied."""
        self._model = model

    def see(self, row: Row) -> None:
        """Note whether an evaluation is the best so far; comes before `at_evaluation` of the same step."""
        target = self._config.target
        if row["kind"] != "evaluation" or target is None:
            return
        value = row["metrics"].get(target.metric, math.nan) * (1.0 if target.mode == "min" else -1.0)
        self._improved = math.isfinite(value) and value < self._best
        if self._improved:
            self._best = value

    def after_update(self, step: int) -> Row | None:
        """No row: weights are copied at evaluations."""

    def at_evaluation(self, step: int) -> Row | None:
        """Copy the weights where this evaluation is one of the moments."""
        due: list[Keep] = [when for when in self._when if self._due(when, step)]
        state = self._state() if due else {}
        for when in due:
            self.states[when] = state

    def _due(self, when: Keep, step: int) -> bool:
        if when == "last":
            return True
        if when == "best":
            return self._improved
        assert self._examples is not None
        return when not in self.states and (step + 0.5) * self._config.batch_size >= when * self._examples

    def _state(self) -> dict[str, Any]:
        assert self._model is not None
        return {
            name: value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value
            for name, value in self._model.state_dict().items()
        }
