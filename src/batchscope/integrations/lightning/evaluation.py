"""Evaluation of a module as `Trainer.validate` makes it: the same steps, hooks and metrics, nothing on the terminal.

What the module logs goes into Lightning's own collection of results, so that means over an epoch are weighted by batch
sizes, and metric objects of torchmetrics are computed at its end and reset, as in the user's own training.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from ...errors import TaskError
from ...hardware.random_state import preserved_random_state
from ...tasks.batches import to_device
from .hooks import call, moved, trainer_of
from .loaders import validation_batches

__all__ = ["validated"]


def validated(model: nn.Module, loaders: Sequence[Any], limit: float) -> dict[str, float]:
    """The metrics that a module logs for an epoch of validation.

    Args:
        model: in evaluation mode.
        loaders: validation loaders.
        limit: `limit_val_batches`.

    Raises:
        TaskError: it logs none.

    What is drawn at random is the same each time, and the caller's generators are left as they were.
    """
    trainer = trainer_of(model)
    results = trainer.library.get("trainer.connectors.logger_connector.result", "_ResultCollection")(training=False)
    metrics: dict[str, Any] = {}
    with preserved_random_state(0), warnings.catch_warnings(), trainer.collecting(results):
        warnings.simplefilter("ignore")
        call(model, "on_validation_start")
        call(model, "on_validation_epoch_start")
        several = len(loaders) > 1
        for number, loader in enumerate(loaders):
            results.dataloader_idx = number if several else None
            _one_loader(model, loader, limit, number if several else None, results)
            metrics |= _epoch_values(results)
        results.batch, results.batch_size, results.dataloader_idx = None, None, None
        trainer.callback_metrics = dict(metrics)
        call(model, "on_validation_epoch_end")
        metrics |= _epoch_values(results)
        results.reset()
        trainer.callback_metrics = dict(metrics)
        call(model, "on_validation_end")
    if not metrics:
        raise TaskError(
            f"validation_step() of {type(model).__name__} logged no metric of an epoch: add "
            "self.log('val_loss', loss) to it"
        )
    return {name: float(value) for name, value in metrics.items()}


def _one_loader(model: nn.Module, loader: Any, limit: float, number: int | None, results: Any) -> None:
    trainer = trainer_of(model)
    device = trainer.device_of(model)
    which = () if number is None else (number,)
    for batch_idx, loaded in enumerate(validation_batches(loader, limit)):
        batch = moved(model, to_device(loaded, device), number or 0)
        results.batch, results.batch_size = batch, None
        call(model, "on_validation_batch_start", batch, batch_idx, *which)
        returned = call(model, "validation_step", batch, batch_idx, *which)
        call(model, "on_validation_batch_end", returned, batch, batch_idx, *which)


def _epoch_values(results: Any) -> dict[str, Any]:
    """What was logged so far for the epoch; not a second time as `<name>_epoch`, where the steps were logged, too."""
    found = results.metrics(on_step=False)["callback"]
    bare = {name: name.removesuffix("_epoch") for name in found}
    return {name: found[name] for name in found if bare[name] == name or found.get(bare[name]) is not found[name]}
