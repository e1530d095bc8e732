"""Metrics by their names: which one to aim at, and whether larger is better. Numbers only."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import TargetError
from .records import Target

__all__ = ["larger_is_better", "target_metric", "without_end"]

_LARGER_IS_BETTER = ("acc", "f1", "auc", "r2", "bleu", "precision", "recall", "score", "iou")


def target_metric(metrics: Sequence[str]) -> tuple[str, bool]:
    """Metric to aim at when none was named, and whether larger is better.

    A validation loss first, then any loss, then any metric known to be better when larger.

    Raises:
        TargetError: no metric is of either kind.

    Example:
        >>> target_metric(["test_loss", "val_accuracy", "val_loss"])
        ('val_loss', False)
    """
    usable = [m for m in metrics if not m.startswith("test_")]
    losses = sorted((m for m in usable if "loss" in m), key=lambda m: (not m.startswith("val"), m))
    if losses:
        return losses[0], False
    for metric in usable:
        if larger_is_better(metric):
            return metric, True
    raise TargetError(
        f"none of the metrics {', '.join(metrics)} is a loss or a known score; say which one counts, for example "
        f"--target '{(usable or ['val_loss'])[0]}>=0.9'"
    )


def larger_is_better(metric: str) -> bool:
    """Whether a metric is known to be better when larger, by its name.

    >>> larger_is_better("val_accuracy"), larger_is_better("val_loss")
    (True, False)
    """
    return any(part in metric.lower() for part in _LARGER_IS_BETTER)


def without_end(metrics: Sequence[str]) -> Target:
    """Target on the metric to aim at that no run reaches, for runs of a given length."""
    metric, larger = target_metric(metrics)
    return Target(metric=metric, value=sys.float_info.max * (1 if larger else -1), mode="max" if larger else "min")
