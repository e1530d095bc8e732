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

__all__ = ["Update"]


class Update:
    """The optimizer of one model, with all that a step of the task does beside it.

    Args:
        workload: the task on its device.
        model: that is trained; every parameter that needs a gradient is the optimizer's to change.
        lr: learning rate.
        changes: set on every parameter group.

    Attributes:
        optimizer: the task's.
        averaged: copy of the model with the exponential moving average of its weights, where the task has `ema_decay`.
    """

    def __init__(
        self, workload: Workload, model: nn.Module, lr: float, changes: Mapping[str, Any] | None = None
    ) -> None:
        self._workload, self._model = workload, model
        self.optimizer = workload.optimizer(model, lr, changes)
        self._lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
        device = workload.device.torch_device
        self._scaler = torch.amp.GradScaler(device.type) if workload.precision == "float16" else None
        self.averaged: AveragedModel | None = None
        if workload.ema_decay is not None:
            with explained("copying the model for its averaged weights", "leave ema_decay out"):
                self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(workload.ema_decay))

    @property
    def loss_scale(self) -> float:
        """Factor that the gradients have until they are applied, against too small numbers in float16."""
        return 1.0 if self._scaler is None else float(self._scaler.get_scale())

    def set_factor(self, factor: float) -> None:
        """Set every group's learning rate to a multiple of its own."""
        for group, lr in zip(self.optimizer.param_groups, self._lrs, strict=True):
            group["lr"] = lr * factor

    def gradients(
        self, micro_batches: Sequence[Batch], after: Callable[[], object] | None = None, scale: float = 1.0
    ) -> Tensor:
        """Add the gradient of a step's loss to that of the parameters.

        Args:
            micro_batches: of the step.
            after: called after each micro-batch, when its share of the gradient has been added.
            scale: factor on the loss.

        Returns:
            The loss of the step without its gradient, a scalar on the device.

        Raises:
            TaskError: the loss failed, or a weight is not a positive number.
        """
        shares = self._shares(micro_batches)
        total: Tensor | None = None
        for batch, share in zip(micro_batches, shares, strict=True):
            loss = self._workload.loss(self._model, batch)
            loss = loss * share if share is not None else loss if len(micro_batches) == 1 else loss / len(micro_batches)
            loss = loss if scale == 1.0 else scale * loss
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()
            total = loss.detach() if total is None else total + loss.detach()
            if after is not None:
                after()
        assert total is not None
        return total

    def apply(self) -> None:
        """Change the weights by the gradient: the task's `before_update`, the optimizer's step, the averaged weights.

        Raises:
            TaskError: `before_update` failed, or took the gradients away.
        """
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        if self._workload.before_update is not None:
            self._before_update(self._workload.before_update)
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self._model)

    def clear(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """All that changes in the course of a training beside the model's own weights and buffers."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned. Errors as for torch's `load_state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        for held, own in ((state.get("scaler"), self._scaler), (state.get("averaged"), self.averaged)):
            if held is not None and own is not None:
                own.load_state_dict(held)

    def _shares(self, micro_batches: Sequence[Batch]) -> list[float | None]:
        """Share of each micro-batch in the loss of the step; `None`: an equal one."""
        if len(micro_batches) == 1 or self._workload.loss_weight is None:
            return [None] * len(micro_batches)
        weights = [self._workload.weight(batch) for batch in micro_batches]
        whole = math.fsum(weights)
        return [weight / whole for weight in weights]

    def _before_update(self, call: Callable[[nn.Module], object]) -> None:
        had = any(p.grad is not None for p in self._model.parameters())
        with explained("before_update(model)"):
            call(self._model)
        if had and not any(p.grad is not None for p in self._model.parameters()):
            raise TaskError(
                "before_update(model) left no gradients, so the optimizer would change nothing; it may clip or scale "
                "p.grad, and must not call zero_grad()"
            )
