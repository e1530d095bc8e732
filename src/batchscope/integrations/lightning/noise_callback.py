"""Noise monitor as a callback of a Lightning `Trainer`.

Lightning divides the loss of every micro-batch by `accumulate_grad_batches`, so that the means of all count the same,
whatever their sizes; the monitor is told so. Noise is read before clipping and without the factor of a gradient scaler.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from ...errors import TaskError
from ...live.monitor import NoiseMonitor
from ...live.reading import Reading
from ...tasks.batches import first_dimension
from ..trainers import logged, say_why_none

__all__ = ["NoiseCallback"]


def _callback_class() -> Any:
    """Lightning's own class, under the name that is installed."""
    try:
        return importlib.import_module("lightning.pytorch").Callback
    except ModuleNotFoundError:
        return importlib.import_module("pytorch_lightning").Callback


_Callback: Any = _callback_class()


class NoiseCallback(_Callback):
    """Gradient noise scale of a Lightning training, logged by the loggers of the Trainer.

    `Trainer(callbacks=[NoiseCallback()])`. The readings go to every logger as `gradient_noise_scale`, with the
    ends of its 90 % interval, its two parts and the measured share of the time; `callback.read()` has the newest, also
    after the training. It goes on after a checkpoint is resumed. Where it cannot read a training it warns once, and
    leaves it alone: with manual optimization or several optimizers, where a step is not one gradient.

    Args:
        prefix: of the names in the logs.
        loss: `(module, batch) -> mean loss`, for the source that splits a batch; see `NoiseMonitor`.
        batch_size: `(batch) -> examples in it`; default: the first dimension of its first tensor.
        more: arguments of `NoiseMonitor`, such as `layers=True` or `share=0.02`.

    Attributes:
        monitor: the `NoiseMonitor` of the training that goes on; `None`: none does, or it cannot be read.
        reason: why not; empty where it can.
    """

    def __init__(
        self,
        *,
        prefix: str = "",
        loss: Callable[[nn.Module, Any], Any] | None = None,
        batch_size: Callable[[Any], int] = first_dimension,
        **more: Any,
    ) -> None:
        super().__init__()
        self.prefix, self._loss, self._batch_size, self._more = prefix, loss, batch_size, more
        self.monitor: NoiseMonitor | None = None
        self.reason = ""
        self._last: Reading | None = None
        self._kept: dict[str, Any] | None = None
        self._state: dict[str, Any] | None = None
        self._new: Reading | None = None

    def read(self) -> Reading | None:
        """The reading of now, or the last one of a training that has ended; `None`: there is none, see `reason`."""
        return self._last if self.monitor is None else self.monitor.read()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """See whether the training can be read; the monitor begins with the first batch, which has its size."""
        self._close()
        self._last, self.reason = None, _unreadable(trainer, pl_module)
        if self.reason:
            warnings.warn(f"NoiseCallback reads nothing: {self.reason}", RuntimeWarning, stacklevel=2)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Tell the monitor of the micro-batch that comes."""
        if self.reason:
            return
        examples = self._examples(batch)
        if self.monitor is None:
            self.monitor = self._begun(trainer, pl_module, examples or 1)
        self.monitor.micro_batch(examples=examples, weight=1.0, batch=batch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log what was read in the step, if anything."""
        reading, self._new = self._new, None
        if reading is None:
            return
        values = {f"{self.prefix}{name}": value for name, value in logged(reading).items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take all hooks off the model; say why where nothing could be read."""
        self._close()
        say_why_none(self._last)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Take all hooks off the model."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint of the training."""
        kept = self._kept if self.monitor is None else self.monitor.state_dict()
        return {} if kept is None else {"monitor": kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of a checkpoint that is resumed."""
        self._state = state_dict.get("monitor")

    def _close(self) -> None:
        if self.monitor is not None:
            self._last = self.monitor.read()
            self._kept = self.monitor.state_dict()
            self.monitor.close()
        self.monitor = None

    def _examples(self, batch: Any) -> int | None:
        try:
            return self._batch_size(batch)
        except TaskError:
            return None

    def _begun(self, trainer: Any, module: Any, examples: int) -> NoiseMonitor:
        monitor = NoiseMonitor(
            module,
            trainer.optimizers[0],
            batch_size=examples * trainer.accumulate_grad_batches * trainer.world_size,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            loss=self._loss,
            on_reading=self._hear,
            **self._more,
        )
        if self._state is not None:
            monitor.load_state_dict(self._state)
            self._state = None
        return monitor

    def _hear(self, reading: Reading) -> None:
        self._new = reading


def _unreadable(trainer: Any, module: Any) -> str:
    """Why a training has no single gradient a step; empty where it has."""
    if not module.automatic_optimization:
        return (
            f"{type(module).__name__} has automatic_optimization=False and makes its own backward passes and steps; "
            "put a NoiseMonitor beside each optimizer in on_train_start(), and call its micro_batch() before each "
            "backward pass"
        )
    if len(trainer.optimizers) != 1:
        return f"the training has {len(trainer.optimizers)} optimizers, and the noise scale is that of one loss"
    return ""
