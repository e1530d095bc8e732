"""The results folder: kill, resume, truncation, full disks, two processes, other questions."""

from __future__ import annotations

import errno
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
from typing import Any

import pytest

from batchscope.errors import StoreError
from batchscope.store.files import read_record, write_text
from batchscope.store.records import Estimate, HardwareProfile, RunConfig, RunResult, RunStatus
from batchscope.store.runs import RunWriter, Store, free_folder, read_runs, run_id

QUESTION = {"task": "toy", "settings": {"hidden": 3}, "seed": 0}
CONFIG = RunConfig(task="toy", batch_size=8, micro_batch_size=8, lr=0.1, max_steps=10)
OTHER = replace(CONFIG, lr=0.2)
RESULT = RunResult(
    status=RunStatus.REACHED,
    message="",
    steps=3,
    examples=24,
    device_seconds=0.5,
    steps_to_target=2.5,
    last={"val_loss": 0.1},
    best={"val_loss": 0.1},
    best_step=3,
    first={"val_loss": 1.0},
)


def make_row(step: int) -> dict[str, Any]:
    return {"kind": "evaluation", "step": step, "metrics": {"val_loss": 1 / (step + 1)}}


def write_rows(writer: RunWriter, rows: int) -> None:
    for step in range(rows):
        writer.append(make_row(step))


def finish(store: Store, config: RunConfig = CONFIG) -> Path:
    """A finished run of three rows; its folder."""
    writer = store.start(config)
    write_rows(writer, 3)
    writer.finish(RESULT)
    return writer.folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a finished run of `CONFIG` stands."""
    with Store(tmp_path / "out", QUESTION) as store:
        return finish(store)


# What a process is doing when it is killed ---------------------------------------------------------------------------

WORKER = """
import os, sys, time
sys.path.insert(0, {tests!r})
from test_runs import CONFIG, OTHER, QUESTION, finish, write_rows
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
    kill(at_work(f"{sleep}; from test_runs import RESULT; writer.finish(RESULT)"))
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
    with pytest.raises(StoreError, match="another question: its seed is 0, now 1; give another --out"):
        Store(root, {**QUESTION, "seed": 1})
    with pytest.raises(StoreError, match="its within is None, now '300s'"):
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


# Files that are not what was written ---------------------------------------------------------------------------------


def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_truncated_json_is_named(folder: Path, name: str, share: float) -> None:
    truncate(folder / name, share)
    with pytest.raises(StoreError, match=rf"{name} .*not whole JSON.*remove it, or restore it"):
        read_runs(folder.parents[1])


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_rows_of_a_finished_run_are_named(folder: Path, share: float) -> None:
    truncate(folder / "rows.jsonl", share)
    with pytest.raises(StoreError, match=r"rows.jsonl is not the file that the run wrote \(its hash differs\)"):
        read_runs(folder.parents[1])


def test_missing_rows_of_a_finished_run_are_named(folder: Path) -> None:
    (folder / "rows.jsonl").unlink()
    with pytest.raises(StoreError, match=r"rows.jsonl: No such file"):
        read_runs(folder.parents[1])


def test_another_hash_is_named(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    (folder / "result.json").write_text(json.dumps({**result, "rows_sha256": "0" * 64}), encoding="utf-8")
    with pytest.raises(StoreError, match="hash differs"):
        read_runs(folder.parents[1])


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
        read_runs(tmp_path)


def test_an_edited_configuration_is_not_taken_for_the_run(folder: Path) -> None:
    data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**data, "lr": 0.3}), encoding="utf-8")
    with Store(folder.parents[1], QUESTION) as store, pytest.raises(StoreError, match="is not what was run there"):
        store.finished(CONFIG)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_a_question_that_is_no_object_is_named(folder: Path, content: str) -> None:
    root = folder.parents[1]
    (root / "question.json").write_text(content, encoding="utf-8")
    with pytest.raises(StoreError, match=r"question.json is of another schema"):
        Store(root, QUESTION)


def test_a_truncated_note_is_named(tmp_path: Path) -> None:
    profile = HardwareProfile(name="card", step_time_s=((1, 0.1),))
    with Store(tmp_path, QUESTION) as store:
        assert store.noted("bench", HardwareProfile) is None
        store.note("bench", profile)
        assert store.noted("bench", HardwareProfile) == profile
        truncate(tmp_path / "bench.json")
        with pytest.raises(StoreError, match=r"bench.json .*not whole JSON"):
            store.noted("bench", HardwareProfile)


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no results folder"):
        read_runs(tmp_path)


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


# Places that cannot be written ---------------------------------------------------------------------------------------


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for root in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(StoreError, match="check the path and its permissions, or give another --out"):
            Store(root, QUESTION)
    with pytest.raises(StoreError, match="Not a directory"):
        write_text(tmp_path / "file" / "page.html", "")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(StoreError, match=r"/proc/out.*give another --out"):
        Store("/proc/out", QUESTION)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop root")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        Store(tmp_path / "out", QUESTION)


def refuse(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FULL = "the disk is full: free some space and run the same command again, finished runs are kept"


@pytest.mark.parametrize("broken", ["os.replace", "os.fsync", "builtins.open"])
def test_full_disk_while_a_result_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    with Store(folder.parents[1], QUESTION) as store:
        writer = store.start(OTHER)
        writer.append(make_row(0))
        with monkeypatch.context() as patched:
            patched.setattr(broken, refuse)
            with pytest.raises(StoreError, match=FULL):
                writer.finish(RESULT)
        assert store.finished(OTHER) is None
        assert store.finished(CONFIG) is not None
        finish(store, OTHER)
        assert store.finished(OTHER) is not None


def test_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "plan.json", "old")
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", refuse)
        with pytest.raises(StoreError, match=FULL):
            write_text(tmp_path / "plan.json", "new")
    assert (tmp_path / "plan.json").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_while_rows_are_written(folder: Path) -> None:
    """The kernel's own refusal: the rows of this run lead to a device that is always full."""
    with Store(folder.parents[1], QUESTION) as store:
        run = store.root / "runs" / run_id(OTHER)
        run.mkdir()
        (run / "rows.jsonl").symlink_to("/dev/full")
        writer = store.start(OTHER)
        with pytest.raises(StoreError, match=FULL):
            writer.append(make_row(0))
        assert store.finished(OTHER) is None
        assert store.finished(CONFIG) is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_and_back(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with Store(small_disk / "out", QUESTION) as store:
        finish(store)
        ballast.write_bytes(b"x" * 40_000)
        writer = store.start(OTHER)
        with pytest.raises(StoreError, match=FULL):
            write_rows(writer, 5000)
    assert [run.result is not None for run in read_runs(small_disk / "out")] == [True, False]
    ballast.unlink()
    with Store(small_disk / "out", QUESTION) as store:
        assert store.finished(CONFIG) is not None
        finish(store, OTHER)
        assert all(run.result is not None for run in store.runs())


def test_read_record_of_an_estimate(tmp_path: Path) -> None:
    write_text(tmp_path / "e.json", '{"value": 1, "low": null, "high": null, "n": 3, "unit": "s", "method": "median"}')
    assert read_record(tmp_path / "e.json", Estimate).value == 1.0


# --- set aside, and going on --------------------------------------------------------------------------------------


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


def test_what_was_never_set_aside_cannot_go_on(tmp_path: Path) -> None:
    with Store(tmp_path, QUESTION) as store:
        with pytest.raises(StoreError, match="was never set aside"):
            store.go_on(CONFIG)
        store.start(CONFIG).close()
        with pytest.raises(StoreError, match="was never set aside"):
            store.go_on(CONFIG)
