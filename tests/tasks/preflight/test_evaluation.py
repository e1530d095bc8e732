"""`evaluate` is repeatable, and knows the target's metric."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from batchscope.errors import TargetError, TaskError
from batchscope.store.records import Metric, Target
from batchscope.tasks.preflight.evaluation import judged_by

from .parts import CLASSES, run


def draws(model: nn.Module) -> dict[str, float]:
    return {"val_loss": 1.0 + torch.rand(()).item()}


def meddles(model: nn.Module) -> dict[str, float]:
    for p in model.parameters():
        p.data.mul_(1.0 + 1e-6)
    return {"val_loss": 1.0}


def learns(model: nn.Module) -> dict[str, float]:
    """In training mode batch normalisation moves its statistics."""
    model.train()
    return {"val_loss": model(torch.ones(8, 4)).square().mean().item()}


def test_statistics_that_an_evaluation_moves() -> None:
    def make_model() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, CLASSES))

    message = r"evaluate\(model\) changed the model's buffers \(0.running_mean\); .* leave the model in evaluation mode"
    with pytest.raises(TaskError, match=message):
        run(make_model=make_model, metrics=learns)


def test_the_shorter_of_two_evaluations_is_told() -> None:
    assert 0.0 < run().evaluation_s < 10.0


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (
            draws,
            r"two evaluations of the same model disagree: val_loss is 1\.\d+, then 1\.\d+; evaluate on a fixed set",
        ),
        (meddles, r"evaluate\(model\) changed the model's parameters \(weight\)"),
        (lambda model: None, r"evaluate\(\) returned None; it must return a dict"),
        (lambda model: {}, r"evaluate\(\) returned {}; it must return a dict"),
        (lambda model: 0.5, r"evaluate\(\) returned 0.5; it must return a dict"),
        (lambda model: {"val_loss": "low"}, r"evaluate\(\) returned 'low' for 'val_loss', which is not a number"),
        (lambda model: {"val_loss": torch.zeros(3)}, r"for 'val_loss', which is not a number"),
        (lambda model: {"val_loss": float("nan")}, r"val_loss is NaN before training"),
        (
            lambda model: {"val_f1": float("nan"), "test_f1": 1.0},
            r"val_f1 is NaN before training, with fresh weights",
        ),
        (lambda model: {"test_loss": 1.0}, r"returned test_loss; metrics that begin with test_ are reported only"),
        (
            lambda model: {"val_loss": 1 / 0},
            r"evaluate\(model\) raised ZeroDivisionError: division by zero \(test_evaluation.py",
        ),
    ],
)
def test_bad_evaluations(metrics: Callable[..., Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        run(metrics=metrics)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("val_los<=0.1", r"asks for val_los, .*did you mean 'val_loss'\?; there are val_loss, val_accuracy$"),
        ("f1>=0.9", r"asks for f1, which evaluate\(model\) does not return; there are val_loss, val_accuracy$"),
        (
            "val_accuracy>=0.2",
            r"already met before training: val_accuracy is 0.25 with fresh weights; ask for a value above",
        ),
        (
            "val_accuracy<=0.25",
            r"already met before training: val_accuracy is 0.25 with fresh weights; ask for a value below",
        ),
    ],
)
def test_bad_targets(target: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        run(target=target)


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("val_loss>=0.1", ["val_loss<=0.1"]),
        ("val_accuracy<=0.97", ["val_accuracy>=0.97"]),
        ("val_accuracy>=97", ["val_accuracy>=0.97"]),
        ("val_accuracy<=97", ["val_accuracy>=97", "val_accuracy>=0.97"]),
    ],
)
def test_the_target_that_was_meant_can_be_asked_for(target: str, meant: list[str]) -> None:
    for better in meant:
        with pytest.raises(TargetError, match=rf"did you mean {re.escape(better)}\?$"):
            run(target=target)
        target = better
    run(target=target)


def test_a_share_above_one_without_a_percentage_that_was_meant() -> None:
    for target in ("val_accuracy>=1.5", "val_accuracy>=970"):
        with pytest.raises(TargetError, match=r"val_accuracy is 0.25 .*; ask for a value of at most 1$"):
            run(target=target)


def test_a_score_in_percent_may_be_above_one() -> None:
    run(target="val_accuracy>=97", metrics=lambda model: {"val_accuracy": 33.3})
    run(target="val_depth>=97", metrics=lambda model: {"val_depth": 0.3})
    run(target="accuracy>=76", metrics=lambda model: {"accuracy": 0.1}, make_model=lambda: nn.Linear(4, 1000))


def test_a_metric_that_is_no_number_yet_is_noted() -> None:
    found = run(target="val_loss<=0.1", metrics=lambda model: {"val_loss": 1.0, "val_auc": float("nan")})
    assert found.notes == ("val_auc is NaN before training",)


def test_a_target_beyond_what_its_metric_can_be() -> None:
    def refused(target: str, fresh: float, message: str) -> None:
        with pytest.raises(TargetError, match=message):
            run(target=target, metrics=lambda model: {Target.parse(target).metric: fresh})

    refused(
        "val_accuracy>=150", 33.3, r"cannot be reached: .* is 33.3 .*, and it is at most 100; ask for a value of at"
    )
    refused("auc>=1.2", 0.5, r"a share of at most 1; ask for a value of at most 1$")
    refused("r2>=1.5", -0.5, r"and it is at most 1; ask for a value of at most 1$")
    refused("val_mae<=-0.1", 1.0, r"val_mae is 1 with fresh weights, and it is never below 0; ask for a value above 0$")
    refused("perplexity<=0.5", 90.0, r"never below 1; ask for a value above 1$")
    run(target="val_loss<=-5", metrics=lambda model: {"val_loss": 1.0})  # the negative logarithm of a density, perhaps


def test_a_metric_that_is_asked_for_has_to_be_there_and_finite() -> None:
    metrics = {"depth": 1.0, "height": float("nan"), "test_loss": 1.0}
    assert judged_by(metrics, Metric.parse("depth:max")) == Metric(name="depth", mode="max")
    with pytest.raises(
        TargetError, match=r"--metric dept:max is not among what .*did you mean 'depth'\?; there are depth, "
    ):
        judged_by(metrics, Metric.parse("dept:max"))
    with pytest.raises(TaskError, match=r"height is NaN before training"):
        judged_by(metrics, Metric.parse("height:max"))


def test_without_a_target_a_metric_need_not_be_known_before_it_is_chosen_by() -> None:
    """A bench or a noise scale chooses by none; a search asks for it, right after this."""
    unknown = {"energy_loss": 2.0, "depth": float("nan")}
    assert run(metrics=lambda model: unknown).notes == ("depth is NaN before training",)
    with pytest.raises(TargetError, match=r"energy_loss 2, depth nan, .*--metric energy_loss:max"):
        judged_by(unknown, None)
