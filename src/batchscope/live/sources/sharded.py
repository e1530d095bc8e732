"""Noise from the ranks of a model that `fully_shard` has sharded: local gradients as they go into the reduction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from ...store.records import Row
from ..engine import backward_pass, when_it_ends
from ..guard import Guard
from ..norms import any_nonzero, norm, square_norms
from ..window import Window, watched_parameters
from .exchange import SLOTS
from .rank_rows import SHARES, row_of, shares_of
from .rank_sums import RankSums, Sums

__all__ = ["ShardedSource", "is_sharded"]


_PRECISE = (torch.float32, torch.float64, torch.bfloat16)
"""Data types in which a sum over ranks neither overflows nor underflows."""


def is_sharded(model: nn.Module) -> bool:
    """Whether the model's parameters are spread over processes (FSDP, FSDP2, tensor parallelism)."""
    return any(hasattr(parameter, "placements") for parameter in model.parameters()) or any(
        type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()
    )


class ShardedSource:
    """Squared norms of each rank's gradient before the reduce-scatter of `fully_shard` (FSDP2), and of what comes out.

    No tensor hook fires on sharded parameters. `set_custom_reduce_scatter` puts an object in the place of each module's
    reduce-scatter that reads the norm of its input, the rank's whole gradient of the module, and has the work done by
    the object that was there. A group is what a rank hands to one reduction: a micro-batch, or all of a step's where
    `set_requires_gradient_sync(False)` held back the reductions before. `|g|²` is the sum over ranks of the squared
    norms of their shards of `.grad`, after the last reduction and before clipping. `.grad` can be the output of the
    first reduction times a common factor (division to avoid overflow in float16 and float64, or
    `set_gradient_divide_factor`), which is taken from the norms of both. Sums over ranks are made by `RankSums`.

    Nothing is measured, and `reason` says so, with several parameter groups in a module, a mesh of two dimensions
    (HSDP, tensor parallelism), a reduce-scatter or all-reduce hook of the user's own, a reduction in float16, a module
    that reduces twice in one backward pass, parameters that are not sharded, or an optimizer that has only some. A
    reduction in bfloat16 is right to its rounding, 1 part in 100.

    Args:
        guard: of the monitor; what a hook raises is kept apart, so that all ranks end in the same window.

    Cost: in a measured window one norm of each reduction's input and output, one of `.grad` a backward pass, and under
    a millisecond for the exchange.

    Valid when: examples of different ranks and micro-batches are independent and drawn at random.
    """

    name = "data-parallel ranks of a sharded model"
    late = SLOTS
    """Measured windows by which a row is late."""

    def __init__(self, *, guard: Guard) -> None:
        self.reason = ""
        self._guard = Guard(guard.own)
        self._watches: list[tuple[Any, _Watch]] = []
        self._sums: RankSums | None = None
        self._model: nn.Module | None = None
        self._usual = 0
        self._forget()

    def attach(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Put a watch in the place of each module's reduce-scatter."""
        self.detach()
        self._model = model
        self._parameters = list(watched_parameters(model, optimizer).values())
        self._against = _reason_against(model, self._parameters)
        if self._against:
            return
        for index, module in enumerate(_modules(model)):
            watch = _Watch(
                _reduce_scatter(module), partial(self._before, index), partial(self._after, index), self._guard
            )
            module.set_custom_reduce_scatter(watch)
            self._watches.append((module, watch))

    def detach(self) -> None:
        """Put back what was there, and forget all tensors."""
        for module, watch in self._watches:
            there = _reduce_scatter(module)
            watch.ended = True
            if there is watch:
                module.set_custom_reduce_scatter(_under_ended(watch))
        self._watches = []
        self._model = None
        self._forget()

    def may_measure(self, step: int, interval: Callable[[], int]) -> bool:
        """Whether all ranks measure the window that begins now; see `RankSums.may_measure`."""
        return self._sums is None or self._sums.may_measure(step, interval)

    def take(self, window: Window) -> Row | None:
        """Row of the measured window before the last, the same on all ranks, or `None` and `reason`."""
        self.reason = self._against
        if self.reason or self._model is None:
            return None
        if self._sums is None:
            group = _param_groups(_modules(self._model)[0])[0]._reduce_scatter_process_group
            self._sums = RankSums(group, self._model)
        values: list[float] = []
        failure, skipped = self._guard.error, self._fault or self._unusable(window)
        if not (failure or skipped):
            try:
                values = self._local(window)
            except Exception as error:  # all ranks must know before this one stops
                failure = error
        said = f"{type(failure).__name__}: {failure}" if failure else ""
        sums = self._sums.end_window(window, values, skipped=skipped, failure=said)
        self.reason = self._sums.reason
        if self._sums.ended and failure:
            raise failure
        return None if sums is None else self._row(sums, self._sums.size)

    def _before(self, index: int, given: Tensor, op: Any) -> None:
        """Read what a module's reduction is given; it is the rank's whole gradient."""
        if given.dtype not in _PRECISE:
            self._fault = (
                f"gradients are reduced in {given.dtype}; with MixedPrecisionPolicy(reduce_dtype=torch.float32) "
            )
            self._fault += "or torch.bfloat16 they can be read"
        if op not in (dist.ReduceOp.SUM, dist.ReduceOp.AVG):
            self._fault = "set_gradient_divide_factor() gave a factor other than the number of ranks"
        task = backward_pass()
        if self._task != task:
            self._task = task
            self._begin()
            when_it_ends(self._guard.around(self._pass_over))
        if index in self._given[-1]:
            self._fault = "a sharded module reduced its gradient twice in one backward pass (it ran twice); "
            self._fault += "call fully_shard on the module that holds both uses instead"
        self._given[-1][index] = norm(given)
        self._averaged = op == dist.ReduceOp.AVG

    def _after(self, index: int, result: Tensor) -> None:
        """Read what comes out of the first reduction of a module."""
        if len(self._given) == 1:
            self._result[index] = norm(result)

    def _begin(self) -> None:
        gradients = [_local_part(p.grad) for p in self._parameters if p.grad is not None]
        if self._given and not gradients:  # zeroed without a step: a gradient scaler skipped one
            self._restart()
        if not self._given and any_nonzero(gradients):
            self._fault = "gradients were there before the step's first backward pass; zero them after each step"
        self._given.append({})

    def _pass_over(self) -> None:
        """At the end of a backward pass; FSDP's own callback, which ends the last reductions, was queued before."""
        when_it_ends(self._guard.around(self._reduced))

    @torch.no_grad()
    def _reduced(self) -> None:
        self._last = {i: norm(_local_part(p.grad)) for i, p in enumerate(self._parameters) if p.grad is not None}
        if len(self._given) == 1:
            self._first = self._last

    def _unusable(self, window: Window) -> str:
        n = len(self._given)
        if not n or not self._last:
            return "no backward pass of the step reduced gradients"
        for told in (window.examples, window.weights):
            if told and n not in (1, len(told)):
                return (
                    f"micro_batch() was called {len(told)} times, and the step had {n} reductions; reduce each or all"
                )
        self._usual = self._usual or n
        if n != self._usual and not window.examples:
            return f"the step had {n} reductions where others had {self._usual}; tell micro_batch(examples=...)"
        return ""

    def _local(self, window: Window) -> list[float]:
        """What this rank adds: that of `shares_of`, and four squared norms.

        They are, in the order of the sums, of the rank's part of each output and of all outputs of the first reduction,
        of `.grad` after it, and of `.grad` after the last.
        """
        assert self._sums is not None
        n = len(self._given)
        norms = [*self._given, self._result, self._first, self._last]
        count = max(len(self._parameters), len(self._watches))
        *given, result, first, last = map(math.fsum, square_norms(norms, range(count), window.loss_scale))
        weights, sizes = window.weights, window.examples
        if n == 1:  # all micro-batches of the step went into one reduction
            weights, sizes = _one(weights), _one(sizes)
        parts = math.fsum(given) / (self._sums.size**2 if self._averaged else 1)
        return [*shares_of(n, weights=weights, sizes=sizes), parts, result, first, last]

    def _row(self, sums: Sums, ranks: int) -> Row | None:
        parts, result, first, last = sums.values[SHARES:]
        if not result > 0:
            self.reason = "the gradient of the step was zero"
            return None
        row = row_of(sums, ranks, squares=parts * first / result, square_of_mean=last)
        self.reason = row if isinstance(row, str) else ""
        return None if isinstance(row, str) else row

    def _forget(self) -> None:
        self._parameters: list[nn.Parameter] = []
        self._against = ""
        self._restart()

    def _restart(self) -> None:
        self._fault, self._task, self._averaged = "", -1, False
        self._given: list[dict[int, Tensor]] = []
        self._result: dict[int, Tensor] = {}
        self._first: dict[int, Tensor] = {}
        self._last: dict[int, Tensor] = {}


class _Watch:
    """Reduce-scatter that has another one do the work, and passes for it where FSDP asks for its class."""

    def __init__(
        self, inner: Any, before: Callable[[Tensor, Any], None], after: Callable[[Tensor], None], guard: Guard
    ) -> None:
        self.inner, self.ended = inner, False
        self._before, self._after = guard.around(torch.no_grad()(before)), guard.around(torch.no_grad()(after))

    @property
    def __class__(self) -> type[Any]:  # pyright: ignore
        return type(self.inner)

    def allocate(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.inner.allocate(*args, **kwargs)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False
    ) -> dist.Work | None:
        self._before(input_tensor, op)
        work = self.inner(output_tensor=output_tensor, input_tensor=input_tensor, group=group, op=op, async_op=async_op)
        self._after(output_tensor)
        return work


def _one(told: Sequence[Any]) -> tuple[Any, ...]:
    return (sum(told),) if told else ()


def _local_part(gradient: Any) -> Tensor:
    """This rank's shard of a gradient."""
    return gradient.to_local() if hasattr(gradient, "to_local") else gradient


def _param_groups(module: nn.Module) -> list[Any]:
    """What `fully_shard` made of the module's own parameters: groups that are reduced together."""
    if not hasattr(module, "set_custom_reduce_scatter"):
        return []
    state: Any = module._get_fsdp_state()  # type: ignore[operator]
    return state._fsdp_param_groups


def _modules(model: nn.Module) -> list[Any]:
    """The modules that reduce gradients of their own."""
    return [module for module in model.modules() if _param_groups(module)]


def _reduce_scatter(module: nn.Module) -> Any:
    return _under_ended(_param_groups(module)[0]._reduce_scatter_comm)


def _under_ended(scatter: Any) -> Any:
    """The reduce-scatter under watches that have ended; another monitor's watch may have kept them in place."""
    while type(scatter) is _Watch and scatter.ended:
        scatter = scatter.inner
    return scatter


def _reason_against(model: nn.Module, parameters: Sequence[nn.Parameter]) -> str:
    """Why the gradients of a sharded model cannot be read; the same on all ranks."""
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        return "FullyShardedDataParallel (FSDP1) shows no local gradients; shard with fully_shard (FSDP2) instead"
    trained = [p for p in model.parameters() if p.requires_grad]
    if len(trained) > len(parameters):
        return (
            f"the optimizer has {len(parameters)} of the {len(trained)} trained parameters, and a sharded module "
            "reduces its own together; freeze the others, or give the optimizer all"
        )
    try:
        return _reason_against_groups([_param_groups(module) for module in _modules(model)], trained)
    except AttributeError as error:
        return f"torch {torch.__version__} shards models in a way that is not known here ({error})"


def _reason_against_groups(by_module: Sequence[Sequence[Any]], trained: Sequence[Any]) -> str:
    if not by_module or not all(hasattr(parameter, "placements") for parameter in trained):
        return "some trained parameters are not sharded; call fully_shard on the root module too, after its parts"
    if any(len(groups) > 1 for groups in by_module):
        return "a module has parameters on several meshes, and fully_shard takes no custom reduce-scatter for it"
    meshes = {parameter.device_mesh for parameter in trained}
    if len(meshes) > 1 or any(mesh.ndim > 1 for mesh in meshes):
        return "parameters lie on several meshes, or on one of two dimensions (HSDP, tensor parallelism); one is needed"
    for (group,) in by_module:
        kind = _under_ended(group._reduce_scatter_comm).__class__
        if not kind.__module__.startswith("torch.distributed.fsdp"):
            return (
                f"the reduce-scatter is {kind.__name__}, which is not torch's own, and what it returns need not be the "
                "mean over ranks; without set_custom_reduce_scatter() the noise can be measured"
            )
        if group._all_reduce_hook is not None:
            return "set_all_reduce_hook() changes gradients after their reduction; without it the noise can be measured"
    return ""
