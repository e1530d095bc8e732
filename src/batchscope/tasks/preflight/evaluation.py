"""Evaluation: whether `evaluate` repeats its numbers, leaves the model alone, and knows the target's metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from ...errors import TargetError, TaskError
from ...store.metrics import in_likely_direction, is_share, target_metric
from ...store.records import Target
from ..model_state import difference, fingerprint
from ..settings import near_miss
from ..workload import Workload

__all__ = ["check_target", "evaluate_twice"]

_REPEATABLE = 1e-4


def evaluate_twice(workload: Workload, model: nn.Module) -> tuple[dict[str, float], float]:
    """The metrics of a fresh model, and the seconds of an evaluation: of two, the shorter.

    The random generators run on between the two evaluations, as they do in training.

    Raises:
        TaskError: the two disagree, the model has changed, or there is nothing to choose by.
    """
    before, clock = fingerprint(model), workload.device.clock
    started = clock()
    first, middle = workload.evaluate(model), clock()
    second, ended = workload.evaluate(model), clock()
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


def check_target(metrics: Mapping[str, float], target: Target | None, outputs: int | None = None) -> list[str]:
    """Check that the target can be asked for; returns notes on other metrics that are no numbers yet.

    Args:
        metrics: of the model with fresh weights.
        target: what is asked for; `None`: nothing.
        outputs: of the model's last layer; `None`: not known.

    Raises:
        TargetError: `evaluate` lacks the metric, none was named and none is known, the target is met already, or it
            is a percentage of a metric that is a share of 1.
        TaskError: the metric to choose by is not finite before training.
    """
    usable = [name for name in metrics if not name.startswith("test_")]
    if target is not None and target.metric not in usable:
        raise TargetError(
            f"the target {target} asks for {target.metric}, which evaluate(model) does not return"
            f"{near_miss(target.metric, usable)}; there are {', '.join(usable)}"
        )
    needed = target.metric if target is not None else target_metric(list(metrics))[0]
    if not math.isfinite(metrics[needed]):
        raise TaskError(f"{needed} is {metrics[needed]} before training, with fresh weights; return a finite number")
    if target is not None:
        _check_value(metrics[needed], target, outputs)
    return [f"{n} is {v} before training" for n, v in metrics.items() if not math.isfinite(v)]


def _check_value(fresh: float, target: Target, outputs: int | None) -> None:
    """Check that a target is not met with fresh weights, and no percentage of a share.

    Raises:
        TargetError: it is.
    """
    if target.met_by(fresh):
        side = "below" if target.mode == "min" else "above"
        meant = in_likely_direction(target)
        advice = f"ask for a value {side} that" if meant.met_by(fresh) else f"did you mean {meant}?"
        raise TargetError(
            f"the target {target} is already met before training: {target.metric} is {fresh:.6g} with fresh weights; "
            f"{advice}"
        )
    if target.mode == "max" and target.value > 1.0 and is_share(target.metric, fresh, outputs):
        meant = replace(target, value=target.value / 100.0)
        sensible = meant.value <= 1.0 and not meant.met_by(fresh)
        raise TargetError(
            f"the target {target} cannot be reached: {target.metric} is {fresh:.6g} with fresh weights, a share of at "
            f"most 1; {f'did you mean {meant}?' if sensible else 'ask for a value of at most 1'}"
        )


def _same(first: float, second: float) -> bool:
    if math.isnan(first) and math.isnan(second):
        return True
    return first == second or abs(first - second) <= _REPEATABLE * max(abs(first), abs(second))
