"""Noise from data-parallel ranks, in real processes: rows against the gradients of single examples in float64."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscope.fits.noise_scale import Readings

from .rank_programs import launch

ROUNDED = ("fp16 hook", "built-in fp16 hook")
REFUSED = {"PowerSGD": ("powerSGD_hook",), "never reduced": ("did not average their gradients", "sent no numbers")}
"""Where nothing is reduced, nothing keeps the ranks together either, and one may be missing when the other looks."""


def test_rows_are_those_of_single_examples_and_the_training_is_bit_for_bit_the_same(tmp_path: Path):
    answers = launch("under_ddp", tmp_path)
    for name, case in answers[0].items():
        other = answers[1][name]
        assert case["unchanged"], name
        assert other["unchanged"], name
        assert case["rows"] == other["rows"], name
        if name in REFUSED:
            assert not case["rows"]
            assert any(words in case["reasons"][-1] for words in REFUSED[name]), name
            continue
        assert case["reasons"] == other["reasons"], name
        assert len(case["rows"]) == 3, (name, case["reasons"])
        tolerance = 2e-3 if name in ROUNDED else 1e-10
        for row, truth in zip(case["rows"], case["truth"], strict=False):
            assert row.pop("kind") == truth.pop("kind") == "noise"
            assert row == pytest.approx(truth, rel=tolerance), name


def test_monitors_agree_on_all_ranks_and_never_hold_up_the_training(tmp_path: Path):
    first, second = launch("monitors", tmp_path)
    untouched = [name for name, case in first.items() if name not in ("thinned", "long", "sharded", "one micro-batch")]
    for name in untouched:
        if name == "uneven with join":
            assert first[name]
            assert second[name]
        else:
            assert first[name]["weights"] == second[name]["weights"] == first["none"]["weights"], name

    for name in ("all", "layers", "sharded", "before the wrapper", "one micro-batch"):
        assert first[name]["readings"] == second[name]["readings"], name
        assert first[name]["rows"] == second[name]["rows"], name
        steps = len(first[name]["readings"])
        assert [row["step"] for row in first[name]["rows"]] == list(range(steps - 2)), first[name]["readings"][-1]
        assert not first[name]["warnings"]
    assert first["all"]["readings"][-1]["source"] == "data-parallel ranks"
    assert first["all"]["rows"][0]["groups"] == 4
    assert first["one micro-batch"]["rows"][0]["groups"] == 2
    layers = first["layers"]["rows"][0]
    assert sum(mean for mean, _ in layers["layers"].values()) == pytest.approx(layers["mean_square_norm"])
    assert sum(square for _, square in layers["layers"].values()) == pytest.approx(layers["square_norm_of_mean"])

    steps = [row["step"] for row in first["thinned"]["rows"]]
    assert steps == [row["step"] for row in second["thinned"]["rows"]]
    assert steps[:4] == [0, 1, 2, 3]
    assert 4 < len(steps) < 60
    assert steps[-1] - steps[-2] > 4

    alone = first["only the first"]["readings"][-1]
    assert "rank 1 sent no numbers" in alone["reason"]
    assert alone["gradient_noise_scale"]["n"] == 0
    assert "sent no numbers" in second["only the second"]["readings"][-1]["reason"]

    for name, words in (
        ("hooks fail", "TypeError"),
        ("closed", "sent no numbers"),
        ("reader fails", "sent no numbers"),
    ):
        assert words in first[name]["readings"][-1]["reason"], name
        assert not first[name]["warnings"], name
    assert first["hooks fail"]["rows"] == second["hooks fail"]["rows"]
    assert [len(second[name]["warnings"]) for name in ("hooks fail", "closed", "reader fails")] == [1, 0, 1]
    assert "the disk is full" in second["reader fails"]["warnings"][0]


def test_means_over_many_steps_are_the_truth_within_three_standard_errors(tmp_path: Path):
    case = launch("long", tmp_path)[0]
    readings = Readings.of(case["rows"])
    for values, truth in zip((readings.square, readings.trace), case["truth"], strict=True):
        assert abs(values.mean() - truth) < 3 * values.std(ddof=1) / len(values) ** 0.5
