"""What decides the lines of a program: plan, recipe, and what is known of the task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from ...store.metrics import name_of_own
from ...store.records import Plan, Recipe, Target, TaskProgram

__all__ = ["Facts"]

_DATA_SEED_OFFSET = 1_000_003
"""Between the seeds of the weights and of the order, as in `training.loop`."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A plan and a recipe, and what follows from them for a program.

    Attributes:
        plan: the answer.
        recipe: what is trained with.
    """

    plan: Plan
    recipe: Recipe

    @cached_property
    def task(self) -> TaskProgram:
        """What is known of the task; of an older answer, what its bench tells of the loader."""
        if self.plan.program is not None or self.plan.bench is None:
            return self.plan.program or TaskProgram(spec="", members=("evaluate",))
        bench = self.plan.bench
        loading = "tensors" if bench.in_memory else "examples"
        return TaskProgram(spec="", members=("evaluate",), loading=loading, loader_options=bench.loader_options)

    def has(self, *members: str) -> bool:
        """Whether the task has one of these optional members."""
        return any(member in self.task.members for member in members)

    @property
    def known(self) -> bool:
        """Whether the task is there as an object, by the name `task`."""
        return self.plan.program is not None

    @property
    def prefix(self) -> str:
        """What stands before the name of a member."""
        return "task." if self.known else ""

    @property
    def in_memory(self) -> bool:
        """Whether batches are cut from tensors."""
        return self.task.loading == "tensors"

    @property
    def has_workers(self) -> bool:
        """Whether processes may load batches."""
        return self.has("loader_options") or bool(self.task.loader_options.get("num_workers"))

    @property
    def parts(self) -> int:
        """Micro-batches of a step on one device."""
        return self.recipe.grad_accum_steps

    @property
    def device(self) -> str:
        """The device as Python; empty on a CPU, where tensors are already."""
        return "" if self.task.device == "cpu" else f'"{self.task.device}"'

    @property
    def autocast(self) -> str:
        """Context of the precision, as Python; empty in float32."""
        name = self.task.precision
        return "" if name == "float32" else f"torch.autocast({self.device_type}, torch.{name})"

    @property
    def device_type(self) -> str:
        """Type of the device as Python."""
        return f'"{self.task.device.partition(":")[0]}"'

    @property
    def scaled(self) -> bool:
        """Whether gradients are scaled against too small numbers."""
        return self.task.precision == "float16"

    @property
    def scheduled(self) -> bool:
        """Whether the learning rate changes in the course of the training."""
        return self.recipe.schedule != "constant" or self.recipe.warmup_steps > 0

    @property
    def target(self) -> Target:
        """Whose metric is judged by."""
        return self.plan.target or Target(metric="val_loss", value=-math.inf, mode="min")

    @property
    def aimed(self) -> bool:
        """Whether training ends at the target."""
        return self.plan.target is not None and self.plan.within is None

    @property
    def averaged(self) -> bool:
        """Whether the weights are averaged along the training."""
        return self.task.ema_decay is not None

    @property
    def judges_averaged(self) -> bool:
        """Whether the metric is one of the averaged weights."""
        return self.averaged and name_of_own(self.target.metric) is not None

    @property
    def judged(self) -> str:
        """Name of the model that is evaluated; the averaged one is of the task's own class, as the model is."""
        return "averaged.module" if self.judges_averaged else "model"

    @property
    def metric(self) -> str:
        """Metric that is judged by, as the task's `evaluate` names it."""
        own = name_of_own(self.target.metric) if self.judges_averaged else None
        return own or self.target.metric

    @property
    def data_seed(self) -> str:
        """Seed of the order of the examples, and of what loading draws, as Python."""
        return f"SEED + {_DATA_SEED_OFFSET}"
