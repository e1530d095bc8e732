"""What the rivals that train by themselves find, once a task and seed, kept in `finders.json`; then all their recipes.

    python benchmarks/search/finders.py digits-sgd    # needs lightning for its finders
    python benchmarks/search/finders.py all

The recipes, and those that cost nothing, are then trained on the nine fresh seeds (`yardstick.py`), so that a replay
trains nothing.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch

from batchscope.store.files import write_text
from tables import TASKS, Table
from yardstick import Yardstick, fingerprint, tables

__all__ = ["PATH", "SEEDS", "found"]

PATH = Path(__file__).resolve().parent / "finders.json"
SEEDS = 3


@functools.cache
def _kept(written_ns: int) -> dict[str, Any]:
    return json.loads(PATH.read_text()) if written_ns else {}


def _now() -> dict[str, Any]:
    return _kept(PATH.stat().st_mtime_ns if PATH.exists() else 0)


def found(rival: str, table: Table, seed: int) -> dict[str, Any]:
    """What a finder found: `batch_size`, `lr`, and its `steps` by batch size. Three seeds were run.

    Raises:
        KeyError: it was not run on this task.
    """
    return _now()[f"{table.task.name} {fingerprint(table)}"][rival][seed % SEEDS]


def _measure(table: Table) -> None:
    from rivals import FINDERS

    kept = _now()
    entry = kept.setdefault(f"{table.task.name} {fingerprint(table)}", {})
    for rival, measure in FINDERS.items():
        if rival in entry:
            continue
        if rival == "Lightning finders" and importlib.util.find_spec("lightning") is None:
            print(f'{table.task.name}: {rival} left out: pip install -c constraints.txt -e ".[bench]"')
            continue
        entry[rival] = [measure(table, seed) for seed in range(SEEDS)]
        print(f"{table.task.name}: {rival}: {entry[rival]}", flush=True)
        write_text(PATH, json.dumps(kept, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Run the finders on the tasks named on the command line, and train every recipe named without a search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="+", choices=[*TASKS, "all"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    from replay import Game
    from rivals import FINDERS, RIVALS

    yardstick = Yardstick(may_train=True)
    for table in tables([] if "all" in arguments.task else arguments.task):
        _measure(table)
        for rival in ("default", "largest, linear", "largest, square root", *FINDERS):
            if rival in FINDERS and rival not in _now()[f"{table.task.name} {fingerprint(table)}"]:
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
