"""Protocol of the task a user brings: four members that batchscope needs, and those that it can use.

A task is given as a *factory*, so that every run builds a fresh model and nothing large is pickled. There is no base
class to inherit: any object with these members will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, Never, Protocol, cast, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

__all__ = ["Batch", "PartsTask", "Task", "task"]

Batch = Any
"""What `collate` makes of a list of examples: a tensor, or a list, tuple or dict of them."""


@runtime_checkable
class Task(Protocol):
    """Task: what batchscope must know to train a model at any batch size.

    Optional members, each a method or an attribute (`docs/tasks.md` has an example of each):

    * `evaluate(model) -> dict[str, float]`: any key can be the target, except those that begin with `test_`.
    * `batch_size(batch) -> int`: default: the first dimension of the first tensor in the batch.
    * `loss_weight(batch) -> float`: number of terms in the mean that `loss` returns (tokens); micro-batches are
      weighted by it.
    * `before_update(model)`: called once a step when all gradients are there, before the optimizer's step: clipping.
    * `schedule(progress) -> float`: factor of the learning rate at a share of the run in [0, 1].
    * `precision`: `"float32"`, `"bfloat16"` or `"float16"`: autocast around `loss` and `evaluate`, with a gradient
      scaler for float16.
    * `ema_decay`: decay of an exponential moving average of the weights, evaluated beside as `ema_<metric>`.
    * `sampler(seed) -> Iterable[int]`: order of the examples in an epoch, as their indices.
    * `collate`: handed to the loader.
    * `loader_options`: a dict of arguments of `DataLoader`: `num_workers`, `pin_memory`, `prefetch_factor`,
      `persistent_workers`; without it the number of workers is chosen, and said.
    """

    def model(self) -> nn.Module:
        """A fresh model; the random generators are seeded before the call."""
        ...

    def train_data(self) -> Dataset[Any]:
        """A data set of single examples; batching is batchscope's, because batch size is what varies.

        It has `__len__` and `__getitem__`, or is an `IterableDataset`: a stream, which each run begins anew.
        """
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The scalar **mean** of the loss over the examples (or the terms, see `loss_weight`) of a collated batch."""
        ...

    @property
    def optimizer(self) -> Callable[[Any, float], Optimizer]:
        """`optimizer(params, lr)` or `optimizer(model, lr)`: an optimizer whose learning rate is `lr`.

        The model is handed over where the first parameter is called `model`. There is no scheduler in it.
        """
        ...


class PartsTask:
    """A task made from its members; `task` builds it."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        vars(self).update(members)


def task(
    *,
    model: Callable[[], nn.Module],
    train: Dataset[Any],
    loss: Callable[[nn.Module, Batch], Any],
    optimizer: Callable[[Any, float], Optimizer],
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    val: Dataset[Any] | None = None,
    batch_size: Callable[[Batch], int] | None = None,
    loss_weight: Callable[[Batch], float] | None = None,
    before_update: Callable[[nn.Module], object] | None = None,
    schedule: Callable[[float], float] | None = None,
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    ema_decay: float | None = None,
    sampler: Callable[[int], Iterable[int]] | None = None,
    collate: Callable[[list[Any]], Batch] | None = None,
    loader_options: Mapping[str, Any] | None = None,
    name: str = "task",
    **unknown: Never,
) -> Task:
    """Build a task from its parts.

    Args:
        model: makes a fresh model.
        train: training data, of single examples: map-style, or a stream of them (`IterableDataset`).
        loss: `(model, batch) -> scalar mean loss`; a dict or tuple with it as `loss` or first member is taken too.
        optimizer: `(params, lr) -> Optimizer`, or `(model, lr)`, told apart by the name of the first argument.
        evaluate: `(model) -> {metric: number}`; without it the metric is `val_loss` on `val`.
        val: map-style validation data; without it and without `evaluate`, a validation split is held back of `train`.
        batch_size: `(batch) -> examples in it`; default: the first dimension of its first tensor.
        loss_weight: `(batch) -> terms in the mean of its loss`, such as tokens; default: its examples.
        before_update: `(model)`, called once a step between the gradients and the optimizer's step.
        schedule: `(share of the run) -> factor of the learning rate`.
        precision: of loss and metrics: autocast, with a gradient scaler for float16.
        ema_decay: of a moving average of the weights, evaluated beside as `ema_<metric>`.
        sampler: `(seed) -> indices of the examples`, in the order of one epoch.
        collate: joins a list of examples to a batch; default: torch's.
        loader_options: arguments of `DataLoader`, such as `{"num_workers": 2}`; without them the number of workers is
            chosen, and said.
        name: what the results folder and the page call it.
        unknown: refused, with the argument that is likely meant.

    Returns:
        A `Task`.

    Raises:
        TaskError: there is no such argument, or `val` is a `DataLoader`.

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
    from .loader import refuse_validation_loader
    from .unknown_members import refuse_unknown_arguments

    refuse_unknown_arguments(unknown)
    refuse_validation_loader(val)
    members = {
        "model": model,
        "train_data": partial(_itself, train),
        "loss": loss,
        "optimizer": optimizer,
        "evaluate": evaluate or (None if val is None else partial(_loss_on, loss, val, collate, loss_weight)),
        "batch_size": batch_size,
        "loss_weight": loss_weight,
        "before_update": before_update,
        "schedule": schedule,
        "precision": None if precision == "float32" else precision,
        "ema_decay": ema_decay,
        "sampler": sampler,
        "collate": collate,
        "loader_options": loader_options,
        "name": name,
    }
    return cast(Task, PartsTask({key: value for key, value in members.items() if value is not None}))


def _itself(data: Dataset[Any]) -> Dataset[Any]:
    return data


def _loss_on(
    loss: Callable[[nn.Module, Batch], Any],
    data: Dataset[Any],
    collate: Callable[[list[Any]], Batch] | None,
    weight: Callable[[Batch], float] | None,
    model: nn.Module,
) -> Mapping[str, float]:
    from ..hardware.random_state import preserved_random_state
    from .evaluation import mean_loss
    from .members import loss_in

    def scalar(model: nn.Module, batch: Batch) -> Tensor:
        return loss_in(loss(model, batch))

    with preserved_random_state(0):  # a loss that samples (negatives, noise) is that of the same draws each time
        return {"val_loss": mean_loss(model, scalar, data, collate=collate, weight=weight)}
