"""What a study or the verdicts measure beside runs is announced: what killed a process there is not tried for ever."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from batchscope.errors import OutOfMemory
from batchscope.hardware.device import Device
from batchscope.laboratory.claims.measure import ClaimsLaboratory
from batchscope.laboratory.engine import Laboratory
from batchscope.laboratory.records import NamedStudy, grid
from batchscope.store.attempts import DEATHS, Attempt, Deaths
from batchscope.store.codec import encode
from batchscope.store.files import write_json
from batchscope.store.not_applicable import not_applicable
from batchscope.store.runs import Store

from .quadratic import made, question

ASKED = question(batch_sizes=(4,), lrs=(0.1,), seeds=(0,))
WHAT = "a measurement of the study measured beside its runs"
TESTS = os.getpid()


def run_and_measure(laboratory: Laboratory) -> None:
    laboratory.run_all()
    if os.getpid() != TESTS:
        os.kill(os.getpid(), signal.SIGKILL)
    laboratory.note("found", 1)


NAMED = NamedStudy(
    name="measured",
    summary="runs, and something beside them",
    source="",
    question=ASKED,
    arms=grid,
    measure_all=run_and_measure,
)


def bury(folder: Path, what: str) -> None:
    folder.mkdir(exist_ok=True)
    write_json(folder / DEATHS, Deaths(deaths=(Attempt(what=what, killed=True),)))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux only")
def test_a_study_that_dies_beside_its_runs_goes_on_and_not_for_ever(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            made(tmp_path, ASKED, named=NAMED)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert WHAT in (out / "attempt.json").read_text()
    found = made(tmp_path, ASKED, named=NAMED)
    assert found.complete
    assert not (out / DEATHS).exists()
    bury(out, WHAT)
    refused = made(tmp_path, ASKED, named=NAMED)
    assert (len(refused.rows), refused.complete) == (1, False)
    assert any(DEATHS in note for note in refused.notes)
    (out / DEATHS).unlink()
    assert made(tmp_path, ASKED, named=NAMED).complete


def test_a_study_that_died_before_a_run_was_finished_is_one_message(tmp_path: Path) -> None:
    made(tmp_path, ASKED, named=NAMED)
    for run in (tmp_path / "out/runs").iterdir():
        for file in run.iterdir():
            file.unlink()
        run.rmdir()
    bury(tmp_path / "out", WHAT)
    with pytest.raises(OutOfMemory, match=DEATHS):
        made(tmp_path, ASKED, named=NAMED)


def test_without_the_training_part_where_loading_it_killed(tmp_path: Path) -> None:
    bury(tmp_path / "out", "the loading of the training part")
    found = made(tmp_path, ASKED)
    assert found.complete
    assert "final_train_loss_eval" not in found.rows[0].values
    assert any("training part is not evaluated" in note and DEATHS in note for note in found.notes)


def test_a_measurement_of_the_verdicts_that_killed_is_not_applicable(tmp_path: Path) -> None:
    notes = dict[str, Any]()
    bury(tmp_path, "the measurement timing")
    with Store(tmp_path, {"schema": 3, "command": "claims", "task": "t"}) as store:
        laboratory: Any = SimpleNamespace(
            store=store,
            device=Device(torch.device("cpu")),
            deadline=SimpleNamespace(left_s=60.0),
            workload=None,
            examples=40,
            late=False,
            read_note=notes.get,
            note=notes.__setitem__,
        )
        plan: Any = SimpleNamespace(batch_sizes=(4, 10), least_batch_size=1)
        part = next(part for part in ClaimsLaboratory(laboratory, plan).parts if part.name == "step times")
        part.measure(())
    found = encode(notes["timing"])
    assert "measured-timing.json beside it" in (not_applicable(found) or "")
