"""What the rivals that train by themselves find, once a task and seed, kept in `finders.json`; then all their recipes.

    python benchmarks/search/finders.py digits-sgd    # needs lightning for its finders
    python benchmarks/search/finders.py all

The recipes, and those that cost nothing, are then trained on the nine fresh seeds (`yardstick.py`), so that a replay
trains nothing.
"""

from __future__ import annotations

import argparse
import importlib.util

import torch

from finders_file import SEEDS, entry_of, keep
from replay import Game
from rivals import FINDERS, RIVALS
from tables import TASKS, Table
from yardstick import Yardstick, tables

__all__ = ["main"]


def _measure(table: Table) -> None:
    """Run the finders that were not run on this task before, and keep what they find."""
    for rival, measure in FINDERS.items():
        if rival in entry_of(table):
            continue
        if rival == "Lightning finders" and importlib.util.find_spec("lightning") is None:
            print(f'{table.task.name}: {rival} left out: pip install -c constraints.txt -e ".[bench]"')
            continue
        found = [measure(table, seed) for seed in range(SEEDS)]
        print(f"{table.task.name}: {rival}: {found}", flush=True)
        keep(table, rival, found)


def main() -> None:
    """Run the finders on the tasks named on the command line, and train every recipe named without a search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="+", choices=[*TASKS, "all"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    yardstick = Yardstick(may_train=True)
    for table in tables([] if "all" in arguments.task else arguments.task):
        _measure(table)
        for rival in ("default", "largest, linear", "largest, square root", *FINDERS):
            if rival in FINDERS and rival not in entry_of(table):
                continue
            for seed in range(SEEDS if rival in FINDERS else 1):
                game = Game(table=table, yardstick=yardstick, profile="knee512", seed=seed)
                RIVALS[rival](game)
                for batch_size, lr in game.recipes:
                    yardstick.steps(table, batch_size, lr)
                print(
                    f"{table.task.name}: {rival}: {game.spent_s / game.best_s:.2f}, {game.regret()[-1]:.3g}", flush=True
                )


if __name__ == "__main__":
    main()
