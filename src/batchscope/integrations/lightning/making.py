"""Task of a `LightningModule` and a `LightningDataModule`: what `find` needs, from the objects that people have."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sized
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, IterableDataset

from ...errors import TaskError
from ...hardware.random_state import preserved_random_state
from ...store.records import LibraryArguments
from ...tasks.batches import first_dimension
from ...tasks.loading import load_beside, load_named
from ...tasks.named_modules import files_run_once
from ...tasks.user_code import explained
from ...wording import joined
from ..trainers import Repeated
from .evaluation import validated
from .hooks import (
    after_step,
    before_step,
    begin_batch,
    begin_training,
    call,
    checked_module,
    left_out,
    moved,
    needs_update_hook,
    scalar_of,
    trainer_of,
)
from .library import library_of, overridden, silenced
from .loaders import TrainingData, training_data, validation_loaders
from .optimizers import Configured, configured, set_lr
from .run_trainer import RunTrainer
from .schedules import schedule_of
from .settings import TrainerSettings, settings_of

__all__ = ["LightningTask", "task"]

Named = str | Callable[..., Any]
_LIBRARY = LibraryArguments(
    call="Trainer",
    names={"grad_accum_steps": "accumulate_grad_batches", "steps": "max_steps"},
    elsewhere={
        "micro_batch_size": "train_dataloader(): batch_size={}",
        "lr": "configure_optimizers(): lr={}, the peak of the scheduler, if there is one",
        "steps": "the scheduler, if there is one: over {} steps",
    },
)
"""How a recipe is told to a `Trainer`, a module and a data module."""
_ANY_LENGTH = 1000
"""Length of the training that a module is told of where nothing depends on it."""


def task(module: Named, data: Named | None = None, trainer: Named | None = None) -> LightningTask:
    """Make a task of a Lightning module and data module.

    Args:
        module: makes a fresh `LightningModule`: its class, or a function without arguments; on the command line
            `--set module=package.module:NAME` or `path/to/file.py:NAME`.
        data: makes the `LightningDataModule`, likewise; without it the module's own `train_dataloader()` is used.
        trainer: a `Trainer`, or makes one; its clipping, precision and length are used, everything else is named.

    Returns:
        A task for `batchscope find`, and in Python for `batchscope.find`. Its notes name what is not taken over.

    Raises:
        TaskError: the module or its data cannot be trained here; the message says why, and what to change.

    Example (needs lightning):

    ```
    batchscope find batchscope.integrations.lightning:task --set module=train.py:Classifier --set data=train.py:Digits
    ```
    """
    for what, each in (("module", module), ("data", data), ("trainer", trainer)):
        if isinstance(each, str) and ":" not in each:
            raise TaskError(f"{what}={each} names no class or function; write package.module:NAME or file.py:NAME")
    with files_run_once():
        make_module: Any = load_named(module) if isinstance(module, str) else module
        make_data, given = (load_beside(each) if isinstance(each, str) else each for each in (data, trainer))
    with preserved_random_state(0), silenced():
        with explained("the function that makes the Trainer"):
            made = given() if callable(given) else given
        return LightningTask(make_module, make_data, settings_of(made))


class LightningTask:
    """Task of a module and a data module; members that the module has nothing for are not there.

    Args:
        module_factory: makes a fresh module.
        datamodule_factory: makes the data module, or is one; `None`: the module makes its loaders itself.
        settings: of the user's trainer.
    """

    def __init__(
        self,
        module_factory: Callable[[], Any],
        datamodule_factory: Any,
        settings: TrainerSettings,
    ) -> None:
        self.module_factory, self.datamodule_factory, self.settings = module_factory, datamodule_factory, settings
        self.library = _LIBRARY
        first = self._made()
        self._library = checked_module(first, library_of(first))
        self.name = type(first).__name__
        self._data, self._epoch = first, None
        self._data = self._made_data(first)
        self._make_ready(first)
        self._training = training_data(self._data)
        self._epoch = _examples(self._training)
        notes = [*settings.notes, *self._training.notes, *left_out(first), *self._add_members(first)]
        self.data_notes = (*notes, *self._schedule_of(first))

    def _made(self) -> Any:
        if isinstance(self.module_factory, nn.Module):
            raise TaskError(
                f"the module given is one {type(self.module_factory).__name__}, and every run begins with a fresh one: "
                f"give its class, or a function that makes it, lambda: {type(self.module_factory).__name__}(...)"
            )
        if inspect.isclass(self.module_factory) and (needed := _needed(self.module_factory)):
            raise TaskError(
                f"{self.module_factory.__name__} needs {joined(needed)}, and a module is made without arguments: give "
                "a function that makes it, `def make_module(): return ...`"
            )
        with explained(f"{getattr(self.module_factory, '__name__', 'the function that makes the module')}()"):
            made: Any = self.module_factory()
        if hasattr(made, "_orig_mod") and (library := library_of(made._orig_mod)) is not None:
            return library.get("utilities.compile", "from_compiled")(made)
        return made

    def _made_data(self, module: Any) -> Any:
        """The data module, prepared; where there is none, the module itself."""
        if self.datamodule_factory is None:
            if not overridden(module, "train_dataloader"):
                raise TaskError(
                    f"{self.name} makes no loader itself: give its LightningDataModule, --set data=package.module:NAME"
                )
            return module
        data = self.datamodule_factory
        with explained(f"{getattr(data, '__name__', 'the function that makes the data module')}()"):
            data = cast("Callable[[], Any]", data)() if callable(data) else data
        if not callable(getattr(data, "train_dataloader", None)):
            raise TaskError(
                f"the data given are an object of type {type(data).__name__}, which has no train_dataloader(); give a "
                "LightningDataModule"
            )
        data.trainer = RunTrainer(self._library, self.settings, data, None)
        with explained(f"prepare_data() and setup('fit') of {type(data).__name__}"):
            data.prepare_data()
            data.setup("fit")
        return data

    def _add_members(self, module: Any) -> list[str]:
        """Add the members that there is something for; returns what to say."""
        notes: list[str] = []
        if self.settings.clip_value or needs_update_hook(module):
            self.before_update = self._before_update
        if self.settings.precision != "float32":
            self.precision = self.settings.precision
        for member in ("collate", "sampler"):
            if (value := getattr(self._training, member)) is not None:
                setattr(self, member, value)
        if self._training.options:
            self.loader_options = dict(self._training.options)
        validates = overridden(module, "validation_step")
        self._validation = validation_loaders(self._data) if overridden(self._data, "val_dataloader") else []
        if validates and self._validation:
            self.evaluate = self._evaluate
        elif validates:
            notes.append(
                f"validation_step() of {type(module).__name__} is not used: there is no val_dataloader(), so a part of "
                "the training data is held back"
            )
        elif self._validation:
            notes.append(
                f"val_dataloader() is not used: {type(module).__name__} has no validation_step(), so the metric is "
                "val_loss, training_step()'s loss on a part of the training data that is held back"
            )
        return notes

    def _schedule_of(self, module: Any) -> list[str]:
        """Add the module's scheduler as the task's schedule; returns what to say of it, and of the user's recipe."""
        own_steps = self.settings.own_steps(self._training.batches)
        own_epochs = self.settings.own_epochs(self._training.batches)
        trainer_of(module).epoch = self._epoch
        schedule, lr, notes = schedule_of(partial(self._configured, module), own_steps, own_epochs)
        if schedule is not None:
            self.schedule = schedule
        size = self._training.batch_size
        if size is not None:
            own = f"batch_size={size * self.settings.accumulate},lr={lr:.6g}"
            notes.append(f'the module and its data have {own}; --current "{own}" compares the recommendation with them')
        return notes

    def _make_ready(self, module: Any, *, anew: bool = True) -> None:
        """Give a module its trainer, and let it set itself up as Lightning would."""
        self._attach(module)
        with explained(f"setup('fit') of {type(module).__name__}"):
            if anew:
                module.prepare_data()
            module.setup("fit")
            module.configure_model()

    def _attach(self, module: Any) -> RunTrainer:
        """The trainer of a module; a copy, which Lightning leaves without one, gets its own."""
        if module._trainer is None:
            module._metric_attributes = None  # names of its metric objects by where these are in memory
            module.trainer = RunTrainer(self._library, self.settings, self._data, self._epoch)
        return trainer_of(module)

    def _configured(self, module: Any, steps: int = _ANY_LENGTH) -> Configured:
        with trainer_of(module).announcing(steps):
            with explained("configure_optimizers()"):
                returned = call(module, "configure_optimizers")
            return configured(returned)

    def model(self) -> nn.Module:
        """A fresh module, set up and with a trainer that knows of the run."""
        module = self._made()
        self._make_ready(module, anew=False)
        return module

    def train_data(self) -> Dataset[Any]:
        """The data set of the training loader; a stream is made anew in every call, and begins again at its end."""
        if isinstance(self._training.data, IterableDataset):
            return Repeated(training_data(self._data).data)
        return self._training.data

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """What `training_step` returns for a batch, with the hooks around it."""
        trainer = self._attach(model)
        trainer.training = model.training
        batch = moved(model, batch)
        if not model.training or not torch.is_grad_enabled():
            return scalar_of(call(model, "training_step", batch, 0))
        number = begin_batch(model, batch)
        returned = call(model, "training_step", batch, number)
        loss = scalar_of(returned)
        trainer.pending += _examples_in(batch)
        if overridden(model, "on_train_batch_end"):
            trainer.last = returned, batch, number
        call(model, "on_before_backward", loss)
        return loss

    def optimizer(self, model: nn.Module, lr: float) -> Optimizer:
        """The optimizer of `configure_optimizers` at a learning rate; groups with another keep their ratio to it."""
        trainer = self._attach(model)
        optimizer = set_lr(self._configured(model), lr)
        trainer.drives(optimizer)
        optimizer.register_step_post_hook(partial(_stepped, weakref.ref(model)))
        begin_training(model)
        return optimizer

    def _before_update(self, model: nn.Module) -> None:
        """The module's hooks between gradients and step, and the clipping of its trainer."""
        self._attach(model)
        before_step(model)

    def _evaluate(self, model: nn.Module) -> dict[str, float]:
        """The metrics that `validation_step` logs over the validation loaders."""
        self._attach(model)
        return validated(model, self._validation, self.settings.limit_val_batches)


def _stepped(model: weakref.ref[nn.Module], *of_the_step: Any) -> None:
    """After a step of the optimizer, which does not keep the model alive."""
    stepped = model()
    if stepped is not None:
        after_step(stepped)


def _needed(made: Callable[..., Any]) -> list[str]:
    """Arguments without which a class makes no object."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(made).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]


def _examples(training: TrainingData) -> int | None:
    """Examples in an epoch; `None`: a stream does not know."""
    data = training.data
    return len(data) if isinstance(data, Sized) and not isinstance(data, IterableDataset) else None


def _examples_in(batch: Any) -> int:
    """Examples in a batch, to count epochs by; 0 where they cannot be counted, of which others tell the user."""
    try:
        return first_dimension(batch)
    except TaskError:
        return 0
