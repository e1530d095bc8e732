"""Noise from data-parallel ranks, in real processes: rows against the gradients of single examples in float64."""

from __future__ import annotations

from pathlib import Path

import pytest

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
