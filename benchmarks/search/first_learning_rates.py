"""The good learning rates of the small trainings, by a grid, and where a search looks first.

    python benchmarks/search/first_learning_rates.py grid      # trains; a minute or two
    python benchmarks/search/first_learning_rates.py first     # range tests alone, against what the grid found
    python benchmarks/search/first_learning_rates.py tables    # the same on the tables' tasks, against their best cells

The small trainings are those of `batchscope.testing.small_trainings`. The grid is of powers of 3 as learning rates,
three seeds each, at the batch size of the training, with two on each side of the one that ends best. Its target is the
loss with 15 % of the way left from the start to the best end of any learning rate (in logarithms); good are learning
rates that need at most 1.3 times the fewest steps to it, in the median over seeds. All rows go to
`benchmarks/search/results/`: `first-learning-rates.json` of the grid, `first-looks.json` and `first-looks-tables.json`
of the range tests.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from batchscope.fits.curves import steps_to_target
from batchscope.store.records import Row, RunConfig, RunStatus, Target
from batchscope.tasks.workload import Workload
from batchscope.testing.small_trainings import SMALL_TRAININGS, SmallTraining
from batchscope.training.loop import train
from batchscope.training.lr_range import measure_rate_range
from results import FOLDER, read, write
from tables import TASKS, Table

__all__ = ["first_looks", "good_of", "main", "table_looks"]

FILES = {"grid": "first-learning-rates", "first": "first-looks", "tables": "first-looks-tables"}
_FACTOR, _BEYOND = 3.0, 2
"""Between two learning rates of the grid; how many of them end worse than the best on each side of it."""
_SEEDS = (101, 102, 103)
_LEFT = 0.15
_GOOD = 1.3
_SMALLEST, _LARGEST = 16, 128
"""Batch sizes of the tables' tasks between which the range test of a search is made."""


def _curve(workload: Workload, training: SmallTraining, lr: float, seed: int) -> list[Row]:
    rows: list[Row] = []
    config = RunConfig(
        task=training.name,
        batch_size=training.batch_size,
        micro_batch_size=training.batch_size,
        lr=lr,
        seed=seed,
        max_steps=training.steps,
        evaluation_growth=1.1,
    )
    result = train(workload, config, on_row=rows.append)
    return [] if result.status is RunStatus.DIVERGED else rows


def _loss(row: Row) -> float:
    return float(row["metrics"]["val_loss"])


def _lr(power: int) -> float:
    return float(f"{_FACTOR**power:.3g}")


def _median(steps: Sequence[float | None]) -> float:
    return statistics.median(math.inf if each is None else each for each in steps)


def good_of(training: SmallTraining) -> dict[str, Any]:
    """The grid of a training: its target, the steps of every learning rate, and which are good.

    It begins at the first look and grows until two learning rates on each side end worse than the best, and one on each
    side is not good.
    """
    workload = Workload(training.make(), name=training.name)
    size = training.batch_size
    first = measure_rate_range(workload, batch_size=size, micro_batch_size=size, seed=_SEEDS[0]).pilot_lr
    curves: dict[int, list[list[Row]]] = {}
    due = [round(math.log(first, _FACTOR))]
    while due:
        for power in due:
            curves[power] = [_curve(workload, training, _lr(power), seed) for seed in _SEEDS]
        curves = dict(sorted(curves.items()))
        target, best = _target(curves)
        steps = {power: _median([steps_to_target(rows, target) for rows in runs]) for power, runs in curves.items()}
        good = [power for power, needed in steps.items() if needed <= _GOOD * min(steps.values()) < math.inf]
        wanted = {*range(best - _BEYOND, best + _BEYOND + 1), *(power + by for power in good for by in (-1, 1))}
        due = sorted(wanted - curves.keys())
    return {
        "training": training.name,
        "batch_size": training.batch_size,
        "most_steps": training.steps,
        "target": target.value,
        "lrs": [_lr(power) for power in curves],
        "ends": [_end(runs) for runs in curves.values()],
        "steps": list(steps.values()),
        "good": [_lr(min(good)), _lr(max(good))],
    }


def _target(curves: Mapping[int, list[list[Row]]]) -> tuple[Target, int]:
    """What is left of the way from the start to the best end of any learning rate, and where that end is."""
    ends = {power: _end(runs) for power, runs in curves.items()}
    best = min(ends, key=lambda power: (ends[power], power))
    start = statistics.median([_loss(rows[0]) for runs in curves.values() for rows in runs if rows] or [math.inf])
    return Target(metric="val_loss", value=ends[best] * (start / ends[best]) ** _LEFT, mode="min"), best


def _end(runs: list[list[Row]]) -> float:
    return statistics.median(_loss(rows[-1]) if rows else math.inf for rows in runs)


def first_looks(training: SmallTraining, seeds: int) -> Iterator[dict[str, Any]]:
    """Range tests of a training, and how far off their learning rate is from the nearest good one, as a factor."""
    workload = Workload(training.make(), name=training.name)
    for seed in range(seeds):
        yield _first_look(training.name, workload, training.batch_size, training.good, seed)


def table_looks(table: Table, seeds: int) -> Iterator[dict[str, Any]]:
    """The same for a table's task, at its batch sizes at which a range test is usual; its cells say what is good."""
    workload = table.task.workload()
    for size in (each for each in table.batch_sizes if _SMALLEST <= each <= _LARGEST):
        fewest = table.best_rate(size)[1]
        good = [lr for lr in table.rates(size) if table.cell_steps(size, lr) <= _GOOD * fewest]
        for seed in range(seeds):
            yield _first_look(table.task.name, workload, size, (min(good), max(good)), seed)


def _first_look(name: str, workload: Workload, batch_size: int, good: tuple[float, float], seed: int) -> dict[str, Any]:
    test = measure_rate_range(workload, batch_size=batch_size, micro_batch_size=batch_size, seed=seed)
    nearest = min(max(test.pilot_lr, good[0]), good[1])
    return {
        "training": name,
        "batch_size": batch_size,
        "seed": seed,
        "broke": test.broke,
        "steps": test.steps,
        "ceiling_lr": test.ceiling_lr,
        "pilot_lr": test.pilot_lr,
        "expected_factor": test.expected_factor,
        "good": list(good),
        "off": test.pilot_lr / nearest,
        "twelfth_off": (twelfth := test.ceiling_lr / 12) / min(max(twelfth, good[0]), good[1]),
        "lrs": test.lrs,
        "losses": test.losses,
    }


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    off = sorted(abs(math.log(row["off"])) for row in rows)
    within = {factor: sum(each <= math.log(factor) + 1e-9 for each in off) for factor in (1, 3, 10)}
    steps = statistics.fmean(row["steps"] for row in rows)
    told = ", ".join(f"{count} within a factor of {factor}" for factor, count in within.items())
    mean, worst = math.exp(statistics.fmean(off)), math.exp(off[-1])
    return f"{len(rows)} range tests of {steps:.1f} steps: {told}; geometric mean {mean:.2f}, worst {worst:.1f}"


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Make what the command line names, print a line for each row, and return the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["grid", "first", "tables"])
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="some trainings or tasks alone")
    parser.add_argument("--seeds", type=int, default=5, help="of the range tests")
    parser.add_argument("--dry", action="store_true", help="write no file")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    all_names = [name for name in TASKS if arguments.what == "tables"] or [each.name for each in SMALL_TRAININGS]
    for name in (name for name in all_names if not arguments.only or name in arguments.only):
        if arguments.what == "tables":
            found = list(table_looks(Table.read(name), arguments.seeds))
        else:
            training = next(each for each in SMALL_TRAININGS if each.name == name)
            found = [good_of(training)] if arguments.what == "grid" else list(first_looks(training, arguments.seeds))
        for row in found:
            print({key: value for key, value in row.items() if key not in ("lrs", "losses")}, flush=True)
        rows += found
    if arguments.what != "grid":
        print(_summary(rows))
    if not arguments.dry:
        kept = read(FILES[arguments.what]) if (FOLDER / f"{FILES[arguments.what]}.json").exists() else []
        rows = [row for row in kept if row["training"] not in {new["training"] for new in rows}] + rows
        write(FILES[arguments.what], sorted(rows, key=lambda row: all_names.index(row["training"])))
    return rows


if __name__ == "__main__":
    main()
