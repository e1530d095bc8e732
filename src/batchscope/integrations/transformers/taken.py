"""What of a Trainer a search takes over, what it does not, and what it refuses."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ...errors import TaskError
from ...store.records import LibraryArguments
from ..trainers import own_steps, with_effect
from .library import transformers

__all__ = [
    "arguments_of",
    "checkpoints",
    "clips",
    "not_taken",
    "overridden",
    "refuse",
    "sampling",
    "schedule_note",
    "schedule_of",
    "taken",
]

_OWN_LOOP = (
    "train",
    "_inner_training_loop",
    "training_step",
    "get_train_dataloader",
    "get_batch_samples",
    "create_optimizer_and_scheduler",
)
"""Methods of a Trainer in whose place batchscope's own loop and loader stand."""
_NO_PLAIN_STEP = ("lomo", "adalomo", "layerwise", "schedule_free")
"""In the names of optimizers that step in the backward pass, or have weights of their own for evaluation."""


def overridden(trainer: Any, name: str) -> bool:
    """Whether the Trainer's class has a method of its own in the place of the library's."""
    return inspect.getattr_static(type(trainer), name, None) is not inspect.getattr_static(
        transformers().Trainer, name, None
    )


def refuse(trainer: Any) -> None:
    """Refuse a Trainer that a search on one device cannot stand for.

    Raises:
        TaskError: it is none, has no training data, spreads a model over devices, or was given an optimizer object.
    """
    if not isinstance(trainer, transformers().Trainer):
        what = "None" if trainer is None else f"an object of type {type(trainer).__name__}"
        raise TaskError(f"the trainer's factory returned {what}; end it with `return Trainer(...)`")
    args = trainer.args
    if trainer.train_dataset is None:
        raise TaskError("the Trainer has no train_dataset; give it one, Trainer(..., train_dataset=...)")
    for name in ("deepspeed", "fsdp", "parallelism_config"):
        if value := getattr(args, name, None):
            raise TaskError(
                f"TrainingArguments has {name}={value!r}, and a search trains whole models on one device; leave {name} "
                "out in the trainer's factory"
            )
    if args.world_size > 1:
        raise TaskError(
            f"the Trainer runs in {args.world_size} processes, and a search is one process on one device; start it "
            "without torchrun or accelerate launch"
        )
    if getattr(trainer, "is_model_parallel", False) or getattr(
        trainer, "is_distributed_loading_by_transformers", False
    ):
        raise TaskError(
            "the model is spread over several devices, and a search trains whole models on one; load it without "
            "device_map or distributed_config"
        )
    if trainer.optimizer is not None or trainer.lr_scheduler is not None:
        raise TaskError(
            "the Trainer was given optimizers=(...), objects that belong to one model at one learning rate; a search "
            "makes them anew for each run: give optim=... in TrainingArguments, optimizer_cls_and_kwargs=(class, "
            "{...}), or override create_optimizer()"
        )
    optim = _name(args.optim)
    if any(part in optim for part in _NO_PLAIN_STEP):
        raise TaskError(
            f"optim={optim!r} has no plain optimizer step between the gradients and the evaluation; use another one, "
            "for example optim='adamw_torch'"
        )


def _steps_of(trainer: Any) -> int:
    """Optimizer steps of the Trainer's own training, by its arguments."""
    args, batches = trainer.args, None
    if args.max_steps <= 0:  # else the data set need not know its length
        examples = len(trainer.train_dataset)
        batches = examples // args.train_batch_size if args.dataloader_drop_last else 0
        batches = batches or math.ceil(examples / args.train_batch_size)
    return own_steps(args.max_steps, args.num_train_epochs, batches, args.gradient_accumulation_steps) or 1


def schedule_of(trainer: Any) -> Callable[[float], float] | None:
    """The Trainer's schedule as a factor of the learning rate at a share of the run.

    It is that of its own number of steps, warm-up included, stretched over each run; `None`: it is constant, or follows
    from more than the step.
    """
    args, steps = trainer.args, _steps_of(trainer)
    own = overridden(trainer, "create_scheduler")
    if not own and (_name(args.lr_scheduler_type) == "constant"):
        return None
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=args.learning_rate)
    try:
        scheduler = trainer.create_scheduler(num_training_steps=steps, optimizer=optimizer)
    finally:
        trainer.lr_scheduler = None
    factors = getattr(scheduler, "lr_lambdas", None)
    if not factors:
        return None
    factor = factors[0]

    def schedule(progress: float) -> float:
        return float(factor(progress * steps))

    return schedule


def arguments_of(trainer: Any, schedule: Callable[[float], float] | None) -> LibraryArguments:
    """How `TrainingArguments` are told a recipe; a warm-up of the Trainer's own schedule keeps its share of the run."""
    steps = _steps_of(trainer)
    warm = 0 if schedule is None else trainer.args.get_warmup_steps(steps)
    return LibraryArguments(
        call="TrainingArguments",
        names={
            "micro_batch_size": "per_device_train_batch_size",
            "grad_accum_steps": "gradient_accumulation_steps",
            "lr": "learning_rate",
            "steps": "max_steps",
            "schedule": "lr_scheduler_type",
            "warmup_steps": "warmup_steps",
        },
        schedules={"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"},
        shares={"warmup_steps": warm / steps} if warm else {},
    )


def taken(trainer: Any, weighted: bool) -> list[str]:
    """Words for what is taken over besides the model, the data and the collator."""
    args = trainer.args
    return [
        "model_init" if trainer.model_init is not None else "the model's first weights (copied for every run)",
        *(["the mean over tokens of a whole step (num_items_in_batch)"] if weighted else []),
        *(["compute_loss()"] if overridden(trainer, "compute_loss") else []),
        *(["compute_loss_func"] if trainer.compute_loss_func is not None else []),
        *([f"label_smoothing_factor={args.label_smoothing_factor:g}"] if trainer.label_smoother is not None else []),
        "create_optimizer()" if overridden(trainer, "create_optimizer") else f"optim={_name(args.optim)}",
        *([f"max_grad_norm={args.max_grad_norm:g}"] if clips(args) else []),
        *([name for name in ("bf16", "fp16") if getattr(args, name)]),
        *(["gradient_checkpointing"] if checkpoints(args) else []),
        *([] if sampling(args) == "random" else [f"train_sampling_strategy={sampling(args)}"]),
    ]


def schedule_note(trainer: Any, schedule: Callable[[float], float] | None) -> str:
    """Sentence on the schedule and its warm-up."""
    args, steps = trainer.args, _steps_of(trainer)
    kind = "create_scheduler()" if overridden(trainer, "create_scheduler") else _name(args.lr_scheduler_type)
    if schedule is not None:
        warm = args.get_warmup_steps(steps)
        return (
            f"the schedule is the Trainer's, {kind} with {warm} warm-up steps of {steps}, stretched to the length of "
            "each run"
        )
    if kind == "constant":
        return ""
    return (
        f"lr_scheduler_type={kind} follows from more than the share of the run and is not taken over: runs are at a "
        "constant learning rate, or at that of --schedule"
    )


def not_taken(trainer: Any) -> Iterator[str]:
    """Words for what is not taken over."""
    args = trainer.args
    for name in ("torch_compile", "use_liger_kernel", "full_determinism", "load_best_model_at_end"):
        if getattr(args, name, False):
            yield name
    if args.auto_find_batch_size:
        yield "auto_find_batch_size (the largest batch that fits is measured here; leave it off in the training)"
    if args.neftune_noise_alpha is not None:
        yield f"neftune_noise_alpha={args.neftune_noise_alpha:g}"
    if args.dataloader_drop_last:
        yield "dataloader_drop_last (every batch is full here)"
    if sampling(args) == "batch_rebalance":
        yield "train_sampling_strategy=batch_rebalance (examples come in random order)"
    if args.n_gpu > 1:
        yield f"{args.n_gpu} GPUs (one is used)"
    if trainer.eval_dataset is None and trainer.compute_metrics is not None:
        yield "compute_metrics (there is no eval_dataset)"
    for name in _OWN_LOOP:
        if overridden(trainer, name):
            yield f"{type(trainer).__name__}.{name}()"
    for callback in with_effect(trainer.callback_handler.callbacks, _harmless):
        yield f"the callback {callback}"


def _harmless(callback: type[Any]) -> bool:
    """Whether a callback is of the library and changes nothing in a training."""
    silent = "transformers.integrations", "transformers.trainer_callback", "transformers.utils"
    return callback.__module__.startswith(silent) and callback.__name__ != "EarlyStoppingCallback"


def _name(value: Any) -> str:
    """An enumerated argument as it is written."""
    return str(getattr(value, "value", value))


def sampling(args: Any) -> str:
    """Order of the examples; `group_by_length` was an argument of its own."""
    return str(getattr(args, "train_sampling_strategy", None) or "random")


def clips(args: Any) -> bool:
    """Whether the norm of the gradient is bounded."""
    return bool(args.max_grad_norm and args.max_grad_norm > 0)


def checkpoints(args: Any) -> bool:
    """Whether activations are computed again in the backward pass; the argument had another name before 5.24."""
    return bool(getattr(args, "activation_checkpointing", False) or getattr(args, "gradient_checkpointing", False))
