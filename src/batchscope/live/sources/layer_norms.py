"""Squared norms of each example's share in a layer's gradient, from its input and the gradient of its output.

With `a_t` the inputs and `g_t` the output gradients of an example at its positions `t`, a linear map's weight gets
`c = Σ_t g_t a_tᵀ` from that example. Of `|c|²` there are two forms, of which the one with fewer operations is taken:

    |c|² = Σ_t,t' (a_t · a_t') (g_t · g_t')      the Gram form: T² (in + out) operations
    |c|² = |Σ_t g_t a_tᵀ|²                       the explicit form: T · in · out operations, as in the backward pass

With one position it is `|a|² |g|²` (Goodfellow 2015, equation 3); with several, Li et al. 2021, section 4 ("ghost
clipping"). A convolution is the linear map of its unfolded input (Bu et al. 2022). Embeddings sum what falls on the
same row; norm layers and biases have gradients so small that they are summed for each example (Gray et al. 2024).
Nothing of the size (examples, parameters) is kept: large intermediate tensors are made for a few examples at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NORM_LAYERS", "Contribution", "Rule", "Signs", "rule_of"]

_AT_ONCE = 2**22
"""Elements of an intermediate tensor, at most (where one example alone does not have more)."""

_Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True, kw_only=True)
class Signs:
    """Fixed random signs `u` (rows), `v` (columns) that make one number `uᵀ C v` of a gradient `C`.

    Its mean square over all signs is `|C|²`, so that two gradients with the same number are the same in all likelihood
    (Freivalds 1977). They come from a generator of their own: the training's random streams stay as they are.
    """

    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, parameter: Tensor) -> Signs:
        """Signs for a parameter, the same for the same shape; columns are all its dimensions after the first."""
        generator = torch.Generator().manual_seed(1977)
        rows = parameter.shape[0] if parameter.ndim else 1
        columns = max(1, parameter.numel() // max(1, rows))
        precise = torch.promote_types(parameter.dtype, torch.float32)

        def draw(count: int) -> Tensor:
            signs = torch.randint(0, 2, (count,), generator=generator) * 2 - 1 if count > 1 else torch.ones(1)
            return signs.to(parameter.device, precise)

        return cls(rows=draw(rows), columns=draw(columns))

    def project(self, gradient: Tensor) -> Tensor:
        """`uᵀ C v` of a gradient as autograd gives it, dense or sparse in its rows; shape ()."""
        rows, values = self.rows, gradient
        if gradient.is_sparse:
            rows, values = self.rows[gradient._indices()[0]], gradient._values()
        return rows @ (values.reshape(len(rows), -1).to(self.rows.dtype) @ self.columns)


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What the examples of a micro-batch add to one parameter's gradient."""

    square_norms: Tensor
    """`|c_i|²`, shape (examples,)."""
    projection: Tensor
    """`uᵀ (Σ_i c_i) v`, shape (), to be compared with that of the gradient."""


Rule = Callable[[Any, Tensor, Tensor, Mapping[str, Signs]], dict[str, Contribution]]
"""From a layer, its input, the gradient of its output (examples are the first dimension of both) and the signs of the
wanted parameters by their name in the layer: the contributions to each."""


def rule_of(module: nn.Module) -> Rule | str:
    """Rule for a layer, or why there is none."""
    if isinstance(module, nn.Embedding) and module.scale_grad_by_freq:
        return "scale_grad_by_freq weighs an example by the others of its batch"
    for kind, rule in _RULES.items():
        if isinstance(module, kind):
            return rule
    return f"there is no rule for {type(module).__name__}"


def _linear(layer: nn.Linear, x: Tensor, g: Tensor, signs: Mapping[str, Signs]) -> dict[str, Contribution]:
    g = g.reshape(g.shape[0], -1, g.shape[-1])
    found = {"bias": _explicit(g.sum(1), signs["bias"])} if "bias" in signs else {}
    if "weight" in signs:
        x = x.reshape(*g.shape[:2], -1)
        sizes = _Sizes(examples=len(g), groups=1, positions=g.shape[1], width=x.shape[-1], height=g.shape[-1])
        found["weight"] = _in_parts(lambda part: (x[part].unsqueeze(1), g[part].unsqueeze(1)), sizes, signs["weight"])
    return found


def _conv(layer: _Conv, x: Tensor, g: Tensor, signs: Mapping[str, Signs]) -> dict[str, Contribution]:
    g = g.flatten(2)
    found = {"bias": _explicit(g.sum(2), signs["bias"])} if "bias" in signs else {}
    if "weight" in signs:
        by_group = g.unflatten(1, (layer.groups, -1)).mT
        _, groups, positions, height = by_group.shape
        width = layer.weight[0].numel()
        sizes = _Sizes(examples=len(g), groups=groups, positions=positions, width=width, height=height)
        found["weight"] = _in_parts(lambda part: (_unfolded(layer, x[part]), by_group[part]), sizes, signs["weight"])
    return found


def _unfolded(layer: _Conv, x: Tensor) -> Tensor:
    """Inputs of each output position, shape (examples, groups, positions, in ÷ groups · kernel)."""
    dimensions, examples = len(layer.kernel_size), len(x)
    padding = layer._reversed_padding_repeated_twice  # pyright: ignore[reportPrivateUsage]
    if any(padding):
        x = F.pad(x, padding, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    if dimensions < 3:
        flat = (1,) * (2 - dimensions)
        kernel, dilation, stride = ((*flat, *each) for each in (layer.kernel_size, layer.dilation, layer.stride))
        columns = F.unfold(x if dimensions == 2 else x.unsqueeze(2), kernel, dilation=dilation, stride=stride)
        return columns.unflatten(1, (layer.groups, -1)).mT
    for i in range(dimensions):
        dilation = layer.dilation[i]
        x = x.unfold(2 + i, dilation * (layer.kernel_size[i] - 1) + 1, layer.stride[i])[..., ::dilation]
    x = x.unflatten(1, (layer.groups, -1))  # (examples, groups, in ÷ groups, positions..., kernel...)
    places = range(3, 3 + dimensions)
    x = x.permute(0, 1, *places, 2, *(p + dimensions for p in places))
    positions = x.shape[2 : 2 + dimensions].numel()
    return x.reshape(examples, layer.groups, positions, -1)


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Sizes of a linear map that is applied at several positions, in groups of its channels."""

    examples: int
    groups: int
    positions: int
    width: int
    """Inputs of a group."""
    height: int
    """Outputs of a group."""

    @property
    def gram(self) -> bool:
        """Whether the Gram form has fewer operations."""
        return self.positions * (self.width + self.height) < self.width * self.height

    @property
    def at_once(self) -> int:
        """Examples whose intermediate tensors are small enough."""
        products = self.positions**2 if self.gram else self.width * self.height
        largest = self.groups * max(self.positions * max(self.width, self.height), products)
        return max(1, _AT_ONCE // max(1, largest))


def _in_parts(operands: Callable[[slice], tuple[Tensor, Tensor]], sizes: _Sizes, signs: Signs) -> Contribution:
    """Contribution to a weight of shape (out, in ÷ groups), a few examples at a time.

    `operands` gives inputs and output gradients of some examples, shapes (examples, groups, positions, in ÷ groups) and
    (examples, groups, positions, out ÷ groups).
    """
    norms: list[Tensor] = []
    projections: list[Tensor] = []
    rows = signs.rows.view(sizes.groups, -1, 1)
    for start in range(0, sizes.examples, sizes.at_once):
        a, g = operands(slice(start, start + sizes.at_once))
        if sizes.positions == 1 or sizes.gram:
            norms.append(_by_gram(a, g))
            projections.append((g @ rows).flatten() @ (a @ signs.columns).flatten())
        else:
            each = g.mT @ a
            norms.append(_square(each.flatten(1)))
            projections.append(((each @ signs.columns).sum(0) * rows.squeeze(2)).sum())
    if len(norms) == 1:
        return Contribution(square_norms=norms[0], projection=projections[0])
    return Contribution(square_norms=torch.cat(norms), projection=torch.stack(projections).sum())


def _by_gram(a: Tensor, g: Tensor) -> Tensor:
    """`Σ_groups Σ_t,t' (a_t · a_t') (g_t · g_t')` of each example."""
    if a.shape[2] > 1:
        return ((a @ a.mT) * (g @ g.mT)).sum((1, 2, 3)).clamp_min(0)
    if a.shape[1] == 1:
        return _square(a.flatten(1)) * _square(g.flatten(1))
    return (_square(a.flatten(2)) * _square(g.flatten(2))).sum(1)


def _square(rows: Tensor) -> Tensor:
    """Squared norms over the last dimension."""
    return torch.linalg.vector_norm(rows, dim=-1).square()


def _explicit(each: Tensor, signs: Signs) -> Contribution:
    """Contribution of examples whose gradients are there, shape (examples, elements)."""
    return Contribution(square_norms=_square(each), projection=each.sum(0) @ signs.rows)


def _embedding(layer: nn.Embedding, x: Tensor, g: Tensor, signs: Mapping[str, Signs]) -> dict[str, Contribution]:
    examples = len(x)
    ids = x.reshape(examples, -1)
    g = g.reshape(examples, ids.shape[1], -1)
    if layer.padding_idx is not None:
        g = g * (ids != layer.padding_idx).unsqueeze(-1)
    owner = torch.arange(examples, device=x.device).unsqueeze(1)
    keys, places = torch.unique(owner * layer.num_embeddings + ids, return_inverse=True)
    rows = g.new_zeros(len(keys), g.shape[-1]).index_add_(0, places.flatten(), g.flatten(0, 1))
    owners = keys.div(layer.num_embeddings, rounding_mode="floor")
    squares = g.new_zeros(examples).index_add_(0, owners, _square(rows))
    sign = signs["weight"]
    projection = (sign.rows[ids] * (g @ sign.columns)).sum()
    return {"weight": Contribution(square_norms=squares, projection=projection)}


def _layer_norm(layer: nn.LayerNorm, x: Tensor, g: Tensor, signs: Mapping[str, Signs]) -> dict[str, Contribution]:
    shape = list(layer.normalized_shape)
    return _scale_and_shift(lambda: F.layer_norm(x, shape, eps=layer.eps), g, len(shape), signs)


def _rms_norm(layer: nn.RMSNorm, x: Tensor, g: Tensor, signs: Mapping[str, Signs]) -> dict[str, Contribution]:
    shape = list(layer.normalized_shape)
    return _scale_and_shift(lambda: F.rms_norm(x, shape, eps=layer.eps), g, len(shape), signs)


def _scale_and_shift(
    normalised: Callable[[], Tensor], g: Tensor, dimensions: int, signs: Mapping[str, Signs]
) -> dict[str, Contribution]:
    """Contribution to scale and shift of the last dimensions: `Σ_t g_t x̂_t` and `Σ_t g_t`."""
    factors = {"weight": lambda: g * normalised(), "bias": lambda: g}
    found: dict[str, Contribution] = {}
    for name, sign in signs.items():
        each = factors[name]().reshape(len(g), -1, g.shape[-dimensions:].numel()).sum(1)
        found[name] = _explicit(
            each, Signs(rows=(sign.rows.unsqueeze(1) * sign.columns).flatten(), columns=sign.rows[:1])
        )
    return found


def _group_norm(layer: nn.GroupNorm, x: Tensor, g: Tensor, signs: Mapping[str, Signs]) -> dict[str, Contribution]:
    def over_positions(each: Tensor) -> Tensor:
        return each.reshape(*each.shape[:2], -1).sum(2)

    found: dict[str, Contribution] = {}
    if "weight" in signs:
        normalised = F.group_norm(x, layer.num_groups, eps=layer.eps)
        found["weight"] = _explicit(over_positions(g * normalised), signs["weight"])
    if "bias" in signs:
        found["bias"] = _explicit(over_positions(g), signs["bias"])
    return found


NORM_LAYERS: tuple[type[nn.Module], ...] = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

_RULES: Mapping[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.RMSNorm: _rms_norm,
}
