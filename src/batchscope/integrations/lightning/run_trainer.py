"""Trainer that a module finds as `self.trainer` in the runs: what it says of them, and a reason for what it cannot say.

It holds what belongs to one model: how many steps it has made, and what it logs.
The numbers of a run stand in the first parameter group of the optimizer, so that a run which goes on from a checkpoint
has them, too.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ...errors import TaskError
from .library import Library
from .settings import TrainerSettings

__all__ = ["RunTrainer", "TrainerError"]

_STEPS, _EXAMPLES = "global_step", "examples_seen"
"""Keys of the first parameter group."""
_CONSTANTS: Mapping[str, Any] = {
    "barebones": False,
    "testing": False,
    "predicting": False,
    "sanity_checking": False,
    "accumulate_grad_batches": 1,
    "world_size": 1,
    "num_devices": 1,
    "num_nodes": 1,
    "global_rank": 0,
    "local_rank": 0,
    "node_rank": 0,
    "is_global_zero": True,
    "log_dir": None,
    "ckpt_path": None,
}
_OF_THE_LENGTH = ("estimated_stepping_batches", "num_training_batches")
"""Of these a run knows nothing: its length is what is looked for."""


class TrainerError(TaskError, AttributeError):
    """A module asked its trainer for what there is not in a run."""


class _Discarded:
    """What is logged in training: kept nowhere, but for the metric objects, which are reset with each epoch."""

    def __init__(self) -> None:
        self.metrics: dict[int, Any] = {}

    def log(self, fx: str, name: str, value: Any, **how: Any) -> None:
        if not isinstance(value, Tensor) and hasattr(value, "reset"):
            self.metrics[id(value)] = value

    def reset(self, metrics: bool | None = None, fx: str | None = None) -> None:
        if metrics is not False:
            for metric in self.metrics.values():
                metric.reset()


class RunTrainer:
    """Trainer of one model in a run.

    Args:
        library: the module's.
        settings: of the user's own trainer.
        datamodule: the data module, or the module itself.
        epoch: examples in an epoch; `None`: it is not known.

    Attributes:
        training: whether a training step is at work.
        validating: whether an evaluation is.
        batch_idx: of the next batch in its epoch.
        started: whether the hooks at the beginning of the training were called.
        begun: the epoch whose hooks for its beginning were called; -1: none.
        last: what the last training step was given, and what it returned.
        taken: arguments that each hook of the module takes; `None`: it does not define the hook.
    """

    def __init__(self, library: Library, settings: TrainerSettings, datamodule: Any, epoch: int | None) -> None:
        self.library, self.settings, self.datamodule, self.epoch = library, settings, datamodule, epoch
        self.training, self.validating = True, False
        self.started = False
        self.begun, self.batch_idx, self.pending = -1, 0, 0
        self.last: tuple[Any, Any, int] | None = None
        self.taken: dict[str, int | None] = {}
        self.should_stop = False
        self.logger = library.get("loggers.logger", "DummyLogger")()
        self.precision_plugin = library.get("plugins.precision", "Precision")()
        self.callback_metrics: dict[str, Any] = {}
        self._results: Any = _Discarded()
        self._training_results = self._results
        self._logger_connector = SimpleNamespace(should_reset_tensors=lambda fx: False, _current_fx=None)
        self._accelerator_connector = SimpleNamespace(is_distributed=False)
        self._optimizer: weakref.ref[Optimizer] | None = None
        self._length: int | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name in _OF_THE_LENGTH:
            if self._length is not None:
                return self._length
            raise TrainerError(
                f"the module asks for trainer.{name}, which a run does not know: its length is what is looked for. In "
                "configure_optimizers() it may ask; elsewhere use self.global_step, or a member schedule"
            )
        raise TrainerError(
            f"the module asks for trainer.{name}, and the runs of a search have no Trainer of Lightning; guard it "
            f"(getattr(self.trainer, {name!r}, None)), or take it out of what training and validation call"
        )

    @contextmanager
    def announcing(self, steps: int) -> Generator[None]:
        """Say inside that the training has so many steps."""
        self._length = steps
        try:
            yield
        finally:
            self._length = None

    @contextmanager
    def collecting(self, results: Any) -> Generator[None]:
        """Put inside what is logged into a collection; it is an evaluation."""
        was = self.training
        self._results, self.training, self.validating = results, False, True
        try:
            yield
        finally:
            self._results, self.training, self.validating = self._training_results, was, False

    def drives(self, optimizer: Optimizer) -> None:
        """Count the steps of an optimizer from now on."""
        first = optimizer.param_groups[0]
        first.setdefault(_STEPS, 0)
        first.setdefault(_EXAMPLES, 0)
        self._optimizer = weakref.ref(optimizer)

    def stepped(self) -> None:
        """Count a step."""
        numbers = self._numbers
        numbers[_STEPS] += 1
        numbers[_EXAMPLES] += self.pending
        self.pending = 0

    def reset_logged(self) -> None:
        """Begin the metrics that are logged in training anew."""
        self._training_results.reset()
        self._training_results.metrics.clear()

    @property
    def _numbers(self) -> dict[str, Any]:
        optimizer = self._optimizer() if self._optimizer is not None else None
        return {_STEPS: 0, _EXAMPLES: 0} if optimizer is None else optimizer.param_groups[0]

    @property
    def global_step(self) -> int:
        """Optimizer steps so far."""
        return int(self._numbers.get(_STEPS, 0))

    @property
    def current_epoch(self) -> int:
        """Whole passes over as many examples as the data have."""
        return int(self._numbers.get(_EXAMPLES, 0)) // self.epoch if self.epoch else 0

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizer, once there is one."""
        optimizer = self._optimizer() if self._optimizer is not None else None
        return [] if optimizer is None else [optimizer]

    @property
    def strategy(self) -> Any:
        """What modules ask a strategy for."""
        of_one = dict.fromkeys(("reduce", "broadcast", "barrier", "all_gather"), _itself)
        return SimpleNamespace(**of_one, _lightning_optimizers=self.optimizers)

    @property
    def progress_bar_callback(self) -> Any:
        """What `self.print` writes to: nowhere, as the terminal is the search's."""
        return SimpleNamespace(is_enabled=True, print=self.print)

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation is at work."""
        return self.validating

    @property
    def loggers(self) -> list[Any]:
        """The one logger, which keeps nothing."""
        return [self.logger]

    @property
    def callbacks(self) -> list[Any]:
        """None are called."""
        return []

    @property
    def lr_scheduler_configs(self) -> list[Any]:
        """What `self.lr_schedulers()` returns: it knows the learning rates, which the run sets."""
        return [SimpleNamespace(scheduler=_Rates(optimizer)) for optimizer in self.optimizers]

    @property
    def logged_metrics(self) -> dict[str, Any]:
        """The metrics of the last evaluation."""
        return self.callback_metrics

    @property
    def gradient_clip_val(self) -> float | None:
        """Of the user's own trainer."""
        return self.settings.clip_value

    @property
    def gradient_clip_algorithm(self) -> str | None:
        """Of the user's own trainer."""
        return self.settings.clip_algorithm

    @property
    def max_epochs(self) -> int:
        """Of the user's own trainer; -1: it has no such end."""
        return self.settings.max_epochs

    @property
    def max_steps(self) -> int:
        """Of the user's own trainer; -1: it has no such end."""
        return self.settings.max_steps

    @property
    def precision(self) -> str:
        """In Lightning's words."""
        return {"float32": "32-true", "float16": "16-mixed", "bfloat16": "bf16-mixed"}[self.settings.precision]

    def print(self, *words: Any, **how: Any) -> None:
        """Say nothing: the terminal is the search's."""

    def device_of(self, module: torch.nn.Module) -> torch.device:
        """Where a module is."""
        return next((p.device for p in module.parameters()), torch.device("cpu"))


class _Rates:
    """Scheduler that says the learning rates of an optimizer, and changes none."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def get_last_lr(self) -> list[float]:
        """Learning rates of the groups, as they are."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def step(self, *given: Any) -> None:
        """Nothing: the run sets them."""


def _itself(value: Any = None, *given: Any, **named: Any) -> Any:
    """What several devices would make of a value, on one."""
    return value
