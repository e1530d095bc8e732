"""What is measured on models with and without batch normalisation, from kept weights; results in JSON types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import TaskError
from ....hardware.random_state import preserved_random_state
from ....probes.covariate_shift import LayerShift, measure_covariate_shift
from ....probes.robustness import measure_robustness
from ....store.codec import encode
from ....store.not_applicable import NotApplicable
from ....tasks.batches import index_stream
from ....tasks.workload import Workload

__all__ = ["examples_to_watch", "measured_definition", "measured_robustness", "measured_shift", "refusal"]

_BATCH_NORM = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]
_WATCHED = 256
_SHIFT_BATCHES = 2
_FLAT = 1e-3
"""A channel whose variance is below this is not brought to 1: 0.00001 is added to each variance."""


def examples_to_watch(workload: Workload) -> Any:
    """256 training examples at random, always the same ones, collated."""
    order = torch.randperm(workload.examples, generator=torch.Generator().manual_seed(0))
    return workload.batch(order[:_WATCHED].sort().values)


def refusal(workload: Workload, batch_size: int) -> str | None:
    """Why no training step can be made on a batch of so many examples; `None` where it can. A fresh model is tried."""
    with preserved_random_state(0):
        model = workload.model(0)
        try:
            workload.loss(model, workload.batch(torch.arange(batch_size))).backward()
        except TaskError as error:
            return str(error)
    return None


def measured_definition(workload: Workload, model: nn.Module, batch_size: int) -> list[dict[str, Any]]:
    """Mean and standard deviation of each channel in front of scale and shift over a batch: by definition 0 and 1.

    What a layer puts out is taken back through its own scale and shift. Once in training mode, where the statistics are
    the batch's, and once in evaluation mode, where they are the running ones.

    Returns:
        For each mode (`mode`) and layer with batch normalisation (`layer`): its `channels`; how many of them are
        `flat`, that is, hardly vary, or have a scale of 0; and of the others the largest distance of a mean from 0
        (`mean`) and of a standard deviation from 1 (`deviation`).

    Cost: two forward passes over a batch. The model's running statistics are moved, as by a training step.
    """
    found: list[dict[str, Any]] = []
    batch = workload.batch(next(index_stream(workload.examples, batch_size, 0)))
    for mode in ("evaluation", "training"):

        def look(name: str, mode: str = mode) -> Any:
            return lambda module, args, output: found.append(
                {"mode": mode, "layer": name, **_distances(module, args[0], output)}
            )

        model.train(mode == "training")
        layers = [(n, m) for n, m in model.named_modules() if isinstance(m, _BATCH_NORM)]
        handles = [m.register_forward_hook(look(n)) for n, m in layers]
        with preserved_random_state(0), torch.no_grad():
            workload.loss(model, batch)
        for handle in handles:
            handle.remove()
    return found


def _distances(module: Any, inputs: Tensor, output: Tensor) -> dict[str, Any]:
    scale, shift = (p.detach().double().cpu() for p in (module.weight, module.bias))
    varied = _table(inputs).var(0, correction=0) > _FLAT
    varied_scale = varied & (scale.abs() > _FLAT)
    normal = ((_table(output) - shift) / scale)[:, varied_scale]
    return {
        "channels": len(scale),
        "flat": int((~varied_scale).sum()),
        "mean": float(normal.mean(0).abs().max()) if varied_scale.any() else None,
        "deviation": float((normal.std(0, correction=0) - 1).abs().max()) if varied_scale.any() else None,
    }


def _table(values: Tensor) -> Tensor:
    """A row an example and position, a column a channel."""
    exact = values.detach().double() if values.device.type != "mps" else values.detach().cpu().double()
    return exact.movedim(1, -1).flatten(0, -2).cpu()


def measured_robustness(workload: Workload, model: nn.Module) -> list[dict[str, Any]] | dict[str, str]:
    """`measure_robustness` with its own strengths, in JSON types."""
    return encode(measure_robustness(workload, model))


def measured_shift(
    workload: Workload, model: nn.Module, *, batch_size: int, lr: float
) -> dict[str, dict[str, float | None]] | dict[str, str]:
    """`measure_covariate_shift` on two batches of that size, as means by layer; or, encoded, why it cannot be.

    The step is a first one of the optimizer: momentum and second moments of the run are not known any more.

    Returns:
        For each layer but the first, the means of `relative` and `cosine` over the batches on which they are defined.
    """
    stream = index_stream(workload.examples, batch_size, 1)
    readings: dict[str, list[LayerShift]] = {}
    for _ in range(_SHIFT_BATCHES):
        found = measure_covariate_shift(workload, model, workload.batch(next(stream)), lr=lr)
        if isinstance(found, NotApplicable):
            return encode(found)
        for shift in found:
            readings.setdefault(shift.layer, []).append(shift)
    return {
        layer: {
            "relative": _mean([s.relative for s in shifts if s.relative is not None]),
            "cosine": _mean([s.cosine for s in shifts if s.cosine is not None]),
        }
        for layer, shifts in readings.items()
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
