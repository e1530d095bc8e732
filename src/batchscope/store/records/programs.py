"""Record of a task as a program that trains it must know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["LibraryArguments", "TaskProgram"]


@dataclass(frozen=True, kw_only=True)
class LibraryArguments:
    """How the trainer of another library is told what a recipe says, where a task was made of one."""

    call: str
    """What takes the arguments, as Python: `TrainingArguments`."""
    names: Mapping[str, str]
    """Its names of members of a recipe: `micro_batch_size`, `grad_accum_steps`, `lr`, `steps`, `schedule`, ..."""
    schedules: Mapping[str, str] = field(default_factory=dict[str, str])
    """Its names of the schedules that it has, for those of a recipe."""
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    """Arguments in steps that are a share of the training's own length."""
    elsewhere: Mapping[str, str] = field(default_factory=dict[str, str])
    """Members of a recipe that are no arguments of it, and where they are set, `{}` for the value."""


@dataclass(frozen=True, kw_only=True)
class TaskProgram:
    """Task as a program that trains it in plain PyTorch must know it: where it is, and what it has."""

    spec: str
    """As a command was given it; empty: the task was made in Python."""
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    """Python expressions of the settings that were given."""
    imports: tuple[str, ...] = ()
    """Import statements that these expressions need."""
    members: tuple[str, ...] = ()
    """Optional members that the task has, by their names."""
    optimizer_takes_model: bool = False
    lazy: bool = False
    """Its model has layers that learn their input size at their first call."""
    loss_at: str = ""
    """Where the scalar stands in what `loss` returns, as Python: `["loss"]` or `[0]`; empty: it is the scalar."""
    precision: str = "float32"
    ema_decay: float | None = None
    loading: Literal["tensors", "examples", "stream"] = "examples"
    """Batches are cut from tensors in memory, collated from single examples, or collated from a stream of them."""
    loader_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Arguments of `DataLoader` that were chosen for the task, beside or in the place of its own `loader_options`."""
    held_back: int = 0
    """Training examples that runs were evaluated on, because the task has no `evaluate`."""
    seed: int = 0
    """Of the weights and of the order of the examples."""
    device: str = "cpu"
    tokens_per_example: float | None = None
    """Mean of `loss_weight` over examples, measured on some batches; `None`: the task has none."""
    library: LibraryArguments | None = None
    """How the library that the task was made of is told the recipe; `None`: it was made of none."""
