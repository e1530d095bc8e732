"""Noise from the ranks of a sharded model, in real processes: rows against the gradients of single examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from .rank_programs import launch

TOLERANCE = {"float32": 1e-4, "bfloat16 reduction": 3e-2}
REFUSED = {
    "float16 reduction": "reduce_dtype=torch.float32",
    "own reduce-scatter": "the reduce-scatter is Own",
    "sharded in part": "call fully_shard on the root module too",
}


def test_rows_are_those_of_single_examples_and_the_training_is_bit_for_bit_the_same(tmp_path: Path):
    answers = launch("under_fsdp", tmp_path)
    for name, case in answers[0].items():
        other = answers[1][name]
        assert case["unchanged"], name
        assert other["unchanged"], name
        assert (case["rows"], case["reasons"]) == (other["rows"], other["reasons"]), name
        if name in REFUSED:
            assert not case["rows"]
            assert REFUSED[name] in case["reasons"][-1], name
            continue
        assert len(case["rows"]) == 3, (name, case["reasons"])
        for row, truth in zip(case["rows"], case["truth"], strict=False):
            assert row.pop("kind") == truth.pop("kind") == "noise"
            if name == "summed":
                truth["mean_square_norm"] *= 4
                truth["square_norm_of_mean"] *= 4
            assert row == pytest.approx(truth, rel=TOLERANCE.get(name, 1e-9)), name
