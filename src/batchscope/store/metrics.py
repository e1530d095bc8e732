"""Metrics by their names: which one to aim at, and whether larger is better. Numbers only."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from ..errors import TargetError
from .records import Target

__all__ = ["in_likely_direction", "is_share", "larger_is_better", "target_metric", "without_end"]

_LARGER_IS_BETTER = ("acc", "f1", "auc", "r2", "bleu", "precision", "recall", "score", "iou")
_SHARES = ("f1", "auc", "precision", "recall", "iou")
"""Scores beside accuracies that lie in [0, 1], or in percent in [0, 100]."""


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


def in_likely_direction(target: Target) -> Target:
    """Target turned into the direction in which its metric is better, by the metric's name; else as it is.

    >>> str(in_likely_direction(Target.parse("val_loss>=0.1"))), str(in_likely_direction(Target.parse("depth>=2")))
    ('val_loss<=0.1', 'depth>=2')
    """
    if "loss" in target.metric:
        return replace(target, mode="min")
    return replace(target, mode="max") if larger_is_better(target.metric) else target


def is_share(metric: str, value: float, outputs: int | None) -> bool:
    """Whether a score is a share of 1 and no percentage, by its name and by its value with fresh weights.

    By chance an accuracy is about 1 / outputs as a share and 100 / outputs in percent; what lies on the side of the
    share of the geometric mean of the two is one. Other scores may be far below chance, and are told apart only where
    the outputs are few.

    Args:
        metric: the score.
        value: with fresh weights.
        outputs: of the model's last layer; `None`: not known, and nothing is told apart.

    Example:
        >>> is_share("val_accuracy", 0.1, 10), is_share("val_accuracy", 0.1, 1000), is_share("val_loss", 0.1, 10)
        (True, False, False)
    """
    if outputs is None or not 0.0 < value <= 1.0:
        return False
    if "acc" in metric.lower():
        return value <= 10.0 / outputs
    return outputs <= 10 and any(part in metric.lower() for part in _SHARES)


def without_end(metrics: Sequence[str]) -> Target:
    """Target on the metric to aim at that no run reaches, for runs of a given length."""
    metric, larger = target_metric(metrics)
    return Target(metric=metric, value=sys.float_info.max * (1 if larger else -1), mode="max" if larger else "min")
