"""Made-up runs: the result follows from the rows, like that of a run which was made; no torch is needed."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from batchscope.store.codec import decode, encode
from batchscope.store.records import RunResult, RunStatus, Target
from batchscope.store.runs import run_id
from batchscope.testing import evaluation, stored_run

LOSSES = ((0, 2.0), (10, 0.4), (20, math.nan), (40, 0.5))
ROWS = [evaluation(step, {"val_loss": loss, "val_accuracy": 1 - loss / 4}, batch_size=8) for step, loss in LOSSES]


def test_the_result_is_that_of_the_last_and_of_the_best_evaluation() -> None:
    run = stored_run(8, 0.1, [*ROWS, {"kind": "noise", "step": 41}], seed=3)
    assert run.result is not None
    assert (run.result.steps, run.result.examples, run.result.device_seconds) == (40, 320, pytest.approx(0.04))
    assert (run.result.first, run.result.last) == (ROWS[0]["metrics"], ROWS[3]["metrics"])
    assert (run.result.best, run.result.best_step) == (ROWS[1]["metrics"], 10)
    assert (run.id, run.config.seed, run.config.micro_batch_size) == (run_id(run.config), 3, 8)
    assert len(run.rows) == 5
    assert decode(RunResult, encode(run.result)) == run.result


def test_the_target_decides_what_is_best() -> None:
    worst = Target(metric="val_loss", value=9.0, mode="max")
    run = stored_run(8, 0.1, ROWS, target=worst, status=RunStatus.STALLED, name="a run", result={"message": "so"})
    assert run.result is not None
    assert (run.result.best_step, run.result.status, run.result.message) == (0, RunStatus.STALLED, "so")
    assert run.id == "a run"


def test_a_run_without_an_evaluation_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one evaluation"):
        stored_run(8, 0.1, [{"kind": "noise", "step": 1}])


def test_runs_are_made_up_without_torch() -> None:
    code = "import sys, batchscope.testing; print('torch' in sys.modules, batchscope.testing.FakeDevice.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "FakeDevice"]
