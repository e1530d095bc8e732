"""Evaluation: whether `evaluate` repeats its numbers, leaves the model alone, and knows the target's metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import nn

from ...errors import TargetError, TaskError
from ...store.aims import default_metric, has_default
from ...store.metrics import limits_of
from ...store.ranges import SHARE
from ...store.records import Metric, Target
from ..culprits import without_number
from ..model_state import difference, fingerprint
from ..settings import near_miss
from ..workload import Workload

__all__ = ["check_target", "evaluate_twice", "judged_by"]

_REPEATABLE = 1e-4


def _no_reason() -> str:
    return "return a finite number"


def evaluate_twice(workload: Workload, model: nn.Module) -> tuple[dict[str, float], float]:
    """The metrics of a fresh model, and the seconds of an evaluation: of two, the shorter.

    The random generators run on between the two evaluations, as they do in training.

    Raises:
        TaskError: the two disagree, the model has changed, or there is nothing to choose by.
        OutOfTime: no time is left for the second.
    """
    before, clock = fingerprint(model), workload.device.clock
    started = clock()
    first, middle = workload.all_metrics(model), clock()
    workload.until.require(middle - started)
    second, ended = workload.all_metrics(model), clock()
    if name := difference(before, fingerprint(model)):
        of = "parameters" if name in dict(model.named_parameters()) else "buffers"
        raise TaskError(
            f"evaluate(model) changed the model's {of} ({name}); it must only read them: change a copy, and leave the "
            "model in evaluation mode, in which batch normalisation keeps its statistics"
        )
    if first.keys() != second.keys():
        raise TaskError(f"evaluate(model) returned {', '.join(first)}, then of the same model {', '.join(second)}")
    for name, value in first.items():
        if not _same(value, second[name]):
            raise TaskError(
                f"two evaluations of the same model disagree: {name} is {value:.6g}, then {second[name]:.6g}; evaluate "
                "on a fixed set of examples, without shuffling, sampling or dropout"
            )
    if all(name.startswith("test_") for name in first):
        raise TaskError(
            f"evaluate(model) returned {', '.join(first)}; metrics that begin with test_ are reported only: return one "
            "on validation data too, for example 'val_loss'"
        )
    return first, min(middle - started, ended - middle)


def check_target(
    metrics: Mapping[str, float],
    asked: Target | Metric | None,
    outputs: int | None = None,
    why: Callable[[], str] = _no_reason,
) -> list[str]:
    """Check that a target or a metric can be asked for; returns notes on metrics that are no numbers yet.

    Args:
        metrics: of the model with fresh weights.
        asked: the target, or the metric that is asked for without one; `None`: neither, and the default metric is
            looked at if there is one.
        outputs: of the model's last layer; `None`: not known.
        why: finds out why a metric is no number, and what to change.

    Raises:
        TargetError: `evaluate` lacks the metric, the target is met already, or its metric cannot reach it.
        TaskError: the metric is not finite before training.
    """
    if isinstance(asked, Target):
        _check_value(
            _fresh(
                metrics,
                asked.metric,
                f"the target {asked} asks for {asked.metric}, which evaluate(model) does not return",
                why,
            ),
            asked,
            outputs,
        )
    elif asked is not None or has_default(metrics):
        judged_by(metrics, asked, why)
    return [f"{n} is {without_number(v)} before training" for n, v in metrics.items() if not math.isfinite(v)]


def judged_by(metrics: Mapping[str, float], asked: Metric | None, why: Callable[[], str] = _no_reason) -> Metric:
    """The metric that runs without a target are judged by: the one that was asked for, else one of known direction.

    Args:
        metrics: of the model with fresh weights.
        asked: with its direction; `None`: none was named.
        why: as for `check_target`.

    Raises:
        TargetError: `evaluate` lacks the metric, or none was named and no direction is known.
        TaskError: the metric is not finite before training.
    """
    metric = asked or default_metric(metrics)
    _fresh(metrics, metric.name, f"--metric {metric} is not among what the task evaluates", why)
    return metric


def _fresh(metrics: Mapping[str, float], name: str, lacking: str, why: Callable[[], str]) -> float:
    """Value with fresh weights of the metric to choose by.

    Raises:
        TargetError: `evaluate` lacks it.
        TaskError: it is not finite.
    """
    usable = [metric for metric in metrics if not metric.startswith("test_")]
    if name not in usable:
        raise TargetError(f"{lacking}{near_miss(name, usable)}; there are {', '.join(usable)}")
    if not math.isfinite(metrics[name]):
        raise TaskError(f"{name} is {without_number(metrics[name])} before training, with fresh weights; {why()}")
    return metrics[name]


def _check_value(fresh: float, target: Target, outputs: int | None) -> None:
    """Check that a target is not met with fresh weights, and within what its metric can be.

    Raises:
        TargetError: it is.
    """
    if target.met_by(fresh):
        side = "below" if target.mode == "min" else "above"
        meant = target.in_known_direction
        advice = f"ask for a value {side} that" if meant.met_by(fresh) else f"did you mean {meant}?"
        raise TargetError(
            f"the target {target} is already met before training: {target.metric} is {fresh:.6g} with fresh weights; "
            f"{advice}"
        )
    limits = limits_of(target.metric, fresh, outputs)
    low, high = limits.low, limits.high
    if target.mode == "max" and high is not None and target.value > high:
        meant = replace(target, value=target.value / 100.0)
        sensible = limits == SHARE and meant.value <= 1.0 and not meant.met_by(fresh)
        what = "a share of at most 1" if limits == SHARE else f"and it is at most {high:g}"
        change = f"did you mean {meant}?" if sensible else f"ask for a value of at most {high:g}"
    elif target.mode == "min" and low is not None and target.value < low:
        what, change = f"and it is never below {low:g}", f"ask for a value above {low:g}"
    else:
        return
    raise TargetError(
        f"the target {target} cannot be reached: {target.metric} is {fresh:.6g} with fresh weights, {what}; {change}"
    )


def _same(first: float, second: float) -> bool:
    if math.isnan(first) and math.isnan(second):
        return True
    return first == second or abs(first - second) <= _REPEATABLE * max(abs(first), abs(second))
