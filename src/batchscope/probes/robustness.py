"""Robustness: how a trained model fares on other inputs than in training: with noise, shifted, with outliers.

A task evaluates a model on data of its own, which nobody else can change. What can be changed is what the model is
given: while `evaluate(model)` runs, the first floating-point tensor among the model's arguments is disturbed. Strengths
are in standard deviations of the inputs, taken over all numbers that an undisturbed evaluation gives the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..store.not_applicable import NotApplicable
from ..tasks.workload import Workload

__all__ = ["OUTLIER", "STRENGTHS", "Disturbance", "Disturbed", "measure_robustness"]

Disturbance = Literal["none", "noise", "shift", "outliers"]

OUTLIER = 5.0
"""How many standard deviations from the mean an outlier lies, on either side."""

STRENGTHS: Mapping[Disturbance, Sequence[float]] = MappingProxyType(
    {"noise": (0.25, 0.5, 1.0), "shift": (0.25, 0.5, 1.0), "outliers": (0.01, 0.03, 0.1)}
)
"""Standard deviations of the noise, standard deviations of the shift, share of the numbers that are outliers."""


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    """Metrics of a model under one disturbance."""

    kind: Disturbance
    strength: float
    """As in `STRENGTHS`; 0 for `none`."""
    metrics: Mapping[str, float]
    """Everything that `evaluate` returned."""


@dataclass(frozen=True)
class _Inputs:
    mean: float
    sd: float


Change = Callable[[Tensor], Tensor]


def measure_robustness(
    workload: Workload, model: nn.Module, *, strengths: Mapping[Disturbance, Sequence[float]] = STRENGTHS, seed: int = 0
) -> tuple[Disturbed, ...] | NotApplicable:
    """Measure the metrics of a model on undisturbed inputs (`none`, first), then under each disturbance.

    With `σ` and `m` the standard deviation and mean of the inputs, and `s` a strength:

    - `noise`: `x + s σ z`, with `z` normal and independent for each number;
    - `shift`: `x + s σ`, the same for all numbers;
    - `outliers`: each number is replaced, with probability `s`, by `m + 5 σ` or `m − 5 σ`, either as likely.

    Args:
        workload: the task on its device.
        model: evaluated in evaluation mode, and left as it is.
        strengths: for each kind of disturbance.
        seed: of noise and outliers: models that are measured with the same seed receive the same ones.

    Returns:
        One record for `none` and for each strength; or why inputs cannot be disturbed: whole numbers (codes of a
        text), inputs without spread, an evaluation that does not call the model.

    Raises:
        UsageError: a strength is negative or not finite, or a share above 1.
        TaskError: the task's evaluation failed.

    Cost: one evaluation for each record; a pass over the inputs for each but the first.

    Valid when: `evaluate` calls the model itself, `model(x)`, and the first floating-point tensor that it hands over
    are the inputs. A task whose model also takes targets must take them after the inputs.
    """
    _check(strengths)
    moments = _Moments()
    with _disturbed(model, moments.see):
        metrics = workload.evaluate(model)
    inputs = moments.inputs()
    if isinstance(inputs, NotApplicable):
        return inputs
    found = [Disturbed(kind="none", strength=0.0, metrics=metrics)]
    for kind, values in strengths.items():
        for strength in values:
            with _disturbed(model, _change(kind, strength, inputs, seed)):
                metrics = workload.evaluate(model)
            found.append(Disturbed(kind=kind, strength=strength, metrics=metrics))
    return tuple(found)


def _check(strengths: Mapping[Disturbance, Sequence[float]]) -> None:
    for kind, values in strengths.items():
        if kind not in STRENGTHS:
            raise UsageError(f"a disturbance {kind!r} is not known; there are {', '.join(STRENGTHS)}")
        most = 1.0 if kind == "outliers" else math.inf
        if wrong := [s for s in values if not (0 <= s <= most and math.isfinite(s))]:
            raise UsageError(f"{kind} of strength {wrong[0]:g} makes no sense; give a number from 0 to {most:g}")


class _Moments:
    """Moments: count, mean and spread of all numbers that a model was given."""

    def __init__(self) -> None:
        self._count, self._sum, self._square = 0, 0.0, 0.0

    def see(self, x: Tensor) -> Tensor:
        precise = x.detach().to(torch.float32 if x.device.type == "mps" else torch.float64)
        self._count += x.numel()
        self._sum += float(precise.sum())
        self._square += float(precise.square().sum())
        return x

    def inputs(self) -> _Inputs | NotApplicable:
        if not self._count:
            return NotApplicable(
                reason="evaluate() gave the model no floating-point tensor (codes are whole numbers), so its inputs "
                "cannot be disturbed"
            )
        mean = self._sum / self._count
        variance = self._square / self._count - mean**2
        if not variance > 0:
            return NotApplicable(
                reason="the inputs are all alike: there is no standard deviation to measure a disturbance in"
            )
        return _Inputs(mean=mean, sd=math.sqrt(variance))


def _change(kind: Disturbance, strength: float, inputs: _Inputs, seed: int) -> Change:
    generator = torch.Generator().manual_seed(seed)

    def noise(x: Tensor) -> Tensor:
        drawn = torch.randn(x.shape, generator=generator, dtype=torch.float32)
        return x + strength * inputs.sd * drawn.to(x)

    def shift(x: Tensor) -> Tensor:
        return x + strength * inputs.sd

    def outliers(x: Tensor) -> Tensor:
        drawn = torch.rand(x.shape, generator=generator, dtype=torch.float64)
        side = torch.where(drawn < strength / 2, OUTLIER, -OUTLIER) * inputs.sd + inputs.mean
        return torch.where((drawn < strength).to(x.device), side.to(x), x)

    return {"noise": noise, "shift": shift, "outliers": outliers}[kind]


@contextmanager
def _disturbed(model: nn.Module, change: Change) -> Generator[None]:
    """Disturb the inputs: inside, the model runs on changed inputs."""

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        changed, done = _with_first(args, change)
        return (changed, kwargs) if done else (args, _with_first(kwargs, change)[0])

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _with_first(value: Any, change: Change) -> tuple[Any, bool]:
    """Value with its first floating-point tensor changed, however deep in lists, tuples and mappings."""
    if isinstance(value, Tensor):
        return (change(value), True) if value.is_floating_point() else (value, False)
    keys: Sequence[Any] = list(value) if isinstance(value, Mapping) else range(len(value)) if _listed(value) else ()
    for key in keys:
        member, done = _with_first(value[key], change)
        if done:
            return _replaced(value, key, member), True
    return value, False


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _replaced(value: Any, key: Any, member: Any) -> Any:
    if isinstance(value, Mapping):
        return {**value, key: member}
    members = [*value[:key], member, *value[key + 1 :]]
    return type(value)(*members) if hasattr(value, "_fields") else type(value)(members)
