"""Histograms of a model's weights at several moments, parameter by parameter, in bins that all moments share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....probes.gradient_histogram import Histogram, symmetric_limit

__all__ = ["ParameterHistograms", "Weights", "histograms_of"]

_BINS = 61
_MARGIN = 1.02
"""The largest number lies inside the bins."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The numbers of one parameter at one moment."""

    counts: tuple[int, ...]
    zeros: int
    """Numbers of exactly zero; they are in no bin."""
    mean: float
    deviation: float
    """The root of the mean square about the mean."""
    largest: float
    """Magnitude."""


@dataclass(frozen=True, kw_only=True)
class ParameterHistograms:
    """One parameter at all moments."""

    name: str
    size: int
    limit: float
    """Bins reach from minus this to this; there is an odd number of them, of equal width."""
    moments: tuple[Weights, ...]


@torch.no_grad()
def histograms_of(
    states: Sequence[Mapping[str, Tensor]], names: Sequence[str], *, bins: int = _BINS
) -> tuple[ParameterHistograms, ...]:
    """Count each parameter's numbers at each moment.

    The bins of a parameter reach as far as its largest number at any of the moments, and are fixed before anything is
    counted, so that no number lies outside and all moments can be laid over one another.

    Args:
        states: a `state_dict` for each moment.
        names: of the parameters, in order; one that is zero, or no number, at every moment has no histogram.
        bins: an odd number.

    Cost: a few sweeps over the weights for each moment.

    Valid when: the states are of one model.

    Source: Shen 2018 (weights before and after training).

    Example:
        >>> before, after = ({"w": torch.tensor(values)} for values in ([0.0, 1.0, -1.0], [0.5, 2.0, -1.0]))
        >>> found = histograms_of([before, after], ["w"], bins=5)[0]
        >>> found.limit, [m.counts for m in found.moments], found.moments[0].zeros
        (2.04, [(0, 1, 0, 1, 0), (0, 1, 0, 1, 1)], 1)
    """
    found: list[ParameterHistograms] = []
    for name in names:
        tensors = [state[name].detach().to("cpu", torch.float64) for state in states]
        limit = symmetric_limit(tensors, factor=_MARGIN)
        if limit is not None:
            empty = Histogram.empty(limit=limit, bins=bins)
            moments = tuple(_weights(empty.with_values(tensor), tensor) for tensor in tensors)
            found.append(ParameterHistograms(name=name, size=tensors[0].numel(), limit=limit, moments=moments))
    return tuple(found)


def _weights(histogram: Histogram, tensor: Tensor) -> Weights:
    return Weights(
        counts=histogram.counts,
        zeros=histogram.zeros,
        mean=float(tensor.mean()),
        deviation=float(tensor.std(correction=0)),
        largest=float(tensor.abs().max()),
    )
