"""What the runs of a command are judged by: its target, the metric that was named, or one whose direction is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..errors import TargetError
from .metrics import is_averaged, is_loss, known_mode, part_of
from .records import Metric, RunConfig, Target

__all__ = ["aim_of", "default_metric", "has_default", "watched_metric", "with_values"]


def default_metric(metrics: Iterable[str]) -> Metric:
    """Metric to judge by when none was named: of those whose direction is known, a validation loss first.

    Then another loss, then another metric on validation data, then one that does not say on which data; by name where
    several are alike. Metrics of the test part are never chosen, of the training part only where there is no other.

    Args:
        metrics: names, or their values with fresh weights by name, which the message then has.

    Raises:
        TargetError: there is none; the message says what to write.

    Example:
        >>> str(default_metric(["test_loss", "val_accuracy", "val_loss"])), str(default_metric(["val_rmse", "depth"]))
        ('val_loss:min', 'val_rmse:min')
    """
    usable = [name for name in metrics if part_of(name) != "test" and not name.startswith("test_")]
    of_training = [name for name in usable if part_of(name) == "training"]
    usable = [name for name in usable if name not in of_training] or of_training
    known = [Metric(name=name, mode=mode) for name in usable if (mode := known_mode(name)) is not None]
    if known:
        return min(known, key=_rank)
    example = usable[0] if usable else "val_loss"
    what = f"whether {example} is" if len(usable) == 1 else "which of them counts, and whether it is"
    raise TargetError(
        f"evaluate(model) returned {with_values(metrics)}, and it is not known {what} better when larger or when "
        f"smaller; say it with --metric {example}:max or --metric {example}:min"
    )


def has_default(metrics: Iterable[str]) -> bool:
    """Whether there is a metric to judge by where none was named.

    >>> has_default(["val_loss", "depth"]), has_default(["depth", "test_loss"])
    (True, False)
    """
    try:
        default_metric(metrics)
    except TargetError:
        return False
    return True


def watched_metric(metrics: Mapping[str, float]) -> Metric:
    """Metric by which a single run is watched that is compared with no other: the default one, else a finite one.

    >>> str(watched_metric({"area": math.nan, "depth": 0.3, "test_depth": 0.4}))
    'depth:min'
    """
    if has_default(metrics):
        return default_metric(metrics)
    usable = {name: value for name, value in metrics.items() if not name.startswith("test_")} or metrics
    return Metric(name=min(usable, key=lambda name: (not math.isfinite(usable[name]), name)), mode="min")


def aim_of(config: RunConfig, metrics: Iterable[str]) -> Target:
    """What a run is judged by: its target, else a target that no run reaches, on its metric or the default one.

    Args:
        config: of the run.
        metrics: names of those that are evaluated.

    Raises:
        TargetError: the run has neither, and no direction is known.
    """
    if config.target is not None:
        return config.target
    return (config.metric or default_metric(metrics)).endless


def _rank(metric: Metric) -> tuple[bool, bool, bool, str]:
    name = metric.name
    return not is_loss(name), part_of(name) != "validation", is_averaged(name), name


def with_values(metrics: Iterable[str]) -> str:
    """Metrics in words, with their values where these are given.

    >>> with_values({"depth": 0.25, "val_f1": 0.5}), with_values(["depth"]), with_values([])
    ('depth 0.25, val_f1 0.5', 'depth', 'nothing')
    """
    if isinstance(metrics, Mapping):
        return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    return ", ".join(metrics) or "nothing"
