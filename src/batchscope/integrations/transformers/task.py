"""Task made of a Hugging Face Trainer: its model, data, loss, optimizer, schedule, clipping and evaluation.

The Trainer divides the sum of the losses of a step's tokens by their number in the whole step (`num_items_in_batch`).
Here each micro-batch has the mean over its own `w_i` tokens and the weight `w_i / W` in the step, which is the same:
`sum_i (w_i / W) (S_i / w_i) = sum_i S_i / W`. A model that takes no such argument has the mean of each micro-batch, and
all weigh the same, in the Trainer as here.
"""

from __future__ import annotations

import copy
import importlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, IterableDataset

from ...errors import TaskError
from ...hardware.random_state import preserved_random_state
from ...tasks.batches import first_dimension, to_device
from ...tasks.loading import load_named
from ...tasks.protocol import Batch
from ...tasks.settings import bind
from ...tasks.user_code import explained
from ..trainers import Repeated
from .library import transformers
from .quiet import quiet, without_traces
from .taken import (
    arguments_of,
    checkpoints,
    clips,
    not_taken,
    overridden,
    refuse,
    sampling,
    schedule_note,
    schedule_of,
    taken,
)

__all__ = ["TrainerTask", "task"]

_OF_THE_CLOCK = (
    "_runtime",
    "_per_second",
    "_model_preparation_time",
    "_jit_compilation_time",
)
"""Ends of the names that the Trainer's evaluation adds to the metrics."""
_NO_PART = (
    "output_dir",
    "log",
    "report_to",
    "run_name",
    "save",
    "hub_",
    "push_to_hub",
    "project",
    "trackio",
    "disable_",
)
"""Beginnings of the arguments that say what becomes of a training, not how it trains."""
_SAME = 1e-3
"""Relative difference between two losses that are the same but for rounding."""


def task(
    trainer: str | Callable[..., Any] | None = None,
    *,
    model_init: Callable[[], nn.Module] | None = None,
    args: Any = None,
    data: Any = None,
    eval_data: Any = None,
    collator: Callable[[list[Any]], Any] | None = None,
    compute_metrics: Callable[[Any], Mapping[str, Any]] | None = None,
    name: str | None = None,
    **settings: Any,
) -> TrainerTask:
    """Make a task of a Trainer, or of the parts of one.

    Args:
        trainer: function that returns a Trainer, or its name, `package.module:make_trainer` or
            `path/to/file.py:make_trainer`; it is called once, and the Trainer's own loop is not run.
        model_init: without a trainer: makes a fresh model.
        args: the `TrainingArguments`.
        data: training data, `train_dataset`.
        eval_data: validation data, `eval_dataset`; without it a part of the training data is held back.
        collator: `data_collator`.
        compute_metrics: of an `EvalPrediction`.
        name: what results are called; default: the name of the function.
        settings: arguments of the function `trainer`; texts are converted by its annotations.

    Raises:
        TaskError: it is no Trainer, or one that a search on one device cannot stand for; it says what to change.

    The caller's random state is left as it was. Cost: that of making the Trainer, and a forward pass of two examples.

    Example:
        `batchscope find batchscope.integrations.transformers:task --set trainer=train.py:make_trainer
        --target "eval_loss<=2.5"`
    """
    if trainer is None:
        if model_init is None or data is None:
            raise TaskError(
                "a task of a Trainer is made of a function that returns one (trainer=make_trainer; on the command line "
                "--set trainer=path/to/file.py:make_trainer), or of model_init=, args=, data=, eval_data=, collator= "
                "and compute_metrics="
            )
        parts = {"train_dataset": data, "eval_dataset": eval_data, "data_collator": collator}
        make = partial(
            transformers().Trainer, model_init=model_init, args=args, compute_metrics=compute_metrics, **parts
        )
        known = {} if args is None else {k: v for k, v in args.to_dict().items() if not k.startswith(_NO_PART)}
        made_from = (model_init, known, data, eval_data, collator, compute_metrics)
        return TrainerTask(_made(make, "Trainer(...)"), name=name or _name_of(model_init), made_from=made_from)
    if isinstance(trainer, transformers().Trainer):
        raise TaskError(
            "the trainer is a Trainer object, which a search would change; give the function that makes it: "
            "task(make_trainer)"
        )
    called = load_named(trainer) if isinstance(trainer, str) else trainer
    given = bind(called, settings, _name_of(called))
    made = _made(partial(called, **given), f"{_name_of(called)}()")
    return TrainerTask(made, name=name or _name_of(called), made_from=(called, given))


def _name_of(called: Any) -> str:
    return str(getattr(called, "__name__", type(called).__name__))


def _made(make: Callable[[], Any], what: str) -> Any:
    """A Trainer, with a copy of its arguments, which are changed in the course of a search."""
    with preserved_random_state(0), without_traces(), explained(what):
        trainer = make()
    refuse(trainer)
    trainer.args = copy.copy(trainer.args)
    return trainer


class TrainerTask:
    """Task of a Trainer, which is this object's own from now on.

    Args:
        trainer: fresh.
        name: what results are called.
        made_from: what it is told apart by: the functions, data and arguments that it was made from.

    Attributes:
        data_notes: what is taken over from the Trainer, and what is not, in sentences.
        library: how `TrainingArguments` are told what a recipe says.

    Optional members are there where the Trainer has what they stand for.
    """

    def __init__(self, trainer: Any, *, name: str, made_from: Any = None) -> None:
        self._trainer, self.name, self.made_from = trainer, name, made_from
        args = trainer.args
        self._data, self._join = _data_and_collator(trainer)
        schedule = schedule_of(trainer)
        self.library = arguments_of(trainer, schedule)
        notes, counted = self._look_at_loss()
        self.data_notes = self._notes(counted, schedule_note(trainer, schedule), notes)
        model = trainer.model.to("cpu")
        self._first = None if trainer.model_init is not None else model
        _release(trainer)
        self.loader_options = _loader_options(args)
        if trainer.eval_dataset is not None:
            self.evaluate = self._evaluate
        if counted:
            self.loss_weight = self._items
        if clips(args):
            self.before_update = self._clip
        if schedule is not None:
            self.schedule = schedule
        if args.bf16 or args.fp16:
            self.precision = "bfloat16" if args.bf16 else "float16"
        own_order = sampling(args) in ("sequential", "group_by_length") or overridden(trainer, "_get_train_sampler")
        if own_order and not isinstance(self._data, IterableDataset):
            self.sampler = self._order

    def model(self) -> nn.Module:
        """A fresh model of `model_init`, or with the weights that the Trainer was given."""
        with quiet():
            model = self._trainer.call_model_init() if self._first is None else copy.deepcopy(self._first)
            _checkpoint(model, self._trainer.args)
        return model

    def train_data(self) -> Dataset[Any]:
        """The Trainer's `train_dataset`, without the columns that the model does not take."""
        return Repeated(self._data) if isinstance(self._data, IterableDataset) else self._data

    def collate(self, examples: list[Any]) -> Batch:
        """A batch by the Trainer's `data_collator`, without the columns that the model does not take."""
        return self._join(examples)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the Trainer's `compute_loss` makes of a micro-batch alone in its step."""
        trainer = self._trainer
        trainer.model = model
        items = trainer._get_num_items_in_batch([batch], _device_of(model))
        return trainer.compute_loss(model, copy.copy(batch), num_items_in_batch=items)  # it may take labels out

    def optimizer(self, model: nn.Module, lr: float) -> Optimizer:
        """What the Trainer's `create_optimizer` makes, its groups with and without weight decay, at a learning rate."""
        trainer = self._trainer
        trainer.model, trainer.optimizer, trainer.args.learning_rate = model, None, lr
        given = trainer.optimizer_cls_and_kwargs
        if given is not None:
            trainer.optimizer_cls_and_kwargs = (given[0], {**given[1], "lr": lr})
        try:
            with quiet():
                return trainer.create_optimizer()
        finally:
            trainer.optimizer, trainer.optimizer_cls_and_kwargs = None, given

    def _evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics of the Trainer's own `evaluate`, without those of its clock."""
        trainer = self._trainer
        device, own = _device_of(model), trainer.args.device
        if device.type != own.type:
            raise TaskError(
                f"the Trainer evaluates on {own}, and runs are on {device}; give --device {own.type}, or "
                f"{'use_cpu=True in TrainingArguments' if device.type == 'cpu' else 'leave use_cpu out'}"
            )
        trainer.model = trainer.model_wrapped = model
        trainer.accelerator._models[:] = [model]  # as if prepared: else it would change the model's forward
        try:
            with preserved_random_state(0), quiet():
                found = trainer.evaluate()
        finally:
            trainer.accelerator._models.clear()
            trainer.state.log_history.clear()
        metrics = {
            key: float(value)
            for key, value in found.items()
            if isinstance(value, int | float) and key != "epoch" and not key.endswith(_OF_THE_CLOCK)
        }
        if not metrics:
            raise TaskError(
                f"the Trainer's evaluate() gave no metric: the labels that it looks for in a batch of eval_dataset are "
                f"{', '.join(trainer.label_names) or 'none'}; name those of your data, "
                "TrainingArguments(label_names=[...]), or return a metric from compute_metrics"
            )
        return metrics

    def _items(self, batch: Batch) -> float:
        """Tokens that the Trainer counts in a batch."""
        return float(self._trainer._get_num_items_in_batch([batch], torch.device("cpu")))

    def _clip(self, model: nn.Module) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), self._trainer.args.max_grad_norm)

    def _order(self, seed: int) -> Iterable[int]:
        """Order of the Trainer's own sampler, which draws from the generators as they were seeded."""
        with quiet():
            return list(self._trainer._get_train_sampler(self._data))

    def _look_at_loss(self) -> tuple[list[str], bool]:
        """What is to be said of the loss, and whether it is a mean over what the Trainer counts, such as tokens.

        Raises:
            TaskError: the collator or the loss failed, or examples are packed into rows.
        """
        trainer, model = self._trainer, self._trainer.model
        example = next(itertools.islice(self._data, 1)) if isinstance(self._data, IterableDataset) else self._data[0]
        with preserved_random_state(0):
            with explained("the data_collator on two examples"):
                batch = to_device(self._join([example, copy.deepcopy(example)]), _device_of(model))
            if (rows := first_dimension(batch)) != 2:
                raise TaskError(
                    f"the data_collator made {rows} {'row' if rows == 1 else 'rows'} of 2 examples; examples that are "
                    "packed cannot be counted, and batch size is what varies: pack them before, in train_dataset, or "
                    "pad them (DataCollatorWithPadding)"
                )
            items = trainer._get_num_items_in_batch([batch], _device_of(model))
            if items is None:
                return [], False
            was_training = model.training
            model.eval()
            with torch.no_grad(), quiet(), explained("compute_loss() on two examples"):
                losses = [
                    float(trainer.compute_loss(model, copy.copy(batch), num_items_in_batch=items * k)) for k in (1, 2)
                ]
            model.train(was_training)
        divided = abs(losses[0] - 2.0 * losses[1]) <= _SAME * abs(losses[0])
        labels = batch["labels"]
        if divided:
            return [], bool(labels.ndim > 1)
        if trainer.loss_is_scaled_for_ga is False:
            return [], False
        return [
            "the loss does not divide by num_items_in_batch, so the Trainer adds up the means of micro-batches: with "
            "gradient_accumulation_steps=n its gradients are n times those of a batch, before clipping; set "
            "loss_is_scaled_for_ga = False in the Trainer's class (transformers 5.24), or leave accumulation out"
        ], False

    def _notes(self, counted: bool, of_schedule: str, of_loss: list[str]) -> tuple[str, ...]:
        trainer = self._trainer
        left = list(not_taken(trainer))
        return tuple(
            filter(
                None,
                (
                    f"taken over from the Trainer: {', '.join(taken(trainer, counted))}",
                    of_schedule,
                    f"not taken over from the Trainer: {', '.join(left)}" if left else "",
                    *of_loss,
                ),
            )
        )


def _data_and_collator(trainer: Any) -> tuple[Any, Callable[[list[Any]], Any]]:
    """Training data and collator as the Trainer's own loader has them, columns removed."""
    data = trainer.train_dataset
    if transformers().utils.is_datasets_available() and isinstance(data, importlib.import_module("datasets").Dataset):
        return trainer._remove_unused_columns(data, description="Training"), trainer.data_collator
    return data, trainer._get_collator_with_removed_columns(trainer.data_collator, description="Training")


def _release(trainer: Any) -> None:
    """Let go of the model that the Trainer was made with, and of all that listens to it."""
    trainer.model = trainer.model_wrapped = trainer.callback_handler.model = None
    trainer.callback_handler.callbacks = []
    trainer._memory_tracker.skip_memory_metrics = True
    trainer.args._n_gpu = min(1, trainer.args.n_gpu)  # more would each have a share of a batch
    trainer.args.dataloader_pin_memory &= torch.accelerator.is_available()  # else torch would warn of it
    trainer.is_in_train = True  # an evaluation within a training leaves the model's dtype alone


def _checkpoint(model: Any, args: Any) -> None:
    """Switch on that activations are computed again in the backward pass, as the Trainer does before it trains."""
    if not checkpoints(args):
        return
    if hasattr(model, "activation_checkpointing_enable"):
        options = dict(args.activation_checkpointing_kwargs or {})
        apart = {"every_n_layers": options.pop("every_n_layers", 1), "offload": options.pop("offload", False)}
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options or None, **apart)
        return
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs)


def _loader_options(args: Any) -> dict[str, Any]:
    """The Trainer's arguments of its `DataLoader`."""
    options = {
        "num_workers": args.dataloader_num_workers,
        "pin_memory": args.dataloader_pin_memory,
        "persistent_workers": args.dataloader_persistent_workers,
        "prefetch_factor": args.dataloader_prefetch_factor,
        "multiprocessing_context": getattr(args, "dataloader_multiprocessing_context", None),
    }
    return {key: value for key, value in options.items() if value not in (None, False)}


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in cast(Any, model).parameters()), torch.device("cpu"))
