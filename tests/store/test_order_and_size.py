"""Runs in the order in which they were begun, wherever their folder is; and rows only when they are asked for."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import StoreError
from batchscope.fits.curves import steps_to_target
from batchscope.fits.targets import passage_of
from batchscope.store import rows as rows_module
from batchscope.store.endings import ending_of
from batchscope.store.records import RunStatus, Target
from batchscope.store.rows import StoredRows
from batchscope.store.runs import Store, StoredRun, read_runs, run_id
from batchscope.testing import evaluation, stored_run

from .samples import CONFIG, QUESTION, RESULT, finish, write_rows

LRS = (0.9, 0.1, 0.5)
BEFORE = Path(__file__).parent / "without_numbers"
"""A folder as a version left it whose runs had no numbers: three finished runs, then an unfinished one."""


def lrs(root: Path) -> list[float]:
    return [run.config.lr for run in read_runs(root)]


def begun(root: Path) -> Path:
    """A folder with runs at `LRS`."""
    with Store(root, QUESTION) as store:
        for lr in LRS:
            finish(store, replace(CONFIG, lr=lr))
    return root


@pytest.fixture
def of_old(tmp_path: Path) -> Path:
    """A copy of the old folder, with the time stamps that its files had."""
    root = Path(shutil.copytree(BEFORE, tmp_path / "old"))
    for second, lr in enumerate((*LRS, 0.7)):
        (config,) = root.glob(f"runs/run-b8-lr{lr}-*/config.json")
        os.utime(config, (second, second))
    return root


def test_the_order_stays_where_time_stamps_do_not(tmp_path: Path) -> None:
    root = begun(tmp_path / "out")
    for second, path in enumerate(sorted(root.glob("runs/*/config.json"), reverse=True)):
        os.utime(path, (second, second))
    copied = shutil.copytree(root, tmp_path / "copied", copy_function=shutil.copyfile)
    assert lrs(root) == lrs(copied) == list(LRS)


def test_later_commands_count_on(tmp_path: Path) -> None:
    root = begun(tmp_path)
    with Store(root, QUESTION) as store:
        finish(store, replace(CONFIG, lr=0.05))
        longer = replace(CONFIG, lr=0.9, max_steps=20)
        writer = store.go_on(longer, run_id(replace(CONFIG, lr=0.9)))
        writer.finish(RESULT)
        assert [run.config.lr for run in store.runs()] == [0.1, 0.5, 0.05, 0.9]
    numbers = [json.loads(path.read_text())["number"] for path in root.glob("runs/*/config.json")]
    assert sorted(numbers) == [2, 3, 4, 5]


def test_a_folder_without_numbers_is_read_and_gone_on_with(of_old: Path) -> None:
    assert lrs(of_old) == [*LRS, 0.7]
    assert [len(run.rows) for run in read_runs(of_old)] == [3, 3, 3, 2]
    assert all(run.result.rows_bytes is None for run in read_runs(of_old) if run.result)
    with Store(of_old, QUESTION) as store:
        assert store.finished(replace(CONFIG, lr=0.5)) is not None
        with pytest.raises(StoreError, match="finished runs are never repeated"):
            store.start(replace(CONFIG, lr=0.5))
        finish(store, replace(CONFIG, lr=0.01))
        finish(store, replace(CONFIG, lr=0.7))
    assert lrs(of_old) == [*LRS, 0.7, 0.01]


def test_damage_to_rows_without_a_size_is_found_when_they_are_read(of_old: Path) -> None:
    (path,) = of_old.glob("runs/run-b8-lr0.9-*/rows.jsonl")
    path.write_bytes(path.read_bytes()[:-10])
    first, *_ = read_runs(of_old)
    with pytest.raises(StoreError, match="its hash differs"):
        len(first.rows)


@pytest.mark.parametrize("number", ["1", 1.5, True, None])
def test_a_number_that_is_none(folder: Path, number: Any) -> None:
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, "number": number}))
    if number is None:
        assert len(read_runs(folder.parents[1])) == 1
    else:
        with pytest.raises(StoreError, match=r"config.json is of another schema: number is"):
            read_runs(folder.parents[1])


# Rows when they are asked for ----------------------------------------------------------------------------------------


def test_rows_are_not_read_to_list_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = begun(tmp_path)
    monkeypatch.setattr(rows_module, "regular_bytes", lambda *_: pytest.fail("rows were read"))
    found = read_runs(root)
    assert [ending_of(run) for run in found] == ["reached the target"] * 3
    assert [run.result.steps for run in found if run.result] == [3, 3, 3]


def test_rows_are_what_was_written_however_they_are_asked_for(folder: Path, tmp_path: Path) -> None:
    (run,) = read_runs(folder.parents[1])
    (whole,) = read_runs(folder.parents[1], at_once=True)
    assert isinstance(run.rows, StoredRows)
    assert isinstance(whole.rows, tuple)
    assert run.rows == whole.rows
    assert whole.rows == run.rows
    assert run == whole
    assert (run.rows[0], run.rows[-1], run.rows[:2]) == (whole.rows[0], whole.rows[-1], whole.rows[:2])
    assert pickle.loads(pickle.dumps(run)) == run
    assert run.rows != ()


def test_rows_are_found_from_another_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parents[1])
    (run,) = read_runs(".")
    monkeypatch.chdir("/")
    assert len(run.rows) == 3


def test_of_many_runs_those_read_last_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_runs(begun(tmp_path))
    monkeypatch.setattr(rows_module, "_held", type(rows_module._held)())
    monkeypatch.setattr(rows_module, "_MOST_HELD", 7)
    for run in (*found, *found):
        assert len(run.rows) == 3
    assert len(rows_module._held) == 2


VALUES = (2.0, 0.5, 0.9, 0.3, 0.25)


def judged(values: tuple[float, ...], own: str | None, by: str | None = None) -> StoredRun:
    rows = [evaluation(10 * i, {"val_loss": value, "other": 1 - value}) for i, value in enumerate(values)]
    target = Target.parse(own) if own else None
    reached = steps_to_target(rows, target) if target else None
    status = RunStatus.OUT_OF_STEPS if reached is None else RunStatus.REACHED
    return stored_run(8, 0.1, rows, status=status, target=target, steps_to_target=reached)


@pytest.mark.parametrize("own", [None, "val_loss<=0.3", "val_loss<=0.1", "val_loss<=0.6", "other>=0.7"])
@pytest.mark.parametrize("asked", ["val_loss<=0.3", "val_loss<=0.26", "val_loss<=0.1", "val_loss>=1.5", "other>=0.6"])
def test_a_passage_is_the_same_with_and_without_rows(own: str | None, asked: str) -> None:
    run = judged(VALUES, own)
    assert passage_of(run, Target.parse(asked)) == steps_to_target(run.rows, Target.parse(asked))


def test_a_passage_needs_no_rows_where_the_result_tells() -> None:
    def without_rows(run: StoredRun) -> StoredRun:
        return replace(run, rows=StoredRows(Path("nowhere"), ""))

    reached, missed = judged(VALUES, "val_loss<=0.3"), judged(VALUES, "val_loss<=0.1")
    target = Target.parse("val_loss<=0.3")
    assert passage_of(without_rows(reached), target) == steps_to_target(reached.rows, target)
    for asked in ("val_loss<=0.1", "val_loss<=0.2"):
        assert passage_of(without_rows(missed), Target.parse(asked)) is None


def unfinished(root: Path) -> Path:
    with Store(root, QUESTION) as store:
        writer = store.start(CONFIG)
        write_rows(writer, 3)
        writer.close()
    return writer.folder


@pytest.mark.parametrize(
    ("tear", "left"),
    [
        (lambda whole: whole[:-3], 2),
        (lambda whole: whole + b"\0" * 512, 3),
        (lambda whole: whole + b'{"kind"', 3),
        (lambda whole: whole[:-1], 3),
        (lambda whole: b"", 0),
    ],
)
def test_of_an_unfinished_run_the_whole_lines_are_read(
    tmp_path: Path, tear: Callable[[bytes], bytes], left: int
) -> None:
    path = unfinished(tmp_path) / "rows.jsonl"
    path.write_bytes(tear(path.read_bytes()))
    (run,) = read_runs(tmp_path)
    assert len(run.rows) == left
