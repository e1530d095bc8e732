"""Sources of readings, one file each, and the order in which a monitor tries them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..geometry import NormsOf, geometry_of, norms_in
from ..guard import Guard
from ..window import Source
from .covered_layers import unsuitable
from .micro_batches import MicroBatchSource
from .moments import MomentSource, has_moments
from .per_example import PerExampleSource
from .ranks import RankSource
from .sharded import ShardedSource, is_sharded
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
    """`geometry=` of the monitor; `None`: the optimizer's own where the source has it, or else the Euclidean one."""
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
    by_name_only: bool = False
    """Whether only a monitor whose `source=` names it has it: it measures another number."""


def world_size() -> int:
    """Processes that train together."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _replicated(situation: Situation) -> str:
    if situation.world_size == 1 and not any(isinstance(m, DistributedDataParallel) for m in situation.model.modules()):
        return "there is one process"
    if is_sharded(situation.model):
        return "the parameters are sharded over the processes"
    return _other_geometry(situation)


def _sharded(situation: Situation) -> str:
    if not is_sharded(situation.model):
        return "the parameters are not sharded"
    return "there is one process" if situation.world_size == 1 else _other_geometry(situation)


def _one_process(situation: Situation) -> str:
    if situation.world_size > 1:
        return f"gradients are reduced over {situation.world_size} processes"
    if any(isinstance(module, DistributedDataParallel) for module in situation.model.modules()):
        return "gradients are reduced by DistributedDataParallel"
    return ""


def _other_geometry(situation: Situation) -> str:
    """Why a source of Euclidean norms alone cannot do what was asked; a default geometry asks for nothing."""
    if situation.geometry in (None, "euclidean"):
        return ""
    return f"the {situation.geometry} norm needs gradients of groups, and this source has Euclidean norms alone"


def _per_example(situation: Situation, *, norm_layers_only: bool = False) -> str:
    refused = _other_geometry(situation) or _one_process(situation)
    return refused or unsuitable(situation.model, norm_layers_only=norm_layers_only)


def _moments(situation: Situation) -> str:
    if refused := _other_geometry(situation):
        return refused
    if not has_moments(situation.optimizer):
        return f"{type(situation.optimizer).__name__} has no betas, as Adam has, and keeps no two moments"
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
        name="ranks",
        suits=_replicated,
        make=lambda situation: RankSource(guard=situation.guard, layers=situation.layers),
    ),
    Candidate(
        name="sharded",
        suits=_sharded,
        make=lambda situation: ShardedSource(guard=situation.guard),
    ),
    Candidate(
        name="micro-batches",
        suits=_one_process,
        make=lambda situation: MicroBatchSource(guard=situation.guard, layers=situation.layers, norms=situation.norms),
    ),
    Candidate(name="split", suits=_with_loss, make=_split),
    Candidate(
        name="per-example",
        suits=_per_example,
        make=lambda situation: PerExampleSource(guard=situation.guard, layers=situation.layers),
    ),
    Candidate(name="moments", suits=_moments, make=lambda situation: MomentSource(layers=situation.layers)),
    Candidate(
        name="norm-layers",
        suits=lambda situation: _per_example(situation, norm_layers_only=True),
        make=lambda situation: PerExampleSource(guard=situation.guard, layers=situation.layers, norm_layers_only=True),
        by_name_only=True,
    ),
)
"""In the order in which they are tried: ranks, sharded, micro-batches, split, per-example norms, Adam's moments.
Last is what measures another number, the noise scale of the norm layers alone: it must be named."""
