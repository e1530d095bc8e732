"""Layers of a model whose examples' gradients can be measured, and the reasons why others cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..engine import backward_pass
from .layer_norms import NORM_LAYERS, Rule, rule_of

__all__ = ["Place", "listed", "places", "unseen", "unsuitable", "words"]

_autograd: Any = torch._C._autograd  # pyright: ignore
_saving: Any = getattr(_autograd, "_top_saved_tensors_default_hooks", lambda _: None)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Layer whose examples' gradients are measured."""

    name: str
    module: nn.Module
    rule: Rule
    indices: Mapping[str, int]
    """Of its covered parameters: their name in the layer, and their place among the watched ones."""


def unsuitable(model: nn.Module, *, norm_layers_only: bool = False) -> str:
    """Why no layer of a model gives per-example norms; empty where one may."""
    normalisation = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]
    found = False
    for name, module in model.named_modules():
        called = name or "the model"
        if isinstance(module, normalisation) and module.training:
            return f"{called} is batch normalisation: no example has a gradient of its own (GroupNorm or LayerNorm do)"
        if _compiled(module) and not name:
            return f"{called} is compiled: its layers cannot be watched one by one; give the model before torch.compile"
        if not found and not isinstance(_rule(module, norm_layers_only), str):
            found = any(p.requires_grad for p in module.parameters(recurse=False))
    if found:
        return ""
    wanted = "norm layer" if norm_layers_only else "linear, embedding, convolution or norm layer of PyTorch"
    return f"the model has no trained {wanted}"


def places(
    model: nn.Module, watched: Mapping[str, nn.Parameter], left_out: dict[str, str], *, norm_layers_only: bool = False
) -> list[Place]:
    """Layers of the watched parameters that can be covered.

    Args:
        model: whose layers are looked through.
        watched: trained parameters by name.
        left_out: why a parameter is not covered, by its name: those in it are passed over, new ones are added.
        norm_layers_only: whether other layers are left out.
    """
    index = {id(p): i for i, p in enumerate(watched.values())}
    names = list(watched)
    owned: dict[str, dict[str, int]] = {}
    owners: dict[int, list[str]] = {}
    above: dict[str, str] = {}
    modules = dict(model.named_modules())
    for name, module in modules.items():
        each = module.named_parameters(recurse=False, remove_duplicate=False)
        own = {key: index[id(p)] for key, p in each if id(p) in index}
        for key, i in own.items():
            owners.setdefault(i, []).append(f"{name}.{key}" if name else key)
        if own:
            owned[name] = own
        above[name] = (above.get(name.rpartition(".")[0], "") if name else "") or _reason_inside(module, name)
    found: list[Place] = []
    for name, own in owned.items():
        module = modules[name]
        rule = above[name] or _rule(module, norm_layers_only)
        indices: dict[str, int] = {}
        for key, i in own.items():
            if isinstance(rule, str):
                left_out.setdefault(names[i], rule)
            elif len(owners[i]) > 1:
                left_out.setdefault(names[i], f"it is shared: {' and '.join(owners[i])} are one parameter")
            elif key not in ("weight", "bias"):
                left_out.setdefault(names[i], f"there is no rule for {key} of {type(module).__name__}")
            elif names[i] not in left_out:
                indices[key] = i
        if indices and not isinstance(rule, str):
            found.append(Place(name=name, module=module, rule=rule, indices=indices))
    return found


def unseen(place: Place, x: object, output: Tensor) -> str:
    """Why a forward pass of a layer, inside its forward hook, cannot be measured; empty where it can."""
    if backward_pass() >= 0:
        return "its forward pass runs again in the backward pass (activation checkpointing)"
    if _saving(True) is not None:
        return "what it saves for the backward pass is recomputed or moved away (activation checkpointing, offloading)"
    if not isinstance(x, Tensor):
        return "its input is not a tensor"
    dimensions = len(place.module.kernel_size) + 2 if isinstance(place.module, _CONVOLUTIONS) else 0
    embedding = isinstance(place.module, nn.Embedding)
    least = 1 if embedding else 2
    if isinstance(place.module, nn.LayerNorm | nn.RMSNorm):
        least = len(place.module.normalized_shape) + 1
    if x.ndim < least or (dimensions and x.ndim != dimensions) or x.shape[0] != output.shape[0]:
        return f"its input has no dimension for examples: shape {tuple(x.shape)}"
    if embedding and x.ndim == 1 and _counts_up(x):
        return "its input counts from 0: positions, which all examples share"
    return ""


def words(norm_layers_only: bool, share: float | None = None) -> str:
    """Name of the source, with the share of the trained parameters that it covers, rounded down.

    >>> words(False, 0.996), words(True, 0.0021)
    ('per-example norms (99 % of the parameters)', 'per-example norms of norm layers (0.2 % of the parameters)')
    """
    what = "per-example norms of norm layers" if norm_layers_only else "per-example norms"
    if share is None:
        return what
    percent = 100 * share
    return f"{what} ({math.floor(percent) if percent >= 1 else f'{percent:.1g}'} % of the parameters)"


def listed(reasons: Mapping[str, str]) -> str:
    """Parameters by the reason that they are left out for, at most two of each.

    >>> listed({"a": "it is shared", "b.0": "no rule", "b.1": "no rule", "b.2": "no rule"})
    'a (it is shared); b.0, b.1 and 1 more (no rule)'
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    more = {reason: f" and {len(each) - 2} more" if len(each) > 2 else "" for reason, each in names.items()}
    return "; ".join(f"{', '.join(each[:2])}{more[reason]} ({reason})" for reason, each in names.items())


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _rule(module: nn.Module, norm_layers_only: bool) -> Rule | str:
    if norm_layers_only and not isinstance(module, NORM_LAYERS):
        return "only norm layers are measured"
    return rule_of(module)


def _reason_inside(module: nn.Module, name: str) -> str:
    """Why no layer inside a module is covered, or it itself; empty where they may be."""
    if getattr(module, "batch_first", None) is False:
        return f"{name or 'the model'} has batch_first=False: examples are not its first dimension"
    if _compiled(module):
        return f"{name or 'the model'} is compiled: what lies in it cannot be watched"
    return ""


def _compiled(module: nn.Module) -> bool:
    return (
        hasattr(module, "_orig_mod")
        or getattr(module, "_compiled_call_impl", None) is not None
        or isinstance(module, torch.jit.ScriptModule)
    )


def _counts_up(ids: Tensor) -> bool:
    return len(ids) > 1 and torch.equal(ids, torch.arange(len(ids), device=ids.device, dtype=ids.dtype))
