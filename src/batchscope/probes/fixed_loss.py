"""Fixed loss: the mean training loss over fixed examples as a function of the weights, for measures of curvature."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import TaskError
from ..hardware.random_state import preserved_random_state
from ..tasks.batches import to_device
from ..tasks.protocol import Batch
from ..tasks.workload import Workload

__all__ = ["FixedLoss"]

Array = NDArray[np.float64]

_SAME_LOSS = 1e-9
_SAME_GRADIENT = 1e-6


class FixedLoss:
    """Fixed loss `f(w)`, the training loss over fixed examples, with its gradient: both the *mean*, both in float64.

    The model is in evaluation mode: dropout is off, batch normalisation uses its running statistics. Examples are drawn
    once and kept, so that a data set that augments at random does not change under the measurement.

    Args:
        workload: the task on its device.
        model: a copy that may be changed; it is put into evaluation mode and float64, and stays on its device (from
            `mps`, which has no float64, it moves to the CPU).
        examples: how many of the training examples at most, drawn without replacement; `None`: all.
        seed: of that draw.
        at_once: examples per forward and backward pass; memory only, the value is the same.

    Attributes:
        model: the copy.
        parameters: the trained parameters, in the order of the flat vector.
        batches: the examples as collated batches, in the type that the task gave them; `double` converts one.
        terms: how many terms each of them has in the mean: the task's `loss_weight`, else its examples.
        examples: how many are used.
        training_examples: how many there are.
        passes: forward-and-backward passes over the examples made so far.

    Raises:
        TaskError: the loss is not finite, is not the same in two passes over the same examples, or cannot be computed
            in float64.

    Cost: two passes on construction, to see that the loss is repeatable; one for each call of `value_and_gradient`. The
    examples are kept in memory once, the model twice.
    """

    def __init__(
        self, workload: Workload, model: nn.Module, *, examples: int | None = None, seed: int = 0, at_once: int = 512
    ) -> None:
        self.workload, self.training_examples = workload, workload.examples
        self.examples = min(examples or workload.examples, workload.examples)
        device = workload.device.torch_device
        self._device = torch.device("cpu") if device.type == "mps" else device
        self.model = model.to(self._device, torch.float64).eval()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        with preserved_random_state(seed):
            chosen = torch.arange(workload.examples)
            if self.examples < workload.examples:
                chosen = torch.randperm(workload.examples)[: self.examples]
            self.batches = [to_device(workload.batch(part), self._device) for part in chosen.split(at_once)]
        self.terms = list(map(workload.count if workload.loss_weight is None else workload.weight, self.batches))
        self.passes = 0
        self._require_repeatable()

    def weights(self) -> Array:
        """The trained weights as they stand, flattened; shape (n,)."""
        return np.concatenate([_numbers(p) for p in self.parameters])

    def value_and_gradient(self, weights: Array | None = None) -> tuple[float, Array]:
        """Value `f(w)` and its gradient, shape (n,).

        Args:
            weights: w, shape (n,); the model keeps them. `None`: as they stand.

        Raises:
            TaskError: the task's loss raised.

        Cost: one pass.
        """
        if weights is not None:
            flat = torch.from_numpy(weights).to(self._device)
            nn.utils.vector_to_parameters(flat, self.parameters)
        total, gradient = 0.0, [torch.zeros_like(p) for p in self.parameters]
        with self.differentiable():
            for batch, terms in zip(self.batches, self.terms, strict=True):
                loss = self.loss_of(self.model, batch) * (terms / sum(self.terms))
                found = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
                for sum_, part in zip(gradient, found, strict=True):
                    sum_ += part.to_dense()
                total += loss.item()
        self.passes += 1
        return total, np.concatenate([_numbers(g) for g in gradient])

    def loss_of(self, model: nn.Module, batch: Batch) -> Tensor:
        """The task's loss of one of `batches`, in float64."""
        try:
            return self.workload.loss(model, double(batch))
        except TaskError as error:
            raise TaskError(
                f"{error}; it was called in evaluation mode with model and batch in float64: tensors of the loss's own "
                "(class weights) must follow the type of the model's output, for example weights.to(output)"
            ) from error.__cause__

    @contextmanager
    def differentiable(self) -> Generator[None]:
        """Leave aside the fused kernels that have no second derivative, or no derivative in evaluation mode."""
        fast_path = torch.backends.mha.get_fastpath_enabled()
        recurrent = any(isinstance(module, nn.RNNBase) for module in self.model.modules())
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=not recurrent):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)

    def _require_repeatable(self) -> None:
        seen: list[tuple[float, Array]] = []
        for seed in (0, 1):
            with preserved_random_state(seed):
                seen.append(self.value_and_gradient())
        (first, gradient), (second, other) = seen
        if not (math.isfinite(first) and np.isfinite(gradient).all()):
            raise TaskError(
                f"the loss at these weights is {first:.4g} and its gradient {_size(gradient):.4g}: nothing around them "
                "can be measured; take weights from before the run diverged"
            )
        apart = _size(gradient - other)
        if math.isclose(first, second, rel_tol=_SAME_LOSS, abs_tol=1e-12) and apart <= _SAME_GRADIENT * _size(gradient):
            return
        raise TaskError(
            f"the loss is not repeatable: two passes over the same {self.examples} examples in evaluation mode gave "
            f"{first:.10g} and {second:.10g}, their gradients are {apart:.3g} apart; let what is random (dropout, "
            "noise, masks) follow the model's mode, for example F.dropout(x, training=self.training)"
        )


def double(value: Batch) -> Batch:
    """Batch with every floating-point tensor in it as float64."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        members: Mapping[Any, Any] = value
        return {key: double(member) for key, member in members.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(double(member) for member in value))
    if isinstance(value, list | tuple):
        sequence: Sequence[Any] = value
        return type(value)(double(member) for member in sequence)
    return value


def _numbers(tensor: Tensor) -> Array:
    return tensor.detach().reshape(-1).cpu().numpy()


def _size(vector: Array) -> float:
    return float(np.linalg.norm(vector))
