"""Gradient competition: two batches taken one after the other, or as one, and what is lost between their gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..hardware.random_state import preserved_random_state
from ..store.not_applicable import NotApplicable
from ..tasks.workload import Workload
from .base import flat, gradients, not_repeatable, trainable, twin

__all__ = ["Arrows", "Competition", "Sum", "measure_competition"]


@dataclass(frozen=True, kw_only=True)
class Sum:
    """Two gradients `a` and `b`, and their sum. Norms are Euclidean, in loss per weight."""

    norm_a: float
    norm_b: float
    norm_of_sum: float
    """`‖a + b‖`, at most `norm_a + norm_b`; half of it is the norm of the gradient of both batches as one."""
    kept: float | None
    """`‖a + b‖ ÷ (‖a‖ + ‖b‖)`: 1 for parallel gradients, 1/√2 for equal ones at a right angle, 0 for opposite ones;
    `None` where both are zero."""
    cosine: float | None
    """Of the angle between them; `None` where one is zero."""


@dataclass(frozen=True, kw_only=True)
class Arrows:
    """Coordinates in the plane of the two single gradients: the first lies along x, the second has y ≥ 0."""

    first: tuple[float, float]
    second: tuple[float, float]
    """Recomputed after the step on the first, as two successive steps have it."""
    both: tuple[float, float]
    """Their vector sum, which is the way of the two steps divided by −lr."""
    as_one: tuple[float, float]
    """The gradient of both batches as one, projected to the plane."""
    as_one_outside: float | None
    """The share of that gradient's norm that is not in the plane; `None` where it is zero."""


@dataclass(frozen=True, kw_only=True)
class Competition:
    """Gradient competition between one pair of batches."""

    batch_size: int
    lr: float
    at_once: Sum
    """Both gradients at the same weights."""
    in_turn: Sum
    """`b` recomputed after the step `θ − lr a`."""
    norm_as_one: float
    """`‖g‖` of both batches as one, measured; `at_once.norm_of_sum / 2` where examples do not see one another."""
    arrows: Arrows


def measure_competition(
    workload: Workload,
    model: nn.Module,
    *,
    lr: float,
    batch_size: int = 1,
    pairs: int = 30,
    seed: int = 0,
) -> tuple[Competition, ...] | NotApplicable:
    """Measure `‖a + b‖` against `‖a‖ + ‖b‖` for pairs of batches, `b` taken before and after the step on `a`.

    Args:
        workload: the task on its device.
        model: the weights to measure at; left as it is.
        lr: of the step on `a`, plain SGD whatever the task's optimizer.
        batch_size: examples of each batch; the two have none in common.
        pairs: how many, drawn independently.
        seed: of the draws.

    Returns:
        One record a pair, or why there is none: a loss that differs between two calls with the same batch (dropout,
        noise) would be counted as competition.

    Raises:
        UsageError: a number makes no sense, or the training set is too small for a pair.
        TaskError: the task's loss failed.

    Cost: for each pair four forward and backward passes, over 5 · batch_size examples in all, and five vectors of the
    size of the weights in float64. Measured (`benchmarks/probes.py`; 64-32-10, then 784-1024-1024-10): 1.9
    and 3.1 times as long as those passes alone, at batches of 64.

    Valid when: the loss is the same each time. With a mean loss, the update at batch size 2B is `(a + b)/2` (with
    `loss_weight`, that mean weighted by the terms of both batches) and never
    larger than the mean of two updates at B: that is the triangle inequality, and no finding; how much smaller it is
    (`kept`), and whether a second gradient shrinks once the first step is made, are.

    Source: Shen 2018 (arrows; two samples in turn or as one); Chang and Pathak 2020 (`(‖a‖ + ‖b‖)/2`, set against a
    batch of two).
    """
    if min(batch_size, pairs) < 1 or 2 * batch_size > workload.examples:
        raise UsageError(
            f"{pairs} pairs of batches of {batch_size} out of {workload.examples} examples: at least 1 of each, and "
            "two batches must fit into the training set"
        )
    copy = twin(workload, model)
    generator = torch.Generator().manual_seed(seed)
    with preserved_random_state(seed):
        first = _draw(workload, batch_size, generator)[0]
        tried = not_repeatable(workload, copy, lambda: workload.batch(first), consequence="would count as competition")
        if tried is not None:
            return tried
        return tuple(_compared(workload, copy, *_draw(workload, batch_size, generator), lr=lr) for _ in range(pairs))


def _draw(workload: Workload, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    order = torch.randperm(workload.examples, generator=generator)
    return order[:batch_size], order[batch_size : 2 * batch_size]


def _compared(workload: Workload, model: nn.Module, one: Tensor, other: Tensor, *, lr: float) -> Competition:
    parameters = list(trainable(model).values())

    def gradient(indices: Tensor) -> tuple[Tensor, ...]:
        return gradients(workload, model, workload.batch(indices), parameters)

    step = gradient(one)
    a, b, as_one = flat(step), flat(gradient(other)), flat(gradient(torch.cat([one, other])))
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, g in zip(parameters, step, strict=True):
            parameter.sub_(g, alpha=lr)
    after = flat(gradient(other))
    with torch.no_grad():
        for parameter, before in zip(parameters, kept, strict=True):
            parameter.copy_(before)
    return Competition(
        batch_size=len(one),
        lr=lr,
        at_once=_sum(a, b),
        in_turn=_sum(a, after),
        norm_as_one=float(as_one.norm()),
        arrows=_arrows(a, after, as_one),
    )


def _sum(a: Tensor, b: Tensor) -> Sum:
    norm_a, norm_b, norm_of_sum, along = torch.stack([a.norm(), b.norm(), (a + b).norm(), a @ b]).tolist()
    return Sum(
        norm_a=norm_a,
        norm_b=norm_b,
        norm_of_sum=norm_of_sum,
        kept=norm_of_sum / (norm_a + norm_b) if norm_a + norm_b > 0 else None,
        cosine=along / (norm_a * norm_b) if norm_a * norm_b > 0 else None,
    )


def _arrows(first: Tensor, second: Tensor, as_one: Tensor) -> Arrows:
    x = _unit(first)
    y = _unit(second - (second @ x) * x, shortest=1e-12 * float(second.norm()))
    y = _unit(y - (y @ x) * x)
    both = first + second
    outside = as_one - (as_one @ x) * x - (as_one @ y) * y
    norm = float(as_one.norm())

    def at(vector: Tensor) -> tuple[float, float]:
        return float(vector @ x), float(vector @ y)

    return Arrows(
        first=at(first),
        second=at(second),
        both=at(both),
        as_one=at(as_one),
        as_one_outside=float(outside.norm()) / norm if norm > 0 else None,
    )


def _unit(vector: Tensor, shortest: float = 0.0) -> Tensor:
    """Unit vector along a vector; zeros where it is not longer than `shortest`."""
    norm = float(vector.norm())
    return vector / norm if norm > shortest else torch.zeros_like(vector)
