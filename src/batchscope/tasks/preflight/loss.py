"""Loss: whether it is a finite scalar that depends on the parameters, and the mean over a batch's examples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import TaskError
from ...hardware.random_state import seed_everything
from ..batches import to_device
from ..protocol import Batch
from ..update import without_underflow
from ..workload import Workload
from .inputs import describe_batch, describe_integers, describe_nan, named_tensors

__all__ = ["check_count", "check_gradient", "check_labels_on_cpu", "check_mean", "first_loss", "loss_of"]

_CHANGED = 0.1
"""A loss that changes by less than this share when every example is given twice is taken for a mean."""
_ROUNDED = 1e-5
"""And by less than this share not at all."""
_TRIED_ON_CPU = 300_000_000


def check_count(workload: Workload, batch: Batch, size: int) -> None:
    """Refuse a task whose batches are miscounted.

    Raises:
        TaskError: `batch_size(batch)`, or the first dimension of the first tensor, is not the number of examples.
    """
    if (counted := workload.count(batch)) != size:
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in named_tensors(batch))
        raise TaskError(
            f"a batch of {size} examples was counted as {counted} ({shapes or type(batch).__name__}); give the task a "
            "method `def batch_size(self, batch) -> int` that returns the number of examples"
        )


def check_labels_on_cpu(workload: Workload, indices: Tensor) -> None:
    """Try the labels on the CPU first, on an accelerator: out of range, they would end the process's use of it.

    Raises:
        TaskError: a label is out of range.
    """
    if workload.device.torch_device.type == "cpu":
        return
    seed_everything(0)
    model = workload.task.model()
    if sum(p.numel() for p in model.parameters()) > _TRIED_ON_CPU:
        return
    try:
        with torch.no_grad():
            workload.loss(model, to_device(workload.batch(indices), torch.device("cpu")))
    except TaskError as error:
        if _is_about_range(error):
            raise _out_of_range(error, workload, workload.batch(indices), model) from error.__cause__


def first_loss(workload: Workload, model: nn.Module, batch: Batch) -> Tensor:
    """The loss of the first batch, with its graph.

    Raises:
        TaskError: it cannot be computed, is not a scalar tensor, is not finite, or has no gradient.
    """
    try:
        loss = workload.loss(model, batch)
    except TaskError as error:
        if _is_about_range(error):
            raise _out_of_range(error, workload, batch, model) from error.__cause__
        if error.__cause__ is not None:
            raise TaskError(f"{error}; {describe_batch(workload, batch)}") from error.__cause__
        raise
    if not isinstance(loss, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - the user's code decides
        raise TaskError(
            f"loss(model, batch) returned {type(loss).__name__}, not a tensor; return the loss without .item()"
        )
    if loss.ndim:
        raise TaskError(
            f"loss(model, batch) returned a tensor of shape {tuple(loss.shape)}, not a scalar; return loss.mean()"
        )
    value = loss.item()
    if not math.isfinite(value):
        nan = describe_nan(workload, batch)
        reason = f"{nan}; fill or drop them" if nan else "no input is NaN: look for a division by zero or a log(0)"
        raise TaskError(f"the loss is {value} before training, with fresh weights; {reason}")
    if not loss.requires_grad:
        raise TaskError(
            f"the loss ({value:.4g}) does not depend on the model's parameters: it carries no gradient; compute "
            "it from model(...) without .detach(), .item(), .numpy() or torch.no_grad()"
        )
    return loss


def check_gradient(model: nn.Module, loss: Tensor, precision: str = "float32") -> list[str]:
    """Run the backward pass, in float16 with a factor against too small numbers that is divided out again.

    Returns:
        The names of trainable parameters that get no gradient.

    Raises:
        TaskError: every gradient is missing or zero, or one is not finite.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def compute(scale: float) -> list[Tensor | None]:
        model.zero_grad(set_to_none=True)
        (loss if scale == 1.0 else loss * scale).backward(retain_graph=scale > 1.0)
        return [p.grad for p in trainable.values()]

    for p, gradient in zip(trainable.values(), without_underflow(precision, compute), strict=True):
        p.grad = gradient
    without = [name for name, p in trainable.items() if p.grad is None or not bool(p.grad.to_dense().any())]
    if len(without) == len(trainable):
        raise TaskError(
            f"the loss ({loss.item():.4g}) does not depend on the model's parameters: all {len(trainable)} parameter "
            "tensors have no gradient, or zero; compute the loss from model(...) of the model that loss() is given"
        )
    broken = [n for n, p in trainable.items() if p.grad is not None and not bool(p.grad.to_dense().isfinite().all())]
    if broken:
        raise TaskError(
            f"the gradient of {broken[0]} ({len(broken)} of {len(trainable)} parameter tensors) is not finite before "
            f"training, although the loss is {loss.item():.4g}; look for sqrt, log or a norm at zero"
        )
    return [name for name, p in trainable.items() if p.grad is None]


def loss_of(workload: Workload, model: nn.Module, indices: Tensor, *, seed: int = 0) -> float:
    """The loss of a batch of examples, without gradient, every random generator at the same start."""
    seed_everything(seed)
    with torch.no_grad():
        return float(workload.loss(model, workload.batch(indices)))


def check_mean(workload: Workload, model: nn.Module, indices: Tensor) -> None:
    """Give every example twice and four times: a mean stays, a sum grows in proportion, a norm with the square root.

    Repeating examples, rather than adding others, leaves batch normalisation's statistics as they are. Where the loss
    changes by little, a large constant may hide a sum: then its gradient is looked at.

    Raises:
        TaskError: the loss grows or shrinks in proportion to the batch, or to its square root.
    """
    once, twice, four = (loss_of(workload, model, indices.repeat(times)) for times in (1, 2, 4))
    first, second = twice - once, four - twice
    if abs(first) <= _CHANGED * abs(once):
        if abs(first) > _ROUNDED * abs(once) and 1.8 < second / first < 2.2:
            _check_gradients(workload, model, indices)
        return
    size = len(indices)
    seen = f"the loss of {size} examples is {once:.4g}, of the same examples twice {twice:.4g}, four times {four:.4g}"
    if 1.5 < second / first < 2.5:
        raise TaskError(
            f"{seen}: it grows with the batch as a sum does, and would make every learning rate mean something else at "
            "another batch size; return the mean over examples (reduction='mean', or divide by the batch's size)"
        )
    if _times(twice, once, math.sqrt(2.0)) and _times(four, twice, math.sqrt(2.0)):
        raise TaskError(
            f"{seen}: it grows with the square root of the batch size, as a norm over all examples does, and would "
            "make every learning rate mean something else at another batch size; return the mean over examples of a "
            "loss of each (a mean square, or the mean of the norms of the examples)"
        )
    if _halved(once, twice) and _halved(twice, four):
        raise TaskError(
            f"{seen}: it is divided by the batch size once too often; return the mean over examples, not divided again"
        )


def _halved(before: float, after: float) -> bool:
    return math.isclose(after, before / 2, rel_tol=0.1)


def _times(value: float, of: float, factor: float) -> bool:
    return math.isclose(value, factor * of, rel_tol=0.02)


def _check_gradients(workload: Workload, model: nn.Module, indices: Tensor) -> None:
    """Refuse a loss whose gradient doubles when every example is given twice, and again.

    Raises:
        TaskError: it does.
    """
    once, twice, four = (_gradient_norm(workload, model, indices.repeat(times)) for times in (1, 2, 4))
    if once > 0.0 and _times(twice, once, 2.0) and _times(four, twice, 2.0):
        raise TaskError(
            f"the norm of the gradient of {len(indices)} examples is {once:.4g}, of the same examples twice "
            f"{twice:.4g}, four times {four:.4g}: beside a part that stays, the loss grows with the batch as a sum "
            "does, and would make every learning rate mean something else at another batch size; return the mean over "
            "examples (reduction='mean', or divide by the batch's size)"
        )


def _gradient_norm(workload: Workload, model: nn.Module, indices: Tensor) -> float:
    seed_everything(0)
    trainable = [p for p in model.parameters() if p.requires_grad]
    loss = workload.loss(model, workload.batch(indices))
    gradients = torch.autograd.grad(loss, trainable, materialize_grads=True)
    return math.hypot(*(float(g.to_dense().norm()) for g in gradients))


def _is_about_range(error: TaskError) -> bool:
    cause = error.__cause__
    message = str(cause).lower()
    phrases: Sequence[str] = ("out of bounds", "out of range", "device-side assert", "index out of")
    return isinstance(cause, IndexError) or (isinstance(cause, RuntimeError) and any(p in message for p in phrases))


def _out_of_range(error: TaskError, workload: Workload, batch: Batch, model: nn.Module) -> TaskError:
    return TaskError(
        f"a label or code is out of range: {error}; {describe_integers(workload, batch, model)}; number the labels "
        "from 0, or give the model as many outputs as there are classes"
    )
