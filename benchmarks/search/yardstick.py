"""The yardstick of every recipe: real trainings on the nine fresh seeds, kept in `yardstick.json`.

    python benchmarks/search/yardstick.py digits-sgd      # cells close to the best of a profile, and the defaults
    python benchmarks/search/yardstick.py all

The best of many trials was lucky more often than not, so its own time says too little. Cells of a table that are
clearly worse than the best are judged by their three seeds in the table, where one that was censored counts as long as
it was run (which is generous).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from batchscope.store.files import write_text
from curves import measured
from table_file import rate_key
from tables import FOLDER, FRESH_SEEDS, PROFILES, TASKS, Table, geometric_mean

__all__ = ["PATH", "Yardstick", "close_cells", "fingerprint", "tables"]

PATH = Path(__file__).resolve().parent / "yardstick.json"
_CLOSE = 1.4
_MOST = 25.0
"""A recipe whose regret would be above this on every profile is said never to reach the target."""


def fingerprint(table: Table) -> str:
    """What makes a task another one; what was measured on another is not used."""
    task = table.task
    asked = [task.spec, task.settings, task.target, task.schedule]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]


def tables(names: Iterable[str] = ()) -> list[Table]:
    """The tables, all of them unless some are named, that are filled and have their best cells."""
    found = [Table.read(name) for name in (list(names) or TASKS) if (FOLDER / f"{name}.npz").exists()]
    return [table for table in found if table.timed and _has_best(table)]


def _has_best(table: Table) -> bool:
    try:
        return all(table.best(profile).time_s > 0 for profile in PROFILES)
    except KeyError:
        return False


class Yardstick:
    """Steps to target on fresh seeds, by task, batch size and rate."""

    def __init__(self, path: Path = PATH, *, may_train: bool = False, keep: bool = True) -> None:
        self.path, self.may_train, self.keep = path, may_train, keep
        self._known: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}

    def steps(self, table: Table, batch_size: int, lr: float) -> list[float | None]:
        """Steps on the nine fresh seeds; `None` ends them early: that seed never reached the target.

        Raises:
            KeyError: it was not measured, and nothing may be trained.
        """
        known = self._of(table)
        key = f"{batch_size} {rate_key(lr):g}"
        if key not in known:
            if not self.may_train:
                raise KeyError(f"{table.task.name} {key} was not measured: run yardstick.py or finders.py")
            known[key] = self._trained(table, batch_size, lr)
            if self.keep:
                self.save()
        return list(known[key])

    def seconds(self, table: Table, profile: str, batch_size: int, lr: float) -> float:
        """Geometric mean time to target on a profile; infinite where the target is not reached."""
        return self.mean_steps(table, batch_size, lr) * table.step_time(profile, batch_size)

    def mean_steps(self, table: Table, batch_size: int, lr: float) -> float:
        """Geometric mean of the steps on the fresh seeds; of the table's three where a cell has no others."""
        for best in map(table.best, PROFILES):
            if (best.batch_size, rate_key(best.lr)) == (batch_size, rate_key(lr)):
                return best.steps
        if f"{batch_size} {rate_key(lr):g}" in self._of(table) or lr not in table.rates(batch_size):
            return geometric_mean(self.steps(table, batch_size, lr))
        curves = [table.curve(batch_size, lr, index) for index in range(3)]
        if any(curve.status == "diverged" for curve in curves):
            return math.inf
        return geometric_mean([c.steps_to_target or float(c.steps[-1]) for c in curves])

    def save(self) -> None:
        """Write what is known, one line a recipe."""
        text = json.dumps(self._known, sort_keys=True, indent=0)
        write_text(
            self.path, text.replace(",\n", ", ").replace("[\n", "[").replace("\n]", "]").replace("], ", "],\n") + "\n"
        )

    def _of(self, table: Table) -> dict[str, Any]:
        entry = self._known.get(table.task.name)
        if entry is None or entry["fingerprint"] != fingerprint(table):
            entry = self._known[table.task.name] = {"fingerprint": fingerprint(table), "steps": {}}
        return entry["steps"]

    def _trained(self, table: Table, batch_size: int, lr: float) -> list[float | None]:
        most = math.ceil(max(_MOST * table.best(p).time_s / table.step_time(p, batch_size) for p in PROFILES))
        steps: list[float | None] = []
        start = 0
        for seed in FRESH_SEEDS:
            curve = measured(table.workload, table.task, batch_size, lr, seed, most, start)
            steps.append(None if curve.steps_to_target is None else round(curve.steps_to_target, 2))
            start = round(steps[-1] or start)
            if steps[-1] is None:
                break
        return steps


def close_cells(table: Table, factor: float = _CLOSE) -> set[tuple[int, float]]:
    """The cells that a lucky search may take for the best: by the table's seeds at most so many times the best time."""
    cells = [(b, lr) for b in table.batch_sizes for lr in table.rates(b) if math.isfinite(table.cell_steps(b, lr))]
    close: set[tuple[int, float]] = set()
    for profile in PROFILES:
        best = table.best(profile)
        close |= {
            (b, lr) for b, lr in cells if table.cell_steps(b, lr) * table.step_time(profile, b) < factor * best.time_s
        }
    return close - {(table.best(p).batch_size, table.best(p).lr) for p in PROFILES}


def main() -> None:
    """Measure the cells close to the best of the tasks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="+", choices=[*TASKS, "all"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    yardstick = Yardstick(may_train=True)
    for table in tables([] if "all" in arguments.task else arguments.task):
        for batch_size, lr in sorted(close_cells(table)):
            steps = geometric_mean(yardstick.steps(table, batch_size, lr))
            print(f"{table.task.name} B={batch_size} lr={lr:.3g}: {steps:.1f} steps", flush=True)


if __name__ == "__main__":
    main()
