"""Backward passes of a window: which gradients each brought, and when it was over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .engine import backward_pass, when_it_ends
from .guard import Guard

__all__ = ["Passes"]


class Passes:
    """Hooks that tell where backward passes begin and end, and what each adds to every parameter's gradient.

    A tensor hook on a parameter fires once a backward pass, with the sum of what the pass brings to it however often
    the parameter is used, before it is added to `.grad` and before a reduction over devices; also inside `no_sync()`.
    The end of a pass is a callback that its first hook queues in the autograd engine: then every `.grad` is there.

    Args:
        parameters: that are watched.
        on_begin: called before the first gradient of a pass is added.
        on_gradient: called with a parameter's index and its gradient (it must not keep the tensor: autograd could then
            not hand its memory over, and would copy it).
        on_end: called after the pass.
        guard: keeps what these raise.

    Attributes:
        broken: a pass began inside another, or after one that had failed half-way.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        on_begin: Callable[[], None],
        on_gradient: Callable[[int, Tensor], None],
        on_end: Callable[[], None],
        guard: Guard,
    ) -> None:
        self._on_begin, self._on_gradient, self._on_end = on_begin, on_gradient, on_end
        self._guard = guard
        self._open: int | None = None
        self.broken = False
        hooks = [guard.around(partial(self._gradient, i)) for i in range(len(parameters))]
        self._handles: list[RemovableHandle] = [p.register_hook(h) for p, h in zip(parameters, hooks, strict=True)]

    def _gradient(self, index: int, gradient: Tensor) -> None:
        task = backward_pass()
        if self._open != task:
            self.broken |= self._open is not None
            self._open = task
            with torch.no_grad():
                self._on_begin()
            when_it_ends(self._guard.around(self._end))
        with torch.no_grad():
            self._on_gradient(index, gradient)

    def _end(self) -> None:
        self._open = None
        if self._handles:
            with torch.no_grad():
                self._on_end()

    @property
    def fault(self) -> str:
        """Why the passes cannot be told apart; empty where they can."""
        if not self.broken:
            return ""
        return (
            "a backward pass began before the last one had ended (reentrant checkpointing, or a pass that failed); "
            "with torch.utils.checkpoint use use_reentrant=False"
        )

    def remove(self) -> None:
        """Take the hooks off; a pass that is under way is not told of any more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
