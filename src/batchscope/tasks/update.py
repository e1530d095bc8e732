"""Update of a model by its optimizer, as the task makes it: weighted micro-batches, scaler, clipping, averaged weights.

A step of micro-batches with losses `L_i` (each the mean over `w_i` terms) has the gradient

```
g = sum_i (w_i / W) grad L_i,   W = sum_i w_i
```

so that accumulated micro-batches give the gradient of the mean over all terms of the batch, however these are spread
over them. `w_i` is the task's `loss_weight(batch)`; without it micro-batches, which have equally many examples, count
the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import TaskError
from .protocol import Batch
from .user_code import explained

if TYPE_CHECKING:
    from .workload import Workload

__all__ = ["Update", "call_before_update", "groups_that_follow", "is_finite", "without_underflow"]

_LARGEST_SCALE, _SMALLER = 2.0**16, 16.0
_SETTLES_BY = 4.0


class Update:
    """The optimizer of one model, with all that a step of the task does beside it.

    Args:
        workload: the task on its device.
        model: that is trained; every parameter that needs a gradient is the optimizer's to change.
        lr: learning rate.
        changes: set on every parameter group.

    Attributes:
        optimizer: the task's.
        averaged: copy of the model with the exponential moving average of its weights, where the task has `ema_decay`:
            the weights themselves after the first step, `decay * average + (1 - decay) * weights` after each other one;
            buffers are the model's own.
    """

    def __init__(
        self, workload: Workload, model: nn.Module, lr: float, changes: Mapping[str, Any] | None = None
    ) -> None:
        self._workload, self._model = workload, model
        self.optimizer = workload.optimizer(model, lr, changes)
        self._lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
        device = workload.device.torch_device
        self._scaler = torch.amp.GradScaler(device.type) if workload.precision == "float16" else None
        self._settled = False
        self._average: AveragedModel | None = None
        if workload.ema_decay is not None:
            with explained("copying the model for its averaged weights", "leave ema_decay out"):
                self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(workload.ema_decay))

    @property
    def averaged(self) -> nn.Module | None:
        """The copy of the model with the averaged weights; a model of the task's own class, for its `evaluate`."""
        return None if self._average is None else self._average.module

    @property
    def loss_scale(self) -> float:
        """Factor that the gradients have until they are applied, against too small numbers in float16."""
        return 1.0 if self._scaler is None else float(self._scaler.get_scale())

    def set_factor(self, factor: float, *, only: Sequence[bool] | None = None) -> None:
        """Set every group's learning rate to a multiple of its own, as torch's `LambdaLR` does.

        Args:
            factor: on the learning rate with which the task made the optimizer.
            only: which groups; `None`: all, also those whose learning rate does not follow the one that is asked for.
        """
        for i, (group, lr) in enumerate(zip(self.optimizer.param_groups, self._lrs, strict=True)):
            if only is None or only[i]:
                group["lr"] = lr * factor

    def gradients(
        self, micro_batches: Sequence[Batch], after: Callable[[float, float], object] | None = None
    ) -> Tensor:
        """Add the gradient of a step's loss to that of the parameters.

        Args:
            micro_batches: of the step.
            after: called after each micro-batch, when its share of the gradient has been added, with this share (of 1)
                and the factor that all shares have beside it (`loss_scale`).

        Returns:
            The loss of the step without its gradient, a scalar on the device.

        Raises:
            TaskError: the loss failed, or a weight is not a positive number.
        """
        if self._scaler is not None and not self._settled:
            self._settle(micro_batches)
        return self._backward(micro_batches, after)

    def _backward(
        self, micro_batches: Sequence[Batch], after: Callable[[float, float], object] | None = None
    ) -> Tensor:
        shares = self._shares(micro_batches)
        loss_scale = 1.0 if after is None else self.loss_scale
        total: Tensor | None = None
        for batch, share in zip(micro_batches, shares, strict=True):
            loss = self._workload.loss(self._model, batch)
            if share is not None:
                loss = loss * share
            elif len(micro_batches) > 1:
                loss = loss / len(micro_batches)
            with explained("the backward pass of loss(model, batch)"):
                (loss if self._scaler is None else self._scaler.scale(loss)).backward()
            total = loss.detach() if total is None else total + loss.detach()
            if after is not None:
                after(1.0 / len(micro_batches) if share is None else share, loss_scale)
        assert total is not None
        return total

    def _settle(self, micro_batches: Sequence[Batch]) -> None:
        """Lower the loss scale of float16 until the first step is one that the scaler makes.

        A loop of the user's leaves some first steps out instead, which would count here: a range test, or a bench of
        time and memory, is over after so few.
        """
        assert self._scaler is not None
        self._settled = True
        while True:
            self._backward(micro_batches)
            finite = _are_finite([p.grad for p in self._model.parameters()])
            self._model.zero_grad(set_to_none=True)
            if finite or self.loss_scale <= 1.0:
                return
            self._scaler.update(self.loss_scale / _SETTLES_BY)

    def apply(self, *, scaled: bool = True) -> None:
        """Change the weights by the gradient: the task's `before_update`, the optimizer's step, the averaged weights.

        Args:
            scaled: whether the gradients are those of `gradients`, with the factor `loss_scale`; `False`: they were set
                by the caller, without it.

        Raises:
            TaskError: `before_update` failed, or took the gradients away; the optimizer's step failed.
        """
        scaler = self._scaler if scaled else None
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        if self._workload.before_update is not None:
            call_before_update(self._workload.before_update, self._model)
        before = self.loss_scale
        with explained("optimizer.step()", "it is called without a closure"):
            if scaler is None:
                self.optimizer.step()
            else:
                scaler.step(self.optimizer)
                scaler.update()
        skipped = scaler is not None and self.loss_scale < before  # gradients that are not finite change nothing
        if self._average is not None and not skipped:
            self._average.update_parameters(self._model)

    def clear(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """All that changes in the course of a training beside the model's own weights and buffers."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "averaged": None if self._average is None else self._average.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned. Errors as for torch's `load_state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._settled = state.get("scaler") is not None
        for held, own in ((state.get("scaler"), self._scaler), (state.get("averaged"), self._average)):
            if held is not None and own is not None:
                own.load_state_dict(held)

    def _shares(self, micro_batches: Sequence[Batch]) -> list[float | None]:
        """Share of each micro-batch in the loss of the step; `None`: an equal one."""
        if len(micro_batches) == 1 or self._workload.loss_weight is None:
            return [None] * len(micro_batches)
        weights = [self._workload.weight(batch) for batch in micro_batches]
        whole = math.fsum(weights)
        return [weight / whole for weight in weights]


def call_before_update(call: Callable[[nn.Module], object], model: nn.Module) -> None:
    """Let the task's `before_update` look at the gradients, and change them.

    Raises:
        TaskError: it failed, or took the gradients away.
    """
    had = any(p.grad is not None for p in model.parameters())
    with explained(
        "before_update(model)", "for example torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) stands in it"
    ):
        call(model)
    if had and not any(p.grad is not None for p in model.parameters()):
        raise TaskError(
            "before_update(model) left no gradients, so the optimizer would change nothing; it may clip or scale "
            "p.grad, and must not call zero_grad()"
        )


def without_underflow(precision: str, compute: Callable[[float], Sequence[Tensor | None]]) -> list[Tensor | None]:
    """Gradients of one loss, computed without a `GradScaler`, and right in float16 all the same.

    Args:
        precision: of the loss.
        compute: the gradients of the loss times a factor; called with the factor 1 alone, but in float16 with 65536
            and, as long as a gradient is not finite, with a sixteenth of the factor before.

    Returns:
        The gradients, divided by the factor; `None` stays `None`.
    """
    if precision != "float16":
        return list(compute(1.0))
    scale = _LARGEST_SCALE
    while True:
        found = compute(scale)
        if scale <= 1.0 or _are_finite(found):
            return [None if g is None else g / scale for g in found]
        scale /= _SMALLER


def _are_finite(gradients: Sequence[Tensor | None]) -> bool:
    return all(g is None or is_finite(g) for g in gradients)


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor, which may be sparse, are finite."""
    return bool(tensor.detach().to_dense().isfinite().all())


def groups_that_follow(lrs: Sequence[float], halved: Sequence[float]) -> list[bool]:
    """Which parameter groups follow the learning rate: those that have another one in an optimizer made for half of it.

    >>> groups_that_follow([1e-3, 5e-4, 0.1], [5e-4, 2.5e-4, 0.1])
    [True, True, False]
    """
    return [not math.isclose(full, half, rel_tol=1e-6) for full, half in zip(lrs, halved, strict=True)]
