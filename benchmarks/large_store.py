"""How long `batchscope runs` and `batchscope report` take for 10,000 runs of 1,000 rows, and in how much memory.

    python benchmarks/large_store.py --quick         # 500 runs of 200 rows: seconds
    python benchmarks/large_store.py                 # 3.6 GB of disk until it ends; writes results/large_store.json
    python benchmarks/large_store.py --rows 100 --in FOLDER

A small search with a fixed hardware profile is asked for its answer and page, then its folder is filled up with runs
that follow a law, written as the store writes them and without training: one in five reaches the target, one falls
behind, one is paused, one runs to the last step, one diverges. Each command runs in a process of its own; wall and
processor time and its largest memory are kept, beside what is promised.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchscope.store.codec import encode
from batchscope.store.records import RunConfig, RunResult, RunStatus
from batchscope.store.runs import read_runs, run_id
from record import write

MOST = {"runs": (3.0, 300), "runs --json": (3.0, 300), "report": (15.0, 500)}
"""Seconds and MB that are promised."""
MOST_PAGE_MB = 5.0
STATUSES = (RunStatus.REACHED, RunStatus.BEHIND, RunStatus.PAUSED, RunStatus.OUT_OF_STEPS, RunStatus.DIVERGED)
PROFILE = {"name": "made up", "step_time_s": [[1, 0.001], [64, 0.0012], [1024, 0.006]]}
SIZES = (16, 32, 64, 128, 256, 512, 1024)


def begun(folder: Path) -> None:
    """A finished search on the built-in task."""
    profile = folder.with_name("machine.json")
    profile.write_text(json.dumps(PROFILE))
    words = ["find", "digits", "--target", "val_loss<=0.3", "--hardware", str(profile), "--trainings", "0.1"]
    subprocess.run([sys.executable, "-m", "batchscope", *words, "--out", str(folder)], check=True, capture_output=True)


def filled(folder: Path, runs: int, rows: int) -> int:
    """Add runs to a results folder; how many bytes it then has in files of rows."""
    like, total = next(run for run in read_runs(folder) if run.config.target is not None), 0
    assert like.result is not None
    rng, names = random.Random(0), list(like.result.first)
    for number in range(runs):
        status = STATUSES[number % len(STATUSES)]
        size, lr = rng.choice(SIZES), float(f"{10 ** rng.uniform(-2, 0):.4g}")
        config = replace(like.config, batch_size=size, micro_batch_size=size, lr=lr, seed=number, purpose="probe")
        path = folder / "runs" / run_id(config)
        path.mkdir()
        text = written(tuple(names), size, rows, status)
        (path / "config.json").write_text(json.dumps({**encode(config), "number": 1000 + number}, indent=1) + "\n")
        (path / "rows.jsonl").write_bytes(text)
        ended = result(config, names, rows, status, text)
        (path / "result.json").write_text(json.dumps(encode(ended), indent=1) + "\n")
        total += len(text)
    return total


@functools.cache
def written(names: tuple[str, ...], size: int, rows: int, status: RunStatus) -> bytes:
    """Rows of a run as they are in its file; those of two runs of one batch size and ending are the same."""
    return "".join(lines(names, size, rows, status)).encode()


def value(step: int, rows: int, status: RunStatus) -> float:
    """Metric of a run at a step: it falls from 2.3 to 0.3 where the target is reached at the last row, else to 0.6."""
    end = 0.3 if status is RunStatus.REACHED else 0.6
    return 2.3 + (end - 2.3) * (step / (10 * (rows - 1))) ** 0.5


def lines(names: Sequence[str], size: int, rows: int, status: RunStatus) -> Iterator[str]:
    """Lines of `rows.jsonl`: evaluations, ten steps apart."""
    for row in range(rows):
        step = 10 * row
        metrics = dict.fromkeys(names, value(step, rows, status))
        data = {
            "kind": "evaluation",
            "step": step,
            "examples": step * size,
            "train_loss": value(step, rows, status) if step else None,
            "metrics": metrics,
            "device_seconds": 0.000412345 * step,
            "evaluation_seconds": 0.000612345 * row,
            "processor_seconds": 0.000412345 * step,
            "step_s": 0.000412345,
            "low_step_s": 0.000402345,
        }
        yield json.dumps(data, sort_keys=True, separators=(",", ":")) + "\n"


def result(config: RunConfig, names: list[str], rows: int, status: RunStatus, text: bytes) -> RunResult:
    """Result of such a run."""
    steps = 10 * (rows - 1)
    first, last = (dict.fromkeys(names, value(step, rows, status)) for step in (0, steps))
    return RunResult(
        status=status,
        message=status.meaning,
        steps=steps,
        examples=steps * config.batch_size,
        device_seconds=0.000412345 * steps,
        steps_to_target=float(steps) if status is RunStatus.REACHED else None,
        first=first,
        last=last,
        best=last,
        best_step=steps,
        rows_sha256=hashlib.sha256(text).hexdigest(),
        rows_bytes=len(text),
    )


MEASURED = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
done = subprocess.run([sys.executable, "-m", "batchscope", *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "status": done.returncode,
    "wall_s": round(time.perf_counter() - started, 2),
    "processor_s": round(used.ru_utime + used.ru_stime, 2),
    "peak_memory_mb": round(used.ru_maxrss * 1024 / 1e6),
    "lines": done.stdout.count("\\n"),
}))
"""
"""Runs a command in a process of its own, whose only child it is: the largest memory is that of this command."""


def measure(*words: str) -> dict[str, Any]:
    """What a command took."""
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Write the store, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="500 runs of 200 rows, and no file of results")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--in", dest="base", type=Path, help="where the store is written; removed at the end")
    chosen = parser.parse_args()
    runs, rows = chosen.runs or (500 if chosen.quick else 10_000), chosen.rows or (200 if chosen.quick else 1000)
    load, folder = os.getloadavg(), Path(tempfile.mkdtemp(prefix="large-store-", dir=chosen.base))
    try:
        begun(folder / "out")
        began = time.perf_counter()
        size = filled(folder / "out", runs, rows)
        print(f"wrote {runs:,} runs of {rows:,} rows, {size / 1e6:.0f} MB, in {time.perf_counter() - began:.0f} s")
        out = str(folder / "out")
        found = {name: measure(*name.split()[:1], out, *name.split()[1:]) for name in MOST}
        page = round((folder / "out" / "report.html").stat().st_size / 1e6, 2)
    finally:
        shutil.rmtree(folder)
    for name, each in found.items():
        print(f"{name}: {each}")
    print(f"page: {page} MB")
    if not chosen.quick:
        promised = {name: {"s": seconds, "mb": mb} for name, (seconds, mb) in MOST.items()}
        data = {"runs": runs, "rows": rows, "bytes_of_rows": size, "load_average_before": load, "page_mb": page}
        write("large_store", {**data, "promised": {**promised, "page_mb": MOST_PAGE_MB}, "commands": found})
    over = [n for n, e in found.items() if e["status"] or e["wall_s"] > MOST[n][0] or e["peak_memory_mb"] > MOST[n][1]]
    if over or page > MOST_PAGE_MB:
        sys.exit(f"over what is promised: {', '.join(over) or 'the page'}")


if __name__ == "__main__":
    main()
