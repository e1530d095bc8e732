"""Geometry of an optimizer: in which norm its steps are the steepest, and the dual norms of a step's groups in it.

A step of SGD is the steepest under the Euclidean norm of the weights, one of signSGD, Lion and (with its averages left
out) Adam under their largest absolute value, and one of Muon under the largest singular value of each matrix (Bernstein
and Newhouse 2024, "Old Optimizer, New Norm", propositions 1 to 3). Over several tensors these norms are the largest of
all tensors', so that their duals add up:

    sign        ‖x‖_* = sum over all parameters of |x_i|
    spectral    ‖x‖_* = sum over the matrices of their singular values + sum over all other parameters of |x_i|

since what Muon does not take is trained by Adam or Lion. Parameters of more than two dimensions are matrices of shape
(first, all others). Factors that an optimizer has on a layer's step, by its shape or learning rate, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import UsageError
from ..store.records import Row
from .scalers import unwrapped

__all__ = [
    "GEOMETRIES",
    "DualNorms",
    "Geometry",
    "NormsOf",
    "checked_geometry",
    "euclidean_only",
    "geometry_of",
    "norms_in",
]

Geometry = Literal["euclidean", "sign", "spectral"]
GEOMETRIES: tuple[Geometry, ...] = get_args(Geometry)

NormsOf = Callable[[Sequence[nn.Parameter], Optimizer], "DualNorms | None"]
"""What makes the norms of some parameters that an optimizer changes; `None`: the Euclidean ones are enough."""

_SPECTRAL = ("muon", "shampoo", "spectral")
_SIGN = ("sign", "lion", "adam", "rmsprop", "adagrad", "adadelta", "adafactor", "adopt", "lamb", "sophia")
_NULL = 1e-6
"""Share of the largest singular value below which a direction counts as none."""


def geometry_of(optimizer: Any) -> Geometry:
    """Geometry of an optimizer, by the names of its class and the classes it derives from; Euclidean where none tells.

    A wrapper that holds the optimizer as `optimizer` (Accelerate) counts as that.

    >>> geometry_of(torch.optim.AdamW([torch.zeros(1)]))
    'sign'
    >>> geometry_of(torch.optim.SGD([torch.zeros(1)]))
    'euclidean'
    """
    names = [kind.__name__.lower() for kind in type(unwrapped(optimizer)).__mro__]
    if any(part in name for name in names for part in _SPECTRAL):
        return "spectral"
    return "sign" if any(part in name for name in names for part in _SIGN) else "euclidean"


def norms_in(geometry: str) -> NormsOf:
    """What makes the norms of a geometry for some parameters; of the Euclidean one, none."""
    if (checked := checked_geometry(geometry)) == "euclidean":
        return euclidean_only
    return lambda parameters, optimizer: DualNorms(checked, parameters, optimizer)


def euclidean_only(parameters: Sequence[nn.Parameter], optimizer: Optimizer) -> None:
    """No norms beside the Euclidean ones."""


def checked_geometry(name: str) -> Geometry:
    """A geometry by its name.

    Raises:
        UsageError: there is none of this name.
    """
    for known in GEOMETRIES:
        if name == known:
            return known
    raise UsageError(f"geometry is {name!r}; write one of {', '.join(map(repr, GEOMETRIES))}")


class DualNorms:
    """Dual norms of the groups of a step, which `fits.dual_noise` makes a noise scale of.

    Args:
        geometry: `"sign"` or `"spectral"`.
        parameters: of the model, in the order of the gradients that are handed over.
        optimizer: a group of it with `use_muon=False` is left out of the matrices.

    Attributes:
        geometry: as given.
        count: of the parameters.

    Raises:
        UsageError: there is no such geometry, or it is Euclidean, for which the rows of squared norms are enough.

    Cost: sign: four passes over a group's gradient. Spectral: two singular value decompositions of each matrix a group,
    `O(m n min(m, n))` each, and one more.
    """

    def __init__(
        self, geometry: Geometry, parameters: Sequence[nn.Parameter], optimizer: Optimizer | None = None
    ) -> None:
        if checked_geometry(geometry) == "euclidean":
            raise UsageError("the Euclidean geometry needs no norms beside the squared ones of a noise row")
        self.geometry = geometry
        groups = [] if optimizer is None else optimizer.param_groups
        plain = {id(p) for group in groups if not group.get("use_muon", True) for p in group["params"]}
        self.count = len(parameters)
        self._is_matrix = [
            geometry == "spectral" and p.ndim >= 2 and not p.is_complex() and id(p) not in plain for p in parameters
        ]

    def row(self, groups: Sequence[Sequence[Tensor | None]], sizes: Sequence[float]) -> Row:
        """What a noise row holds of them.

        Args:
            groups: mean gradient of each group, one tensor a parameter.
            sizes: examples of each; where the mean is over terms (tokens), its share of them times the batch size.
        """
        batch = math.fsum(sizes)
        shares = [size / batch for size in sizes]
        mean = [_mean(members, shares) for members in zip(*groups, strict=True)]
        against = torch.stack([self.against(own, mean, size, batch) for own, size in zip(groups, sizes, strict=True)])
        return self.row_of(against, mean, sizes)

    def against(
        self, own: Sequence[Tensor | None], mean: Sequence[Tensor | None], size: float, batch_size: float
    ) -> Tensor:
        """Noise and alignment of one group of `size` examples and the rest of its batch, shape (2,).

        Both follow from the group's own gradient and the mean over the whole batch, so that a data-parallel rank can
        tell its own from its local and the reduced gradient.
        """
        share = size / batch_size
        noise, aligned = list[Tensor](), list[Tensor]()
        for is_matrix, mine, whole in zip(self._is_matrix, own, mean, strict=True):
            if whole is None:
                continue
            whole = _dense(whole)
            mine = torch.zeros_like(whole) if mine is None else _dense(mine)
            apart = (mine - whole) / (1.0 - share)
            noise.append(_norm(apart, is_matrix))
            aligned.append(_aligned(mine, mine - apart, is_matrix))
        spread = math.sqrt(1.0 / size + 1.0 / (batch_size - size))
        return torch.stack([_total(noise, mean) / spread, _total(aligned, mean)])

    def row_of(self, against: Tensor, mean: Sequence[Tensor | None], sizes: Sequence[float]) -> Row:
        """Row of what `against` found for each group, shape (groups, 2), and of the mean over the batch."""
        norms = [
            _norm(_dense(m), is_matrix) for is_matrix, m in zip(self._is_matrix, mean, strict=True) if m is not None
        ]
        weights = against.new_tensor(list(sizes)) / math.fsum(sizes)
        noise, aligned = against[:, 0].mean(), (weights * against[:, 1]).sum()
        numbers = torch.stack([noise, _total(norms, mean).to(noise), aligned]).tolist()
        return {"geometry": self.geometry, **dict(zip(("noise_norm", "norm_of_mean", "aligned"), numbers, strict=True))}


def _mean(members: Sequence[Tensor | None], shares: Sequence[float]) -> Tensor | None:
    there = [_dense(g) * share for g, share in zip(members, shares, strict=True) if g is not None]
    return torch.stack(there).sum(0) if there else None


def _dense(gradient: Tensor) -> Tensor:
    """A gradient as real numbers of at least 32 bits."""
    dense = gradient.detach().to_dense()
    real = torch.view_as_real(dense) if dense.is_complex() else dense
    return real.to(torch.promote_types(real.dtype, torch.float32))


def _total(parts: Sequence[Tensor], like: Sequence[Tensor | None]) -> Tensor:
    if parts:
        return torch.stack([part.to(parts[0]) for part in parts]).sum()
    device = next((g.device for g in like if g is not None), torch.device("cpu"))
    return torch.zeros((), device=device)


def _norm(x: Tensor, is_matrix: bool) -> Tensor:
    if is_matrix and x.numel():
        return torch.linalg.svdvals(x.flatten(1)).sum()
    return x.abs().sum()


def _aligned(x: Tensor, along: Tensor, is_matrix: bool) -> Tensor:
    """`<x, D(along)>`, with D the direction of the steepest step."""
    if not (is_matrix and x.numel()):
        return (x * along.sign()).sum()
    u, s, vh = torch.linalg.svd(along.flatten(1), full_matrices=False)
    there = s > _NULL * s[0]
    return (x.flatten(1) * (u[:, there] @ vh[there])).sum()
