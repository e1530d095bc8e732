"""Disks that refuse the n-th write, or what is larger than they are, in `find`, `study`, `claims` and `fit`."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .case import Ended, Fault, Seen, finished_runs, lost_of, run
from .outputs import COMMANDS, FILES, TABLE

__all__ = ["faults"]

_MOST = 400
"""Writes of a command, at most."""
_REFUSES = """
import errno, os
_real, _left = os.replace, [int(os.environ["REFUSED_WRITE"])]
def replace(*arguments, **how):
    _left[0] -= 1
    if _left[0] == 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _real(*arguments, **how)
os.replace = replace
"""
"""Every file of a results folder comes to its place by a rename: at the n-th of them the disk is full."""
_LIMITS = (1, 4, 16, 64, 256)
"""Sizes in KiB that no file may exceed."""


def faults(quick: bool) -> Iterator[Fault]:
    """Each write of each command in turn; with `quick` those of `fit`, and one limit on the size of files."""
    for name in ("fit",) if quick else COMMANDS:
        yield Fault(what=f"{name}: each write in turn", tried=partial(_each_write, name))
    for name in ("fit",) if quick else COMMANDS:
        for limit in _LIMITS[1:2] if quick else _LIMITS:
            yield Fault(what=f"{name}: no file over {limit} KiB", tried=partial(_limited, name, limit))


def _each_write(name: str, folder: Path) -> Seen:
    """The n-th try is refused its n-th write; what the tries before it finished stays."""
    patched = folder / "patched"
    patched.mkdir()
    (patched / "sitecustomize.py").write_text(_REFUSES, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(patched), os.environ.get("PYTHONPATH", "")]))
    before, lost = dict[str, tuple[int, bytes]](), 0
    for number in itertools.count(1):
        ended = _ended(name, folder, {"PYTHONPATH": path, "REFUSED_WRITE": str(number)})
        after = _done(folder)
        lost += lost_of(before, after)
        before = after
        if wrong := _wrong(ended):
            return Seen(held=False, lost=lost, said=f"write {number}: {wrong}")
        if "No space left on device" not in ended.stderr or number > _MOST:
            break
    answered = bool(json.loads(ended.stdout).get("status") != "error") and (folder / "out" / FILES[name]).exists()
    return Seen(held=answered and number <= _MOST, lost=lost, said=f"{number - 1} writes refused")


def _limited(name: str, limit: int, folder: Path) -> Seen:
    """No file may grow over a limit; then, without it, the same command goes on to its end."""
    limited = f'(ulimit -f {limit}; exec "$@") | cat'  # stdout is a file here, and not what is limited
    refused = _ended(name, folder, before=("bash", "-o", "pipefail", "-c", limited, "bash"))
    before = _done(folder)
    if wrong := _wrong(refused):
        return Seen(held=False, said=wrong)
    ended = _ended(name, folder)
    answered = ended.status in (0, 3) and (folder / "out" / FILES[name]).exists()
    said = f"status {refused.status}, then {ended.status}"
    return Seen(held=answered, lost=lost_of(before, _done(folder)), said=said)


def _ended(name: str, folder: Path, environment: dict[str, str] | None = None, **how: tuple[str, ...]) -> Ended:
    (folder / "runs.csv").write_text(TABLE, encoding="utf-8")
    return run([*COMMANDS[name].split(), "--json"], folder, environment, limit_s=300.0, **how)


def _done(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The runs that are finished and do not wait to go on."""
    runs = finished_runs(folder / "out") if (folder / "out" / "runs").is_dir() else {}
    return {name: result for name, result in runs.items() if json.loads(result[1])["status"] != "paused"}


def _wrong(ended: Ended) -> str:
    """What a refused write must not come to; a message and one JSON object is what it comes to."""
    if ended.status not in (0, 2, 3):
        return f"status {ended.status}: {ended.stderr[-300:]}"
    if "Traceback" in ended.stderr or "internal error" in ended.stderr:
        return f"a traceback: {ended.stderr[-300:]}"
    found = json.loads(ended.stdout or "null")
    return "" if isinstance(found, dict) else "no answer, and no error, on stdout"
