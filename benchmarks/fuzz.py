"""Random tables, argument lines and tasks: every command ends in an answer or one message, whatever it is given.

    python benchmarks/fuzz.py --quick             # a tenth of the cases: two minutes
    python benchmarks/fuzz.py                     # 200 tables, 100 argument lines, 50 tasks: under 20 minutes
    python benchmarks/fuzz.py --only task:17 --keep FOLDER    # one case again, with its files

Case n of a kind is the same wherever it is made: its number seeds it. Each command runs in a process of its own, forked
from one that has imported everything, in a folder of its own, with no standard input. A case holds if

* it ends within its limit, with an exit status of the contract: 0, 2 or 3;
* nothing that it printed has a traceback or an internal error, and nothing is printed twice as a message;
* with status 2 it says one message on stderr, which begins with the program's name;
* with `--json` and an answer, stdout is one JSON object; and no JSON anywhere holds a NaN or an infinite number.

Results with environment: `benchmarks/results/fuzz.json`: how each kind ended, and every case that did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).resolve().parent))

from batchscope.cli import main as command_line
from fuzz_arguments import argument_line
from fuzz_tables import table_case
from fuzz_task import task_case
from record import write

__all__ = ["KINDS", "Ended", "case_of", "faults_of", "main", "run"]

KINDS = {"table": (table_case, 200), "arguments": (argument_line, 100), "task": (task_case, 50)}
"""What makes the command of a case from its random numbers and its folder, and how many there are."""
_QUICK = 10
"""Every so many cases with `--quick`."""
_LIMIT_S = 120.0
_STATUSES = {0, 2, 3}
_INTERNAL = "internal error, a fault of batchscope"
_MESSAGE = re.compile(r"^(?:\x1b\[[0-9;]*m)*batchscope: ", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    command: Sequence[str]
    status: int
    stdout: str
    stderr: str
    seconds: float


def case_of(kind: str, number: int, folder: Path) -> list[str]:
    """The command of a case; what it reads is written into the folder."""
    make, _ = KINDS[kind]
    return make(random.Random(f"{kind} {number}"), folder)


def run(command: Sequence[str], folder: Path, limit_s: float = _LIMIT_S) -> Ended:
    """One command in a forked process that leads its own group, so that nothing of it is left behind."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(command, folder)
    try:
        status = _wait(child, began + limit_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    texts = [(folder / name).read_text(errors="replace") for name in ("stdout", "stderr")]
    return Ended(
        command=command, status=status, stdout=texts[0], stderr=texts[1], seconds=round(time.monotonic() - began, 1)
    )


def _become(command: Sequence[str], folder: Path) -> None:
    """The command, in this process, which ends here."""
    status = 1
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        for number, name in enumerate(("stdout", "stderr"), start=1):
            target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        command_line(list(command))
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _wait(child: int, until: float) -> int:
    """The exit status of a process; 124 where it was not over in time."""
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124


def faults_of(ended: Ended, folder: Path) -> list[str]:
    """What keeps a case from holding."""
    said = ended.stdout + ended.stderr
    found = [] if ended.status in _STATUSES else [f"exit status {ended.status}"]
    found += ["a traceback"] if "Traceback (most recent call last)" in said else []
    found += ["an internal error"] if _INTERNAL in said else []
    messages = _MESSAGE.findall(ended.stderr)
    if ended.status == 2 and len(messages) != 1 and "Usage: batchscope" not in said:
        found.append(f"{len(messages)} messages")
    if "--json" in ended.command and ended.status in (0, 3):
        found += _faults_of_json("stdout", ended.stdout, an_object=True)
    for path in sorted(folder.rglob("*.json")):
        if path.is_file() and not path.name.startswith("given"):
            found += _faults_of_json(path.name, path.read_text(errors="replace"))
    for path in sorted(folder.rglob("*.jsonl")):
        found += [fault for line in path.read_text().splitlines() for fault in _faults_of_json(path.name, line)][:1]
    return found


def _faults_of_json(name: str, text: str, *, an_object: bool = False) -> list[str]:
    def refused(word: str) -> Any:
        raise ValueError(f"it holds {word}")

    try:
        value = json.loads(text, parse_constant=refused)
    except ValueError as error:
        return [f"{name} is no JSON: {error}"]
    return [f"{name} is no JSON object"] if an_object and not isinstance(value, dict) else []


def _cases(quick: bool, only: Sequence[str]) -> Iterator[tuple[str, int]]:
    if only:
        for word in only:
            kind, _, number = word.partition(":")
            yield from ((kind, int(number)),) if number else ((kind, n) for n in range(KINDS[kind][1]))
        return
    for kind, (_, count) in KINDS.items():
        yield from ((kind, number) for number in range(0, count, _QUICK if quick else 1))


def _try(kind: str, number: int, base: Path) -> tuple[str, int, Ended, list[str]]:
    folder = base / f"{kind}-{number}"
    folder.mkdir(parents=True)
    ended = run(case_of(kind, number, folder), folder)
    return kind, number, ended, faults_of(ended, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the cases; 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND[:N]")
    parser.add_argument("--keep", type=Path, help="leave the cases' files in this folder")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    importlib.import_module("batchscope.search.find")  # once, before the processes are forked
    base = (chosen.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))).resolve()
    began, ways, failed = time.monotonic(), dict[str, Counter[int]](), list[dict[str, Any]]()
    try:
        with ThreadPoolExecutor(chosen.processes) as pool:
            cases = [pool.submit(_try, *case, base) for case in _cases(chosen.quick, chosen.only)]
            for case in cases:
                kind, number, ended, faults = case.result()
                ways.setdefault(kind, Counter())[ended.status] += 1
                words = " ".join(ended.command)
                if chosen.only or faults:
                    last = (ended.stderr.strip() or ended.stdout.strip() or "nothing").splitlines()[-1]
                    print(f"{kind}:{number} [{words}] exit {ended.status}, {ended.seconds} s: {last[:400]}", flush=True)
                if faults:
                    print(f"    {'; '.join(faults)}", flush=True)
                    failed.append({"case": f"{kind}:{number}", "command": words, "faults": faults})
    finally:
        if chosen.keep is None:
            shutil.rmtree(base, ignore_errors=True)
    told = {kind: {str(status): count for status, count in sorted(way.items())} for kind, way in ways.items()}
    seconds = round(time.monotonic() - began)
    print(json.dumps({"exit statuses": told, "did not hold": len(failed), "seconds": seconds}))
    if not (chosen.quick or chosen.only):
        write("fuzz", {"exit_statuses": told, "failed": failed, "seconds": seconds})
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
