"""Places that cannot be written, and disks that are full."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import StoreError
from batchscope.store.files import write_text
from batchscope.store.runs import Store, read_runs

from .samples import CONFIG, OTHER, QUESTION, RESULT, finish, make_row, write_rows


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


@pytest.mark.parametrize("broken", ["os.replace", "os.fsync", "os.open"])
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
        writer = store.start(OTHER)
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, writer._file.fileno())
        os.close(full)
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
