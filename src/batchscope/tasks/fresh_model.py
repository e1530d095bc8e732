"""Fresh model of a task: that it is a module, and that its lazy layers have learnt their input size."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..errors import TaskError

__all__ = ["MADE_BEFORE", "checked_module", "give_sizes", "without_sizes"]

_NAMED = 3
MADE_BEFORE = "call the model once in model(), for example `net(torch.zeros(2, ...))` with inputs as loss gives it"
"""What to do about parameters that there are only after a first call."""


def checked_module(model: Any) -> nn.Module:
    """What the task's `model()` returned.

    Raises:
        TaskError: it is no module.
    """
    if isinstance(model, nn.Module):
        return model
    if model is None:
        raise TaskError("model() returned None; end it with `return` and the model")
    if inspect.isclass(model):
        raise TaskError(f"model() returned the class {model.__name__}; return an object of it: {model.__name__}(...)")
    raise TaskError(
        f"model() returned an object of type {type(model).__name__}, which is no torch.nn.Module; return a module: "
        "what has no parameters of its own cannot be trained"
    )


def give_sizes(model: nn.Module, compute_loss: Callable[[], object]) -> None:
    """Let lazy layers (`LazyLinear`) learn their input size by a forward pass; nothing for a model that has none.

    The pass is made in evaluation mode, so that batch normalisation keeps its statistics, and once more in training
    mode where a layer is called there only. The model is left in that mode.

    Args:
        model: fresh.
        compute_loss: the task's loss of it on some examples.

    Raises:
        TaskError: a layer stays as it was; the message names it.

    What the new weights draw comes from the generators as they are. Cost: one forward pass, or two.
    """
    if not without_sizes(model):
        return
    failed: tuple[str, BaseException | None] | None = None
    for training in (False, True):
        model.train(training)
        try:
            with torch.no_grad():
                compute_loss()
        except TaskError as error:
            failed = str(error), error.__cause__
        if not (left := without_sizes(model)):
            return
    if failed is not None:
        said, cause = failed
        raise TaskError(f"{said}; it was the first call, in which lazy layers learn their input size") from cause
    several = len(left) > 1
    raise TaskError(
        f"{len(left)} lazy (uninitialized) parameter tensor{'s' if several else ''} of the model "
        f"({', '.join(left[:_NAMED])}{', ...' if len(left) > _NAMED else ''}) got no size when loss(model, batch) was "
        "computed, which does not call the layer; give the layer its input size (nn.Linear in place of "
        f"nn.LazyLinear), leave it out, or {MADE_BEFORE}"
    )


def without_sizes(model: nn.Module) -> Sequence[str]:
    """Names of the parameters and buffers of lazy layers that have no size yet."""
    return [name for name, t in itertools.chain(model.named_parameters(), model.named_buffers()) if is_lazy(t)]
