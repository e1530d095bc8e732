"""Per-example gradient norms as a source: signal and noise of a step with a single backward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ...store.records import Row
from ..accumulation import Accumulation
from ..engine import backward_pass
from ..guard import Guard, ModuleHook
from ..norms import by_layer, layer_of, norm, numbers
from ..passes import Passes
from ..window import Window, noise_row, watched_parameters
from .covered_layers import Place, listed, places, unseen, unsuitable, words
from .layer_norms import Signs

__all__ = ["PerExampleSource"]

_TOLERANCE = {torch.float64: 1e-7, torch.float32: 5e-3}
"""Of the difference between what the examples add up to and the gradient, by the type of the output's gradient (float32
allows for TF32)."""
_TOLERANCE_OF_HALF = 5e-2
_PASS = (
    "its gradient came from elsewhere than one forward pass of its module (a function uses it, or the pass is compiled)"
)


@dataclass(frozen=True, kw_only=True)
class _Arrived:
    """What the output gradient of a layer says about one parameter."""

    square_norms: Tensor
    """`|c_i|²` of the examples, shape (examples,)."""
    projection: Tensor
    """Of `Σ_i c_i`."""
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The same, beside the parameter's own gradient of that backward pass."""

    arrived: _Arrived
    projection: Tensor


@dataclass(kw_only=True)
class _Pass:
    """One backward pass of the window."""

    arrived: dict[int, list[_Arrived]] = field(default_factory=dict[int, list[_Arrived]])
    found: dict[int, _Found] = field(default_factory=dict[int, _Found])
    strange: dict[int, str] = field(default_factory=dict[int, str])
    """Why a parameter's gradient did not come as a covered one's does."""
    inputs: list[list[Tensor]] = field(default_factory=list[list[Tensor]])
    """Of the layers that it went through."""
    task: int = -1
    """Of the autograd engine."""


class PerExampleSource:
    """Squared norms of the gradients of single examples, from hooks on layers, without these gradients.

    A layer's input is kept until the gradient of its output arrives; from both, `layer_norms` computes `|c_i|²` of
    what each example adds to the step's gradient `g = Σ_i c_i`. With the loss a mean over `B` examples, `c_i` is the
    gradient of example `i` ÷ B, and a row has `groups = B` of one example, from which tr(Σ) has the least noise.

    It covers parameters of the layers that `layer_norms` has rules for; `|G|²` and tr(Σ) are both over the covered
    ones, and `name` says how large a share of the trained parameters they are. `left_out` says why not the others. What
    cannot be seen from the layers is found by comparison: one random projection of every gradient, computed from the
    examples and from the gradient itself, must agree (0.5 % in float32, 5 % in half precision). So a weight that is
    also used by a function, changed by a hook, or penalised in the loss is left out, from then on.

    Args:
        guard: keeps what the hooks raise.
        layers: also give the two norms of each module that has covered parameters.
        norm_layers_only: LayerNorm, GroupNorm and RMSNorm alone: next to no cost. Their noise scale is another number
            than the model's, which it follows over a training of a transformer, up to a constant factor (Gray et al.
            2024, section 4: literature).

    Cost: of a measured window, for each linear map at most the operations that its part of the backward pass takes, and
    inputs of layers are held until a backward pass has used them.

    Valid when: the first dimension of every covered layer's input is the examples, each with the same weight in the
    loss of its micro-batch; an example's output does not depend on the others (no BatchNorm, no negatives from the
    batch). Layers with another number of rows are left out, and so is what lies in a module with `batch_first=False`;
    where a sequence is as long as the batch is large, other sequence-first code cannot be told apart.

    Source: Goodfellow 2015 (arXiv 1510.01799); Li et al. 2021 (arXiv 2110.05679); Gray et al. 2024 (arXiv 2411.00999).
    """

    def __init__(self, *, guard: Guard | None = None, layers: bool = False, norm_layers_only: bool = False) -> None:
        self.reason = ""
        self.left_out: dict[str, str] = {}
        self.name = words(norm_layers_only)
        self._layers, self._norm_layers_only = layers, norm_layers_only
        self._guard = guard or Guard()
        self._signs: dict[tuple[Any, ...], Signs] = {}
        self._terms: list[float] = []
        self._weighed = 0
        self._window = 0
        self._none_covered = False
        self._handles: list[RemovableHandle] = []
        self._passes: Passes | None = None
        self.detach()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the numbers leave out, for `Reading.notes`."""
        return (f"per-example norms leave out {listed(self.left_out)}",) if self.left_out else ()

    def attach(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Put hooks on the layers that have a rule, and on their parameters."""
        self.detach()
        only = self._norm_layers_only
        if self._none_covered:  # what kept parameters out may be over
            self.left_out, self._none_covered = {}, False
        self._unsuitable = unsuitable(model, norm_layers_only=only)
        if self._unsuitable:
            return
        self._window += 1
        watched = watched_parameters(model, optimizer)
        self._names, self._parameters = list(watched), list(watched.values())
        self.accumulation = Accumulation(self._parameters)
        for place in places(model, watched, self.left_out, norm_layers_only=only):
            hook = ModuleHook(self._guard.around(partial(self._forward, place)))
            self._handles.append(place.module.register_forward_hook(hook, with_kwargs=True))
        self._passes = Passes(
            self._parameters,
            on_begin=self._begin,
            on_gradient=self._gradient,
            on_end=self._end,
            guard=self._guard,
        )

    def detach(self) -> None:
        """Remove the hooks and forget all tensors."""
        if self._passes is not None:
            self._passes.remove()
        self._passes = None
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._names: list[str] = []
        self._parameters: list[nn.Parameter] = []
        self._unsuitable = ""
        self.accumulation = Accumulation(())
        self._restart()

    def take(self, window: Window) -> Row | None:
        """Noise row of the window, or `None` and `reason`."""
        self._guard.check()
        broken = "" if self._passes is None else self._passes.fault
        self.reason = self._unsuitable or broken or self.accumulation.fault or self._unusable(window)
        if self.reason:
            return None
        n = len(self._done)
        sizes = window.examples or (window.batch_size // n,) * n
        self.reason = self._rows_unlike(sizes) or self._compare()
        covered = sorted({i for each in self._done for i in each.found if self._names[i] not in self.left_out})
        if not self.reason and not covered:
            self._none_covered = True
            self.reason = f"no parameter is covered: {listed(self.left_out) or 'no backward pass reached one'}"
        return None if self.reason else self._row(window, sizes, covered)

    def _leave_out(self, index: int, reason: str) -> None:
        self.left_out.setdefault(self._names[index], reason)

    # In the training's forward and backward passes

    def _forward(self, place: Place, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not torch.is_grad_enabled() or not isinstance(output, Tensor) or not output.requires_grad:
            return
        x = args[0] if args else kwargs.get("input")
        why = unseen(place, x, output)
        if why:
            for i in place.indices.values():
                self._leave_out(i, why)
            return
        kept = [x.detach()]
        output.register_hook(self._guard.around(partial(self._output_gradient, place, self._window, kept)))

    @torch.no_grad()
    def _output_gradient(self, place: Place, window: int, kept: list[Tensor], gradient: Tensor) -> None:
        if self._passes is None or window != self._window or not kept:
            return
        x = kept[0]
        if self._arriving.task != (task := backward_pass()):  # what came before was of a pass that reached no parameter
            self._arriving = _Pass(task=task)
        self._arriving.inputs.append(kept)
        indices = {name: i for name, i in place.indices.items() if self._names[i] not in self.left_out}
        if not indices:
            return
        precise = torch.promote_types(gradient.dtype, torch.float32)
        signs = {name: self._signs_of(i) for name, i in indices.items()}
        with torch.autocast(gradient.device.type, enabled=False):
            g = gradient.detach().to(precise)
            added = place.rule(place.module, x.to(precise) if x.is_floating_point() else x, g, signs)
        tolerance = _TOLERANCE.get(gradient.dtype, _TOLERANCE_OF_HALF)
        for name, each in added.items():
            arrived = _Arrived(square_norms=each.square_norms, projection=each.projection, tolerance=tolerance)
            self._arriving.arrived.setdefault(indices[name], []).append(arrived)

    def _signs_of(self, index: int) -> Signs:
        parameter = self._parameters[index]
        key = (parameter.shape, parameter.dtype, parameter.device)
        if key not in self._signs:
            self._signs[key] = Signs.of(parameter)
        return self._signs[key]

    def _begin(self) -> None:
        if self._arriving.task != (task := backward_pass()):
            self._arriving = _Pass(task=task)
        if self.accumulation.begin():
            arriving = self._arriving
            self._restart()
            self._arriving = arriving

    def _gradient(self, index: int, gradient: Tensor) -> None:
        if self._names[index] in self.left_out:
            return
        arrived = self._arriving.arrived.pop(index, [])
        if len(arrived) != 1:
            uses = f"its module is used {len(arrived)} times in one backward pass"
            self._arriving.strange[index] = uses if arrived else _PASS
            return
        projection = self._signs_of(index).project(gradient)
        self._arriving.found[index] = _Found(arrived=arrived[0], projection=projection)

    def _end(self) -> None:
        ended, self._arriving = self._arriving, _Pass()
        if not self.accumulation.end():  # torch.autograd.grad: the same layers may go backward once more
            return
        for kept in ended.inputs:
            kept.clear()
        for i, why in ended.strange.items():
            self._leave_out(i, why)
        ended.arrived, ended.inputs = {}, []
        self._done.append(ended)
        self._whole = {
            i: norm(p.grad)
            for i, p in enumerate(self._parameters)
            if p.grad is not None and self._names[i] not in self.left_out
        }

    def _restart(self) -> None:
        self._arriving = _Pass()
        self._done: list[_Pass] = []
        self._whole: dict[int, Tensor] = {}

    # After the step

    def _unusable(self, window: Window) -> str:
        n, told = len(self._done), window.examples
        if n == 0:
            return "no backward pass in the step added to the gradients of the parameters"
        if told and len(told) != n:
            return (
                f"micro_batch() was called {len(told)} times, and the step had {n} backward passes; call it before each"
            )
        if not told and window.batch_size % n:
            return (
                f"the {window.batch_size} examples of the step came in {n} backward passes of unequal size; call "
                "micro_batch(examples=...) before each"
            )
        if (sum(told) if told else window.batch_size) < 2:
            return "the step has one example; the spread of gradients needs two"
        return self._unequal_terms(window)

    def _unequal_terms(self, window: Window) -> str:
        """Why examples do not weigh the same within their micro-batch; empty where they do."""
        if not window.weights:
            return ""
        if len(window.weights) != len(self._done) or not window.examples:
            return "micro_batch() had a weight without examples, or for some micro-batches only; give both for all"
        self._terms += [weight / size for weight, size in zip(window.weights, window.examples, strict=True)]
        low, high = min(self._terms), max(self._terms)
        self._terms = [low, high]
        self._weighed += len(self._done)
        if high - low > 1e-9 * high:
            return (
                f"the micro-batches' examples weigh {low:.4g} to {high:.4g} each, so that single ones weigh "
                "differently too, by how much is not known; accumulate two or more micro-batches a step, or give loss="
            )
        return (
            "" if self._weighed > 1 else "one weight does not tell whether all examples weigh the same; the next will"
        )

    def _rows_unlike(self, sizes: Sequence[int]) -> str:
        """Leave out layers whose first dimension is not the examples; a reason where that is so for all of them."""
        rows = {
            (i, len(f.arrived.square_norms), b)
            for each, b in zip(self._done, sizes, strict=True)
            for i, f in each.found.items()
        }
        unlike = {i: (seen, b) for i, seen, b in rows if seen != b}
        if unlike and len(unlike) == len({i for i, _, _ in rows}):
            seen, b = next(iter(unlike.values()))
            return (
                f"the layers saw {seen} rows where the micro-batch has {b} examples; tell the monitor the batch_size "
                "of a step, and by micro_batch(examples=...) that of a smaller one"
            )
        for i, (seen, b) in unlike.items():
            self._leave_out(i, f"its layer saw {seen} rows for {b} examples")
        return ""

    def _compare(self) -> str:
        """Leave out parameters whose gradient is not what the examples add up to; a reason where one is not finite."""
        found = [(i, f) for each in self._done for i, f in each.found.items() if self._names[i] not in self.left_out]
        if not found:
            return ""
        columns = [
            [f.arrived.projection for _, f in found],
            [f.projection for _, f in found],
            [f.arrived.square_norms.sum() for _, f in found],
        ]
        examples, whole, sizes = (numbers(column) for column in columns)
        squares = dict(zip(self._whole, (value**2 for value in numbers([*self._whole.values()])), strict=True))
        sizes = [size + squares.get(i, 0.0) for size, (i, _) in zip(sizes, found, strict=True)]
        if not all(map(math.isfinite, [*examples, *whole, *sizes])):
            return "a gradient of the step was not finite"
        names = [self._names[i] for i, _ in found]
        of_layer = by_layer(names, sizes)
        for (i, f), a, b in zip(found, examples, whole, strict=True):
            size = math.sqrt(of_layer[layer_of(self._names[i])])
            if abs(a - b) > f.arrived.tolerance * size:
                self._leave_out(
                    i,
                    f"its gradient is not what the examples add up to in its layer ({abs(a - b) / size:.1%} off): its "
                    "weight is also used elsewhere, penalised in the loss, or a hook changes its gradient",
                )
        return ""

    def _row(self, window: Window, sizes: Sequence[int], covered: Sequence[int]) -> Row | None:
        names, scale = [self._names[i] for i in covered], window.loss_scale
        whole = [(value / scale) ** 2 for value in numbers([self._whole[i] for i in covered])]
        squares = self._square_norms(covered, sizes) / scale**2
        row = noise_row(
            window,
            squares.sum(0).tolist(),
            math.fsum(whole),
            layers=_by_layer(names, squares, whole) if self._layers else None,
        )
        if row is None:
            self.reason = "a gradient of the step was not finite"
        else:
            whole_model = sum(p.numel() for p in self._parameters)
            share = sum(self._parameters[i].numel() for i in covered) / whole_model
            self.name = words(self._norm_layers_only, share)
        return row

    def _square_norms(self, covered: Sequence[int], sizes: Sequence[int]) -> Tensor:
        """`|c_i|²` of each parameter, shape (parameters, examples of the step); 0 where a pass did not reach it."""
        parts: list[Tensor] = []
        for each, size in zip(self._done, sizes, strict=True):
            rows = [each.found[i].arrived.square_norms if i in each.found else torch.zeros(size) for i in covered]
            device = rows[0].device
            parts.append(torch.stack([row.to(device) for row in rows]).cpu().double())
        return torch.cat(parts, dim=1)


def _by_layer(names: Sequence[str], squares: Tensor, whole: Sequence[float]) -> dict[str, tuple[list[float], float]]:
    """Squared norms of examples and of their sum for each module."""
    layers: dict[str, Tensor] = {}
    for name, values in zip(names, squares, strict=True):
        layer = layer_of(name)
        layers[layer] = layers[layer] + values if layer in layers else values
    totals = by_layer(names, whole)
    return {layer: (values.tolist(), totals[layer]) for layer, values in layers.items()}
