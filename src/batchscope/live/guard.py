"""Hooks inside somebody else's training: what they raise is kept, and never reaches the training or its copies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec

import torch
from torch.utils.hooks import unserializable_hook

from .beside import is_beside

__all__ = ["Guard", "ModuleHook"]

P = ParamSpec("P")


class Guard:
    """Keeper of the first exception that a hook has raised; after it no guarded hook does anything.

    Args:
        own: context in which hooks run; the monitor's measures their time.

    Attributes:
        error: what a hook has raised.

    Example:
        >>> guard = Guard()
        >>> hook = guard.around(lambda gradient: 1 / 0)
        >>> hook(None), hook(None)
        (None, None)
        >>> guard.check()
        Traceback (most recent call last):
        ZeroDivisionError: division by zero
    """

    def __init__(self, own: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.own = own
        self.error: Exception | None = None

    def around(self, hook: Callable[P, object]) -> Callable[P, None]:
        """Hook that returns nothing and raises nothing; a tensor that has it can be saved, without it and silently."""

        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            if self.error is None:
                try:
                    with self.own():
                        hook(*args, **kwargs)
                except Exception as error:
                    self.error = error

        unserializable_hook(guarded)
        return guarded

    def check(self) -> None:
        """Raise what a hook has raised since the last check, if anything."""
        error, self.error = self.error, None
        if error is not None:
            raise error


class ModuleHook:
    """Hook of a module that is nothing in a copy of it, to `torch.compile`, and in a pass beside the training.

    A whole model that is pickled or copied while a window is measured takes its hooks along: there they do nothing. A
    compiled graph is neither broken by it nor has it in.

    Args:
        hook: guarded; `None`: nothing.
    """

    def __init__(self, hook: Callable[..., None] | None = None) -> None:
        self._hook = hook

    def __call__(self, *args: Any) -> None:
        """Call the hook where it is the training that calls it."""
        if self._hook is not None and not torch.compiler.is_compiling() and not is_beside():
            self._hook(*args)

    def __reduce__(self) -> tuple[type[ModuleHook], tuple[()]]:
        return ModuleHook, ()
