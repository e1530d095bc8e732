"""Loss: whether it is a finite scalar that depends on the parameters, and the mean over a batch's examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...errors import TaskError
from ...hardware.random_state import seed_everything
from ..batches import to_device
from ..culprits import cause_of_gradient, cause_of_loss, without_number
from ..fresh_model import checked_module, give_sizes
from ..protocol import Batch
from ..update import is_finite, without_underflow
from ..user_code import explained
from ..workload import Workload
from .inputs import (
    describe_bad_values,
    describe_batch,
    describe_integers,
    describe_mismatch,
    named_tensors,
    shape_of,
)

__all__ = ["check_count", "check_gradient", "check_labels_on_cpu", "check_mean", "first_loss", "loss_of"]

_CHANGED = 0.1
"""A loss that changes by less than this share when every example is given twice is taken for a mean."""
_ROUNDED = 1e-5
"""And by less than this share not at all."""
_SEEDS = (0, 1, 2)
"""States of the random generators from which a loss must look like no mean."""
_TRIED_ON_CPU = 300_000_000


def check_count(workload: Workload, batch: Batch, size: int) -> None:
    """Refuse a task whose batches are miscounted.

    Raises:
        TaskError: `batch_size(batch)`, or the first dimension of the first tensor, is not the number of examples.
    """
    if (counted := workload.count(batch)) != size:
        shapes = ", ".join(f"{name} {shape_of(t)}" for name, t in named_tensors(batch))
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
    model = checked_module(workload.task.model())
    try:
        give_sizes(model, lambda: workload.loss(model, to_device(workload.batch(indices), torch.device("cpu"))))
        if sum(p.numel() for p in model.parameters()) > _TRIED_ON_CPU:
            return
        with torch.no_grad():
            workload.loss(model, to_device(workload.batch(indices), torch.device("cpu")))
    except TaskError as error:
        if _is_about_range(error):
            raise _out_of_range(error, workload, workload.batch(indices), model) from error.__cause__


def first_loss(workload: Workload, model: nn.Module, batch: Batch, indices: Tensor) -> Tensor:
    """The loss of the first batch, with its graph.

    Args:
        workload: the task.
        model: with fresh weights.
        batch: collated, on the device.
        indices: of the examples in it.

    Raises:
        TaskError: it cannot be computed, is not a scalar tensor, is not finite, or has no gradient.
    """
    try:
        loss = workload.loss(model, batch)
    except TaskError as error:
        if _is_about_range(error):
            raise _out_of_range(error, workload, batch, model) from error.__cause__
        if (cause := error.__cause__) is not None:
            hint = describe_mismatch(workload, model, batch, cause)
            raise TaskError(f"{error}; {describe_batch(workload, batch)}{hint}") from cause
        raise
    if not isinstance(loss, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - the user's code decides
        kind = "None" if loss is None else type(loss).__name__
        write = "end it with `return loss`" if loss is None else "return the loss without .item()"
        raise TaskError(f"loss(model, batch) returned {kind}, not a tensor; {write}")
    if loss.is_complex() or loss.layout is not torch.strided:
        kind, write = ("complex", "loss.abs() or loss.real") if loss.is_complex() else ("sparse", "loss.to_dense()")
        raise TaskError(f"loss(model, batch) returned a {kind} tensor, not a real scalar; return {write}")
    if loss.ndim:
        raise TaskError(
            f"loss(model, batch) returned a tensor of shape {tuple(loss.shape)}, not a scalar; return loss.mean()"
        )
    value = loss.item()
    if not math.isfinite(value):
        cause = cause_of_loss(workload, model, batch, indices, value)
        if cause.values:
            cause = replace(cause, said=describe_bad_values(workload, batch, indices))
        raise TaskError(f"the loss is {without_number(value)} before training, with fresh weights; {cause}")
    if not loss.requires_grad:
        raise TaskError(
            f"the loss ({value:.4g}) does not depend on the model's parameters: it carries no gradient; compute "
            "it from model(...) without .detach(), .item(), .numpy() or torch.no_grad()"
        )
    return loss


def check_gradient(workload: Workload, model: nn.Module, loss: Tensor, batch: Batch, indices: Tensor) -> list[str]:
    """Run the backward pass, in float16 with a factor against too small numbers that is divided out again.

    Args:
        workload: the task.
        model: with fresh weights.
        loss: of a batch, with its graph.
        batch: its examples.
        indices: of them.

    Returns:
        The names of trainable parameters that get no gradient.

    Raises:
        TaskError: every gradient is missing or zero, or one is not finite.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def compute(scale: float) -> list[Tensor | None]:
        model.zero_grad(set_to_none=True)
        with explained("the backward pass of loss(model, batch)"):
            (loss if scale == 1.0 else loss * scale).backward(retain_graph=scale > 1.0)
        return [p.grad for p in trainable.values()]

    for p, gradient in zip(trainable.values(), without_underflow(workload.precision, compute), strict=True):
        p.grad = gradient
    without = [name for name, p in trainable.items() if p.grad is None or not bool(p.grad.to_dense().any())]
    if len(without) == len(trainable):
        raise TaskError(
            f"the loss ({loss.item():.4g}) does not depend on the model's parameters: all {len(trainable)} parameter "
            "tensors have no gradient, or zero; compute the loss from model(...) of the model that loss() is given"
        )
    broken = [n for n, p in trainable.items() if p.grad is not None and not is_finite(p.grad)]
    if broken:
        raise TaskError(
            f"the gradient of {broken[0]} ({len(broken)} of {len(trainable)} parameter tensors) is not finite before "
            f"training, although the loss is {loss.item():.4g}: {cause_of_gradient(workload, model, batch, indices)}"
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
    changes by little, a large constant may hide a sum: then its gradient is looked at. A loss that is drawn may grow so
    by chance: it is refused only where it does from every one of three states of the random generators.

    Raises:
        TaskError: the loss grows or shrinks in proportion to the batch, or to its square root.
    """
    said = _no_mean(workload, model, indices, _SEEDS[0])
    if said is not None and all(_no_mean(workload, model, indices, seed) is not None for seed in _SEEDS[1:]):
        raise TaskError(said)


def _no_mean(workload: Workload, model: nn.Module, indices: Tensor, seed: int) -> str | None:
    """Sentence on a loss that changes with the batch as no mean does; `None`: it is a mean, as far as is seen."""
    once, twice, four = (loss_of(workload, model, indices.repeat(times), seed=seed) for times in (1, 2, 4))
    first, second = twice - once, four - twice
    if abs(first) <= _CHANGED * abs(once):
        hidden = abs(first) > _ROUNDED * abs(once) and 1.8 < second / first < 2.2
        return _no_mean_of_gradients(workload, model, indices, seed) if hidden else None
    size = len(indices)
    seen = f"the loss of {size} examples is {once:.4g}, of the same examples twice {twice:.4g}, four times {four:.4g}"
    if abs(once) < abs(twice) < abs(four) and 1.5 < second / first < 2.5:
        return (
            f"{seen}: it grows with the batch as a sum does, and would make every learning rate mean something else at "
            "another batch size; return the mean over examples (reduction='mean', or divide by the batch's size)"
        )
    if _times(twice, once, math.sqrt(2.0)) and _times(four, twice, math.sqrt(2.0)):
        return (
            f"{seen}: it grows with the square root of the batch size, as a norm over all examples does, and would "
            "make every learning rate mean something else at another batch size; return the mean over examples of a "
            "loss of each (a mean square, or the mean of the norms of the examples)"
        )
    if _halved(once, twice) and _halved(twice, four):
        return (
            f"{seen}: it is divided by the batch size once too often; return the mean over examples, not divided again"
        )
    return None


def _halved(before: float, after: float) -> bool:
    return math.isclose(after, before / 2, rel_tol=0.1)


def _times(value: float, of: float, factor: float) -> bool:
    return math.isclose(value, factor * of, rel_tol=0.02)


def _no_mean_of_gradients(workload: Workload, model: nn.Module, indices: Tensor, seed: int) -> str | None:
    """Sentence on a loss whose gradient doubles when every example is given twice, and again; `None`: it does not."""
    once, twice, four = (_gradient_norm(workload, model, indices.repeat(times), seed) for times in (1, 2, 4))
    if not (once > 0.0 and _times(twice, once, 2.0) and _times(four, twice, 2.0)):
        return None
    return (
        f"the norm of the gradient of {len(indices)} examples is {once:.4g}, of the same examples twice "
        f"{twice:.4g}, four times {four:.4g}: beside a part that stays, the loss grows with the batch as a sum "
        "does, and would make every learning rate mean something else at another batch size; return the mean over "
        "examples (reduction='mean', or divide by the batch's size)"
    )


def _gradient_norm(workload: Workload, model: nn.Module, indices: Tensor, seed: int) -> float:
    seed_everything(seed)
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
