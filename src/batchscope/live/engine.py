"""Autograd engine of torch, as far as hooks need it; these parts of it are private, and stand here alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["backward_pass", "when_it_ends"]

_engine: Any = torch.autograd.Variable._execution_engine  # pyright: ignore
_task_id: Any = torch._C._current_graph_task_id  # pyright: ignore


def backward_pass() -> int:
    """Number of the backward pass that runs in this thread; -1 where none does."""
    return _task_id()


def when_it_ends(call: Callable[[], object]) -> None:
    """Have something called when the backward pass that runs is over, after what was asked for before."""
    _engine.queue_callback(call)
