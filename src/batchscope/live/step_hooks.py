"""Hooks before and after an optimizer's step, which may be taken off at any time, from inside a step too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

__all__ = ["StepHooks"]

Closure = Callable[[], Any]


class StepHooks:
    """Two hooks of an optimizer's step.

    A step iterates over its hooks, so that one that removes itself meanwhile would end the training with an error where
    another follows it. Taken off inside a step, the hooks stay in the optimizer's list as objects that hold nothing.

    Args:
        optimizer: whose steps are watched.
        before: called with the step's closure, if it has one; what it returns takes the closure's place.
        after: called after the step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        before: Callable[[Closure | None], Closure | None],
        after: Callable[[], None],
    ) -> None:
        self._before: Callable[[Closure | None], Closure | None] | None = before
        self._after: Callable[[], None] | None = after
        self._inside = False
        self._handles: list[RemovableHandle] = [
            optimizer.register_step_pre_hook(self._on_begin),
            optimizer.register_step_post_hook(self._on_end),
        ]

    def remove(self) -> None:
        """Call nothing any more."""
        self._before = self._after = None
        if not self._inside:
            for handle in self._handles:
                handle.remove()
            self._handles = []

    def _on_begin(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._before is None:
            return None
        positional = len(args) > 1  # the optimizer itself comes first
        closure = args[1] if positional else kwargs.get("closure")
        if not callable(closure) or (replaced := self._before(closure)) is closure:
            return None
        return ((args[0], replaced, *args[2:]), kwargs) if positional else (args, {**kwargs, "closure": replaced})

    def _on_end(self, *_: Any) -> None:
        if self._after is None:
            return
        self._inside = True
        try:
            self._after()
        finally:
            self._inside = False
