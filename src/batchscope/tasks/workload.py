"""Workload, a task made ready to run: data loaded once, optional members filled in, batches in a seeded order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Mapping, Sized
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from ..errors import UsageError
from ..hardware.device import Device, is_out_of_memory, pick
from ..hardware.host_memory import mark
from ..hardware.random_state import preserved_random_state, seed_everything
from ..hardware.time_limit import NO_LIMIT, TimeLimit
from ..store.metrics import averaged_name, name_of_own
from .batches import MicroBatchSampler, first_dimension, index_stream, subset, tensors_of, to_device
from .collation import Collation
from .disposable_model import DisposableModel
from .evaluation import checked_metrics, mean_loss
from .examples import examples_of, made_data
from .fresh_model import checked_module, give_sizes
from .loader import (
    checked_options,
    example_seconds,
    index_loader,
    open_loader,
    start_method,
    why_not_sent,
    workers_for,
)
from .members import autocast, checked_decay, checked_factor, checked_precision, checked_weight, loss_in, wants_model
from .protocol import Batch, Task
from .streams import LARGEST_BATCH, stream_steps, without_copies
from .user_code import explained

__all__ = ["Workload"]


class Workload:
    """Task on a device, as the bench and the training loop see it.

    Attributes:
        task: the user's object.
        name: what the results call it.
        settings: the factory's keyword arguments, part of every run's configuration.
        device: where it runs.
        examples: that can be drawn by index: the training examples, after the held-back part was taken off; of a stream
            its first ones.
        examples_in_epoch: training examples in an epoch, as many as the task's sampler yields where it has one; `None`:
            training data are a stream, which has no epochs.
        independent: whether one example's gradient depends on that example alone; set by the preflight.
        loader_workers: processes that load batches; 0: this one does.
        example_s: seconds to load an example in one process; 0 for tensors in memory.
        loss_weight: the task's, the number of terms in the mean of a batch's loss; `None`: its examples.
        before_update: the task's, called once a step when all gradients are there.
        schedule: the task's, the factor of the learning rate at a share of the run.
        precision: in which loss and metrics are computed: float32, or autocast to bfloat16 or float16.
        ema_decay: of the moving average of the weights that is evaluated beside; `None`: there is none.
        notes: what a reader should know of the training data.
        until: after which none of the task's members is called any more, and `OutOfTime` is raised; see `limited`.
        metrics_at_start: of fresh models, by their seed and the number of threads, as far as they were evaluated.
    """

    def __init__(
        self,
        task: Task,
        *,
        name: str = "task",
        settings: Mapping[str, Any] | None = None,
        device: Device | None = None,
        until: TimeLimit = NO_LIMIT,
    ) -> None:
        self.task = task
        self.name = name
        self.settings = dict(settings or {})
        self.device = device or pick("cpu")
        self.independent = True
        self.until = NO_LIMIT
        self.metrics_at_start: dict[tuple[int, int | None], dict[str, float]] = {}
        self._evaluate = getattr(task, "evaluate", None)
        self._collate: Callable[[list[Any]], Batch] | None = getattr(task, "collate", None)
        self._batch_size: Callable[[Batch], int] = getattr(task, "batch_size", None) or first_dimension
        self.loss_weight: Callable[[Batch], float] | None = getattr(task, "loss_weight", None)
        self.before_update: Callable[[nn.Module], object] | None = getattr(task, "before_update", None)
        self.schedule: Callable[[float], float] | None = getattr(task, "schedule", None)
        self.precision = checked_precision(getattr(task, "precision", None), self.device)
        self.ema_decay = checked_decay(getattr(task, "ema_decay", None))
        there = examples_of(task, until)
        self.notes = [*getattr(task, "data_notes", ()), *there.notes]
        self.examples, self.examples_in_epoch = len(cast(Sized, there.data)), there.epoch
        self._data, self._held_back, self._sampler = there.data, there.held_back, there.sampler
        self._stream, self._numbers = there.stream, there.numbers
        self._sampled = self._sampler.order(0).unique() if self._sampler else None
        of_training = there.numbers and there.numbers[False]
        self._collation = Collation(data=self._data, collate=self._collate, numbers=of_training)
        self._options = checked_options(task, self._stream or self._data, self._collate)
        self.loader_workers = (self._options or {}).get("num_workers", 0)
        self._tensors = None if self._collate or self.loader_workers else tensors_of(self._data)
        self.example_s, self._opening_s = 0.0, there.opening_s
        if self._tensors is not None:
            self._tensors = tuple(t.to(self.device.torch_device) for t in self._tensors)
            return
        until.require()
        own_s = example_seconds(self._collation, self.drawable, until)
        if self._sampler is None:  # else what it leaves out may be of any kind
            self._collation.look_through(own_s)
        self.example_s = there.example_s + own_s
        self._choose_workers(until)

    def _choose_workers(self, until: TimeLimit) -> None:
        """As many loader workers as the task asks for, or as pay; a note where there are fewer."""
        if self._options is None:
            workers = workers_for(self.example_s)
            if workers and (why := why_not_sent(self._stream or self._data, self._collate, {})):
                workers, note = 0, f"examples are loaded without workers: {why}"
                self.notes.append(note)
            self.loader_workers = workers if self._stream is None else min(1, workers)
        elif self._stream is not None:
            how = {"example_s": self.example_s, "opening_s": self._opening_s}
            self._options, note = without_copies(self._stream, self._options, **how, until=until)
            self.loader_workers = self._options.get("num_workers", 0)
            self.notes += [note] if note else []

    def load_with(self, workers: int) -> None:
        """Load with so many workers where the task does not say how many."""
        if self._options is None and self._tensors is None:
            self.loader_workers = workers

    @contextmanager
    def limited(self, until: TimeLimit) -> Generator[None]:
        """Refuse inside to begin a loss, a batch or an evaluation after a moment.

        Raises:
            OutOfTime: one was asked for.
        """
        before, self.until = self.until, until
        try:
            yield
        finally:
            self.until = before

    @property
    def workers_return(self) -> bool:
        """Whether the loader workers of a run that pauses had better end.

        Others then start as forks of this process, and go on with the same batches without loading those before. A
        stream has to be read again up to there, and other ways to start a process import everything anew.
        """
        return self.loader_workers > 0 and self._stream is None and start_method(self._options or {}) == "fork"

    @property
    def epoch(self) -> int:
        """Training examples in an epoch. Errors of `refuse_stream`."""
        self.refuse_stream()
        assert self.examples_in_epoch is not None
        return self.examples_in_epoch

    def refuse_stream(self) -> None:
        """Refuse training data that are a stream, for what counts in epochs.

        Raises:
            UsageError: they are.
        """
        if self.examples_in_epoch is None:
            raise UsageError(
                "train_data() is a stream, and this command counts in epochs, which a stream does not have; return a "
                "list of its first examples (list(itertools.islice(stream, 10_000))), or use find, bench or noise"
            )

    def largest_batch(self, asked: int | None = None) -> int:
        """The largest batch size to consider: at most an epoch, and what is asked for; of a stream that alone."""
        if self.examples_in_epoch is None:
            return asked or LARGEST_BATCH
        most = min(self.examples, self.examples_in_epoch)
        return min(most, asked or most)

    @property
    def has_collate(self) -> bool:
        """Whether the task joins examples to a batch itself."""
        return self._collate is not None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The training data on the device, examples first; none where they come from a `DataLoader`."""
        return self._tensors or ()

    @property
    def held_back(self) -> int:
        """Training examples taken off to evaluate on, because the task has no `evaluate`."""
        return 0 if self._held_back is None else len(cast(Sized, self._held_back))

    @property
    def drawable(self) -> Tensor:
        """Indices, in ascending order, of the examples that training draws: with a sampler, those of its epoch 0."""
        return torch.arange(self.examples) if self._sampled is None else self._sampled

    def example(self, index: int, *, held_back: bool = False) -> Any:
        """An example, or one that was held back, as `train_data()` has it: neither collated nor on the device."""
        if not held_back:
            return self._collation.examples([index])[0]
        assert self._held_back is not None
        numbers = self._numbers and self._numbers[True]
        return Collation(data=self._held_back, collate=None, numbers=numbers).examples([index])[0]

    def number_of(self, index: int, *, held_back: bool = False) -> int:
        """Index in what `train_data()` returned of a training example, or of one that was held back."""
        return index if self._numbers is None else int(self._numbers[held_back][index])

    def indices_of(self, batch_size: int, seed: int, step: int) -> Tensor | None:
        """Indices of the examples of a step of `micro_batches`; `None` where they come from a stream."""
        if self._stream is not None:
            return None
        order = self._sampler.order if self._sampler else None
        return next(index_stream(self.examples, batch_size, seed, step, order))

    @property
    def in_memory(self) -> bool:
        """Whether batches are cut from tensors in memory, without a `DataLoader`."""
        return self._tensors is not None

    @property
    def loader_options(self) -> dict[str, Any]:
        """Arguments of a `DataLoader` that loads as it does here; none where batches are cut from tensors in memory."""
        if self._tensors is not None:
            return {}
        if self._options is not None:
            return self._options
        return {"num_workers": self.loader_workers, "persistent_workers": True} if self.loader_workers else {}

    def model(self, seed: int) -> nn.Module:
        """A fresh model on the device, in training mode, initialised from `seed`; lazy layers have their sizes."""
        seed_everything(seed)
        return self.made_model().train()

    def made_model(self) -> nn.Module:
        """A model as `model` returns it, but initialised from the generators as they are."""
        with explained("model()"):
            model = checked_module(self.task.model()).to(self.device.torch_device)
        give_sizes(model, lambda: self.loss(model, self.batch(self.drawable.repeat(2)[:2])))
        return model

    def disposable(self, seed: int) -> DisposableModel:
        """A fresh model with its optimizer, for the few steps whose time or memory is measured."""
        return DisposableModel(self, seed=seed)

    def made_optimizer(self, model: nn.Module, lr: float) -> Optimizer:
        """What the task's `optimizer` makes of the model, or of its parameters; see `wants_model`."""
        make = self.task.optimizer
        return make(model if wants_model(make) else list(model.parameters()), lr)  # a list can be read twice

    def optimizer(self, model: nn.Module, lr: float, changes: Mapping[str, Any] | None = None) -> Optimizer:
        """The task's optimizer over the model's parameters, `changes` set on every parameter group."""
        with explained("optimizer(params, lr)"):
            optimizer = self.made_optimizer(model, lr)
        for group in optimizer.param_groups:
            for key, value in (changes or {}).items():
                group[key] = tuple(value) if isinstance(value, list) else value
        return optimizer

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of a batch, in the task's precision; that of a dict, or the first member of a tuple."""
        self.until.require()
        with explained("loss(model, batch)"), autocast(self.precision, self.device):
            return loss_in(self.task.loss(model, batch))

    def weight(self, batch: Batch) -> float:
        """Number of terms in the mean of a batch's loss, as the task says; else of its examples.

        Raises:
            TaskError: it is not a finite number above zero.
        """
        if self.loss_weight is None:
            return float(self.count(batch))
        with explained("loss_weight(batch)"):
            return checked_weight(self.loss_weight(batch))

    def lr_factor(self, progress: float) -> float:
        """Factor of the learning rate at a share of the run, as the task says.

        Raises:
            TaskError: it is not a finite number of at least zero.
        """
        assert self.schedule is not None
        with explained("schedule(progress)"):
            return checked_factor(self.schedule(progress), progress)

    def count(self, batch: Batch) -> int:
        """The number of examples in a batch."""
        with explained("batch_size(batch)"):
            return self._batch_size(batch)

    def batch(self, indices: Tensor) -> Batch:
        """The examples at `indices` (int64, one dimension), collated, on the device."""
        self.until.require()
        if self._tensors is not None:
            return [t[indices.to(t.device)] for t in self._tensors]
        return to_device(self._collation.batch(indices.tolist()), self.device.torch_device)

    def part(self, indices: Tensor) -> Dataset[Any]:
        """The training examples at `indices` (int64, one dimension) as a data set; in memory where the whole is."""
        return subset(self._data, indices)

    def micro_batches(
        self, batch_size: int, parts: int | Callable[[int], int], seed: int, skip: int = 0
    ) -> Generator[list[Batch]]:
        """For each step of an endless run, its batch as `parts` equal micro-batches, each collated by itself.

        The order of the examples depends on `seed` alone: a stream of seeded permutations without gaps, so that every
        step has exactly `batch_size` examples and runs of different batch size see the same examples in the same order.
        `parts` may differ from step to step (a function of the 0-based step, which a loader with workers asks ahead).
        The first `skip` steps are left out, and none of their examples is loaded.
        """
        parts_of = parts if callable(parts) else lambda step: parts
        options = {**(self._options or {}), "num_workers": self.loader_workers}
        if not self.device.works_ahead:
            options.pop("pin_memory", None)
        if self._stream is not None:
            yield from self._steps_of_stream(batch_size, parts_of, seed, skip, options)
        order = self._sampler.order if self._sampler else None
        batches = partial(index_stream, self.examples, batch_size, seed, skip, order)
        if self._tensors is not None:
            for step, indices in enumerate(batches(), skip):
                yield [self.batch(part) for part in indices.split(batch_size // parts_of(step))]
        sampler = MicroBatchSampler(batches, parts_of, skip)
        loader = index_loader(self._data, sampler, self._collate, options, seed)
        batch_s = self.example_s * batch_size / min(parts_of(skip), batch_size)
        with open_loader(loader, batch_s=batch_s) as next_batch:
            load = partial(self._collation.loaded, next_batch, sampler, self.loader_workers)
            for step in itertools.count(skip):
                yield [to_device(load(), self.device.torch_device) for _ in range(parts_of(step))]

    def _steps_of_stream(
        self, batch_size: int, parts_of: Callable[[int], int], seed: int, skip: int, options: Mapping[str, Any]
    ) -> Generator[list[Batch]]:
        """Each step's micro-batches out of a fresh stream; it never ends."""
        steps = stream_steps(
            made_data(self.task, seed),
            batch_size=batch_size,
            parts_of=parts_of,
            seed=seed,
            skip=skip,
            collate=self._collate,
            options=options,
            example_s=self.example_s,
            opening_s=self._opening_s,
        )
        with closing(steps):
            for micro_batches in steps:
                yield [to_device(batch, self.device.torch_device) for batch in micro_batches]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The task's metrics of a model, in evaluation mode without gradients; the mode is put back."""
        self.until.require()
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), autocast(self.precision, self.device):
                if self._evaluate is not None:
                    with explained("evaluate(model)"):
                        metrics = self._evaluate(model)
                    return checked_metrics(metrics)
                assert self._held_back is not None
                return {"val_loss": self._held_back_loss(model)}
        finally:
            model.train(was_training)

    def all_metrics(self, model: nn.Module, averaged: nn.Module | None = None) -> dict[str, float]:
        """What an evaluation of a run is: the metrics, and beside them, as `ema_<metric>`, those of averaged weights.

        Args:
            model: that is trained.
            averaged: that with the averaged weights, where the task has `ema_decay`; default: the model, as before the
                first step the averaged weights are the weights.
        """
        metrics = self.evaluate(model)
        if self.ema_decay is None:
            return metrics
        beside = self.evaluate(model if averaged is None else averaged)
        return metrics | {averaged_name(name): value for name, value in beside.items()}

    def judges_averaged(self, metric: str) -> bool:
        """Whether a metric is one of the averaged weights."""
        return self.ema_decay is not None and name_of_own(metric) is not None

    def _held_back_loss(self, model: nn.Module) -> float:
        data = cast(Dataset[Any], self._held_back)
        try:
            with preserved_random_state(0):  # a loss that samples (negatives, noise) has the same draws each time
                how: dict[str, Any] = {"collate": self._collate, "weight": self.weight, "name": "train_data()"}
                return mean_loss(model, self.loss, data, numbers=self._numbers and self._numbers[True], **how)
        except Exception as error:
            if is_out_of_memory(error):
                mark(error, "evaluating on the validation split")
            raise
