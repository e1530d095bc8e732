"""The results folder: kill, resume, two processes, other questions, and what is read back."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from batchscope.errors import StoreError
from batchscope.store.files import read_record
from batchscope.store.records import RunResult, RunStatus
from batchscope.store.runs import Store, free_folder, read_runs, run_id

from .samples import CONFIG, OTHER, QUESTION, RESULT, finish, make_row, write_rows

# What a process is doing when it is killed ---------------------------------------------------------------------------

WORKER = """
import os, sys, time
sys.path.insert(0, {tests!r})
from samples import CONFIG, OTHER, QUESTION, finish, write_rows
from batchscope.store import Store
store = Store({root!r}, QUESTION)
finish(store)
writer = store.start(OTHER)
write_rows(writer, 5)
{then}
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that has finished one run and is in the middle of another, holding the folder."""
    processes: list[subprocess.Popen[str]] = []

    def start(then: str = "") -> subprocess.Popen[str]:
        code = WORKER.format(tests=str(Path(__file__).parent), root=str(tmp_path / "out"), then=then)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_in_the_middle(tmp_path: Path, at_work: Callable[..., subprocess.Popen[str]]) -> None:
    kill(at_work())
    root = tmp_path / "out"
    finished, interrupted = read_runs(root)
    assert (finished.config, finished.result is not None) == (CONFIG, True)
    assert (interrupted.config, interrupted.result) == (OTHER, None)
    assert [row["step"] for row in interrupted.rows] == [0, 1, 2, 3, 4]
    with Store(root, QUESTION) as store:
        again = store.finished(CONFIG)
        assert again is not None
        assert again.rows == tuple(make_row(step) for step in range(3))
        assert store.finished(OTHER) is None
        finish(store, OTHER)
        assert [run.config for run in store.runs()] == [CONFIG, OTHER]
        assert all(run.result is not None for run in store.runs())
    kept = (root / "runs" / run_id(OTHER) / "rows.interrupted-1.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in kept] == [0, 1, 2, 3, 4]


def test_killed_in_the_middle_of_a_line(tmp_path: Path, at_work: Callable[..., subprocess.Popen[str]]) -> None:
    kill(at_work('writer._file.write(\'{"kind":"eval\'); writer._file.flush()'))
    assert [row["step"] for row in read_runs(tmp_path / "out")[1].rows] == [0, 1, 2, 3, 4]


def test_killed_between_rows_and_result(tmp_path: Path, at_work: Callable[..., subprocess.Popen[str]]) -> None:
    sleep = "os.replace = lambda *paths: (print('ready', flush=True), time.sleep(60))"
    kill(at_work(f"{sleep}; from samples import RESULT; writer.finish(RESULT)"))
    with Store(tmp_path / "out", QUESTION) as store:
        assert store.finished(OTHER) is None
        finish(store, OTHER)
        assert store.finished(OTHER) is not None


def test_every_interruption_keeps_its_rows(tmp_path: Path) -> None:
    for times in range(3):
        with Store(tmp_path, QUESTION) as store:
            writer = store.start(CONFIG)
            write_rows(writer, times + 1)
            writer.close()
    with Store(tmp_path, QUESTION) as store:
        run = finish(store)
    lengths = [len((run / f"rows.interrupted-{i}.jsonl").read_text(encoding="utf-8").splitlines()) for i in (1, 2, 3)]
    assert lengths == [1, 2, 3]


def test_a_run_that_never_wrote_a_row_leaves_nothing_beside(tmp_path: Path) -> None:
    with Store(tmp_path, QUESTION) as store:
        store.start(CONFIG).close()
        run = finish(store)
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "result.json", "rows.jsonl"]


# Two processes -------------------------------------------------------------------------------------------------------


def test_two_processes_do_not_share_a_folder(tmp_path: Path, at_work: Callable[..., subprocess.Popen[str]]) -> None:
    process = at_work()
    with pytest.raises(StoreError, match=r"another process is at work in .*give another --out"):
        Store(tmp_path / "out", QUESTION)
    assert len(read_runs(tmp_path / "out")) == 2  # reading needs no lock
    kill(process)
    Store(tmp_path / "out", QUESTION).close()


def test_a_workers_copy_of_the_lock_dies_with_its_parent(
    tmp_path: Path, at_work: Callable[..., subprocess.Popen[str]]
) -> None:
    """A loader's worker is a fork; it outlives a killed parent by seconds."""
    pid = tmp_path / "pid"
    fork = "r, w = os.pipe()\nif not (child := os.fork()):\n    os.close(1); os.write(w, b'.'); time.sleep(60)"
    fork += "; os._exit(0)\nos.read(r, 1)"  # the child has begun, and with that let the lock go
    process = at_work(f"{fork}\nopen({str(pid)!r}, 'w').write(str(child))")
    kill(process)
    try:
        Store(tmp_path / "out", QUESTION).close()
    finally:
        os.kill(int(pid.read_text(encoding="utf-8")), signal.SIGKILL)


def test_closing_lets_the_folder_go(tmp_path: Path) -> None:
    first = Store(tmp_path, QUESTION)
    with pytest.raises(StoreError, match="another process"):
        Store(tmp_path, QUESTION)
    first.close()
    first.close()
    Store(tmp_path, QUESTION).close()


def test_another_question_is_refused_and_lets_the_folder_go(folder: Path) -> None:
    root = folder.parents[1]
    with pytest.raises(StoreError, match="another question: its seed was 0, now 1; give another --out"):
        Store(root, {**QUESTION, "seed": 1})
    with pytest.raises(StoreError, match="its within was none, now 300s"):
        Store(root, {**QUESTION, "within": "300s"})
    with pytest.raises(StoreError, match="another question: its source has changed since; give another --out"):
        Store(root, {**QUESTION, "source_sha256": "1"})
    Store(root, json.loads(json.dumps(QUESTION))).close()


def test_a_question_to_which_nothing_was_found_gives_way(tmp_path: Path) -> None:
    """A misspelt metric is refused before anything is measured; the corrected command may use the same folder."""
    Store(tmp_path / "digits", QUESTION).close()
    other = {**QUESTION, "seed": 1}
    assert free_folder(tmp_path / "digits", other) == tmp_path / "digits"
    with Store(tmp_path / "digits", other) as store:
        assert free_folder(tmp_path / "digits", QUESTION) == tmp_path / "digits-2", "another process is at work there"
        finish(store)
    assert free_folder(tmp_path / "digits", QUESTION) == tmp_path / "digits-2"
    assert free_folder(tmp_path / "digits", other) == tmp_path / "digits"


# What is read is what was written ------------------------------------------------------------------------------------


def test_a_finished_run_is_never_started_again(folder: Path) -> None:
    with Store(folder.parents[1], QUESTION) as store:
        with pytest.raises(StoreError, match="finished runs are never repeated"):
            store.start(CONFIG)
        assert store.finished(CONFIG) is not None


def test_what_finish_returns_is_what_is_read_back(tmp_path: Path) -> None:
    """So that a resumed search decides as the first one did, numbers that are not finite included."""
    with Store(tmp_path, QUESTION) as store:
        writer = store.start(CONFIG)
        writer.append({"kind": "evaluation", "step": 1, "metrics": {"val_loss": math.nan}, "pair": (1, 2)})
        made = writer.finish(replace(RESULT, status=RunStatus.DIVERGED, last={"val_loss": math.inf}))
        read = store.finished(CONFIG)
    assert read is not None
    assert made.rows == read.rows == ({"kind": "evaluation", "step": 1, "metrics": {"val_loss": None}, "pair": [1, 2]},)
    assert made.result is not None
    assert read.result is not None
    assert math.isnan(made.result.last["val_loss"])
    assert math.isnan(read.result.last["val_loss"])
    assert replace(made.result, last={}) == replace(read.result, last={})


def test_equal_configurations_have_one_name() -> None:
    assert run_id(CONFIG) == run_id(replace(CONFIG))
    different = [
        CONFIG,
        OTHER,
        replace(CONFIG, seed=1),
        replace(CONFIG, settings={"hidden": 4}),
        replace(CONFIG, lr=0.1001),
    ]
    assert len({run_id(config) for config in different}) == len(different)


def test_runs_come_in_the_order_of_their_start(tmp_path: Path) -> None:
    configs = [replace(CONFIG, lr=lr) for lr in (0.9, 0.1, 0.5)]
    with Store(tmp_path, QUESTION) as store:
        for config in configs:
            finish(store, config)
            time.sleep(0.01)
        assert [run.config.lr for run in store.runs()] == [0.9, 0.1, 0.5]


# --- paused, and going on --------------------------------------------------------------------------------------------


def test_a_run_that_goes_on_keeps_its_rows_and_its_first_result(tmp_path: Path) -> None:
    with Store(tmp_path, QUESTION) as store:
        run = finish(store)
        writer = store.go_on(CONFIG)
        assert not (run / "result.json").exists()
        assert store.finished(CONFIG) is None
        for step in (3, 4):
            writer.append(make_row(step))
        whole = writer.finish(replace(RESULT, steps=5))
        assert store.finished(CONFIG) == whole
    assert [row["step"] for row in whole.rows] == [0, 1, 2, 3, 4]
    assert read_record(run / "result.interrupted-1.json", RunResult).steps == 3
    assert [path.name for path in run.glob("rows*")] == ["rows.jsonl"]


def test_a_run_that_was_killed_while_it_went_on_is_made_again(tmp_path: Path) -> None:
    with Store(tmp_path, QUESTION) as store:
        run = finish(store)
        writer = store.go_on(CONFIG)
        writer.append(make_row(3))
        writer.close()
    with Store(tmp_path, QUESTION) as store:
        assert store.finished(CONFIG) is None
        again = finish(store)
        assert again == run
        found = store.finished(CONFIG)
        assert found is not None
        assert [row["step"] for row in found.rows] == [0, 1, 2]
    assert len((run / "rows.interrupted-1.jsonl").read_text().splitlines()) == 4


def test_what_was_never_paused_cannot_go_on(tmp_path: Path) -> None:
    with Store(tmp_path, QUESTION) as store:
        with pytest.raises(StoreError, match="was never paused"):
            store.go_on(CONFIG)
        store.start(CONFIG).close()
        with pytest.raises(StoreError, match="was never paused"):
            store.go_on(CONFIG)
