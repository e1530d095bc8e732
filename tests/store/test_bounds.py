"""What is read is bounded: size, depth, numbers, members; and nothing is waited for or followed to another place."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import BatchscopeError, StoreError
from batchscope.hardware.profile import load_profile
from batchscope.store import files
from batchscope.store.answers import Questions
from batchscope.store.files import open_regular, read_json, remove_leftovers, replaced, write_text
from batchscope.store.json_text import MOST_BYTES, MOST_DEEP, MOST_DIGITS, parse
from batchscope.store.question import command_of
from batchscope.store.records import RateRange
from batchscope.store.runs import Store, read_runs

from .samples import CONFIG, OTHER, QUESTION, finish, make_row

HOSTILE = {
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "one list too deep": b"[" * (MOST_DEEP + 1) + b"]" * (MOST_DEEP + 1),
    "an open end": b"[" * 100_000,
    "a long whole number": b'{"a": ' + b"7" * 5000 + b"}",
    "a whole number beyond floats": b'{"a": -' + b"7" * (MOST_DIGITS + 1) + b"}",
    "a float beyond floats": b'{"a": 1e999}',
    "a signed float beyond floats": b'{"a": -1.5E+4000}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": [-Infinity]}',
    "a member twice": b'{"a": 1, "b": {"c": 1, "c": 2}}',
    "a lone surrogate": b'{"a": "\xed\xa0\x80"}',
    "nothing": b"",
    "zeros": b"\0" * 4096,
    "another encoding": '{"a": 1}'.encode("utf-16")[:-1],
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_content_is_refused_in_one_message(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(content)
    with pytest.raises(
        StoreError, match=r"bench.json \(\d+ bytes\) is not whole JSON: .*remove it and run .* again, or restore it$"
    ):
        read_json(path)
    with pytest.raises(BatchscopeError, match=r"the profile cannot be read") as refused:
        load_profile(path)
    assert "remove" not in str(refused.value)


@pytest.mark.parametrize("name", ["config.json", "result.json"])
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_records_of_a_run_are_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(StoreError, match=rf"{name}.*remove the folder {folder}"):
        read_runs(folder.parents[1])


@pytest.mark.parametrize(
    "line", [HOSTILE[name] for name in ("deep lists", "deep objects", "a long whole number", "NaN", "zeros")]
)
def test_hostile_rows_are_refused(tmp_path: Path, line: bytes) -> None:
    with Store(tmp_path, QUESTION) as store:
        store.start(CONFIG).close()
        rows = store.folder(next((tmp_path / "runs").iterdir()).name) / "rows.jsonl"
        rows.write_bytes(b'{"kind": "evaluation"}\n' + line + b'\n{"kind": "evaluation"}\n')
        with pytest.raises(StoreError, match=r"rows.jsonl line 2 is not JSON"):
            store.runs()


def test_what_is_within_the_bounds_is_read() -> None:
    deep = json.loads("[" * (MOST_DEEP - 1) + "]" * (MOST_DEEP - 1))
    number = int("9" * MOST_DIGITS)
    held = {"deep": deep, "number": number, "small": 1e-320, "text": "[" * 500 + '"' + "{" * 500, "digits": "7" * 5000}
    assert parse(json.dumps(held).encode()) == held
    assert float(number) < float("inf")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(StoreError, match=r"more than 67,108,864 bytes; remove it and run"):
        read_json(path)


@pytest.mark.parametrize(
    "change",
    [
        {"expected_factor": 1.0},
        {"expected_factor": 0.5},
        {"expected_factor": 1e300},
        {"expected_lr": 0.0},
        {"expected_lr": -1.0},
        {"expected_lr": 1e300},
        {"ceiling_lr": 1e-300},
        {"batch_size": 0},
        {"tested_batch_size": 0},
        {"lrs": [0.2, 0.1]},
        {"lrs": [0.1]},
    ],
)
def test_a_range_test_that_no_search_would_end_with_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    sound = {"batch_size": 8, "ceiling_lr": 1.0, "broke": True, "normalised": False, "steps": 9}
    sound |= {"lrs": [0.1, 0.2], "losses": [1.0, None]}
    with Store(tmp_path, QUESTION) as store:
        store.note("rate-range", sound)
        assert store.read_note("rate-range", RateRange) is not None
        store.note("rate-range", {**sound, **change})
        with pytest.raises(StoreError, match=r"rate-range.json is of another schema"):
            store.read_note("rate-range", RateRange)


# Something else in a file's place ------------------------------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def subfolder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


NO_FILES = [fifo, device, subfolder, loop]


@pytest.mark.parametrize("plant", NO_FILES)
@pytest.mark.parametrize("name", ["config.json", "result.json", "rows.jsonl"])
def test_what_is_no_file_is_refused_and_not_waited_for(folder: Path, plant: Callable[[Path], None], name: str) -> None:
    (folder / name).unlink()
    plant(folder / name)
    with pytest.raises(StoreError, match=name), Store(folder.parents[1], QUESTION) as store:
        store.runs()


@pytest.mark.parametrize("plant", NO_FILES)
def test_a_question_that_is_no_file_is_refused(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    with Store(tmp_path, QUESTION) as store:
        finish(store)
    (tmp_path / "question.json").unlink()
    plant(tmp_path / "question.json")
    with pytest.raises(StoreError):
        Store(tmp_path, QUESTION)
    if plant is not loop:
        with pytest.raises(StoreError):
            command_of(tmp_path)


@pytest.mark.parametrize("plant", [fifo, device])
def test_a_device_is_never_replaced(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    plant(tmp_path / "report.html")
    before = os.lstat(tmp_path / "report.html")
    with pytest.raises(StoreError, match=r"report.html: it is no regular file; remove it and run"):
        write_text(tmp_path / "report.html", "page")
    assert os.lstat(tmp_path / "report.html").st_ino == before.st_ino
    (tmp_path / "report.html").unlink()
    write_text(tmp_path / "report.html", "page")


# Links ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("theirs", encoding="utf-8")
    return path


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_replaced_and_what_it_led_to_stays(tmp_path: Path, victim: Path, there: bool) -> None:
    if not there:
        victim.unlink()
    path = tmp_path / "plan.json"
    path.symlink_to(victim)
    write_text(path, "ours")
    assert (path.is_symlink(), path.read_text(encoding="utf-8")) == (False, "ours")
    assert not there or victim.read_text(encoding="utf-8") == "theirs"
    assert victim.exists() == there


def test_rows_are_never_appended_through_a_link(folder: Path, victim: Path) -> None:
    root = folder.parents[1]
    with Store(root, QUESTION) as store:
        started = store.start(OTHER)
        started.close()
        rows = started.folder / "rows.jsonl"
        rows.unlink()
        rows.symlink_to(victim)
        with pytest.raises(StoreError, match=r"rows.jsonl: it is a link, .*; remove "):
            store.start(OTHER)
        rows.unlink()
        finish(store, OTHER)
    assert victim.read_text(encoding="utf-8") == "theirs"


def test_rows_of_a_run_that_goes_on_are_never_appended_through_a_link(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "victim.jsonl"
    (folder / "rows.jsonl").rename(copy)
    (folder / "rows.jsonl").symlink_to(copy)
    before = copy.read_bytes()
    with Store(folder.parents[1], QUESTION) as store, pytest.raises(StoreError, match="it is a link"):
        store.go_on(CONFIG).append(make_row(3))
    assert copy.read_bytes() == before


@pytest.mark.parametrize("name", ["runs", "questions", "plans", "lock"])
def test_links_in_the_place_of_what_a_folder_holds_are_refused(tmp_path: Path, name: str) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "out"
    root.mkdir()
    if name != "lock":
        elsewhere.mkdir()
    (root / name).symlink_to(elsewhere)
    with pytest.raises(StoreError, match=rf"{name}: it is a link, .*; remove "):
        Store(root, QUESTION)
    assert not elsewhere.exists() or not list(elsewhere.iterdir())
    (root / name).unlink()
    with Store(root, QUESTION) as store:
        Questions(store, {"target": None}).answer({"a": 1})
        finish(store)


def test_a_link_to_a_results_folder_is_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with Store(tmp_path / "out", QUESTION) as store:
        finish(store)
    assert len(read_runs(tmp_path / "disk")) == 1


def test_the_folder_of_a_run_is_no_link(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Store(folder.parents[1], QUESTION) as store:
        planted = store.start(OTHER)
        planted.close()
        for path in planted.folder.iterdir():
            path.unlink()
        planted.folder.rmdir()
        planted.folder.symlink_to(elsewhere)
        with pytest.raises(StoreError, match="it is a link"):
            store.start(OTHER)
    assert not list(elsewhere.iterdir())


# Temporary files -----------------------------------------------------------------------------------------------------


def temporary_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_temporary_names_cannot_be_guessed_and_files_follow_the_umask(tmp_path: Path) -> None:
    seen = set[str]()
    before = os.umask(0o027)
    try:
        for _ in range(3):
            with replaced(tmp_path / ("x" * 255)) as file:
                seen.update(temporary_names(tmp_path))
                file.write(b"whole")
    finally:
        os.umask(before)
    assert len(seen) == 3
    assert not any(str(os.getpid()) in name.split("-")[1] for name in seen if len(str(os.getpid())) > 5)
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o640]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "old")
    with pytest.raises(ZeroDivisionError), replaced(tmp_path / "a.json") as file:
        file.write(b"half" * (1 // 0))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "old"


def test_leftovers_are_removed_where_they_are_ours_and_old(folder: Path, victim: Path) -> None:
    root, name = folder.parents[1], ".batchscope-0123456789abcdef.part"
    old = [root / name, folder / name]
    for path in old:
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    others = [root / ".batchscope-mine.part", root / "a.part", root / ".batchscope-fedcba9876543210.part"]
    for path in others:
        path.write_bytes(b"")
    os.utime(others[0], (0, 0))
    link = root / ".batchscope-00000000000000aa.part"
    link.symlink_to(victim)
    Store(root, QUESTION).close()
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in (*others, link, victim))
    remove_leftovers(root / "nowhere")


def test_a_file_that_stands_under_a_temporary_name_is_never_opened(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.secrets, "token_hex", lambda number: "0" * 2 * number)
    (tmp_path / f".batchscope-{'0' * 16}.part").symlink_to(victim)
    with pytest.raises(StoreError, match="File exists"):
        write_text(tmp_path / "plan.json", "ours")
    assert victim.read_text(encoding="utf-8") == "theirs"


def test_open_regular_closes_what_it_refuses(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No such device or address"):
        open_regular(tmp_path / "fifo")
    assert len(os.listdir("/proc/self/fd")) == before
