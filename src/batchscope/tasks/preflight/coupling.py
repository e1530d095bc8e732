"""Coupling: whether one example's loss depends on the other examples of its batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import TaskError
from ..workload import Workload
from .loss import loss_of

__all__ = ["find_batch_norm", "measure_coupling", "smallest_batch"]

_QUIETED = (nn.modules.dropout._DropoutNd, nn.MultiheadAttention, nn.RNNBase)  # pyright: ignore[reportPrivateUsage]
_ROUNDING_CPU, _ROUNDING_ACCELERATOR, _ROUNDING_HALF = 3e-5, 5e-4, 2e-2
_NOISE_FACTOR = 5.0


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
    quieted = [m for m in model.modules() if isinstance(m, _QUIETED) and m.training]
    for module in quieted:
        module.training = False
    try:
        whole = loss_of(workload, model, indices)
        noise = max(abs(loss_of(workload, model, indices, seed=seed) - whole) for seed in (1, 2))
        pairs = indices.split(2)
        try:
            weights = [workload.weight(workload.batch(pair)) for pair in pairs]
            losses = [loss_of(workload, model, pair) for pair in pairs]
            apart = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
        except TaskError as error:
            return f"the loss of 2 examples cannot be computed alone ({error})"
    finally:
        for module in quieted:
            module.training = True
    tolerance = max(_rounding(workload, model) * max(abs(whole), abs(apart)), _NOISE_FACTOR * noise)
    if abs(whole - apart) <= tolerance:
        return ""
    return (
        f"the loss of {len(indices)} examples is {whole:.6g} as one batch and {apart:.6g} as the mean over pairs "
        "of the same examples"
    )


def smallest_batch(workload: Workload, model: nn.Module, indices: Tensor) -> int:
    """Smallest batch that can be trained on: 1, or 2 where the loss of a single example fails or is not a number."""
    try:
        alone = loss_of(workload, model, indices[:1])
    except TaskError:
        return 2
    return 1 if alone == alone else 2


def _rounding(workload: Workload, model: nn.Module) -> float:
    half = (torch.float16, torch.bfloat16)
    if workload.precision != "float32" or any(p.dtype in half for p in model.parameters()):
        return _ROUNDING_HALF
    return _ROUNDING_CPU if workload.device.torch_device.type == "cpu" else _ROUNDING_ACCELERATOR
