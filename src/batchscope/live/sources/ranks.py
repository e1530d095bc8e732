"""Noise from data-parallel ranks: their local gradients before the reduction, and the mean gradient after it."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ...store.records import Row
from ..engine import when_it_ends
from ..guard import Guard
from ..norms import by_layer, square_norms
from ..window import Window
from .exchange import SLOTS
from .micro_batches import MicroBatchSource
from .rank_rows import SHARES, row_of, shares_of
from .rank_sums import RankSums, Sums

__all__ = ["RankSource"]


class RankSource(MicroBatchSource):
    """Squared norms of what each backward pass of each rank adds to the step's gradient, and of their sum.

    A group is one micro-batch of one rank. The hooks of `MicroBatchSource` see a rank's gradient `g_rj` before the
    reduction, also in `no_sync()`; DistributedDataParallel (DDP) makes `g = Σ c_rj` of them, `c_rj = g_rj ÷ ranks`.
    It puts the reduced gradient into `.grad` in a callback of the autograd engine at the end of a backward pass, and a
    callback that is queued from a callback comes after it: there `|g|²` is read, before clipping. It must be the same
    on all ranks, which shows a step whose gradients were not reduced. `Σ |c_rj|²` is added up over ranks by `RankSums`,
    without a collective, so that a row comes two measured windows after its step.

    DDP gives ranks equal shares however many examples they have. Where `micro_batch(weight=...)` tells weights, the
    shares are in proportion to them over all ranks: weights are the terms (tokens) where the loss is divided by those
    of the whole step on all ranks; where each rank divides by its own, a weight is a micro-batch's part of those.

    The communication hook of the user is left alone. With one that returns the mean over ranks up to rounding
    (`allreduce_hook`, `fp16_compress_hook`, `bf16_compress_hook`) a row is right up to that rounding; with any other
    (PowerSGD) nothing is measured.

    Args:
        guard: as for `MicroBatchSource`; what a hook raises is kept apart, so that all ranks end in the same window.
        layers: as for `MicroBatchSource`.

    Cost: as `MicroBatchSource`, and under a millisecond for the exchange.

    Valid when: as `MicroBatchSource`, and the examples of different ranks are independent.
    """

    name = "data-parallel ranks"
    fewest = 1
    late = SLOTS
    """Measured windows by which a row is late."""

    def __init__(self, *, guard: Guard, layers: bool = False) -> None:
        super().__init__(guard=Guard(guard.own), layers=layers)
        self._model: nn.Module | None = None
        self._wrappers: list[weakref.ref[DistributedDataParallel]] | None = None
        self._sums: RankSums | None = None

    def attach(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Put a hook on each parameter that the optimizer changes."""
        super().attach(model, optimizer)
        self._model = model

    def detach(self) -> None:
        """Remove the hooks and forget all tensors."""
        super().detach()
        self._model = None

    def may_measure(self, step: int, interval: Callable[[], int]) -> bool:
        """Whether all ranks measure the window that begins now; see `RankSums.may_measure`."""
        return self._sums is None or self._sums.may_measure(step, interval)

    def take(self, window: Window) -> Row | None:
        """Row of the measured window before the last, the same on all ranks, or `None` and `reason`."""
        wrappers = self._ddp()
        self.reason = _reason_against(wrappers)
        if self.reason or self._model is None:
            return None
        if self._sums is None:
            group: Any = wrappers[0].process_group if wrappers else dist.group.WORLD
            self._sums = RankSums(group, self._model)
        sums = self._exchange(window, self._sums)
        self.reason = self._sums.reason
        return None if sums is None else self._row(sums, self._sums.size)

    def _ddp(self) -> list[DistributedDataParallel]:
        """The DDP modules around the parameters; looked for once, after the first window."""
        if self._wrappers is None and self._model is not None:
            self._wrappers = [weakref.ref(wrapper) for wrapper in _wrappers(self._model, self._parameters)]
        return [wrapper for found in self._wrappers or () if (wrapper := found()) is not None]

    def _exchange(self, window: Window, ranks: RankSums) -> Sums | None:
        """Hand over this rank's numbers, or why there are none; raise its own error once all ranks know of it."""
        values: list[float] = []
        mean, failure = 0.0, self._guard.error
        skipped = self._broken() or self._fault or self._unusable(window)
        if not (failure or skipped):
            try:
                values, mean = self._local(window)
            except Exception as error:  # all ranks must know before this one stops
                failure = error
        said = f"{type(failure).__name__}: {failure}" if failure else ""
        sums = ranks.end_window(window, values, same=mean, skipped=skipped, failure=said)
        if ranks.ended and failure:
            raise failure
        return sums

    def _local(self, window: Window) -> tuple[list[float], float]:
        """What this rank adds to the sums, and the squared norm of the step's gradient.

        It adds those of `shares_of`, and `Σ |g_j|²` and `|g|²` of each layer.
        """
        *groups, whole = square_norms([*self._added, self._sum], range(len(self._names)), window.loss_scale)
        values = shares_of(len(groups), weights=window.weights, sizes=window.examples)
        layers = by_layer(self._names, [math.fsum(column) for column in zip(*groups, strict=True)])
        means = by_layer(self._names, whole)
        for layer, total in layers.items():
            values += [total, means[layer]]
        return values, math.fsum(whole)

    def _row(self, sums: Sums, ranks: int) -> Row | None:
        names = list(by_layer(self._names, [0.0] * len(self._names)))
        values = sums.values[SHARES:]
        if len(values) != 2 * len(names):
            self.reason = "other layers are trained now than two measured windows ago"
            return None
        totals = [total / ranks**2 for total in values[::2]]
        means = [mean / ranks for mean in values[1::2]]
        layers = dict(zip(names, zip(totals, means, strict=True), strict=True)) if self._layers else None
        row = row_of(sums, ranks, squares=math.fsum(totals), square_of_mean=sums.same, layers=layers)
        self.reason = row if isinstance(row, str) else ""
        return None if isinstance(row, str) else row

    def _end(self) -> None:
        """At the end of a backward pass, before DDP has put the reduced gradients into place."""
        when_it_ends(self._guard.around(self._reduced))

    @torch.no_grad()
    def _reduced(self) -> None:
        """At the end of a backward pass, after the reduction."""
        if self._passes is not None:
            super()._end()


def _wrappers(model: nn.Module, parameters: Sequence[nn.Parameter]) -> list[DistributedDataParallel]:
    """The DDP modules that hold the parameters: in the model, or around it, where the monitor was given what is inside.

    Cost: where there is none in the model, a look at all objects that Python knows: 10 to 200 ms, once.
    """
    inside = [module for module in model.modules() if isinstance(module, DistributedDataParallel)]
    if inside:
        return inside
    own = {id(parameter) for parameter in parameters}
    found: list[DistributedDataParallel] = [x for x in gc.get_objects() if issubclass(type(x), DistributedDataParallel)]
    return [wrapper for wrapper in found if any(id(p) in own for p in wrapper.parameters())]


def _reason_against(wrappers: Sequence[DistributedDataParallel]) -> str:
    """Why nothing can be measured under these; the same on all ranks."""
    if len({id(wrapper.process_group) for wrapper in wrappers}) > 1:
        return "parts of the model are averaged over different process groups; give the monitor one part"
    for wrapper in wrappers:
        if wrapper._join_config.enable:  # pyright: ignore
            return (
                "inside join() ranks may stop early and the others take further steps without them; give all ranks "
                "equally many batches (DistributedSampler does) and leave out join()"
            )
        hook = _other_hook(wrapper)
        if hook:
            return (
                f"the communication hook {hook} reduces the gradients, and what it returns need not be their mean over "
                "ranks; without it, or with fp16_compress_hook or bf16_compress_hook, the noise can be measured"
            )
    return ""


def _other_hook(wrapper: DistributedDataParallel) -> str:
    """Name of a communication hook that is not known to return the mean over ranks, up to rounding."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    known = (default_hooks.allreduce_hook, default_hooks.fp16_compress_hook, default_hooks.bf16_compress_hook)
    hooks: Sequence[Any] = [hook for hook, _ in wrapper._comm_hooks]  # pyright: ignore
    name: str = wrapper._get_ddp_logging_data().get("comm_hook") or ""  # pyright: ignore
    if hooks:
        return "" if all(hook in known for hook in hooks) else name
    built_in = ("BuiltinCommHookType.ALLREDUCE", "BuiltinCommHookType.FP16_COMPRESS")
    return "" if name in built_in else name
