"""Plain SGD for many small steps: the updates of large linear layers are deferred, and applied several at a time.

Where batches are small, a step is bound by moving weights: a step of one example reads every weight twice (forward and
backward), and then a gradient as large as the weights is written and read, and the weights read and written. For
`y = x Wᵀ + b` the gradient of W is `DᵀA`, with the inputs `A` (k, in) and the output gradients `D` (k, out) of k
examples. So after some steps the weights are `W − lr DᵀA`, and the layer can return `x Wᵀ − lr (x Aᵀ) D` until
some tens of rows are together and one product brings W up to date. Nothing changes but the rounding.

Gain, measured by `python benchmarks/deferred_sgd.py` in CPU seconds on one thread, median of the pairs: a repeat of the
15 published batch sizes over 1,024 samples takes 2.5 s instead of 3.8 on 64-1024-1024-10 (1.62 times as fast) and 3.6 s
instead of 6.0 on 784-1024-1024-10 (1.64); three repeats of the quick sizes 1, 8 and 64 over 64 samples 1.18 times.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import TaskError
from ..hardware.random_state import RandomState
from ..tasks.protocol import Batch
from ..tasks.workload import Workload

__all__ = ["DeferredSGD"]

_ROUNDING = 1e-3
"""Relative difference up to which two gradients of one batch are the same but for rounding."""


class DeferredSGD:
    """Steps `θ ← θ − lr g` on a model that nobody else uses, and the sum of one parameter's gradients over them.

    They are plain SGD by definition (Shen 2018), not the task's update: its `optimizer`, `before_update`, `schedule`
    and `ema_decay` are left out. `loss_weight` has no part in a step of one batch. Gradients are those of the task's
    loss in its precision, without the gradient scaler of a float16 training, so that small ones become zero there:
    `sequential_gradients` measures none in float16.

    The update of a plain `nn.Linear` whose weight has one name is deferred; every other parameter is updated at once.
    Whether that gives autograd's gradients is tried on one batch first; where it does not (a layer's weight is used
    without the layer, say), all parameters are updated at once.

    Args:
        workload: the task.
        model: in training mode; it is changed, and its linear layers compute through this object until `release`.
        lr: of every step.
        watched: the parameter whose gradients are added up.
        trial: a batch to try the gradients on.
        rows: examples (or positions) whose updates a layer gathers at most before they are applied.
        smallest: weights of a layer from which gathering pays; a smaller layer gathers none.
        defer: `False`: every parameter is updated at once.

    Attributes:
        deferred: names of the layers whose updates are deferred.

    Raises:
        TaskError: the loss of the trial batch failed.

    Cost: a forward and backward pass a step; to begin with, two over the trial batch.
    """

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        *,
        lr: float,
        watched: nn.Parameter,
        trial: Batch,
        rows: int = 32,
        smallest: int = 2**16,
        defer: bool = True,
    ) -> None:
        self._workload, self._model, self._lr, self._watched = workload, model, lr, watched
        self._sum = torch.zeros_like(watched, requires_grad=False)
        self._linears: dict[str, _Linear] = {}
        self._others = [p for p in model.parameters() if p.requires_grad]
        if defer:
            self._defer(trial, rows, smallest)
        self.deferred = tuple(self._linears)

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
        """Give the layers their own `forward` back: until then they and this object keep each other in memory."""
        self.finish()
        for linear in self._linears.values():
            linear.restore_forward()
        self._linears = {}

    def _gradients(self, batch: Batch) -> Iterator[Tensor | None]:
        """Gradients of a batch: of each output of a deferred layer, layer by layer, then of each other parameter."""
        for linear in self._linears.values():
            linear.calls.clear()
        loss = self._workload.loss(self._model, batch)
        outputs = [output for linear in self._linears.values() for _, output in linear.calls]
        return iter(torch.autograd.grad(loss, [*outputs, *self._others], allow_unused=True))

    def _defer(self, trial: Batch, rows: int, smallest: int) -> None:
        parameters, state, random = self._others, _state(self._model), RandomState.capture()
        truth = dict(zip(map(id, parameters), self._gradients(trial), strict=True))
        self._linears = {
            name: _Linear(
                module,
                lr=self._lr,
                rows=rows if module.weight.numel() >= smallest else 0,
                total=self._sum if module.weight is self._watched else None,
            )
            for name, module in _plain_linears(self._model).items()
        }
        deferred = {id(linear.weight) for linear in self._linears.values()}
        self._others = [p for p in parameters if id(p) not in deferred]
        for linear in self._linears.values():
            linear.replace_forward()
        random.restore()
        if not self._agrees(trial, truth):
            for linear in self._linears.values():
                linear.restore_forward()
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
        rows: gathered at most; 0: every update is applied at once.
        total: where its gradients are added up, if they are watched.
    """

    def __init__(self, module: nn.Linear, *, lr: float, rows: int, total: Tensor | None) -> None:
        self.module, self.weight, self.lr, self.total = module, module.weight, lr, total
        self.calls: list[tuple[Tensor, Tensor]] = []
        self.pending = 0
        self.inputs = module.weight.new_zeros(rows, module.in_features, requires_grad=False)
        self.deltas = module.weight.new_zeros(rows, module.out_features, requires_grad=False)

    def replace_forward(self) -> None:
        """Let this object compute what the layer returns."""
        self.weight.requires_grad_(False)
        vars(self.module)["forward"] = self.forward

    def restore_forward(self) -> None:
        """Let the layer compute again."""
        self.weight.requires_grad_(True)
        del vars(self.module)["forward"]

    def forward(self, x: Tensor) -> Tensor:
        """Output of the layer at the weights that the gathered rows would make."""
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
        """Gather the rows of a step; apply what is gathered first where they do not fit."""
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
