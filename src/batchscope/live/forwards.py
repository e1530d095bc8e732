"""Forward passes of a window: whether each backward pass has one of its own."""

from __future__ import annotations

import statistics

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from .guard import Guard, ModuleHook

__all__ = ["Forwards"]


class Forwards:
    """Count of the calls of each module that has parameters of its own, with gradients enabled.

    Two losses of the same examples that go backward one after the other look like two micro-batches, but for this: no
    forward pass lies between them, and the modules were called once. Modules that are compiled, or whose `forward` is
    called directly, are not counted; then nothing is said.

    Args:
        model: whose modules are watched.
        guard: keeps what a hook raises.
    """

    def __init__(self, model: nn.Module, guard: Guard) -> None:
        self._calls: dict[int, int] = {}
        self._since_backward = 0
        self.paused = False
        modules = [m for m in model.modules() if any(True for _ in m.parameters(recurse=False))]
        hook = ModuleHook(guard.around(self._called))
        self._handles: list[RemovableHandle] = [module.register_forward_pre_hook(hook) for module in modules]

    def _called(self, module: nn.Module, _: object) -> None:
        if torch.is_grad_enabled() and not self.paused:
            self._calls[id(module)] = self._calls.get(id(module), 0) + 1
            self._since_backward += 1

    def missing(self, passes: int) -> bool:
        """Whether the backward pass that begins, the `passes`-th of the window, has no forward pass of its own."""
        since, self._since_backward = self._since_backward, 0
        return bool(self._calls) and not since and statistics.median(self._calls.values()) < passes

    def restart(self) -> None:
        """Forget the calls before a window that begins anew, but for those of the pass that is about to go back."""
        self._calls = dict.fromkeys(self._calls, 1) if self._since_backward else {}

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
