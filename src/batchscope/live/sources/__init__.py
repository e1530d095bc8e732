"""Sources of readings, one file each, and the order in which a monitor tries them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..guard import Guard
from ..window import Source
from .micro_batches import MicroBatchSource

__all__ = ["CANDIDATES", "Candidate", "Situation", "world_size"]


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What a candidate is judged by, before a window was measured."""

    model: nn.Module
    optimizer: Optimizer
    loss: Callable[[nn.Module, Any], Any] | None
    """`loss=` of the monitor."""
    geometry: str | None
    """`geometry=` of the monitor; `None`: the optimizer's own."""
    layers: bool
    guard: Guard
    """For the source's hooks: keeps what they raise, and measures their time."""
    world_size: int
    """Processes of the data-parallel training; 1 where torch.distributed is not initialised."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Source that may suit a training."""

    name: str
    """What `source=` of the monitor calls it."""
    suits: Callable[[Situation], str]
    """Why it can give no number here; empty: it may. What only a window can show is said by the source's `reason`."""
    make: Callable[[Situation], Source]


def world_size() -> int:
    """Processes that train together."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _one_process(situation: Situation) -> str:
    if situation.world_size > 1:
        return f"gradients are reduced over {situation.world_size} processes"
    return ""


CANDIDATES: tuple[Candidate, ...] = (
    Candidate(
        name="micro-batches",
        suits=_one_process,
        make=lambda situation: MicroBatchSource(guard=situation.guard, layers=situation.layers),
    ),
)
"""In the order in which they are tried: ranks, sharded, micro-batches, split, per-example norms, Adam's moments."""
