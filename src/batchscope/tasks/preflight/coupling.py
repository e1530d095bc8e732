"""Coupling: whether one example's loss depends on the other examples of its batch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...errors import TaskError
from ..workload import Workload
from .loss import loss_of

__all__ = ["differ", "find_batch_norm", "measure_coupling", "rounding_of", "smallest_batch", "without_dropout"]

_QUIETED = (nn.modules.dropout._DropoutNd, nn.MultiheadAttention, nn.RNNBase)  # pyright: ignore[reportPrivateUsage]
_ROUNDING_CPU, _ROUNDING_ACCELERATOR, _ROUNDING_HALF = 3e-5, 5e-4, 2e-2
_NOISE_FACTOR = 5.0
_HALF = (torch.float16, torch.bfloat16)


def find_batch_norm(model: nn.Module) -> list[str]:
    """Names of batch normalisation layers that use the batch's own statistics."""
    kind = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]
    return [name or "model" for name, m in model.named_modules() if isinstance(m, kind) and m.training]


def measure_coupling(workload: Workload, model: nn.Module, indices: Tensor) -> str:
    """Compare the loss of a batch with the mean over its pairs, weighted by the task's `loss_weight`.

    They are equal for every mean over examples that do not see one another. Batch normalisation of any make, negatives
    from the same batch, and a mean over tokens of examples with unequal lengths, without `loss_weight`, make them
    differ.

    Dropout layers are switched off for the comparison; what other chance there is (noise drawn in `loss`, augmentation)
    is measured by seeding differently, and a difference counts only above five times that.

    Returns:
        A sentence with both numbers where they differ, else an empty one.
    """
    with without_dropout(model):
        whole = loss_of(workload, model, indices)
        again = [loss_of(workload, model, indices, seed=seed) for seed in (1, 2)]
        pairs = indices.split(2)
        try:
            weights = [workload.weight(workload.batch(pair)) for pair in pairs]
            losses = [loss_of(workload, model, pair) for pair in pairs]
            apart = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
        except TaskError as error:
            return f"the loss of 2 examples cannot be computed alone ({error})"
    if not differ(whole, apart, again=again, rounding=_rounding(workload, model)):
        return ""
    return (
        f"the loss of {len(indices)} examples is {whole:.6g} as one batch and {apart:.6g} as the mean over pairs "
        "of the same examples"
    )


@contextmanager
def without_dropout(model: nn.Module) -> Generator[None]:
    """Dropout layers are switched off inside; the rest of the model stays in its mode."""
    quieted = [m for m in model.modules() if isinstance(m, _QUIETED) and m.training]
    for module in quieted:
        module.training = False
    try:
        yield
    finally:
        for module in quieted:
            module.training = True


def differ(whole: float, apart: float, *, again: Sequence[float], rounding: float) -> bool:
    """Whether the loss of a batch and the mean over its parts differ by more than rounding and chance.

    Args:
        whole: loss of the batch.
        apart: weighted mean of the losses of its parts.
        again: losses of the batch with other random draws.
        rounding: relative difference that is none.
    """
    noise = max(abs(value - whole) for value in again)
    return abs(whole - apart) > max(rounding * max(abs(whole), abs(apart)), _NOISE_FACTOR * noise)


def smallest_batch(workload: Workload, model: nn.Module, indices: Tensor) -> int:
    """Smallest batch that can be trained on: 1, or 2 where the loss of a single example fails or is not a number."""
    try:
        alone = loss_of(workload, model, indices[:1])
    except TaskError:
        return 2
    return 1 if alone == alone else 2


def rounding_of(model: nn.Module, *, in_half: bool, device_type: str) -> float:
    """Relative difference of two losses that only rounding makes.

    Args:
        model: whose parameters may be in half precision.
        in_half: whether the loss is computed in 16 bits (autocast).
        device_type: on which it is.
    """
    if in_half or any(p.dtype in _HALF for p in model.parameters()):
        return _ROUNDING_HALF
    return _ROUNDING_CPU if device_type == "cpu" else _ROUNDING_ACCELERATOR


def _rounding(workload: Workload, model: nn.Module) -> float:
    in_half = workload.precision != "float32"
    return rounding_of(model, in_half=in_half, device_type=workload.device.torch_device.type)
