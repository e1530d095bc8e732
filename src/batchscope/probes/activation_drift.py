"""Internal covariate shift as a layer sees it: how the distribution of its inputs moves over training.

The definition of Ioffe and Szegedy 2015 (section 2: "the change in the distribution of network activations due to the
change in network parameters"). `covariate_shift` measures the later one, by gradients.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import TaskError
from ..hardware.random_state import preserved_random_state
from ..store.codec import encode
from ..store.not_applicable import NotApplicable
from ..store.records import Row
from ..tasks.protocol import Batch
from ..tasks.workload import Workload
from .base import modules_with_parameters, watched

__all__ = ["ActivationDrift", "Activations"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Statistics of what a layer receives on the fixed batch.

    A unit is a feature (last dimension) or, for convolutions, a channel.

    Averages are over examples, positions and units; σ_u is a unit's standard deviation over examples and positions.
    """

    mean: float
    deviation: float
    """`√(mean_u σ_u²)`."""
    drift: float | None
    """`√(mean_u (μ_u − μ_u at the start)²)` ÷ `deviation` at the start: how far the means have moved, in the standard
    deviations that there were; `None` where that was 0."""
    step_drift: float | None
    """The same since the evaluation before; `None` at the first."""
    stretch: float | None
    """`deviation` ÷ `deviation` at the start; `None` where that was 0."""


@dataclass(frozen=True)
class _Units:
    mean: Tensor
    variance: Tensor


class ActivationDrift:
    """Observer of what each hidden layer receives on a fixed batch: mean, standard deviation, and their drift.

    A layer is a module with a weight of two dimensions or more of its own; a hidden one receives activations, that is,
    something that trained parameters have a part in. Inputs are looked at, not outputs, so that a normalisation or an
    activation function between two layers is seen as the upper layer sees it.

    One row an evaluation: `kind` is `activations`, `step`, and for each layer by its name, in the order in which they
    are run, an `Activations` under `layers`; or `not_applicable` with the reason.

    Args:
        workload: the task on its device.
        batch: the examples to look with, as the loss takes them: some hundreds, always the same.
        seed: of what is random in the model, the same each time.

    Cost: nothing in a training step; at an evaluation one forward pass over the batch, with its activations kept for a
    backward pass that does not come, and a sweep over them. Measured (`benchmarks/probes.py`; 64-32-10, then
    784-1024-1024-10): with 256 examples a use takes 2.9 and 1.6 training steps of 64.

    Valid when: the first evaluation is the start that drift is to be measured from. The model runs in training mode, as
    the updates see it: with batch normalisation the batch's own statistics apply, and the running ones are put back.
    Drift of models that scale their activations differently compares because it is in units of the first standard
    deviation; a layer whose first inputs hardly varied makes it large.
    """

    def __init__(self, workload: Workload, batch: Batch, *, seed: int = 0) -> None:
        self._workload, self._batch, self._seed = workload, batch, seed
        self._model: nn.Module | None = None
        self._first: dict[str, _Units] = {}
        self._last: dict[str, _Units] = {}

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Keep the model to look at."""
        self._model = model

    def after_update(self, step: int) -> Row | None:
        """No row: an update changes nothing that is looked at."""
        return None

    def at_evaluation(self, step: int) -> Row | None:
        """Measure the row of this evaluation."""
        assert self._model is not None
        found = self._look(self._model)
        if isinstance(found, NotApplicable):
            return {"kind": "activations", "step": step, **encode(found)}
        self._first = self._first or found
        layers = {
            name: asdict(_activations(units, self._first.get(name, units), self._last.get(name)))
            for name, units in found.items()
        }
        self._last = found
        return {"kind": "activations", "step": step, "layers": layers}

    def _look(self, model: nn.Module) -> dict[str, _Units] | NotApplicable:
        found: dict[str, _Units] = {}

        def keep(name: str, module: nn.Module, inputs: Tensor | None) -> None:
            if inputs is not None and inputs.requires_grad and name not in found:
                found[name] = _units(inputs.detach(), by_channel=isinstance(module, _CONVOLUTIONS))

        with _left_as_it_was(model, self._seed), watched(modules_with_parameters(model, at_least=2), keep):
            try:
                self._workload.loss(model, self._batch)
            except TaskError as error:
                return NotApplicable(reason=f"the model cannot be run on the fixed batch: {error}")
        return found or NotApplicable(
            reason="the model has no hidden layer: no layer with a weight matrix receives what trained parameters made"
        )


@contextmanager
def _left_as_it_was(model: nn.Module, seed: int) -> Generator[None]:
    """Put back buffers (running statistics) and random generators after the work inside."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with preserved_random_state(seed), torch.enable_grad():
            yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _units(inputs: Tensor, *, by_channel: bool) -> _Units:
    last = inputs.movedim(1, -1) if by_channel else inputs
    table = last.reshape(-1, last.shape[-1])
    precise = torch.float32 if inputs.device.type == "mps" else torch.float64
    variance, mean = torch.var_mean(table.to(precise), dim=0, correction=0)
    return _Units(mean=mean, variance=variance)


def _activations(now: _Units, first: _Units, last: _Units | None) -> Activations:
    deviation, scale = float(now.variance.mean().sqrt()), float(first.variance.mean().sqrt())

    def moved(since: _Units) -> float:
        return float((now.mean - since.mean).square().mean().sqrt()) / scale

    return Activations(
        mean=float(now.mean.mean()),
        deviation=deviation,
        drift=moved(first) if scale > 0 else None,
        step_drift=moved(last) if scale > 0 and last is not None else None,
        stretch=deviation / scale if scale > 0 else None,
    )
