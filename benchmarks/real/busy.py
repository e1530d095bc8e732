"""`batchscope find digits` beside four busy processes, against the same command before and after them.

    python benchmarks/real/busy.py            # half a minute quiet, up to some minutes busy; two cores

Threads are left as they are by default (as many as cores), for that is what a busy machine hurts. The busy processes
multiply numbers in plain Python until the search beside them has ended. The step time of each batch size is compared
with the quiet one of the same call, taken from the measurements in `plan.json`; and whether the answer, its evidence or
the lines before it say that the machine was busy. Raw results and environment: `benchmarks/results/busy.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from plain import ONE_THREAD
from verdicts import off

from record import write

__all__ = ["figures", "main", "says_busy", "step_time_at"]

TARGET = "val_loss<=0.25"
WITHIN = 1.25
_SAID = re.compile(r"\b(machine|processor|cpu|computer)\b[^.]*\b(busy|disturbed)\b|\bother processes\b", re.IGNORECASE)


def _spin() -> None:
    value = 1.0
    while True:
        value = value * 1.0000001 % 7.0


@contextlib.contextmanager
def busy(processes: int) -> Generator[None]:
    """So many processes that compute without a pause."""
    begun = [multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) for _ in range(processes)]
    for process in begun:
        process.start()
    try:
        time.sleep(1.0)
        yield
    finally:
        for process in begun:
            process.kill()
            process.join()


def search(seed: int) -> dict[str, Any]:
    """One search: its plan, what it wrote beside, its wall time."""
    free = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}
    with tempfile.TemporaryDirectory() as folder:
        words = ["find", "digits", "--target", TARGET, "--seed", str(seed), "--out", f"{folder}/out", "--json"]
        load, began = os.getloadavg(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "batchscope", *words, "--budget", "5m"], capture_output=True, text=True, env=free
        )
        wall_s = time.perf_counter() - began
    plan = json.loads(done.stdout) if done.stdout else None
    return {"seed": seed, "wall_s": wall_s, "load": load, "exit": done.returncode, "plan": plan, "stderr": done.stderr}


def step_time_at(plan: Mapping[str, Any], batch_size: float) -> float:
    """The measured step time at a batch size: straight in logarithms between the two sizes beside it."""
    points = sorted(plan["bench"]["profile"]["step_time_s"])
    after = next((i for i, (size, _) in enumerate(points) if size >= batch_size), len(points) - 1)
    (low, low_s), (high, high_s) = points[max(after - 1, 0)], points[after]
    if high == low:
        return high_s
    share = min(max(math.log(batch_size / low) / math.log(high / low), 0.0), 1.0)
    return low_s * (high_s / low_s) ** share


def says_busy(found: Mapping[str, Any]) -> bool:
    """Whether the answer, its evidence, its notes, or a line before it says so."""
    plan = found["plan"] or {}
    lines = [plan.get("message") or "", *plan.get("notes", []), *(e["statement"] for e in plan.get("evidence", []))]
    return any(_SAID.search(line) for line in [*lines, *found["stderr"].splitlines()])


def figures(quiet: Sequence[Mapping[str, Any]], loud: Mapping[str, Any]) -> dict[str, Any]:
    """The busy search against the quiet ones.

    Returns:
        `told_ratio`: the step time of its recipe in units of the quiet one at that batch size; `measured_ratio`: the
        same for each size that was measured; `said`: whether it says that the machine was busy, and `said_when_quiet`;
        `met`: whether the ratio told is within 1.25 either way, and `said` is right for each search.
    """
    plans = [each["plan"] for each in quiet if each["plan"]]
    found: dict[str, Any] = {"said": says_busy(loud), "said_when_quiet": [says_busy(each) for each in quiet]}
    if loud["plan"] is None or not plans:
        return found | {"told_ratio": None, "measured_ratio": [], "met": False}

    def quiet_s(size: float) -> float:
        return min(step_time_at(plan, size) for plan in plans)

    recipe = loud["plan"]["recipe"]
    told = loud["plan"]["predicted"]["step_time_s"]["value"] if recipe else None
    points = loud["plan"]["bench"]["profile"]["step_time_s"]
    told_ratio = told and told / quiet_s(recipe["batch_size"])
    return found | {
        "told_ratio": told_ratio,
        "measured_ratio": [[size, seconds / quiet_s(size)] for size, seconds in points],
        "met": bool(told_ratio and off(told_ratio) <= WITHIN and found["said"] and not any(found["said_when_quiet"])),
    }


def _raw(found: Mapping[str, Any]) -> dict[str, Any]:
    """A search without the parts of its plan that no figure is made from."""
    plan = found["plan"] and {
        k: found["plan"].get(k) for k in ("status", "message", "recipe", "predicted", "evidence", "notes")
    }
    bench = found["plan"] and {"profile": found["plan"]["bench"]["profile"]}
    return {**found, "plan": plan and {**plan, "bench": bench}}


def main() -> None:
    """Search quiet, busy, and quiet again; write and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the searches")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in asked.seeds:
        before = search(seed)
        with busy(asked.processes):
            loud = search(seed)
        quiet = [before, search(seed)]
        rows.append({"quiet": [_raw(each) for each in quiet], "busy": _raw(loud), "figures": figures(quiet, loud)})
        print(f"seed {seed}: {rows[-1]['figures']}; {before['wall_s']:.1f} s quiet, {loud['wall_s']:.1f} s busy")
    write("busy", {"processes": asked.processes, "rows": rows})


if __name__ == "__main__":
    main()
