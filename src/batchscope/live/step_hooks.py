"""Hooks before and after an optimizer's step, which may be taken off at any time, from inside a step too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

__all__ = ["StepHooks"]

Closure = Callable[[], Any]


class StepHooks:
    """Hook after an optimizer's step, and one before it where closures are watched.

    A step iterates over its hooks, so that one that removes itself meanwhile would end the training with an error where
    another follows it. Taken off inside a step, the hook stays in the optimizer's list as an object that holds nothing.
    A compiled step leaves its graph for both.

    Args:
        optimizer: whose steps are watched.
        before: called with the step's closure, if it has one; what it returns takes the closure's place.
        after: called after the step.
    """

    def __init__(
        self, optimizer: Optimizer, *, before: Callable[[Closure], Closure], after: Callable[[], None]
    ) -> None:
        self._optimizer: Optimizer | None = optimizer
        self._before: Callable[[Closure], Closure] | None = before
        self._after: Callable[[], None] | None = after
        self._inside = False
        uncompiled: Any = torch.compiler.disable
        self._end_handle: RemovableHandle | None = optimizer.register_step_post_hook(uncompiled(self._on_end))
        self._begin_handle: RemovableHandle | None = None

    def watch_closures(self, wanted: bool) -> None:
        """Put on or take off the hook before the step; not to be called from within it."""
        if not wanted and self._begin_handle is not None:
            self._begin_handle.remove()
            self._begin_handle = None
        elif wanted and self._begin_handle is None and self._optimizer is not None:
            uncompiled: Any = torch.compiler.disable
            self._begin_handle = self._optimizer.register_step_pre_hook(uncompiled(self._on_begin))

    def remove(self) -> None:
        """Call nothing any more."""
        self.watch_closures(False)
        self._optimizer = self._before = self._after = None
        if not self._inside and self._end_handle is not None:
            self._end_handle.remove()
            self._end_handle = None

    def _on_begin(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        positional = len(args) > 1  # the optimizer itself comes first
        closure = args[1] if positional else kwargs.get("closure")
        if self._before is None or not callable(closure):
            return None
        replaced = self._before(closure)
        return ((args[0], replaced, *args[2:]), kwargs) if positional else (args, {**kwargs, "closure": replaced})

    def _on_end(self, *_: Any) -> None:
        if self._after is None:
            return
        self._inside = True
        try:
            self._after()
        finally:
            self._inside = False
