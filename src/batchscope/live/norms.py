"""Norms of gradients of any kind, gathered on the device and brought to numbers at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["any_nonzero", "by_layer", "norm", "square_norms"]


def norm(gradient: Tensor) -> Tensor:
    """Euclidean norm of a dense or sparse gradient, without dimensions, in float32 at least; nothing is synchronised.

    A float32 norm of `k` numbers is right to about `1e-7 · log2(k)` (pairwise sums).
    """
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    precise = torch.promote_types(values.dtype, torch.float32)
    return torch.linalg.vector_norm(values, dtype=None if values.is_complex() else precise)


def square_norms(groups: Sequence[Mapping[int, Tensor]], indices: Sequence[int], scale: float) -> list[list[float]]:
    """Squared norms in numbers, shape (groups, parameters), of gradients that have the factor `scale`.

    Args:
        groups: of each group the norms by the parameter's index; a parameter without one counts as 0.
        indices: of all parameters.
        scale: is divided out before squaring, so that nothing overflows.
    """
    flat = list(itertools.chain.from_iterable(group.values() for group in groups))
    if not flat:
        return [[0.0] * len(indices) for _ in groups]
    device = flat[0].device
    precise = torch.float32 if device.type == "mps" else torch.float64
    numbers = iter(torch.stack([each.to(device, precise) for each in flat]).tolist())
    by_group = [{index: (next(numbers) / scale) ** 2 for index in group} for group in groups]
    return [[group.get(index, 0.0) for index in indices] for group in by_group]


def by_layer(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Sums of the values of each module's own parameters, by the module's name.

    >>> by_layer(["0.weight", "0.bias", "head.weight", "scale"], [1.0, 2.0, 4.0, 8.0])
    {'0': 3.0, 'head': 4.0, '(model)': 8.0}
    """
    sums: dict[str, float] = {}
    for name, value in zip(names, values, strict=True):
        layer = name.rpartition(".")[0] or "(model)"
        sums[layer] = sums.get(layer, 0.0) + value
    return sums


def any_nonzero(gradients: Sequence[Tensor]) -> bool:
    """Whether one of the gradients has an element other than 0; one synchronisation with the device."""
    found = square_norms([dict(enumerate(map(norm, gradients)))], range(len(gradients)), 1.0)[0]
    return any(value != 0 for value in found)
