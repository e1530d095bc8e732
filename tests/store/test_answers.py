"""Several questions of one folder: each is known again, and the answers to earlier ones stay."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import StoreError
from batchscope.store.answers import Questions
from batchscope.store.courses import course_of
from batchscope.store.records import RunResult, RunStatus, Target
from batchscope.store.runs import Store, read_runs, run_id

from .samples import CONFIG, QUESTION, RESULT, finish, write_rows

EASY, HARD = {"target": "val_loss<=0.3", "limit": None}, {"target": "val_loss<=0.1", "limit": None}


def answers(root: Path) -> dict[str, Any]:
    paths = [root / "plan.json", *sorted((root / "plans").glob("*"))]
    return {path.relative_to(root).as_posix(): json.loads(path.read_text(encoding="utf-8")) for path in paths}


def test_the_newest_answer_is_the_plan_and_earlier_ones_stay(tmp_path: Path) -> None:
    with Store(tmp_path, QUESTION) as store:
        for question, plan in ((EASY, {"a": 1}), (HARD, {"b": 1}), (HARD, {"b": 2})):
            Questions(store, question).answer(plan)
        assert answers(tmp_path) == {"plan.json": {"b": 2}, "plans/1.json": {"a": 1}}
        Questions(store, EASY).answer({"a": 1})
        assert answers(tmp_path) == {"plan.json": {"a": 1}, "plans/2.json": {"b": 2}}
        assert [Questions(store, question).number for question in (HARD, EASY)] == [2, 1]
        assert Questions(store, json.loads(json.dumps(HARD))).number == 2


def refuse(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_answer_that_the_disk_refuses_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path, QUESTION) as store:
        Questions(store, EASY).answer({"a": 1})
        asked = Questions(store, HARD)
        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", refuse)
            with pytest.raises(StoreError, match="the disk is full"):
                asked.answer({"b": 1})
        assert json.loads((tmp_path / "plan.json").read_text(encoding="utf-8")) == {"a": 1}
        asked.answer({"b": 1})
    assert answers(tmp_path) == {"plan.json": {"b": 1}, "plans/1.json": {"a": 1}}


@pytest.mark.parametrize("links", [True, False])
def test_an_earlier_answer_that_cannot_be_kept_is_named_and_does_not_cost_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:  # a file system that has none
        monkeypatch.setattr("os.link", refuse)
    with Store(tmp_path, QUESTION) as store:
        Questions(store, EASY).answer({"a": 1})
        (tmp_path / "plans").write_text("in the way", encoding="utf-8")
        Questions(store, HARD).answer({"b": 1}, (said := list[str]()).append)
        assert len(said) == 1
        assert "plans" in said[0]
        assert json.loads((tmp_path / "plan.json").read_text(encoding="utf-8")) == {"b": 1}
        (tmp_path / "plans").unlink()
        Questions(store, EASY).answer({"a": 1})
        assert answers(tmp_path) == {"plan.json": {"a": 1}, "plans/2.json": {"b": 1}}
        (tmp_path / "plan.json").write_text('{"a": 1, "edited": true}', encoding="utf-8")
        Questions(store, HARD).answer({"b": 1})
    assert answers(tmp_path) == {"plan.json": {"b": 1}, "plans/1.json": {"a": 1, "edited": True}}


def test_a_question_knows_which_runs_there_were_when_it_was_first_asked(tmp_path: Path) -> None:
    with Store(tmp_path, QUESTION) as store:
        assert Questions(store, EASY).asked.runs == {}
        finish(store)
        found = Questions(store, HARD).asked.runs
        assert {name: (run.steps, run.status) for name, run in found.items()} == {
            run_id(CONFIG): (RESULT.steps, RESULT.status)
        }
        assert Questions(store, EASY).asked.runs == {}


def test_notes_of_a_question_and_notes_that_questions_share(tmp_path: Path) -> None:
    with Store(tmp_path, QUESTION) as store:
        first, second = Questions(store, EASY), Questions(store, HARD)
        third = Questions(store, {**EASY, "limit": 9})
        first.note("spent", RESULT)
        assert first.read_note("spent", RunResult) is not None
        assert second.read_note("spent", RunResult) is None
        assert [each.name_for("bench", ("limit",)) for each in (first, second, third)] == ["bench", "bench", "bench-3"]


def test_one_course_whatever_the_end_and_the_watching(tmp_path: Path) -> None:
    watched = replace(
        CONFIG,
        target=Target(metric="other", value=1.0, mode="max"),
        max_steps=7,
        purpose="probe",
        evaluation_growth=2.0,
        evaluation_epochs=1.0,
        noise_scale_groups=2,
        stall_patience=0.1,
    )
    assert course_of(watched) == course_of(CONFIG)
    changes: list[dict[str, Any]] = [
        {"lr": 0.2},
        {"seed": 5},
        {"schedule": "linear"},
        {"warmup_steps": 3},
        {"settings": {"hidden": 4}},
        {"optimizer_changes": {"weight_decay": 0.1}},
        {"device": "cuda"},
        {"batch_size": 2 * CONFIG.batch_size, "grad_accum_steps": 2 * CONFIG.grad_accum_steps},
    ]
    courses = [course_of(replace(CONFIG, **change)) for change in changes]
    assert len({course_of(CONFIG), *courses}) == len(changes) + 1
    with Store(tmp_path, QUESTION) as store:
        finish(store)
        found = store.of_course(watched)
        assert found is not None
        assert found.config == CONFIG
        assert store.of_course(replace(CONFIG, lr=0.2)) is None


def test_a_run_that_went_on_is_of_its_last_configuration_in_its_first_folder(tmp_path: Path) -> None:
    longer = replace(CONFIG, max_steps=CONFIG.max_steps + 1, purpose="probe")
    with Store(tmp_path, QUESTION) as store:
        finish(store)
        writer = store.go_on(longer, run_id(CONFIG), rows=2)
        write_rows(writer, 2)
        writer.finish(replace(RESULT, status=RunStatus.PAUSED))
    (run,) = read_runs(tmp_path)
    assert (run.id, run.config) == (run_id(CONFIG), longer)
    assert [row["step"] for row in run.rows] == [0, 1, 0, 1]
    kept = tmp_path / "runs" / run.id / "rows.interrupted-1.jsonl"
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 3


def test_the_file_that_changed_is_named(tmp_path: Path) -> None:
    asked = {**QUESTION, "files": {"mine.py": "1", "helpers.py": "2"}, "source_sha256": "3"}
    with Store(tmp_path, asked) as store:
        finish(store)
        store.check_late_files({"late.py": "4"})
    changed = {**asked, "files": {"mine.py": "1", "helpers.py": "5"}, "source_sha256": "6"}
    with pytest.raises(StoreError, match=r"its file helpers\.py has changed since; give another --out"):
        Store(tmp_path, changed)
    with pytest.raises(StoreError, match=r"its file more\.py is imported since"):
        Store(tmp_path, {**asked, "files": {**asked["files"], "more.py": "7"}, "source_sha256": "8"})
    with Store(tmp_path, asked) as store:
        store.check_late_files({})
        store.check_late_files({"late.py": "4", "other.py": "9"})
        with pytest.raises(StoreError, match=r"its file late\.py has changed since"):
            store.check_late_files({"late.py": "10"})
