"""Files of a results folder that are not what was written: truncated, edited, of another version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import StoreError
from batchscope.store.files import read_record, write_text
from batchscope.store.question import STORE_SCHEMA, asked_of, check_schema
from batchscope.store.records import Estimate, HardwareProfile
from batchscope.store.runs import Store, read_runs

from .samples import CONFIG, OTHER, QUESTION, finish


def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_truncated_json_is_named(folder: Path, name: str, share: float) -> None:
    truncate(folder / name, share)
    with pytest.raises(StoreError, match=rf"{name} .*not whole JSON.*remove the folder {folder} and run"):
        read_runs(folder.parents[1])


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_rows_of_a_finished_run_are_named(folder: Path, share: float) -> None:
    truncate(folder / "rows.jsonl", share)
    with pytest.raises(
        StoreError, match=r"rows.jsonl is not the file that the run wrote \(it has \d+ bytes, not \d+\)"
    ):
        read_runs(folder.parents[1])


def test_missing_rows_of_a_finished_run_are_named(folder: Path) -> None:
    (folder / "rows.jsonl").unlink()
    with pytest.raises(StoreError, match=r"rows.jsonl: No such file"):
        read_runs(folder.parents[1])


def test_another_hash_is_named(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    (folder / "result.json").write_text(json.dumps({**result, "rows_sha256": "0" * 64}), encoding="utf-8")
    (run,) = read_runs(folder.parents[1])
    with pytest.raises(StoreError, match="hash differs"):
        len(run.rows)
    with pytest.raises(StoreError, match="hash differs"):
        read_runs(folder.parents[1], at_once=True)


def test_a_damaged_run_can_be_removed_and_the_rest_stays(folder: Path) -> None:
    with Store(folder.parents[1], QUESTION) as store:
        damaged = finish(store, OTHER)
    truncate(damaged / "result.json")
    for path in damaged.iterdir():
        path.unlink()
    damaged.rmdir()
    assert [run.config for run in read_runs(folder.parents[1])] == [CONFIG]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", {"speed": 1}, "unknown member 'speed'"),
        ("config.json", {"batch_size": 16}, "batch_size 16 is not micro_batch_size"),
        ("config.json", {"lr": "fast"}, "lr is 'fast', not float"),
        ("result.json", {"status": "won"}, "status is 'won', not one of"),
        ("result.json", {"last": [1]}, "last is list, not an object"),
    ],
)
def test_another_schema_is_named(folder: Path, name: str, change: dict[str, Any], message: str) -> None:
    data = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps({**data, **change}), encoding="utf-8")
    with pytest.raises(StoreError, match=rf"{name} is of another schema: .*{message}"):
        read_runs(folder.parents[1])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00garbage", b"[1, 2", b"\x80"])
def test_binary_rubbish_is_named(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(StoreError, match="not whole JSON"):
        read_runs(folder.parents[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"a":1}\nno\n{"b":2}\n', "line 2 is not JSON"), (b'{"a":1}\n7\n', "line 2 is not an object")],
)
def test_rows_that_are_none_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    with Store(tmp_path, QUESTION) as store:
        writer = store.start(CONFIG)
        writer.close()
    (writer.folder / "rows.jsonl").write_bytes(content)
    with pytest.raises(StoreError, match=rf"rows.jsonl {message}.*; remove .* to run it again"):
        read_runs(tmp_path, at_once=True)


def test_an_edited_configuration_is_not_taken_for_the_run(folder: Path) -> None:
    data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**data, "lr": 0.3}), encoding="utf-8")
    with Store(folder.parents[1], QUESTION) as store, pytest.raises(StoreError, match="is not what was run there"):
        store.finished(CONFIG)


ASKED = asked_of("find", {"task": "toy", "settings": {"hidden": 3}}, seed=0)
OLD = {**ASKED, "schema": 1}


def of_old_schema(root: Path, *, records_too: bool) -> Path:
    """A results folder as another version left it: its question says so, and perhaps its records have other members."""
    with Store(root, ASKED) as store:
        run = finish(store)
    (root / "question.json").write_text(json.dumps(OLD), encoding="utf-8")
    if records_too:
        (run / "config.json").write_text('{"batch": 8}', encoding="utf-8")
    return root


@pytest.mark.parametrize("records_too", [False, True])
def test_a_folder_of_another_version_is_named_once_and_the_advice_helps(tmp_path: Path, records_too: bool) -> None:
    root = of_old_schema(tmp_path / "out", records_too=records_too)
    said = (
        rf"out was written by another version of batchscope: question.json has schema 1, and this version reads and "
        rf"writes {STORE_SCHEMA}; give another --out, or remove the folder$"
    )
    for use in (lambda: Store(root, ASKED), lambda: read_runs(root), lambda: check_schema(root)):
        with pytest.raises(StoreError, match=said):
            use()
    with Store(tmp_path / "another", ASKED) as store:
        finish(store)
    shutil.rmtree(root)
    with Store(root, ASKED) as store:
        finish(store)
    assert len(read_runs(root)) == 1


def test_a_truncated_note_is_named(tmp_path: Path) -> None:
    profile = HardwareProfile(name="card", step_time_s=((1, 0.1),))
    with Store(tmp_path, QUESTION) as store:
        assert store.read_note("bench", HardwareProfile) is None
        store.note("bench", profile)
        assert store.read_note("bench", HardwareProfile) == profile
        truncate(tmp_path / "bench.json")
        with pytest.raises(StoreError, match=r"bench.json .*not whole JSON"):
            store.read_note("bench", HardwareProfile)


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no results folder"):
        read_runs(tmp_path)


def test_read_record_of_an_estimate(tmp_path: Path) -> None:
    write_text(tmp_path / "e.json", '{"value": 1, "low": null, "high": null, "n": 3, "unit": "s", "method": "median"}')
    assert read_record(tmp_path / "e.json", Estimate).value == 1.0
