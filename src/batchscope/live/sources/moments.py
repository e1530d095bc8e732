"""Adam's moments as a source: a hint at the noise scale that costs nothing, and that is biased."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...store.records import Row
from ..norms import by_layer, norm, numbers
from ..window import Window, watched_parameters

__all__ = ["MomentSource", "has_moments"]


def has_moments(optimizer: Optimizer) -> bool:
    """Whether an optimizer's groups have the two decay rates of Adam."""
    return all(len(group.get("betas", ())) == 2 for group in optimizer.param_groups)


class MomentSource:
    """Signal and noise from `exp_avg` and `exp_avg_sq` of Adam, AdamW, NAdam, RAdam and the like.

    After `t` steps at a fixed gradient `G` and batch `B`, the bias-corrected moments `m` and `v` have, summed over the
    parameters,

        E Σv = |G|² + tr(Σ)/B        E|m|² = |G|² + k tr(Σ)/B,    k = (1 - β₁)(1 + β₁^t) ÷ ((1 + β₁)(1 - β₁^t))

    (`k` is the sum of the squared weights of the moving average), so that

        tr(Σ)/B = (Σv - |m|²) ÷ (1 - k)        |G|² = (|m|² - k Σv) ÷ (1 - k)

    A row holds what `B` groups of one example with these two values would have.

    It is biased: gradients do move over the `1 ÷ (1 - β₂)` steps (1000 by default) that `v` remembers, and every move
    and every former, larger gradient counts as noise: read early, or after a fall of the loss, it is far too high. The
    moments are of what the optimizer was given: after clipping, and with weight decay added in `Adam(weight_decay=)`;
    the batch size must not have changed meanwhile. Consecutive rows repeat one another, so that their scatter is no
    interval: rows are marked `biased`, and the monitor gives none.

    Args:
        layers: also give the two norms of each module that has parameters of its own.

    Cost: two sums over the parameters; no hook.

    Source: derived from the moving averages of Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1; tag: assumption.
    """

    name = "Adam's moments (free, biased: a hint without an interval)"

    def __init__(self, *, layers: bool = False) -> None:
        self.reason = ""
        self._layers = layers
        self.detach()

    def attach(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Remember whose moments to read; there is no hook."""
        self._watched, self._optimizer = watched_parameters(model, optimizer), optimizer

    def detach(self) -> None:
        """Forget model and optimizer."""
        self._watched: dict[str, nn.Parameter] = {}
        self._optimizer: Optimizer | None = None

    def take(self, window: Window) -> Row | None:
        """Row from the moments after the window's step, or `None` and `reason`."""
        found = self._moments()
        self.reason = found if isinstance(found, str) else ""
        if isinstance(found, str):
            return None
        batch = max(2, window.batch_size)
        signals = {name: signal for name, (signal, _) in found.items()}
        noises = {name: noise * window.batch_size for name, (_, noise) in found.items()}
        signal, noise = math.fsum(signals.values()), math.fsum(noises.values())
        if not math.isfinite(signal + noise):
            self.reason = "a moment of the optimizer is not finite"
            return None
        row: Row = {
            "kind": "noise",
            "step": window.step,
            "examples": window.examples_before,
            "groups": batch,
            "group_size": 1,
            "mean_square_norm": signal + noise,
            "square_norm_of_mean": signal + noise / batch,
            "biased": True,
        }
        if self._layers:
            of_signal = by_layer(list(signals), list(signals.values()))
            of_noise = by_layer(list(noises), list(noises.values()))
            row["layers"] = {
                name: [value + of_noise[name], value + of_noise[name] / batch] for name, value in of_signal.items()
            }
        return row

    @torch.no_grad()
    def _moments(self) -> dict[str, tuple[float, float]] | str:
        """Signal and noise of the batch's mean gradient for each parameter that has moments; or why there are none."""
        if self._optimizer is None:
            return "no optimizer is attached"
        groups = {id(p): group for group in self._optimizer.param_groups for p in group["params"]}
        betas: dict[str, tuple[float, float]] = {}
        read: list[Tensor] = []
        for name, parameter in self._watched.items():
            group = groups[id(parameter)]
            moments = _state(self._optimizer.state.get(parameter, {}), group)
            if moments is None:
                continue
            beta1, beta2 = map(float, group["betas"])
            if not 0 < beta1 < 1 or not 0 < beta2 < 1:
                return f"the betas are ({beta1:g}, {beta2:g}); without an average of each moment there is no comparison"
            betas[name] = beta1, beta2
            read += moments
        if not betas:
            return f"{type(self._optimizer).__name__} keeps no exp_avg and exp_avg_sq of whole parameters"
        values = iter(numbers(read))
        found: dict[str, tuple[float, float]] = {}
        for name, (beta1, beta2) in betas.items():
            first, second, steps = next(values), next(values), next(values)
            if steps < 2:
                return "the optimizer has made one step; its moments tell signal from noise from the second on"
            found[name] = _corrected(first, second, steps, beta1, beta2)
        return found


def _state(state: Mapping[str, Any], group: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor] | None:
    """Norm of the first moment, sum of the second, and updates made; `None` where a parameter has no such moments."""
    first, second = state.get("exp_avg"), state.get("exp_avg_sq")
    steps = state.get("step", group.get("step"))
    if not isinstance(first, Tensor) or not isinstance(second, Tensor) or hasattr(first, "device_mesh"):
        return None
    if steps is None or first.shape != second.shape or len(group.get("betas", ())) != 2:
        return None
    return norm(first), second.sum(dtype=torch.promote_types(second.dtype, torch.float32)), torch.as_tensor(steps)


def _corrected(first: float, second: float, steps: float, beta1: float, beta2: float) -> tuple[float, float]:
    """`|G|²` and `tr(Σ)/B` of one parameter after `steps` updates."""
    square_of_mean, mean_of_squares = first**2 / (1 - beta1**steps) ** 2, second / (1 - beta2**steps)
    k = (1 - beta1) * (1 + beta1**steps) / ((1 + beta1) * (1 - beta1**steps))
    return (square_of_mean - k * mean_of_squares) / (1 - k), (mean_of_squares - square_of_mean) / (1 - k)
