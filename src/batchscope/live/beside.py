"""Passes that a source makes beside the training, so that hooks on its modules can leave them out."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["is_beside", "pass_beside"]

_BESIDE: ContextVar[bool] = ContextVar("beside", default=False)


def is_beside() -> bool:
    """Whether a forward pass of now is one beside the training."""
    return _BESIDE.get()


@contextmanager
def pass_beside() -> Generator[None]:
    """Forward passes inside are none of the training."""
    token = _BESIDE.set(True)
    try:
        yield
    finally:
        _BESIDE.reset(token)
