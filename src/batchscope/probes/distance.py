"""Distance of the weights from where they began, in all, by layer, and by parameter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..store.codec import encode
from ..store.not_applicable import NotApplicable
from ..store.records import Row
from .base import flat, trainable

__all__ = ["DistanceFromInit", "Travel", "is_bias"]

_OUT_OF_RANGE = NotApplicable(reason="the weights have left the range of numbers")


@dataclass(frozen=True, kw_only=True)
class Travel:
    """Travel of a group of parameters θ from its initial value θ₀. Norms are Euclidean, in weight units."""

    distance: float
    """‖θ − θ₀‖."""
    norm: float
    """‖θ‖."""
    initial_norm: float
    """‖θ₀‖."""
    angle_degrees: float | None
    """Between θ − θ₀ and θ₀: 90 is across, above 90 is towards the origin; `None` where either is zero."""
    turned_degrees: float | None
    """Between θ and θ₀; with `norm` = `initial_norm`, a walk on the sphere of the initial radius."""


class DistanceFromInit:
    """Observer of ‖θ − θ₀‖ at every evaluation, with norm and angles: in all, of weights and biases, by layer.

    One row an evaluation: `kind` is `weights`, `step`, and a `Travel` under `all`, `weights` and `biases` (all
    parameters whose own name holds "bias", and all others), `layers[name]` and `parameters[name]`. A group that the
    model does not have holds `not_applicable` with the reason.

    θ₀ are the weights at `begin`: of a run that starts from a checkpoint, the checkpoint. Only trained parameters
    count; buffers (running statistics) do not.

    Cost: no extra pass; a copy of the weights in memory, and at an evaluation four sums over them in float64.
    Measured (`benchmarks/probes.py`; 64-32-10, then 784-1024-1024-10): a use takes 0.8 and 2.7
    training steps of 64 examples, so with a hundred evaluations in 10,000 steps 1 and 3 %.

    Valid when: always. Distances of models of different size or initialisation do not compare. Where a scale is free
    (weights before a normalisation layer; ReLU layers against each other) the distance depends on it, and the function
    does not.

    Source: Shen 2018 (distance from the initial weights, "about 6" at the best solutions); Hoffer et al. 2017, section
    4 (the distance grows as log t).
    """

    def __init__(self) -> None:
        self._parameters: dict[str, nn.Parameter] = {}
        self._initial: dict[str, Tensor] = {}

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Keep the initial weights."""
        self._parameters = trainable(model)
        self._initial = {name: p.detach().clone() for name, p in self._parameters.items()}

    def after_update(self, step: int) -> Row | None:
        """No row: distances are measured at evaluations."""
        return None

    @torch.no_grad()
    def at_evaluation(self, step: int) -> Row | None:
        """Measure the row of this evaluation."""
        sums = torch.stack([_sums(p, self._initial[name]) for name, p in self._parameters.items()]).tolist()
        if not all(math.isfinite(value) for values in sums for value in values):
            return {"kind": "weights", "step": step, **encode(_OUT_OF_RANGE)}
        measured = dict(zip(self._parameters, sums, strict=True))
        layers: dict[str, list[list[float]]] = {}
        for name, values in measured.items():
            layers.setdefault(name.rpartition(".")[0] or "model", []).append(values)
        return {
            "kind": "weights",
            "step": step,
            "all": _travel(sums),
            "weights": _group("weights", [v for name, v in measured.items() if not is_bias(name)]),
            "biases": _group("biases", [v for name, v in measured.items() if is_bias(name)]),
            "layers": {name: _travel(values) for name, values in layers.items()},
            "parameters": {name: _travel([values]) for name, values in measured.items()},
        }


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias, by the last part of its name.

    >>> is_bias("0.bias"), is_bias("rnn.bias_ih_l0"), is_bias("bias.weight")
    (True, True, False)
    """
    return "bias" in name.rpartition(".")[2]


def _sums(parameter: Tensor, initial: Tensor) -> Tensor:
    """Sums `|θ − θ₀|², |θ|², |θ₀|², (θ − θ₀)·θ₀`."""
    now, before = flat([parameter]), flat([initial])
    moved = now - before
    return torch.stack([moved @ moved, now @ now, before @ before, moved @ before])


def _group(name: str, sums: list[list[float]]) -> dict[str, Any]:
    return _travel(sums) if sums else encode(NotApplicable(reason=f"the model has no {name}"))


def _travel(sums: Iterable[list[float]]) -> dict[str, Any]:
    moved, now, before, along = (math.fsum(column) for column in zip(*sums, strict=True))
    distance, radius = math.sqrt(moved), math.sqrt(before)
    angle = turned = None
    if radius > 0:
        forwards = along / radius
        across = math.sqrt(max(0.0, moved - forwards**2))
        angle = math.degrees(math.atan2(across, forwards)) if distance > 0 else None
        turned = math.degrees(math.atan2(across, radius + forwards)) if now > 0 else None
    return asdict(
        Travel(distance=distance, norm=math.sqrt(now), initial_norm=radius, angle_degrees=angle, turned_degrees=turned)
    )
