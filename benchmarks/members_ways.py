"""Ways to train a task: by hand, as it stands, with members that change nothing, and with members at work."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import default_collate

from batchscope.tasks.batches import first_dimension
from batchscope.tasks.update import Update
from batchscope.tasks.workload import Workload

__all__ = ["SEED", "AtWork", "Hand", "Kept", "Neutral", "Ours"]

SEED = 5
EMA_DECAY, CLIP, WARMUP = 0.9, 0.5, 0.2


class Neutral:
    """A task with every member, none of which changes its training."""

    precision: Any = "float32"
    ema_decay: Any = EMA_DECAY

    def __init__(self, task: Any) -> None:
        self.task = task
        self.model, self.train_data, self.loss, self.evaluate = task.model, task.train_data, task.loss, task.evaluate
        self.collate = getattr(task, "collate", default_collate)
        self.loader_options: Any = getattr(task, "loader_options", {"num_workers": 0})

    def optimizer(self, model: nn.Module, lr: float) -> Optimizer:
        return self.task.optimizer(model.parameters(), lr)

    def batch_size(self, batch: Any) -> int:
        return first_dimension(batch)

    def loss_weight(self, batch: Any) -> float:
        own = getattr(self.task, "loss_weight", self.batch_size)
        return float(own(batch))

    def before_update(self, model: nn.Module) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), math.inf)

    def schedule(self, progress: float) -> float:
        return 1.0

    def sampler(self, seed: int) -> Tensor:
        """The order that a task without a sampler has in its first epoch."""
        return torch.randperm(len(self.train_data()), generator=torch.Generator().manual_seed(seed))


class AtWork(Neutral):
    """A task with every member, each of which does what people use it for."""

    precision = "bfloat16"

    def optimizer(self, model: nn.Module, lr: float) -> Optimizer:
        groups = self.task.optimizer(model.parameters(), lr)
        decayed, others = ([p for p in model.parameters() if (p.ndim > 1) is kind] for kind in (True, False))
        groups.param_groups[0]["params"] = decayed
        groups.add_param_group({"params": others, "weight_decay": 0.0})
        return groups

    def before_update(self, model: nn.Module) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)

    def schedule(self, progress: float) -> float:
        if progress < WARMUP:
            return 0.1 + 0.9 * progress / WARMUP
        return 0.5 * (1.0 + math.cos(math.pi * (progress - WARMUP) / (1.0 - WARMUP)))


class Hand:
    """A model that is trained by hand, a step at a time; `at_work`: with all that `AtWork` says, written out."""

    def __init__(self, task: Any, lr: float, steps: int, *, at_work: bool) -> None:
        torch.manual_seed(SEED)
        self.task, self.lr, self.steps, self.at_work = task, lr, steps, at_work
        self.model: nn.Module = task.model().train()
        self.averaged: AveragedModel | None = None
        if at_work:
            self.optimizer = AtWork(task).optimizer(self.model, lr)
            self.averaged = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
        else:
            self.optimizer = task.optimizer(self.model.parameters(), lr)

    def step(self, number: int, parts: Sequence[Any]) -> Tensor:
        """One step; returns its loss."""
        self.optimizer.zero_grad()
        if not self.at_work:
            loss = self.task.loss(self.model, parts[0])
            loss.backward()
            self.optimizer.step()
            return loss.detach()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * AtWork(self.task).schedule(number / self.steps)
        weights = [getattr(self.task, "loss_weight", first_dimension)(part) for part in parts]
        total = torch.zeros(())
        for part, weight in zip(parts, weights, strict=True):
            with torch.autocast("cpu", torch.bfloat16):
                loss = self.task.loss(self.model, part)
            (loss * (weight / sum(weights))).backward()
            total += loss.detach() * (weight / sum(weights))
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.averaged.update_parameters(self.model)
        return total


class Ours:
    """The same by `tasks.update`."""

    def __init__(self, task: Any, lr: float, steps: int) -> None:
        self.workload, self.steps = Workload(task), steps
        self.model = self.workload.model(SEED)
        self.update = Update(self.workload, self.model, lr)

    def step(self, number: int, parts: Sequence[Any]) -> Tensor:
        """One step; returns its loss."""
        if self.workload.schedule is not None:
            self.update.set_factor(self.workload.lr_factor(number / self.steps))
        self.update.clear()
        loss = self.update.gradients(parts)
        self.update.apply()
        return loss


class Kept(Workload):
    """A task that keeps the batches which a run was given."""

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.batches: list[list[Any]] = []

    def micro_batches(self, *given: Any, **named: Any) -> Iterator[list[Any]]:
        for parts in super().micro_batches(*given, **named):
            self.batches.append(copy.deepcopy(parts))
            yield parts
