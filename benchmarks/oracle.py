"""The exhaustive truth for a task: steps to target for every batch size and learning rate, over several seeds.

    python benchmarks/oracle.py digits-sgd            # one task
    python benchmarks/oracle.py all                   # all of TASKS; resumes from what is already in the table

For each batch size (a geometric grid) the rates are spaced by a factor of 2 and widened until the best is inside. The
best cell for this machine's step times and for three hardware profiles is then run on nine fresh seeds. Raw numbers and
environment go to `benchmarks/results/oracle-<task>.json`. A run is censored at 2.5 times the best of its batch size.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from batchscope.bench import measure
from batchscope.fits.step_time import fit_step_time
from batchscope.loading import load_task
from batchscope.records import RunConfig, Target
from batchscope.train import train
from batchscope.workload import Workload
from record import RESULTS, write

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CHOOSING_SEEDS = (101, 102, 103)
FRESH_SEEDS = tuple(range(201, 210))
KNEES = {"knee64": 64, "knee512": 512, "knee4096": 4096}
CENSOR = 2.5


@dataclass(frozen=True, kw_only=True)
class OracleTask:
    """One row of the benchmark."""

    spec: str
    settings: dict[str, Any] = field(default_factory=dict)
    target: str
    batch_sizes: tuple[int, ...]
    first_lr: float
    first_steps: int
    """A guess of the steps to target at the largest batch size, to start the censoring from."""


def _arrays(name: str, **settings: Any) -> dict[str, Any]:
    return {"path": str(DATA / name / f"{name}.npz"), "model": "mlp", **settings}


def _powers(low: int, high: int, factor: int = 2) -> tuple[int, ...]:
    return tuple(low * factor**k for k in range(round(math.log(high / low, factor)) + 1))


TASKS = {
    "digits-sgd": OracleTask(
        spec="digits",
        settings={"optimizer": "sgd"},
        target="val_loss<=0.15",
        batch_sizes=_powers(4, 1024),
        first_lr=0.32,
        first_steps=100,
    ),
    "digits-adamw": OracleTask(
        spec="digits",
        settings={"optimizer": "adamw"},
        target="val_loss<=0.15",
        batch_sizes=_powers(4, 1024),
        first_lr=0.01,
        first_steps=100,
    ),
    "fashion-sgd": OracleTask(
        spec="arrays",
        settings=_arrays("fashion_mnist", optimizer="sgd", hidden=128, depth=1),
        target="val_loss<=0.4",
        batch_sizes=_powers(4, 16384, 4),
        first_lr=0.16,
        first_steps=400,
    ),
    "letter-adamw": OracleTask(
        spec="arrays",
        settings=_arrays("letter", optimizer="adamw", hidden=256, depth=1),
        target="val_loss<=0.3",
        batch_sizes=_powers(4, 8192),
        first_lr=0.02,
        first_steps=300,
    ),
    "bike-sgd": OracleTask(
        spec="arrays",
        settings=_arrays("bike_sharing", optimizer="sgd", hidden=128, depth=2),
        target="val_loss<=0.2",
        batch_sizes=_powers(4, 8192),
        first_lr=0.16,
        first_steps=400,
    ),
}


class Table:
    """The measured cells of one task, kept on disk after every cell."""

    def __init__(self, name: str) -> None:
        self.name, self.task = name, TASKS[name]
        self.path = RESULTS / f"oracle-{name}.json"
        self.data = (
            json.loads(self.path.read_text()) if self.path.exists() else {"task": name, "cells": {}, "fresh": {}}
        )
        loaded = load_task(self.task.spec, self.task.settings)
        self.workload = Workload(loaded.task, name=loaded.name, settings=loaded.settings)

    def run(self, batch_size: int, lr: float, seed: int, most_steps: int) -> float:
        """Steps to target of one run; infinite when it was censored."""
        config = RunConfig(
            task=self.name,
            batch_size=batch_size,
            micro_batch_size=batch_size,
            lr=lr,
            seed=seed,
            max_steps=most_steps,
            target=Target.parse(self.task.target),
        )
        result = train(self.workload, config)
        return math.inf if result.steps_to_target is None else result.steps_to_target

    def cell(self, batch_size: int, lr: float, most_steps: int) -> float:
        """Geometric mean over the choosing seeds; infinite when one of them was censored."""
        key = f"{batch_size}|{lr:.6g}"
        if key not in self.data["cells"]:
            steps = [self.run(batch_size, lr, seed, most_steps) for seed in CHOOSING_SEEDS]
            self.data["cells"][key] = [None if math.isinf(s) else round(s, 2) for s in steps]
            self.save()
        return geometric_mean(self.data["cells"][key])

    def save(self) -> None:
        """Write the table."""
        write(f"oracle-{self.name}", {key: value for key, value in self.data.items() if key != "environment"})

    def fill(self) -> None:
        """Measure every batch size, from the largest to the smallest, widening the rates until the best is inside."""
        lr, steps = self.task.first_lr, float(self.task.first_steps)
        for batch_size in reversed(self.task.batch_sizes):
            column: dict[float, float] = {}
            most = math.ceil(CENSOR * 2.5 * steps)
            for candidate in _outwards(lr, column):
                column[candidate] = self.cell(batch_size, candidate, most)
                if math.isfinite(best := min(column.values())):
                    most = math.ceil(CENSOR * best)
            lr = min(column, key=column.__getitem__)
            steps = column[lr]
            shown = {f"{rate:.3g}": round(value, 1) for rate, value in sorted(column.items())}
            print(
                f"{self.name} B={batch_size}: {steps:.0f} steps at {lr:.3g}  {shown}",
                flush=True,
            )

    def columns(self) -> dict[int, tuple[float, float]]:
        """For each batch size the best rate and its steps to target."""
        best: dict[int, tuple[float, float]] = {}
        for key, steps in self.data["cells"].items():
            batch_size, lr = int(key.split("|")[0]), float(key.split("|")[1])
            mean = geometric_mean(steps)
            if batch_size not in best or mean < best[batch_size][1]:
                best[batch_size] = (lr, mean)
        return best

    def time_steps(self) -> None:
        """Step times of this machine at every batch size, for the profile `here`; measured once."""
        if "step_time_s" in self.data:
            return
        bench = measure(self.workload, max_batch_size=max(self.task.batch_sizes))
        self.data["step_time_s"] = [list(pair) for pair in bench.profile.step_time_s]
        self.save()

    def step_time(self, profile: str, batch_size: int) -> float:
        """Seconds of one step on a profile."""
        if profile in KNEES:
            return 1e-3 * (1 + batch_size / KNEES[profile])
        return fit_step_time([(int(size), float(seconds)) for size, seconds in self.data["step_time_s"]]).seconds(
            batch_size
        )

    def measure_best(self) -> None:
        """Run the best cell of each profile on the fresh seeds."""
        columns = self.columns()
        self.data["best"] = {}
        for profile in ("here", *KNEES):
            batch_size = min(columns, key=lambda b: columns[b][1] * self.step_time(profile, b))
            lr, steps = columns[batch_size]
            fresh = self.fresh(batch_size, lr, math.ceil(20 * steps))
            time = geometric_mean(fresh) * self.step_time(profile, batch_size)
            self.data["best"][profile] = {
                "batch_size": batch_size,
                "lr": lr,
                "steps": geometric_mean(fresh),
                "time_s": time,
            }
            print(
                f"{self.name} {profile}: B={batch_size} lr={lr:.3g} {geometric_mean(fresh):.1f} steps, {time:.4g} s",
                flush=True,
            )
        self.save()

    def fresh(self, batch_size: int, lr: float, most_steps: int) -> list[float | None]:
        """Steps to target on the nine fresh seeds."""
        key = f"{batch_size}|{lr:.6g}"
        if key not in self.data["fresh"]:
            steps = [self.run(batch_size, lr, seed, most_steps) for seed in FRESH_SEEDS]
            self.data["fresh"][key] = [None if math.isinf(s) else round(s, 2) for s in steps]
            self.save()
        return self.data["fresh"][key]


def geometric_mean(steps: list[float | None]) -> float:
    """Geometric mean; infinite when a run never reached the target."""
    return math.inf if None in steps else math.exp(statistics.fmean(math.log(s) for s in steps if s is not None))


def _outwards(start: float, column: dict[float, float]) -> Iterator[float]:
    """Rates by a factor of 2, from `start` outwards, until the best lies between two worse neighbours."""
    yield start
    while True:
        finite = {lr: steps for lr, steps in column.items() if math.isfinite(steps)}
        low, high = min(column), max(column)
        if not finite:
            if len(column) > 12:
                raise RuntimeError(f"no rate of {sorted(column)} reaches the target")
            yield low / 2
            continue
        best = min(finite, key=finite.__getitem__)
        if best == high:
            yield high * 2
        elif best == low:
            yield low / 2
        else:
            return


def main() -> None:
    """Fill the tables named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*TASKS, "all"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in TASKS if arguments.task == "all" else [arguments.task]:
        table = Table(name)
        table.fill()
        table.time_steps()
        table.measure_best()


if __name__ == "__main__":
    main()
