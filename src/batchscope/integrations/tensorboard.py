"""Readings of a monitor as scalars of TensorBoard."""

from __future__ import annotations

import importlib
import os
from typing import Any

from ..errors import UsageError
from ..live.reading import Reading

__all__ = ["TensorBoard"]

_ESTIMATES = ("gradient_noise_scale", "signal", "noise")


class TensorBoard:
    """Writer of readings; hand it to a monitor as `on_reading`.

    Scalars `noise/gradient_noise_scale`, `noise/signal` and `noise/noise`, each with `_low` and `_high` where the 90 %
    interval has that end, `noise/overhead`, and `noise_scale_of_layers/NAME` where layers are asked for; a number that
    a reading does not have is left out. The step is the optimizer's.

    Args:
        to: folder of the event files, or a `SummaryWriter` that is there already (of `torch.utils.tensorboard`, or
            `logger.experiment` of Lightning's `TensorBoardLogger`); one of your own is yours to close.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, to: str | os.PathLike[str] | Any) -> None:
        self.writer: Any = _writer(os.fspath(to)) if isinstance(to, str | os.PathLike) else to

    def __call__(self, reading: Reading) -> None:
        """Write the numbers of a reading, and hand them on to the disk."""
        for name in _ESTIMATES:
            estimate = getattr(reading, name)
            for end, number in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high)):
                if number is not None:
                    self.writer.add_scalar(f"noise/{name}{end}", number, reading.step)
        self.writer.add_scalar("noise/overhead", reading.overhead, reading.step)
        for layer, scale in reading.layers.items():
            if scale.value is not None:
                self.writer.add_scalar(f"noise_scale_of_layers/{layer}", scale.value, reading.step)
        self.writer.flush()


def _writer(folder: str) -> Any:
    try:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter(folder)
    except ImportError as error:
        raise UsageError(
            f"readings for TensorBoard need the package tensorboard, which is not installed here ({error}); install "
            'the extra: pip install -c constraints.txt ".[tensorboard]", or "batchscope[tensorboard]", or write them '
            "with batchscope.live.csv_file.CsvFile"
        ) from error
