"""Faults tried on purpose, by kind, and what was lost by them.

    python benchmarks/faults.py --quick                 # a few of each kind
    python benchmarks/faults.py                         # all: kills and signals at random moments take most of the time
    python benchmarks/faults.py --only signals hanging --keep FOLDER

A fault holds if all that `docs/reliability.md` promises of its kind was true; `lost` counts finished runs that were
gone, changed or made again. The same faults are tried in the same order wherever this runs; the moments of kills and
signals are drawn from a fixed seed, as shares of what the command takes there.

Results with environment: `benchmarks/results/faults.json` (`faults-quick.json`), the table of `docs/reliability.md`
beside it as `faults.md`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))

from fault_kinds.case import Fault, Seen
from record import RESULTS, write

__all__ = ["KINDS", "faults_of", "main", "table"]

KINDS: dict[str, str] = {
    "kills": "SIGKILL at random moments of `find`, `study`, `claims`, then the same command again",
    "signals": "SIGINT, SIGTERM, SIGHUP at random moments of `find`, `study`, `claims`, `bench`",
    "hanging": "a step, an evaluation, an example, a loader worker, a factory that never comes back",
    "corruption": "record files truncated, emptied, garbage, swapped, deleted, nested deeply, with impossible numbers",
    "questions": "changed modules, lost and foreign questions, other tasks",
    "planted": "planted links, FIFOs, hostile and huge files",
    "limits": "limits of memory: ulimit -v, ulimit -d, --memory-limit, control group; deaths in a measurement; leaks",
    "outputs": "outputs full, closed, gone, or of another alphabet",
    "disks": "disks that refuse each write in turn, or large files",
    "hostile": "hostile strings in every name and message",
    "budgets": "budgets: 1 s to 60 s over find, study, claims, bench, noise; slow data, slow evaluate, workers",
    "ended_runs": "runs that end in each way, with and without workers",
}
"""Module of `fault_kinds`, and what it tries."""


def faults_of(kind: str, *, quick: bool) -> Iterator[Fault]:
    """The faults of a kind; with `quick` a few of them."""
    yield from importlib.import_module(f"fault_kinds.{kind}").faults(quick)


def table(tried: Sequence[dict[str, Any]]) -> str:
    """Tried, held and lost by kind, as a table in Markdown."""
    lines = ["| kind | tried | held | finished runs lost |", "| --- | --- | --- | --- |"]
    for kind, words in KINDS.items():
        of_kind = [row for row in tried if row["kind"] == kind]
        if of_kind:
            held, lost = sum(row["held"] for row in of_kind), sum(row["lost"] for row in of_kind)
            lines.append(f"| {words} | {len(of_kind)} | {held} | {lost} |")
    return "\n".join(lines) + "\n"


def _try(fault: Fault, folder: Path) -> Seen:
    folder.mkdir(parents=True)
    try:
        return fault.tried(folder)
    except Exception as error:
        return Seen(held=False, said=f"{type(error).__name__}: {error}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the faults; 1 where one does not hold, or something was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="KIND")
    parser.add_argument("--keep", type=Path, help="leave the files in this folder")
    chosen = parser.parse_args(arguments)
    base = (chosen.keep or Path(tempfile.mkdtemp(prefix="faults-"))).resolve()
    began, tried = time.monotonic(), list[dict[str, Any]]()
    try:
        for kind in chosen.only:
            for number, fault in enumerate(faults_of(kind, quick=chosen.quick)):
                seen = _try(fault, base / f"{kind}-{number}")
                tried.append({"kind": kind, "what": fault.what, **vars(seen)})
                mark = "held" if seen.held and not seen.lost else "DID NOT HOLD"
                print(f"{kind}: {fault.what}: {mark} {seen.said}".rstrip(), flush=True)
    finally:
        if chosen.keep is None:
            shutil.rmtree(base, ignore_errors=True)
    failed = [row for row in tried if not row["held"] or row["lost"]]
    seconds = round(time.monotonic() - began)
    print(table(tried))
    print(json.dumps({"tried": len(tried), "did not hold": len(failed), "seconds": seconds}))
    if chosen.only == list(KINDS):
        name = "faults-quick" if chosen.quick else "faults"
        write(name, {"tried": tried, "seconds": seconds})
        (RESULTS / f"{name}.md").write_text(table(tried))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
