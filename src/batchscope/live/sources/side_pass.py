"""Gradients computed beside a training: nothing of it is touched, neither weights and gradients nor random streams.

The loss is computed with leaf tensors that share the weights' memory in the place of the model's parameters, and with
copies of its buffers. So `p.grad`, hooks on parameters, DDP's reduction and running statistics never see the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from ...hardware.random_state import preserved_random_state
from ...tasks.members import loss_in
from ...tasks.protocol import Batch
from ..beside import pass_beside
from ..window import watched_parameters

__all__ = ["SidePass", "SidePassError"]

Loss = Callable[[Any, Batch], Any]

_HALF = (torch.float16, torch.bfloat16)


class SidePassError(RuntimeError):
    """A gradient cannot be computed beside the training; the message is a reason, in a sentence."""


class SidePass:
    """Losses and gradients of batches beside a training.

    Args:
        model: as the training has it; DDP, DataParallel and `torch.compile` are taken off.
        optimizer: whose parameters count.
        loss: `(model, batch) -> mean loss`; a dict or tuple with it is taken too.

    Attributes:
        model: that the loss is given.
        parameters: of it that the optimizer changes and that need a gradient, each once.

    The model's forward is called once more a pass: what it counts in plain attributes (not buffers) moves on. The loss
    is computed outside of the training's autocast unless it is called inside it, or enters one itself.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, loss: Loss) -> None:
        self._outer = model
        self.model = _innermost(model)
        self._call = _Call(self.model, loss)
        self.parameters = watched_parameters(self.model, optimizer)

    @property
    def refusal(self) -> str:
        """Why there can be no such pass with this model; empty where there can."""
        if not self.parameters:
            return "the optimizer changes no parameter of the model that needs a gradient"
        if any(hasattr(p, "full_tensor") for p in self.parameters.values()) or _is_flat_sharded(self._outer):
            return "the model's parameters are sharded over devices, so a part of the batch cannot be computed beside"
        return ""

    def gradients(self, batch: Batch, *, seed: int, scale: float = 1.0) -> list[Tensor | None]:
        """Gradient of a batch's mean loss, a tensor a parameter, in the order of `parameters`.

        Args:
            batch: on the model's device.
            seed: of what the loss draws.
            scale: factor on the loss while its gradient is computed, against too small numbers in float16.

        Raises:
            SidePassError: the model hides parameters from autograd (reentrant checkpoints).
            RuntimeError: the loss is no scalar, or depends on no parameter. Whatever the loss raises is handed on.

        Cost: a forward and a backward pass over the batch, a copy of the buffers and one of the gradients.
        """
        leaves = {name: p.detach().requires_grad_() for name, p in self.parameters.items()}
        with self._beside(seed), torch.enable_grad():
            self._call.wanted, self._call.scale = list(leaves.values()), scale
            try:
                found: tuple[Tensor | None, ...] = self._functional(leaves, batch)
            finally:
                self._call.wanted = None
        return [None if g is None else g.detach().to_dense() / scale for g in found]

    def loss(self, batch: Batch, *, seed: int) -> tuple[float, bool]:
        """Loss of a batch, and whether any of it was computed in 16 bits. Cost: a forward pass."""
        with self._beside(seed), torch.no_grad(), _HalfSeen() as seen:
            value = float(self._functional({}, batch))
        return value, seen.half

    def _functional(self, leaves: dict[str, Tensor], batch: Batch) -> Any:
        state = {f"model.{name}": tensor for name, tensor in leaves.items()}
        state |= {f"model.{name}": buffer.clone() for name, buffer in self.model.named_buffers()}
        return functional_call(self._call, state, (batch,))

    @contextmanager
    def _beside(self, seed: int) -> Generator[None]:
        with ExitStack() as stack:
            stack.enter_context(pass_beside())
            stack.enter_context(preserved_random_state(seed))
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(_uncached_autocast(next(iter(self.parameters.values())).device.type))
            if isinstance(self._outer, nn.parallel.DistributedDataParallel):
                stack.enter_context(self._outer.no_sync())  # a loss that calls the wrapped model reduces nothing
            yield


class _Call(nn.Module):
    """The loss as a module of the model, so that `functional_call` can put other tensors in its place.

    The gradient is computed inside: what checkpoints compute again then sees the same tensors.
    """

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = (loss,)  # a loss that is a module is none of this one's
        self.wanted: list[Tensor] | None = None
        self.scale = 1.0

    def forward(self, batch: Batch) -> Any:
        loss = loss_in(self._loss[0](self.model, batch))
        if self.wanted is None:
            return loss
        if any("CheckpointFunction" in node.name() for node in _nodes(loss)):
            raise SidePassError(
                "the model has reentrant checkpoints, which hide the gradients of their parameters from "
                "torch.autograd.grad; give torch.utils.checkpoint use_reentrant=False"
            )
        return torch.autograd.grad(loss * self.scale, self.wanted, allow_unused=True)


def _nodes(loss: Tensor) -> Iterator[Any]:
    """Every operation that a loss was made by, once."""
    open_, seen = [loss.grad_fn], set[Any]()
    while open_:
        node = open_.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            open_ += [before for before, _ in node.next_functions]


class _HalfSeen(TorchDispatchMode):
    """Whether an operation returned numbers of 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.half = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.half = self.half or (isinstance(made, Tensor) and made.dtype in _HALF)
        return made


def _innermost(model: nn.Module) -> nn.Module:
    """The user's own module in the wrappers of data parallelism and of `torch.compile`."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _is_flat_sharded(model: nn.Module) -> bool:
    return any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules())


def _uncached_autocast(device_type: str) -> Any:
    """The autocast of now, without its cache: a weight that the training's next forward pass finds there is its own."""
    if not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type, torch.get_autocast_dtype(device_type), cache_enabled=False)
