"""Plain SGD for many small steps: the updates of large linear layers are held back and applied several at a time.

Where batches are small, a step is bound by moving weights: a step of one example reads every weight twice (forward and
backward), and then a gradient as large as the weights is written and read, and the weights read and written. For
`y = x Wᵀ + b` the gradient of W is `DᵀA`, with the inputs `A` (k, in) and the output gradients `D` (k, out) of k
examples. So after some steps the weights are `W − lr DᵀA`, and the layer can answer with `x Wᵀ − lr (x Aᵀ) D` until
some tens of rows are together and one product brings W up to date. Nothing changes but the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import TaskError
from ..hardware.random_state import RandomState
from ..tasks.protocol import Batch
from ..tasks.workload import Workload

__all__ = ["HeldBackSGD"]

_ROWS = 32
_LARGE = 2**16
"""Weights of a layer from which holding its update back pays."""
_ROUNDING = 1e-3


class HeldBackSGD:
    """Steps `θ ← θ − lr g` on a model that nobody else uses, and the sum of one parameter's gradients over them.

    A plain `nn.Linear` whose weight has one name is held back; every other parameter is updated at once. Whether that
    gives autograd's gradients is tried on one batch first; where it does not (a layer's weight is used without the
    layer, say), all parameters are updated at once.

    Args:
        workload: the task.
        model: in training mode; it is changed, and its linear layers answer through this object from now on.
        lr: of every step.
        watched: the parameter whose gradients are added up.
        trial: a batch to try the gradients on.

    Attributes:
        held_back: the names of the layers whose update is held back.

    Raises:
        TaskError: the loss of the trial batch failed.

    Cost: a forward and backward pass a step; to begin with, two over the trial batch.
    """

    def __init__(self, workload: Workload, model: nn.Module, *, lr: float, watched: nn.Parameter, trial: Batch) -> None:
        self._workload, self._model, self._lr, self._watched = workload, model, lr, watched
        self._sum = torch.zeros_like(watched, requires_grad=False)
        self._linears: dict[str, _Linear] = {}
        self._others = [p for p in model.parameters() if p.requires_grad]
        self._hold_back(trial)
        self.held_back = tuple(self._linears)

    def step(self, batch: Batch) -> None:
        """One step on a batch.

        Raises:
            TaskError: the loss failed.
        """
        found = self._gradients(batch)
        with torch.no_grad():
            for linear in self._linears.values():
                for inputs, deltas in linear.rows(found):
                    linear.push(inputs, deltas)
            for parameter, gradient in zip(self._others, found, strict=True):
                if gradient is not None:
                    parameter.sub_(gradient.to_dense(), alpha=self._lr)
                    if parameter is self._watched:
                        self._sum.add_(gradient.to_dense())

    @torch.no_grad()
    def finish(self) -> Tensor:
        """Bring all weights up to date; the sum of the watched gradients since the last call, its shape."""
        for linear in self._linears.values():
            linear.apply()
        total = self._sum.clone()
        self._sum.zero_()
        return total

    def release(self) -> None:
        """Let the layers answer for themselves again: until then they and this object keep each other in memory."""
        self.finish()
        for linear in self._linears.values():
            linear.give_back()
        self._linears = {}

    def _gradients(self, batch: Batch) -> Iterator[Tensor | None]:
        """One for each output of a held-back layer in this pass, layer by layer, then one for each other parameter."""
        for linear in self._linears.values():
            linear.calls.clear()
        loss = self._workload.loss(self._model, batch)
        outputs = [output for linear in self._linears.values() for _, output in linear.calls]
        return iter(torch.autograd.grad(loss, [*outputs, *self._others], allow_unused=True))

    def _hold_back(self, trial: Batch) -> None:
        parameters, state, random = self._others, _state(self._model), RandomState.capture()
        truth = dict(zip(map(id, parameters), self._gradients(trial), strict=True))
        self._linears = {
            name: _Linear(module, self._lr, self._sum if module.weight is self._watched else None)
            for name, module in _plain_linears(self._model).items()
        }
        held = {id(linear.weight) for linear in self._linears.values()}
        self._others = [p for p in parameters if id(p) not in held]
        for linear in self._linears.values():
            linear.take_over()
        random.restore()
        if not self._agrees(trial, truth):
            for linear in self._linears.values():
                linear.give_back()
            self._linears, self._others = {}, parameters
        self._model.load_state_dict(state)
        random.restore()

    def _agrees(self, trial: Batch, truth: dict[int, Tensor | None]) -> bool:
        try:
            found = self._gradients(trial)
            mine: dict[int, Tensor | None] = {}
            for linear in self._linears.values():
                parts = [deltas.T @ inputs for inputs, deltas in linear.rows(found)]
                mine[id(linear.weight)] = torch.stack(parts).sum(0) if parts else None
            mine |= dict(zip(map(id, self._others), found, strict=True))
        except (TaskError, RuntimeError):
            return False
        return all(_same(mine[key], gradient) for key, gradient in truth.items())


class _Linear:
    """A linear layer, its weight up to date but for `pending` rows.

    Args:
        module: the layer.
        lr: of the steps.
        total: where its gradients are added up, if they are watched.
    """

    def __init__(self, module: nn.Linear, lr: float, total: Tensor | None) -> None:
        self.module, self.weight, self.lr, self.total = module, module.weight, lr, total
        self.calls: list[tuple[Tensor, Tensor]] = []
        self.pending = 0
        rows = _ROWS if module.weight.numel() >= _LARGE else 0
        self.inputs = module.weight.new_zeros(rows, module.in_features, requires_grad=False)
        self.deltas = module.weight.new_zeros(rows, module.out_features, requires_grad=False)

    def take_over(self) -> None:
        self.weight.requires_grad_(False)
        self._answer_with(self.forward)

    def give_back(self) -> None:
        self.weight.requires_grad_(True)
        del self.module.__dict__["forward"]

    def forward(self, x: Tensor) -> Tensor:
        output = functional.linear(x, self.weight, self.module.bias)
        if self.pending:
            inputs, deltas = self.inputs[: self.pending], self.deltas[: self.pending]
            output = output.sub((x @ inputs.T) @ deltas, alpha=self.lr)
        if not torch.is_grad_enabled():
            return output
        if not output.requires_grad:
            output.requires_grad_()
        self.calls.append((x.detach(), output))
        return output.clone()  # what follows may work in place

    def rows(self, found: Iterator[Tensor | None]) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and output gradients of this pass, one example or position a row."""
        for x, _ in self.calls:
            delta = next(found)
            if delta is not None:
                yield x.reshape(-1, x.shape[-1]), delta.reshape(-1, delta.shape[-1])

    def push(self, inputs: Tensor, deltas: Tensor) -> None:
        rows = len(inputs)
        if self.pending + rows > len(self.inputs):
            self.apply()
        if rows > len(self.inputs):
            self._descend(inputs, deltas)
            return
        self.inputs[self.pending : self.pending + rows] = inputs
        self.deltas[self.pending : self.pending + rows] = deltas
        self.pending += rows

    def apply(self) -> None:
        """Bring the weight up to date."""
        if self.pending:
            self._descend(self.inputs[: self.pending], self.deltas[: self.pending])
            self.pending = 0

    def _descend(self, inputs: Tensor, deltas: Tensor) -> None:
        self.weight.addmm_(deltas.T, inputs, alpha=-self.lr)
        if self.total is not None:
            self.total.addmm_(deltas.T, inputs)

    def _answer_with(self, forward: Any) -> None:
        self.module.forward = forward


def _plain_linears(model: nn.Module) -> dict[str, nn.Linear]:
    names: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)] = names.get(id(parameter), 0) + 1
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and names.get(id(module.weight)) == 1 and module.weight.requires_grad
    }


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _same(mine: Tensor | None, true: Tensor | None) -> bool:
    if mine is None or true is None:
        return mine is None and true is None
    apart = float((mine.to_dense() - true.to_dense()).norm())
    return apart <= _ROUNDING * float(true.to_dense().norm())
