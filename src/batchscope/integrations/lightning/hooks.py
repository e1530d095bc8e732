"""Hooks of a module: which ones the runs call, which ones they leave out and say so, and which ones cannot be had.

Before the first step come `on_fit_start` and `on_train_start`. A step of a run is: `on_train_batch_start`,
`training_step` and `on_before_backward` for each micro-batch; then `on_after_backward`, `on_before_optimizer_step` and
`configure_gradient_clipping`; after the optimizer's step
`on_train_batch_end` and `on_before_zero_grad`. `on_train_epoch_end` and `on_train_epoch_start` are called between two
steps when as many examples were seen as there are in an epoch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD

from ...errors import TaskError
from ...wording import joined
from .library import Library, number_taken, overridden
from .run_trainer import RunTrainer

__all__ = [
    "after_step",
    "before_step",
    "begin_batch",
    "begin_training",
    "call",
    "checked_module",
    "left_out",
    "moved",
    "needs_update_hook",
    "scalar_of",
    "trainer_of",
]

_WORK = ("training_step", "validation_step", "configure_optimizers", "configure_gradient_clipping")
"""What is called whoever defines it."""
_IN_UPDATE = ("on_after_backward", "on_before_optimizer_step", "configure_gradient_clipping")
_ONCE_A_STEP = ("on_after_backward", "on_train_batch_end")
_LEFT_OUT = (
    "on_train_end",
    "on_fit_end",
    "teardown",
    "on_save_checkpoint",
    "on_load_checkpoint",
    "lr_scheduler_step",
    "optimizer_zero_grad",
    "configure_callbacks",
)
_REFUSED: Mapping[str, str] = {
    "optimizer_step": (
        "makes the optimizer's step itself, and the step is batchscope's, because it varies batch size and learning "
        "rate; say a warm-up with a scheduler, or with --warmup, and clipping with configure_gradient_clipping()"
    ),
    "backward": (
        "makes the backward pass itself, and the pass is batchscope's, which cuts a batch into micro-batches; return "
        "the loss from training_step()"
    ),
}


def checked_module(made: Any, library: Library | None) -> Library:
    """Refuse a module whose training is not one loss and one step.

    Args:
        made: what the factory returned.
        library: that it comes from.

    Returns:
        The library.

    Raises:
        TaskError: there is a reason why it cannot be trained here.
    """
    name = type(made).__name__
    if library is None:
        raise TaskError(
            f"the module factory returned an object of type {name}, which is no LightningModule; return one (of "
            "lightning or pytorch_lightning), or write a task of it (`batchscope init FILE.py`)"
        )
    if not made.automatic_optimization:
        raise TaskError(
            f"{name} has automatic_optimization=False: it makes its own backward passes and steps, and find, which "
            "varies batch size, micro-batches and learning rate, makes them itself; return one loss from "
            "training_step(), or write a task of it (docs/tasks.md)"
        )
    if not overridden(made, "training_step"):
        raise TaskError(f"{name} has no training_step(batch, batch_idx), which returns the loss; add it")
    for step in ("training_step", "validation_step"):
        if "dataloader_iter" in inspect.signature(getattr(made, step)).parameters:
            raise TaskError(
                f"{step}(dataloader_iter) of {name} takes its batches from the loader itself, and find cuts batches of "
                f"any size: define {step}(batch, batch_idx)"
            )
    if not overridden(made, "configure_optimizers"):
        raise TaskError(f"{name} has no configure_optimizers(), which returns the optimizer; add it")
    for hook, why in _REFUSED.items():
        if overridden(made, hook):
            raise TaskError(f"{hook}() of {name} {why}")
    return library


def left_out(module: Any) -> list[str]:
    """What to say of the module's hooks that no run calls."""
    names = [f"{hook}()" for hook in _LEFT_OUT if overridden(module, hook)]
    notes = [f"not called in the runs: {joined(names)} of {type(module).__name__}"] if names else []
    if each := [f"{hook}()" for hook in _ONCE_A_STEP if overridden(module, hook)]:
        notes.append(f"{joined(each)} of {type(module).__name__} come once a step, not once for each micro-batch")
    return notes


def needs_update_hook(module: Any) -> bool:
    """Whether a module has something to do between the gradients and the step."""
    return any(overridden(module, hook) for hook in _IN_UPDATE)


def trainer_of(model: Any) -> RunTrainer:
    """The trainer of a model in a run."""
    return model._trainer


def call(model: Any, hook: str, *arguments: Any) -> Any:
    """Call a hook of a module as Lightning does: it may log, and need not take all arguments.

    Hooks that the module does not define are left out, as they do nothing.
    """
    taken = trainer_of(model).taken
    if hook not in taken:
        known = hook in _WORK or overridden(model, hook)
        taken[hook] = number_taken(getattr(model, hook), len(arguments)) if known else None
    number = taken[hook]
    if number is None:
        return None
    before, model._current_fx_name = model._current_fx_name, hook
    try:
        return getattr(model, hook)(*arguments[:number])
    finally:
        model._current_fx_name = before


def moved(model: Any, batch: Any, dataloader_idx: int = 0) -> Any:
    """A batch after the transfer hooks of the data module, or of the module."""
    trainer = trainer_of(model)
    data = trainer.datamodule
    for hook in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
        owner = data if overridden(data, hook) else model if overridden(model, hook) else None
        if owner is None:
            continue
        middle = (trainer.device_of(model),) if hook == "transfer_batch_to_device" else ()
        if owner is data and getattr(data, "trainer", None) is not trainer:
            data.trainer = trainer
        batch = getattr(owner, hook)(batch, *middle, dataloader_idx)
    return batch


def scalar_of(returned: Any) -> Tensor:
    """The loss in what `training_step` returned.

    Raises:
        TaskError: there is none.
    """
    if isinstance(returned, Tensor):
        return returned
    if isinstance(returned, Mapping) and "loss" in returned:
        return returned["loss"]
    if returned is None:
        raise TaskError(
            "training_step() returned None, which skips a batch in Lightning; each step of a run has its batch: return "
            "the loss"
        )
    raise TaskError(f"training_step() returned {type(returned).__name__}; return the loss, or a dict with it as 'loss'")


def begin_batch(model: nn.Module, batch: Any) -> int:
    """Call what comes before a training step; returns the number of the batch in its epoch.

    Raises:
        TaskError: `on_train_batch_start` wants to leave out what is left of the epoch.
    """
    trainer = trainer_of(model)
    epoch = trainer.current_epoch
    if epoch != trainer.begun:
        if trainer.begun >= 0:
            call(model, "on_train_epoch_end")
        trainer.reset_logged()
        trainer.begun, trainer.batch_idx = epoch, 0
        call(model, "on_train_epoch_start")
    number = trainer.batch_idx
    trainer.batch_idx += 1
    if call(model, "on_train_batch_start", batch, number) == -1:
        raise TaskError(
            "on_train_batch_start() returned -1, which leaves out the rest of an epoch; the runs of a search have no "
            "epochs to leave: return nothing"
        )
    return number


def begin_training(model: nn.Module) -> None:
    """Call what comes once, when there is an optimizer."""
    trainer = trainer_of(model)
    if not trainer.started:
        trainer.started = True
        call(model, "on_fit_start")
        call(model, "on_train_start")


def after_step(model: nn.Module) -> None:
    """Call what comes after the optimizer's step, and count it."""
    trainer = trainer_of(model)
    trainer.stepped()
    if trainer.last is not None:
        returned, batch, number = trainer.last
        trainer.last = None
        call(model, "on_train_batch_end", returned, batch, number)
    for optimizer in trainer.optimizers:
        call(model, "on_before_zero_grad", optimizer)


def before_step(model: nn.Module) -> None:
    """Call what comes between the gradients and the optimizer's step: the module's hooks, and its clipping."""
    trainer = trainer_of(model)
    made = trainer.optimizers or [SGD(model.parameters(), lr=0.0)]  # gradients are looked at before there is one
    optimizer = made[0]
    call(model, "on_after_backward")
    call(model, "on_before_optimizer_step", optimizer)
    call(model, "configure_gradient_clipping", optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
