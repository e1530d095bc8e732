"""Outputs that are full, closed, gone, or of another alphabet, over the commands that answer."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from .case import Ended, Fault, Seen, run

__all__ = ["COMMANDS", "FILES", "TABLE", "faults"]

COMMANDS = {
    "find": "find digits --max-batch-size 16 --target val_loss<=1.5 --trainings 0.1 --out out",
    "study": "study digits --batch-sizes 16,32 --lrs 0.1 --seeds 1 --steps 20 --out out",
    "claims": "claims digits --batch-sizes 32,128 --seeds 2 --epochs 1 --out out",
    "fit": "fit runs.csv --out out",
}
"""Commands that take seconds, each with what it leaves as `out/NAME.json`."""
FILES = {"find": "plan.json", "study": "study.json", "claims": "claims.json", "fit": "plan.json"}
TABLE = "batch_size,steps_to_target,step_time_s,lr\n16,900,0.001,0.01\n64,300,0.002,0.02\n256,150,0.006,0.04\n"

_SHELLS = {
    ">/dev/full": (2, False),
    "2>/dev/full": (None, True),
    ">&-": (None, False),
    "2>&-": (None, True),
    ">/dev/full 2>&1": (2, False),
    "<&- >&- 2>&-": (None, False),
    "2> >(head -n 2 >/dev/null)": (None, True),
    "> >(head -c 10 >/dev/null)": (None, False),
}
"""Where the outputs of a command lead, the status (`None`: that of the answer), and whether stdout has the answer."""
_LOCALES: tuple[dict[str, str], ...] = (
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "cp1252"},
    {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "20"},
)


def faults(quick: bool) -> Iterator[Fault]:
    """Each command with each output; with `quick` the one that trains nothing, and a search whose reader has gone."""
    shells = [(name, where) for name in COMMANDS for where in _SHELLS]
    few = [*(("fit", where) for where in _SHELLS), ("find", "2> >(head -n 2 >/dev/null)")]
    for name, where in few if quick else shells:
        yield Fault(what=f"{name} {where}", tried=partial(_redirected, name, where))
    for name in ("find",) if quick else ("find", "study", "claims"):
        yield Fault(what=f"{name} on a terminal that vanishes", tried=partial(_vanished, name))
    for name in ("fit",) if quick else COMMANDS:
        for environment in _LOCALES:
            words = " ".join(f"{key}={value}" for key, value in environment.items())
            yield Fault(what=f"{name} with {words}", tried=partial(_in_a_locale, name, environment))


def _redirected(name: str, where: str, folder: Path) -> Seen:
    status, printed = _SHELLS[where]
    ended = _ended(name, folder, before=("bash", "-c", f'"$@" {where}', "bash"))
    return _judged(name, folder, ended, (status,) if status is not None else (0, 3), printed=printed)


def _in_a_locale(name: str, environment: Mapping[str, str], folder: Path) -> Seen:
    return _judged(name, folder, _ended(name, folder, environment, form=""), (0, 3), printed=None)


def _vanished(name: str, folder: Path) -> Seen:
    """The terminal is closed at the command's first word; the answer goes to a file."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "batchscope", *COMMANDS[name].split(), "--json"]
    with (folder / "stdout").open("w") as out:
        process = subprocess.Popen(words, cwd=folder, stdout=out, stderr=theirs, start_new_session=True)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    status = process.wait(300)
    ended = Ended(status=status, stdout=(folder / "stdout").read_text(), stderr="", seconds=0.0)
    return _judged(name, folder, ended, (0, 3), printed=True)


def _ended(name: str, folder: Path, environment: Mapping[str, str] | None = None, **how: object) -> Ended:
    (folder / "runs.csv").write_text(TABLE, encoding="utf-8")
    form = how.pop("form", "--json")
    command: Callable[..., Ended] = run
    return command([*COMMANDS[name].split(), *([form] if form else [])], folder, environment, limit_s=300.0, **how)


def _judged(name: str, folder: Path, ended: Ended, statuses: tuple[int, ...], *, printed: bool | None) -> Seen:
    """What is promised: the status, no traceback, the answer in its file, and on stdout where that takes it."""
    wrong: list[str] = []
    if ended.status not in statuses:
        wrong.append(f"status {ended.status}")
    if "Traceback" in ended.stderr or "internal error" in ended.stderr:
        wrong.append("a traceback")
    if not (folder / "out" / FILES[name]).exists():
        wrong.append(f"no {FILES[name]}")
    if printed and not json.loads(ended.stdout or "null"):
        wrong.append("no answer on stdout")
    return Seen(held=not wrong, said=", ".join(wrong) or f"status {ended.status}")
