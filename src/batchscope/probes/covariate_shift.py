"""Internal covariate shift as a gradient sees it: a layer's gradient before and after the layers below are updated.

The definition of Santurkar et al. 2018 (2.1). `activation_drift` follows the older one: the distribution of what a
layer receives.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TaskError
from ..hardware.random_state import RandomState, preserved_random_state
from ..store.not_applicable import NotApplicable
from ..tasks.protocol import Batch
from ..tasks.update import Update
from ..tasks.workload import Workload
from .base import flat, gradients, modules_with_parameters, twin, watched

__all__ = ["LayerShift", "measure_covariate_shift"]


@dataclass(frozen=True, kw_only=True)
class LayerShift:
    """Shift of one layer's gradient: before (`G`) and after (`G'`) an update of the layers below, not of its own."""

    layer: str
    norm_before: float
    """`‖G‖`, in loss per weight."""
    norm_after: float
    """`‖G'‖`."""
    difference: float
    """`‖G − G'‖`: the internal covariate shift."""
    relative: float | None
    """`‖G − G'‖ ÷ ‖G‖`; `None` where G is zero."""
    cosine: float | None
    """Between `G` and `G'`; `None` where one is zero."""


def measure_covariate_shift(
    workload: Workload,
    model: nn.Module,
    batch: Batch,
    *,
    lr: float,
    optimizer_state: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> tuple[LayerShift, ...] | NotApplicable:
    """Measure how much one optimizer step of the layers below changes each layer's gradient on the same batch.

    `G_i = ∇_{W_i} L(W_1, …, W_k)` and `G'_i = ∇_{W_i} L(W_1⁺, …, W_{i−1}⁺, W_i, …, W_k)`, with `W⁺` after the step. A
    layer is a module with trained parameters of its own; they are ordered by when they begin to run.

    Args:
        workload: the task on its device.
        model: the weights to measure at; left as it is.
        batch: that the step is made on.
        lr: of the step, which is the task's: its optimizer, and `before_update` (clipping) before it. Gradients of a
            float16 task come without its scaler's factor, and so no step is left out.
        optimizer_state: its `state_dict()` at these weights (momentum, second moments); without it the step is a first
            one. Its learning rate is set to `lr`.
        seed: of what is random in the loss: the same for both gradients, so that dropout leaves no difference.

    Returns:
        One record for each layer but the first, from below; or why there are none.

    Raises:
        TaskError: the task's loss or optimizer failed.

    Cost: k forward and backward passes over the batch for k layers, one step of the optimizer, and two copies of the
    weights. Measured (`benchmarks/probes.py`; 64-32-10, then 784-1024-1024-10): 6.2 and 1.7 times as long
    as those passes alone, with 64 examples.

    Valid when: layers feed each other in the order in which they begin to run. Where branches run side by side, a layer
    counts as below another although it does not feed it; then it makes no difference to that one's gradient.

    Source: Santurkar et al. 2018, definition 2.1.
    """
    other = twin(workload, model)
    with preserved_random_state(seed):
        random = RandomState.capture()
        update = _update(workload, other, lr, optimizer_state)
        layers = _layers(workload, other, batch)
        if isinstance(layers, NotApplicable):
            return layers

        def gradient(parameters: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
            random.restore()
            return gradients(workload, other, batch, parameters)

        before = dict(zip(layers, _by_layer(layers, gradient(_all(layers))), strict=True))
        updated = _after_step(update, layers, before)
        shifts: list[LayerShift] = []
        below: str | None = None
        for name, parameters in layers.items():
            if below is not None:
                with torch.no_grad():
                    for parameter, value in zip(layers[below], updated[below], strict=True):
                        parameter.copy_(value)
                shifts.append(_shift(name, flat(before[name]), flat(gradient(parameters))))
            below = name
        return tuple(shifts)


Layers = Mapping[str, Sequence[nn.Parameter]]


def _update(workload: Workload, model: nn.Module, lr: float, state: Mapping[str, Any] | None) -> Update:
    update = Update(workload, model, lr)
    if state is not None:
        optimizer = update.optimizer
        lrs = [group["lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(copy.deepcopy(dict(state)))  # without a copy, a step would move the caller's moments
        for group, own in zip(optimizer.param_groups, lrs, strict=True):
            group["lr"] = own
    return update


def _layers(workload: Workload, model: nn.Module, batch: Batch) -> Layers | NotApplicable:
    """The trained parameters of each layer, in the order in which layers begin to run; each parameter once."""
    order: dict[str, nn.Module] = {}

    def keep(name: str, module: nn.Module, inputs: Tensor | None) -> None:
        order.setdefault(name or "model", module)

    with watched(modules_with_parameters(model), keep):
        try:
            workload.loss(model, batch)
        except TaskError as error:
            return NotApplicable(reason=f"the model cannot be run on the batch: {error}")
    seen: set[int] = set()
    layers: dict[str, list[nn.Parameter]] = {}
    for name, module in order.items():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in seen]
        seen |= {id(p) for p in own}
        if own:
            layers[name] = own
    if len(layers) < 2:
        return NotApplicable(
            reason=f"the model runs {len(layers)} layer with trained parameters: none is below another"
        )
    return layers


def _all(layers: Layers) -> list[nn.Parameter]:
    return [parameter for parameters in layers.values() for parameter in parameters]


def _by_layer(layers: Layers, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    rest = iter(tensors)
    return [[next(rest) for _ in parameters] for parameters in layers.values()]


def _after_step(
    update: Update, layers: Layers, step_gradients: Mapping[str, Sequence[Tensor]]
) -> dict[str, list[Tensor]]:
    """Parameters after a step; they are put back."""
    start = [parameter.detach().clone() for parameter in _all(layers)]
    for name, parameters in layers.items():
        for parameter, gradient in zip(parameters, step_gradients[name], strict=True):
            parameter.grad = gradient.clone()
    update.apply(scaled=False)
    with torch.no_grad():
        updated = [parameter.detach().clone() for parameter in _all(layers)]
        for parameter, value in zip(_all(layers), start, strict=True):
            parameter.copy_(value)
    return dict(zip(layers, _by_layer(layers, updated), strict=True))


def _shift(layer: str, before: Tensor, after: Tensor) -> LayerShift:
    norm, norm_after, difference, along = torch.stack(
        [before.norm(), after.norm(), (before - after).norm(), before @ after]
    ).tolist()
    return LayerShift(
        layer=layer,
        norm_before=norm,
        norm_after=norm_after,
        difference=difference,
        relative=difference / norm if norm > 0 else None,
        cosine=along / (norm * norm_after) if norm * norm_after > 0 else None,
    )
