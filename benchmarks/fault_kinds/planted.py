"""Planted links, FIFOs, hostile and huge files: nothing hangs, no traceback, no victim written to, no run lost.

A finished search is copied for each fault, and one of its files becomes something else. Then the command runs; what it
says is at most one message. A link must not lead it to write into its victim, and a FIFO or a device must not keep it.
Where the thing that was planted is removed with what depends on it, the same command ends with its answer.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from .case import Ended, Fault, Seen, finished_runs, lost_of, run

__all__ = ["faults"]

_LIMIT_S = 120.0
_TARGETS = ("val_loss<=0.5", "val_loss<=0.3")
_PROFILE = {"name": "planted", "step_time_s": [[1, 0.001], [64, 0.0012], [1024, 0.006]]}
_FILES = ("plan.json", "question.json", "rate-range.json", "timing.json", "questions/1/question.json")
_OF_RUNS = ("runs/*/config.json", "runs/*/result.json", "runs/*/rows.jsonl")
_LINKS = ("report.html", "lock", "runs", "plans", "runs/*/checkpoint.pt", *_FILES, *_OF_RUNS)
_CONTENTS = {
    "200,000 brackets": b"[" * 100_000 + b"]" * 100_000,
    "brackets that never close": b'{"a":' * 50_000,
    "a number of 5,000 digits": b'{"schema": ' + b"7" * 5000 + b"}",
    "a number beyond floats": b'{"schema": 1e999}',
    "NaN": b'{"schema": NaN}',
    "a member twice": b'{"schema": 3, "schema": 3}',
    "zeros": bytes(4096),
    "bytes that are no text": b"\xed\xa0\x80\xff",
    "an escape sequence": b'{"\\u001b[2J": "\\u001b]0;owned\\u0007"}',
}
_RANGES = ({"expected_factor": 1.0}, {"expected_factor": 1e300}, {"expected_lr": 1e-300}, {"expected_lr": 1e300})
_HUGE = 20 * 2**30
"""Size of a file that takes no room on the disk, and would not go into memory."""


def faults(quick: bool) -> Iterator[Fault]:
    """The faults of this kind; with `quick` a few of them."""
    yield from itertools.islice(_all(), 0, None, 10) if quick else _all()


def _all() -> Iterator[Fault]:
    for name in _LINKS:
        yield Fault(what=f"a link in the place of {name}", tried=functools.partial(_linked, name))
    yield Fault(what="a link in the place of the kept model", tried=_kept_model)
    for name in (*_FILES, *_OF_RUNS, "report.html"):
        for plant in (_fifo, _device, _huge, _folder):
            words = (plant.__doc__ or "").rstrip(".").lower()
            yield Fault(what=f"{words} in the place of {name}", tried=functools.partial(_replaced, name, plant))
    for name, (what, content) in itertools.product((*_FILES, *_OF_RUNS), _CONTENTS.items()):
        write = functools.partial(_write, content)
        yield Fault(what=f"{what} in {name}", tried=functools.partial(_replaced, name, write))
    for change in _RANGES:
        tried = functools.partial(_replaced, "rate-range.json", functools.partial(_changed, change), again=True)
        yield Fault(what=f"a range test with {json.dumps(change)}", tried=tried)


def _words(target: str, *more: str) -> list[str]:
    asked = ["find", "digits", "--hardware", "machine.json", "--target", target, "--trainings", "0.1"]
    return [*asked, "--budget", "60s", "--out", "out", *more]


@functools.cache
def _finished() -> Path:
    """A folder with a finished search and the hardware profile that it counts with."""
    folder = Path(tempfile.mkdtemp(prefix="planted-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "machine.json").write_text(json.dumps(_PROFILE))
    ended = run(_words(_TARGETS[0]), folder, limit_s=_LIMIT_S)
    assert ended.status == 0, ended.stderr
    return folder


def _copied(folder: Path) -> dict[str, tuple[int, bytes]]:
    shutil.copytree(_finished(), folder, dirs_exist_ok=True)
    return finished_runs(folder / "out")


def _place(folder: Path, name: str) -> Path:
    return min((folder / "out").glob(name), default=folder / "out" / name.replace("*", "planted"))


def _linked(name: str, folder: Path) -> Seen:
    before, path = _copied(folder), _place(folder, name)
    victim = folder / "victim"
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        path.rename(victim)
    else:
        victim.write_text("theirs")
    path.symlink_to(victim)
    state = _state_of(victim)
    ended = [run(_words(_TARGETS[1]), folder, limit_s=_LIMIT_S), run(["report", "out"], folder, limit_s=_LIMIT_S)]
    if _state_of(victim) != state:
        return Seen(held=False, said="the victim was written to")
    there = finished_runs(folder / "out") if not (folder / "out" / "runs").is_symlink() else {}
    went_on = {name: there.get(name, seen) for name, seen in before.items()}  # another target: runs may be longer now
    return _judged(ended, went_on, folder)


def _kept_model(folder: Path) -> Seen:
    before = _copied(folder)
    victim = folder / "victim"
    victim.write_text("theirs")
    (folder / "kept.pt").symlink_to(victim)
    ended = run(_words(_TARGETS[0], "--keep-model", "kept.pt"), folder, limit_s=_LIMIT_S)
    if victim.read_text() != "theirs":
        return Seen(held=False, said="the victim was written to")
    return _judged([ended], before, folder)


def _replaced(name: str, plant: Callable[[Path], None], folder: Path, *, again: bool = False) -> Seen:
    before, path = _copied(folder), _place(folder, name)
    if again:
        for member in ("runs", "questions"):
            shutil.rmtree(folder / "out" / member)
        before = {}
        (folder / "out" / "runs").mkdir()
    plant(path)
    commands = [["runs", "out"], ["report", "out"], _words(_TARGETS[0])]
    ended = [run(words, folder, limit_s=_LIMIT_S) for words in (commands[2:] if again else commands)]
    if "runs/" in name:  # what the messages say: this run is made again
        lost = path.parent.name
        before = {run_id: seen for run_id, seen in before.items() if run_id != lost}
        shutil.rmtree(path.parent)
    elif path.name == "question.json" and path.parent.name != "out":
        shutil.rmtree(path.parent)
    elif path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    if name == "question.json":
        shutil.copy(_finished() / "out" / name, path)
    ended.append(last := run(_words(_TARGETS[0]), folder, limit_s=_LIMIT_S))
    if last.status != 0:
        return Seen(held=False, said=f"status {last.status} once it was removed: {last.stderr[-300:]}")
    return _judged(ended, before, folder)


def _judged(ended: list[Ended], before: dict[str, tuple[int, bytes]], folder: Path) -> Seen:
    statuses = [each.status for each in ended]
    if any(status not in (0, 2) for status in statuses):
        return Seen(held=False, said=f"statuses {statuses}: {ended[-1].stderr[-300:]}")
    if any("Traceback" in each.stderr or "internal error" in each.stderr for each in ended):
        return Seen(held=False, said="a traceback")
    if any("\x1b" in each.stdout + each.stderr for each in ended):
        return Seen(held=False, said="an escape sequence was printed")
    out = folder / "out"
    names = [name for name in before if (out / "runs" / name / "result.json").is_file()]
    after = {n: ((p := out / "runs" / n / "result.json").stat().st_mtime_ns, p.read_bytes()) for n in names}
    return Seen(held=True, lost=0 if (out / "runs").is_symlink() else lost_of(before, after), said=f"{statuses}")


def _state_of(path: Path) -> dict[str, bytes]:
    """Every file of a victim."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path.parent)): p.read_bytes() for p in files}


def _fifo(path: Path) -> None:
    """A FIFO."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _device(path: Path) -> None:
    """A link to an endless device."""
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    """A file of 20 GiB."""
    with path.open("wb") as file:
        file.truncate(_HUGE)


def _folder(path: Path) -> None:
    """A folder."""
    path.unlink(missing_ok=True)
    path.mkdir()


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _changed(change: dict[str, float], path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
