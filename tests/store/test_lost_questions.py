"""A folder whose question is gone takes only what it can prove to be the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from batchscope.errors import StoreError
from batchscope.store.answers import Questions
from batchscope.store.question import FILE, asked_of, check_schema
from batchscope.store.records import HardwareProfile, Timing
from batchscope.store.runs import Store, free_folder

from .samples import CONFIG, OTHER, finish

ASKED = asked_of("find", {"task": "toy", "settings": {"hidden": 3}, "files": {"mine.py": "1"}, "device": "cpu"}, seed=0)
EDITED = {**ASKED, "files": {"mine.py": "2"}}
RUN = replace(CONFIG, settings={"hidden": 3})
SECOND = replace(OTHER, settings={"hidden": 3})
TIMING = Timing(evaluation_s=1.0, budget_s=2.0, step_s=3.0)
DAMAGES = ["deleted", "truncated", "[]", "3", "null", "\x00"]


def damage(path: Path, how: str) -> None:
    if how == "deleted":
        path.unlink()
    else:
        path.write_text(path.read_text(encoding="utf-8")[:40] if how == "truncated" else how, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a finished run, and notes of the folder and of a question."""
    root = tmp_path / "out"
    with Store(root, ASKED) as store:
        questions = Questions(store, {"target": 1})
        store.note("timing", TIMING)
        store.note_data("measured-norms", [1.0, 2.0])
        questions.note("timing", TIMING)
        finish(store, RUN)
    return root


@pytest.mark.parametrize("how", DAMAGES)
def test_the_same_question_finds_everything_again_and_says_so(root: Path, how: str) -> None:
    damage(root / FILE, how)
    with Store(root, ASKED) as store:
        assert "written again" in store.recovered
        assert store.finished(RUN) is not None
        assert store.read_note("timing", Timing) == TIMING
        assert store.read_data("measured-norms") == [1.0, 2.0]
        questions = Questions(store, {"target": 1})
        assert questions.number == 1
        assert questions.read_note("timing", Timing) == TIMING
    with Store(root, ASKED) as store:
        assert not store.recovered
    check_schema(root)


@pytest.mark.parametrize("how", DAMAGES)
def test_another_question_is_refused_once_and_the_advice_helps(root: Path, how: str) -> None:
    damage(root / FILE, how)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"nothing in them proves .*give another --out, or remove"):
            Store(root, EDITED)
    with pytest.raises(StoreError, match="of a run in it its task was toy, now other"):
        Store(root, {**ASKED, "task": "other"})
    with pytest.raises(StoreError, match="its setting hidden was 3, now 4"):
        Store(root, {**ASKED, "settings": {"hidden": 4}})
    Store(root.with_name("another"), EDITED).close()
    shutil.rmtree(root)
    Store(root, EDITED).close()


def test_runs_of_an_older_version_prove_nothing(root: Path) -> None:
    result = root / "runs" / next((root / "runs").iterdir()).name / "result.json"
    data = json.loads(result.read_text(encoding="utf-8"))
    result.write_text(json.dumps({k: v for k, v in data.items() if k != "made_for"}), encoding="utf-8")
    with Store(root, ASKED) as store:
        assert store.finished(RUN) is not None, "its question vouches for it"
    (root / FILE).unlink()
    with pytest.raises(StoreError, match="nothing in them proves"):
        Store(root, ASKED)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("sealed", [True, False])
def test_without_runs_the_notes_of_another_task_are_measured_again(root: Path, how: str, sealed: bool) -> None:
    shutil.rmtree(root / "runs")
    if not sealed:
        (root / "timing.json").write_text(json.dumps(vars(TIMING)), encoding="utf-8")
        (root / "measured-norms.json").write_text("[1.0, 2.0]", encoding="utf-8")
    damage(root / FILE, how)
    for _ in range(2):
        with Store(root, EDITED) as store:
            assert store.read_note("timing", Timing) is None
            assert store.read_data("measured-norms") is None
            assert Questions(store, {"target": 1}).read_note("timing", Timing) is None
        finish_one(root)
    with Store(root, EDITED) as store:
        store.note("timing", TIMING)
        assert store.read_note("timing", Timing) == TIMING


def finish_one(root: Path) -> None:
    with Store(root, EDITED) as store:
        if store.finished(RUN) is None:
            finish(store, RUN)


def test_a_question_from_another_folder_is_seen(root: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "other", EDITED) as store:
        finish(store, RUN)
    shutil.copy(tmp_path / "other" / FILE, root / FILE)
    with pytest.raises(StoreError, match="is not of the runs in this folder"):
        Store(root, EDITED)
    with pytest.raises(StoreError, match=r"its file mine\.py has changed"):
        Store(root, ASKED)
    (root / FILE).unlink()
    with Store(root, ASKED) as store:
        assert store.finished(RUN) is not None


def test_a_note_from_another_folder_is_measured_again(root: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "other", EDITED) as store:
        store.note("timing", replace(TIMING, step_s=9.0))
        store.note_data("measured-norms", [9.0])
    for name in ("timing.json", "measured-norms.json"):
        shutil.copy(tmp_path / "other" / name, root / name)
    with Store(root, ASKED) as store:
        assert store.read_note("timing", Timing) is None
        assert store.read_data("measured-norms") is None


def test_configurations_that_were_swapped_are_seen(root: Path) -> None:
    with Store(root, ASKED) as store:
        finish(store, SECOND)
    first, second = sorted((root / "runs").iterdir())
    for name in ("config.json",):
        one, other = (path.joinpath(name).read_bytes() for path in (first, second))
        first.joinpath(name).write_bytes(other)
        second.joinpath(name).write_bytes(one)
    with Store(root, ASKED) as store:
        for config in (RUN, SECOND):
            with pytest.raises(StoreError, match=r"is not what was run there; remove .* to run it again"):
                store.of_course(config)
    shutil.rmtree(first)
    shutil.rmtree(second)
    with Store(root, ASKED) as store:
        assert store.of_course(RUN) is None


def test_a_run_of_another_folder_is_seen(root: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "other", EDITED) as store:
        alien = finish(store, SECOND)
    shutil.copytree(alien, root / "runs" / alien.name)
    with Store(root, ASKED) as store, pytest.raises(StoreError, match="is not what was run there"):
        store.of_course(SECOND)


def test_files_imported_late_are_part_of_the_proof(tmp_path: Path) -> None:
    root = tmp_path / "out"
    with Store(root, ASKED) as store:
        store.check_late_files({"late.py": "1"})
        finish(store, RUN)
    for late, proven in (({"late.py": "2"}, False), ({}, False), ({"late.py": "1"}, True)):
        (root / FILE).unlink()
        for _ in range(2):
            with Store(root, ASKED) as store:
                if proven:
                    store.check_late_files(late)
                    continue
                with pytest.raises(StoreError, match="nothing in them proves"):
                    store.check_late_files(late)
    with Store(root, ASKED) as store, pytest.raises(StoreError, match=r"its file late\.py has changed"):
        store.check_late_files({"late.py": "2"})


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("all_of_it", [True, False])
def test_a_number_whose_question_is_lost_is_not_given_to_another(root: Path, how: str, all_of_it: bool) -> None:
    profile = HardwareProfile(name="card", step_time_s=((1, 0.1),))
    with Store(root, ASKED) as store:
        store.note(Questions(store, {"target": 1}).name_for("bench", ["profile"]), profile)
    shutil.rmtree(root / "questions") if all_of_it else damage(root / "questions" / "1" / FILE, how)
    with Store(root, ASKED) as store:
        questions = Questions(store, {"target": 1, "profile": "another"})
        assert questions.number == 2
        assert questions.read_note("timing", Timing) is None
        assert store.read_note(questions.name_for("bench", ["profile"]), HardwareProfile) is None


@pytest.mark.parametrize("how", DAMAGES)
def test_the_default_folder_of_a_lost_question_is_tried_first(root: Path, how: str) -> None:
    damage(root / FILE, how)
    assert free_folder(root, ASKED) == root


def test_a_truncated_note_can_be_removed(root: Path) -> None:
    damage(root / "timing.json", "truncated")
    with Store(root, ASKED) as store:
        with pytest.raises(StoreError, match=r"timing\.json .*remove it, and it is measured again"):
            store.read_note("timing", Timing)
        (root / "timing.json").unlink()
        assert store.read_note("timing", Timing) is None


def test_a_folder_with_files_of_somebody_else_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "mine"}', encoding="utf-8")
    with Store(tmp_path, ASKED) as store:
        assert not store.recovered
        assert Questions(store, {"target": 1}).number == 1
    assert json.loads((tmp_path / "package.json").read_text(encoding="utf-8")) == {"name": "mine"}
