"""Sources of readings, one file each, and the order in which a monitor tries them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..geometry import NormsOf, geometry_of, norms_in
from ..guard import Guard
from ..window import Source
from .micro_batches import MicroBatchSource
from .split import SplitSource

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
    loss_weight: Callable[[Any], float] | None = None
    """`loss_weight=` of the monitor."""
    loss_scale: Callable[[], float] = lambda: 1.0
    """Factor of the gradient scaler, as it is when it is asked for."""

    @property
    def norms(self) -> NormsOf:
        """What a source that has the gradients of groups adds to its rows, in the geometry."""
        return norms_in(geometry_of(self.optimizer) if self.geometry is None else self.geometry)


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


def _with_loss(situation: Situation) -> str:
    return "" if situation.loss is not None else "no loss= was given, with which a part of a batch could be computed"


def _split(situation: Situation) -> Source:
    assert situation.loss is not None
    return SplitSource(
        situation.loss,
        loss_weight=situation.loss_weight,
        scale=situation.loss_scale,
        layers=situation.layers,
        norms=situation.norms,
    )


CANDIDATES: tuple[Candidate, ...] = (
    Candidate(
        name="micro-batches",
        suits=_one_process,
        make=lambda situation: MicroBatchSource(guard=situation.guard, layers=situation.layers, norms=situation.norms),
    ),
    Candidate(name="split", suits=_with_loss, make=_split),
)
"""In the order in which they are tried: ranks, sharded, micro-batches, split, per-example norms, Adam's moments."""
