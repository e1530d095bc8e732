"""Metrics by their exact names: direction, limits, and which one is judged by when none is named."""

from __future__ import annotations

import math

import pytest

from batchscope.errors import TargetError
from batchscope.store.aims import aim_of, default_metric, has_default, watched_metric
from batchscope.store.metrics import is_loss, known_mode, limits_of
from batchscope.store.ranges import (
    ANY,
    AT_MOST_ONE,
    ERRORS,
    LOSSES,
    NOT_NEGATIVE,
    PERCENT,
    PERPLEXITIES,
    SCORES,
    SHARE,
    range_of,
    stem_of,
)
from batchscope.store.records import Metric, RunConfig, Target


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_loss", "min"),
        ("loss", "min"),
        ("eval/loss", "min"),
        ("ema_val_rmse", "min"),
        ("valid_PPL", "min"),
        ("dev_wer", "min"),
        ("val_top1", "max"),
        ("validation_accuracy", "max"),
        ("val_AUC", "max"),
        ("rouge-L", None),
        ("val_rougeL", "max"),
        ("r2", "max"),
        ("val_score", None),
        ("energy_loss", None),
        ("lossless_ratio", None),
        ("my_accuracy", None),
        ("depth", None),
        ("val_", None),
        ("val", None),
    ],
)
def test_a_direction_is_known_by_the_exact_name_only(name: str, mode: str | None) -> None:
    assert known_mode(name) == mode


def test_no_name_is_better_both_ways() -> None:
    assert not SCORES & ERRORS
    assert all(known_mode(name) == "max" for name in SCORES)
    assert all(known_mode(name) == "min" for name in ERRORS)


@pytest.mark.parametrize(
    ("metrics", "chosen"),
    [
        (["test_loss", "val_accuracy", "val_loss"], "val_loss:min"),
        (["train_loss", "val_loss"], "val_loss:min"),
        (["aux_loss", "val_top1_accuracy"], "val_top1_accuracy:max"),
        (["loss", "val_accuracy"], "loss:min"),
        (["ema_val_loss", "val_loss"], "val_loss:min"),
        (["val_nll", "accuracy", "val_accuracy"], "val_nll:min"),
        (["accuracy", "val_f1"], "val_f1:max"),
        (["test_loss", "val_f1"], "val_f1:max"),
        (["depth", "val_rmse"], "val_rmse:min"),
        (["train_loss", "test_loss"], "train_loss:min"),
    ],
)
def test_the_metric_that_is_judged_by_when_none_is_named(metrics: list[str], chosen: str) -> None:
    assert str(default_metric(metrics)) == chosen
    assert str(default_metric(list(reversed(metrics)))) == chosen
    endless = default_metric(metrics).endless
    assert not any(endless.met_by(sign * 1e300) for sign in (1, -1))


def test_an_unknown_metric_is_asked_for() -> None:
    with pytest.raises(TargetError) as one:
        default_metric({"depth": 0.25, "test_loss": 1.0})
    assert str(one.value) == (
        "evaluate(model) returned depth 0.25, test_loss 1, and it is not known whether depth is better when larger or "
        "when smaller; say it with --metric depth:max or --metric depth:min"
    )
    with pytest.raises(TargetError, match=r"train_loss, val_score, .*which of them counts.*--metric val_score:max"):
        default_metric(["train_loss", "val_score", "height"])
    for none in ([], ["test_loss"], ["train_loss", "depth"]):
        assert not has_default(none)


def test_a_metric_is_read() -> None:
    assert Metric.parse(" depth : max ") == Metric(name="depth", mode="max")
    assert Metric.parse("val_loss:max").mode == "max"  # what the user says counts
    for text, message in (
        ("depth", r"not known whether depth .* write depth:max or depth:min"),
        ("depth:up", r"'depth:up' ends with 'up'; write depth:min or depth:max"),
        (":max", r"has no name"),
        ("test_loss", r"test metrics are reported only"),
    ):
        with pytest.raises(TargetError, match=message):
            Metric.parse(text)


def test_what_a_run_is_judged_by() -> None:
    config = RunConfig(
        task="t", batch_size=1, micro_batch_size=1, lr=0.1, max_steps=1, metric=Metric.parse("depth:max")
    )
    assert aim_of(config, ["val_loss", "depth"]).judged_by == config.metric
    target = Target.parse("val_loss<=1")
    assert aim_of(RunConfig(**(vars(config) | {"target": target})), ["depth"]) == target
    assert aim_of(RunConfig(**(vars(config) | {"metric": None})), ["val_loss"]).metric == "val_loss"
    assert watched_metric({"a": math.nan, "b": 1.0}).name == "b"


@pytest.mark.parametrize(
    ("name", "fresh", "outputs", "low", "high"),
    [
        ("val_accuracy", 0.1, 10, 0.0, 1.0),
        ("val_accuracy", 10.0, 10, 0.0, 100.0),
        ("auroc", 0.5, None, 0.0, 1.0),
        ("auroc", 51.0, None, 0.0, 100.0),
        ("f1", 0.2, 2, 0.0, 1.0),
        ("val_perplexity", 80.0, None, 1.0, None),
        ("val_mae", 2.0, None, 0.0, None),
        ("val_mae", -2.0, None, None, None),  # contradicted by what was seen
        ("val_loss", 2.0, None, None, None),
        ("r2", -4.0, None, None, 1.0),
        ("depth", 0.5, 10, None, None),
    ],
)
def test_what_a_metric_cannot_be(
    name: str, fresh: float, outputs: int | None, low: float | None, high: float | None
) -> None:
    assert limits_of(name, fresh, outputs) == (low, high)


@pytest.mark.parametrize("stem", sorted(SCORES | ERRORS | LOSSES | PERPLEXITIES | AT_MOST_ONE))
@pytest.mark.parametrize(
    "form", ["{}", "val_{}", "val/{}", "ema_val_{}", "dev_{}", "best_val_{}", "final_train_{}_eval"]
)
def test_what_a_name_can_be_is_one_table(stem: str, form: str) -> None:
    """Of a value that contradicts nothing the limits are the range, but for losses, which may be those of a density."""
    name, value = form.format(stem), 1.0
    assert stem_of(name) == stem
    assert known_mode(name) == known_mode(stem) is not None
    if stem in LOSSES - ERRORS:
        assert (limits_of(name, value), range_of(name, [value])) == (ANY, NOT_NEGATIVE)
    elif limits_of(name, value) != PERCENT:
        assert limits_of(name, value) == range_of(name, [value]) != ANY
    else:
        assert range_of(name, [value]) == SHARE


def test_losses() -> None:
    assert is_loss("val_nll")
    assert not is_loss("val_mae")
