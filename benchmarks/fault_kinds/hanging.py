"""Code of the user's that never comes back: one message that names it, status 2, nobody left behind."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .case import Fault, Seen, begin, end, processes_of
from .commands import TASK, finished_rows

__all__ = ["MEMBERS", "WAYS", "faults", "task_that_hangs"]

WAYS = {
    "in Python": "time.sleep(1e6)",
    "and catches what interrupts it": """
while True:
    try:
        time.sleep(1e6)
    except BaseException:
        pass
""",
    "in C": """
c, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
c.pthread_mutex_lock(lock)
c.pthread_mutex_lock(lock)
""",
}
MEMBERS = {
    "a factory": ("__init__", "workers=0", 1),
    "model()": ("model", "", 4),
    "train_data()": ("train_data", "", 1),
    "loss(model, batch)": ("loss", "model, batch", 150),
    "evaluate(model)": ("evaluate", "model", 5),
    "an example": ("train_data", "", 3000),
}
"""The method, its arguments, and which of its calls hangs: one in the middle of the work."""
_IN_A_WORKER = 50
_LIMIT_S = 12.0
"""More than the first optimizer takes to import its modules on a busy machine."""
_OVER_S = 200.0


def task_that_hangs(member: str, way: str, at: int, *, in_worker: bool = False) -> str:
    """A task file whose member hangs at its call number `at` in a process, or in a loader worker."""
    where = "torch.utils.data.get_worker_info() and " if in_worker else ""
    body = "\n".join(f"        {line}" for line in WAYS[way].splitlines())
    name, arguments, _ = MEMBERS[member]
    before = f"hang()\n        return super().{name}({arguments.removesuffix('=0')})"
    does = "return Hangs()" if member == "an example" else before
    return f"""{TASK}
import ctypes, itertools
calls = itertools.count(1)

def hang():
    if {where}next(calls) == {at}:
{body}

class Hangs(Slow):
    def __getitem__(self, i):
        hang()
        return super().__getitem__(i)

class Task(Task):
    def {name}(self, {arguments}):
        {does}
"""


def faults(quick: bool) -> Iterator[Fault]:
    tried = [(member, way, 0) for member in MEMBERS for way in WAYS] + [("an example", way, 2) for way in WAYS]
    if quick:
        tried = [("evaluate(model)", "in C", 0), ("an example", "in Python", 2)]
    for member, way, workers in tried:
        what = f"{member}{f' in one of {workers} loader workers' if workers else ''} hangs {way}"
        yield Fault(what=what, tried=partial(_tried, member, way, workers))


def _tried(member: str, way: str, workers: int, folder: Path) -> Seen:
    at = _IN_A_WORKER if workers else MEMBERS[member][2]
    (folder / "task.py").write_text(task_that_hangs(member, way, at, in_worker=workers > 0))
    line = ["find", "task.py:Task", "--set", f"workers={workers}", "--budget", "60s", "--out", "out", "--json"]
    began = time.monotonic()
    process = begin([*line, "--step-timeout", f"{_LIMIT_S:g}s"], folder)
    try:
        process.wait(_OVER_S)
        took, left = time.monotonic() - began, processes_of(process.pid)
    except subprocess.TimeoutExpired:
        return Seen(held=False, said=f"it was not over after {_OVER_S:g} s")
    finally:
        ended = end(process, folder)
    said = ended.stderr.count("did not come back")
    wrong = [
        f"status {ended.status}" * (ended.status != 2),
        f"{said} messages" * (said != 1),
        "no advice" * ("--step-timeout" not in ended.stderr),
        "a traceback" * ("Traceback" in ended.stderr or "Exception ignored" in ended.stderr),
        f"{len(left)} processes left" * bool(left),
        "stdout is no JSON object" * (json.loads(ended.stdout or "null") is None),
    ]
    kept = len(finished_rows(folder / "out"))
    return Seen(held=not any(wrong), said=", ".join(filter(None, wrong)) or f"{took:.0f} s, {kept} runs kept")
