"""The search benchmark: every rival replayed against the tables, our own search run for real, and the comparison.

    python benchmarks/search/run.py --quick            # under ten minutes on two cores
    python benchmarks/search/run.py                    # everything; hours
    python benchmarks/search/run.py --rivals-only --seeds 20

Raw rows and environment: `benchmarks/search/results/rivals.json`, `ours.json` and `keep.json` (`quick-` before each
with `--quick`). Rivals whose package is not installed are left out with a line that says so.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch

import figures
import ours
from replay import COSTS, Game
from results import FOLDER, read, write
from rivals import RIVALS, missing, plays
from tables import PROFILES, TASKS, Table
from yardstick import Yardstick, tables

__all__ = ["main", "play"]

_QUICK_TASKS = ("digits-sgd", "digits-adamw", "tiny-set-sgd")
_QUICK_PROFILES = ("knee64", "knee512")
_KEEP_TASKS = ("digits-sgd", "bike-adamw", "tiny-set-sgd")


def play(rival: str, found: Sequence[Table], yardstick: Yardstick, *, seeds: int) -> list[dict[str, Any]]:
    """One rival's rows: its regret after each cost, on every table and profile, for every seed."""
    rows: list[dict[str, Any]] = []
    for table in found:
        if not plays(rival, table.task.schedule):
            continue
        try:
            rows += [
                _row(rival, Game(table=table, yardstick=yardstick, profile=profile, seed=seed))
                for profile in PROFILES
                for seed in range(seeds)
            ]
        except KeyError:
            print(f"{rival} on {table.task.name} left out: its recipe was not measured; run finders.py")
    return rows


def _row(rival: str, game: Game) -> dict[str, Any]:
    RIVALS[rival](game)
    task = game.table.task
    return {
        "rival": rival,
        "task": task.name,
        "half": task.half,
        "profile": game.profile,
        "seed": game.seed,
        "best_s": game.best_s,
        "trials": game.trials,
        "trained": game.trials > 0,
        "regret": game.regret(),
    }


def replay(names: Sequence[str], rivals: Sequence[str], seeds: int, part: str) -> None:
    """Some rivals on some tasks, to a results file, where the rows of all others stay."""
    yardstick, found = Yardstick(), tables(names)
    replayed = {table.task.name for table in found}
    rows = read(part) if (FOLDER / f"{part}.json").exists() else []
    for rival in rivals:
        if package := missing(rival):
            print(f'{rival} left out: {package} is not installed: pip install -c constraints.txt -e ".[bench]"')
            continue
        began = time.perf_counter()
        rows = [row for row in rows if row["rival"] != rival or row["task"] not in replayed]
        rows += play(rival, found, yardstick, seeds=seeds)
        print(f"{rival}: {time.perf_counter() - began:.0f} s", flush=True)
        rows.sort(key=lambda row: (list(RIVALS).index(row["rival"]), row["task"], row["profile"], row["seed"]))
        write(part, rows, costs=list(COSTS))


def main() -> None:
    """Run what the command line asks for, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few seeds, our search on three small tasks")
    parser.add_argument("--rivals-only", action="store_true")
    parser.add_argument("--rivals", nargs="*", choices=list(RIVALS), default=list(RIVALS))
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=[])
    parser.add_argument("--seeds", type=int, help="of the replay; 20, or 3 with --quick")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before = "quick-" if arguments.quick else ""
    seeds = arguments.seeds or (3 if arguments.quick else 20)
    replay(arguments.tasks, arguments.rivals, seeds, f"{before}rivals")
    mine: list[dict[str, Any]] = []
    if not arguments.rivals_only:
        filled = [table.task.name for table in tables(arguments.tasks)]
        common = ["--part", f"{before}ours"]
        if arguments.quick:
            small = [name for name in _QUICK_TASKS if name in filled]
            common += ["--tasks", *small, "--profiles", *_QUICK_PROFILES, "--seeds", "2", "--trainings", "1"]
        else:
            common += ["--tasks", *filled, "--trainings", "1", "3", "10", "30", "100"]
            keep = [name for name in _KEEP_TASKS if name in filled]
            ours.main(["--tasks", *keep, "--seeds", "2", "--current", "best", "default", "--part", "keep"])
        mine = ours.main(common)
    print(figures.report(read(f"{before}rivals"), mine))


if __name__ == "__main__":
    main()
