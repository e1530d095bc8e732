"""How long `batchscope fit` takes for 100,000 runs: one learning rate a batch size, several, and as many as runs.

    python benchmarks/large_table.py                 about two minutes; writes results/large_table.json
    python benchmarks/large_table.py --runs 10000

Each table is made here, read by the command in a process of its own, and answered with a results folder and a page.
Wall and processor time, the largest memory of the process, what it said on the way, and the recipe are kept. The best
batch size is known: the tables follow a law with critical batch size 150 and a step time with its knee at 300 examples.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write

SIZES = tuple(2**k for k in range(4, 12))
MOST_S = 60.0


def steps_at(size: float) -> float:
    """Steps to the target at the best learning rate."""
    return 200 * (1 + (150 / size) ** 1.3) ** (1 / 1.3)


def step_time_at(size: float) -> float:
    """Seconds of a step."""
    return 0.01 * (1 + size / 300)


def table(path: Path, runs: int, kind: str) -> None:
    """Write a table of so many runs; `any` has batch sizes and learning rates as a random search draws them."""
    rng = random.Random(0)
    with path.open("w") as file:
        file.write("batch_size,steps_to_target,step_time_s,lr,seed\n")
        for seed in range(runs):
            size = round(2 ** rng.uniform(4, 11)) if kind == "any" else rng.choice(SIZES)
            factor = {"one": 1.0, "several": rng.choice((0.25, 0.5, 1.0, 1.6)), "any": math.exp(rng.uniform(-1.5, 0.5))}
            off = factor[kind]
            steps = steps_at(size) / (off * (2 - off)) * math.exp(rng.gauss(0, 0.1))
            lr = 0.2 / (1 + 150 / size) * off
            file.write(f"{size},{steps:.6g},{step_time_at(size) * math.exp(rng.gauss(0, 0.05)):.6g},{lr:.5g},{seed}\n")


def measure(runs: int, kind: str, folder: Path) -> dict[str, Any]:
    """One table, and what the command did with it."""
    path = folder / f"{kind}.csv"
    table(path, runs, kind)
    command = [sys.executable, "-m", "batchscope", "fit", str(path), "--json", "--out", str(folder / kind)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    plan = json.loads(done.stdout)
    size = plan["recipe"]["batch_size"]
    best = min(steps_at(b) * step_time_at(b) for b in range(8, 4096))
    return {
        "table": kind,
        "runs": runs,
        "wall_s": round(wall, 2),
        "processor_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "peak_memory_mib": round(after.ru_maxrss / 1024),
        "said": done.stderr.splitlines(),
        "notes": plan["notes"],
        "batch_size": size,
        "time_over_best": round(steps_at(size) * step_time_at(size) / best, 3),
    }


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    runs = parser.parse_args().runs
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(runs, kind, Path(folder)) for kind in ("one", "several", "any")]
    write("large_table", {"load_average_before": load, "most_s": MOST_S, "tables": found})
    for each in found:
        print({key: each[key] for key in ("table", "wall_s", "processor_s", "peak_memory_mib", "time_over_best")})
    if slow := [each["table"] for each in found if each["wall_s"] > MOST_S]:
        sys.exit(f"over {MOST_S:g} s: {', '.join(slow)}")


if __name__ == "__main__":
    main()
