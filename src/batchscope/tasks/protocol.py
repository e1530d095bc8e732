"""Protocol of the task a user brings: four methods that batchscope needs, and three that it can use.

A task is given as a *factory*, so that every run builds a fresh model and nothing large is pickled. There is no base
class to inherit: any object with these methods will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

__all__ = ["Batch", "PartsTask", "Task", "task"]

Batch = Any
"""What `collate` makes of a list of examples: a tensor, or a list, tuple or dict of them."""


@runtime_checkable
class Task(Protocol):
    """Task: what batchscope must know to train a model at any batch size.

    Optional members: `evaluate(model) -> dict[str, float]` (any key can be the target, except those that begin with
    `test_`), `batch_size(batch) -> int` (default: the first dimension of the first tensor in the batch), `collate`
    (handed to the loader), `loader_options` (a dict of arguments of `DataLoader`: `num_workers`, `pin_memory`,
    `prefetch_factor`, `persistent_workers`; without it the number of workers is chosen, and said).
    """

    def model(self) -> nn.Module:
        """A fresh model; the random generators are seeded before the call."""
        ...

    def train_data(self) -> Dataset[Any]:
        """A map-style data set of single examples; batching is batchscope's, because batch size is what varies."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The scalar **mean** of the loss over the examples of a collated batch."""
        ...

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """An optimizer over `params` whose learning rate is `lr`."""
        ...


@dataclass(frozen=True, kw_only=True)
class PartsTask:
    """A task made from functions; `task` builds it."""

    make_model: Callable[[], nn.Module]
    train: Dataset[Any]
    compute_loss: Callable[[nn.Module, Batch], Tensor]
    make_optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer]
    name: str
    loader_options: Mapping[str, Any] | None = None

    def model(self) -> nn.Module:
        """A fresh model."""
        return self.make_model()

    def train_data(self) -> Dataset[Any]:
        """The data set the task was made with."""
        return self.train

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of a batch."""
        return self.compute_loss(model, batch)

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """An optimizer at learning rate `lr`."""
        return self.make_optimizer(params, lr)


@dataclass(frozen=True, kw_only=True)
class _EvaluatedPartsTask(PartsTask):
    compute_metrics: Callable[[nn.Module], Mapping[str, float]]

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """The metrics of the model."""
        return self.compute_metrics(model)


def task(
    *,
    model: Callable[[], nn.Module],
    train: Dataset[Any],
    loss: Callable[[nn.Module, Batch], Tensor],
    optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer],
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    val: Dataset[Any] | None = None,
    loader_options: Mapping[str, Any] | None = None,
    name: str = "task",
) -> Task:
    """Build a task from its parts.

    Args:
        model: makes a fresh model.
        train: map-style training data.
        loss: `(model, batch) -> scalar mean loss`.
        optimizer: `(params, lr) -> Optimizer`.
        evaluate: `(model) -> {metric: number}`; without it the metric is `val_loss` on `val`.
        val: map-style validation data; without it and without `evaluate`, a validation split is held back of `train`.
        loader_options: arguments of `DataLoader`, such as `{"num_workers": 2}`; without them the number of workers is
            chosen, and said.
        name: what the results folder and the page call it.

    Returns:
        A `Task`.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> x = torch.randn(64, 3)
        >>> linear = task(
        ...     model=lambda: torch.nn.Linear(3, 1),
        ...     train=TensorDataset(x, x.sum(1, keepdim=True)),
        ...     loss=lambda model, batch: torch.nn.functional.mse_loss(model(batch[0]), batch[1]),
        ...     optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        ...     name="sum",
        ... )
        >>> len(linear.train_data())
        64
    """
    parts: dict[str, Any] = {
        "make_model": model,
        "train": train,
        "compute_loss": loss,
        "make_optimizer": optimizer,
        "loader_options": loader_options,
        "name": name,
    }
    compute_metrics = evaluate or (None if val is None else partial(_loss_on, loss, val))
    return (
        PartsTask(**parts) if compute_metrics is None else _EvaluatedPartsTask(**parts, compute_metrics=compute_metrics)
    )


def _loss_on(loss: Callable[[nn.Module, Batch], Tensor], data: Dataset[Any], model: nn.Module) -> Mapping[str, float]:
    from .workload import mean_loss

    return {"val_loss": mean_loss(model, loss, data)}
