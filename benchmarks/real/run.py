"""`batchscope find` on six trainings as people write them, and its recipes trained by a plain loop: the user's clock.

    python benchmarks/real/run.py --quick               # one seed, the two fastest trainings, no grid: under 10 minutes
    python benchmarks/real/run.py                       # five seeds, all trainings; about an hour and a half
    python benchmarks/real/run.py --resume              # goes on with what is not there yet
    python benchmarks/real/run.py images --seeds 0 1
    python benchmarks/real/run.py --redraw              # the tables again, from the raw results

Needs the data in `../shared`, and for the regret the grids that `grid.py` filled. One thread, one process at a time;
nothing else should run meanwhile. For each training and search seed:

1. `find --dry-run --json`: the forecast; `find --json`: its plan, and the wall time of the whole command;
2. the recipe trained by `loop.py` with three fresh seeds and the loader that the plan names: step time, wall time to
   the target, what an evaluation takes;
3. as many steps as `verified` says, with the recipe and the seed of that run, three times: the plain loop's clock
   (where that takes too long, the mean of the steps that were made, times their number).

The best cell of the grid is trained with the same fresh seeds on the same day, so that regret compares like with like.
Raw results and environment: `benchmarks/results/real.json` (`real-quick.json`), one row a search; tables: `real.md`
beside it. `verdicts.py` has what is judged, and by which bounds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.append(str(BENCHMARKS))

import grid  # noqa: E402
import plain  # noqa: E402
import verdicts  # noqa: E402
from grid_file import FOLDER, load  # noqa: E402
from trainings import TRAININGS, Training  # noqa: E402

from record import RESULTS, read, write  # noqa: E402

__all__ = ["find", "main", "row_of", "runs_of"]

SEARCH_SEEDS = (0, 1, 2, 3, 4)
FRESH_SEEDS = (201, 202, 203)
QUICK = ("tables", "decoding")
TRIES = 3
_MOST = 4.0
"""A recipe's run is given up after so many times what the training should take, or what was told if that is longer."""


def find(training: Training, seed: int, out: Path, *more: str, budget: str) -> dict[str, Any]:
    """One `find` command: what it printed, its status, and its wall time."""
    words = ["find", f"{training.file}:task", "--target", training.target, "--seed", str(seed), "--out", str(out)]
    words += ["--confirm", "1"]  # the plain loop and the grids stop at the first evaluation at the target
    command = [sys.executable, "-m", "batchscope", *words, "--budget", budget, "--json", *more]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=plain.environment())
    wall_s = time.perf_counter() - began
    try:
        printed = json.loads(done.stdout)
    except ValueError:
        printed = None
    return {"wall_s": wall_s, "exit": done.returncode, "printed": printed, "stderr": done.stderr}


def row_of(training: Training, seed: int, *, budget: str, best_s: float | None) -> dict[str, Any]:
    """One search and what its recipe came to.

    Args:
        training: what is searched.
        seed: of the search.
        budget: of the search.
        best_s: of the grid's best cell, to bound a bad recipe's runs.
    """
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        asked = find(training, seed, Path(folder) / "dry", "--dry-run", budget=budget)
        found = find(training, seed, Path(folder) / "out", budget=budget)
        evaluations, verified_seed = runs_of(Path(folder) / "out" / "runs", found["printed"], seed)
    plan: Mapping[str, Any] = found["printed"] or {}
    predicted = plan.get("predicted") or {}
    row: dict[str, Any] = {
        "training": training.name,
        "fingerprint": training.fingerprint,
        "seed": seed,
        "exit": found["exit"],
        "status": plan.get("status"),
        "message": plan.get("message") or found["stderr"][-2000:],
        "wall_s": found["wall_s"],
        "search": plan.get("search"),
        "forecast": asked["printed"],
        "recipe": plan.get("recipe"),
        "loader": (plan.get("bench") or {}).get("loader_options"),
        "verified": plan.get("verified"),
        "verified_seed": verified_seed,
        "probability_within_5_percent": plan.get("probability_within_5_percent"),
        "evaluations": evaluations,
        "evaluation_s": None,
        "fresh": [],
        "verified_tries_s": [],
        "load_before": load_before,
        **{name: predicted.get(name) for name in ("step_time_s", "steps_to_target", "time_to_target_s")},
    }
    if row["recipe"] is not None:
        _train(training, row, best_s)
    row["load_after"] = os.getloadavg()
    return row


def runs_of(folder: Path, plan: Mapping[str, Any] | None, seed: int) -> tuple[int, int]:
    """Evaluations in all runs of a search, and the seed of the one at the recipe (the search's, if there is none)."""
    evaluations, found = 0, seed
    recipe = (plan or {}).get("recipe") or {}
    for each in sorted(folder.glob("*/rows.jsonl")):
        kinds = [json.loads(line).get("kind") for line in each.read_text().splitlines() if line.endswith("}")]
        evaluations += kinds.count("evaluation")
        config = json.loads((each.parent / "config.json").read_text())
        result = each.parent / "result.json"
        if result.exists() and all(config.get(name) == recipe.get(name) for name in ("batch_size", "lr")):
            found = config["seed"] if json.loads(result.read_text())["status"] == "reached" else found
    return evaluations, found


def _train(training: Training, row: dict[str, Any], best_s: float | None) -> None:
    recipe, told = row["recipe"], (row["time_to_target_s"] or {}).get("high") or 0.0
    most_s = max(_MOST * (best_s or training.seconds), 1.5 * min(told, 4 * training.seconds))
    more = _options(recipe, row["loader"])
    row["fresh"] = fresh(training, recipe["batch_size"], recipe["lr"], most_s, more)
    each = [run["evaluation_seconds"] / run["evaluations"] for run in row["fresh"]]
    row["evaluation_s"] = statistics.median(each) if each else None
    if row["verified"]:
        steps = row["verified"]["steps"]
        whole = str(math.ceil(steps))
        more = [*more, "--max-steps", whole, "--every", whole, "--through", "--at", f"{steps:.9g}"]
        command = plain.words(
            training, recipe["batch_size"], recipe["lr"], row["verified_seed"], max_seconds=most_s, more=more
        )
        row["verified_tries_s"] = [
            run["at"][0][1] or steps * run["step_s"]["mean"] for run in _answers([command] * TRIES, most_s)
        ]


def fresh(
    training: Training, batch_size: int, lr: float, most_s: float, more: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The recipe's runs with fresh seeds, without their curves."""
    commands = [plain.words(training, batch_size, lr, seed, max_seconds=most_s, more=more) for seed in FRESH_SEEDS]
    return [{k: v for k, v in run.items() if k not in ("curve", "at")} for run in _answers(commands, most_s)]


def _answers(commands: Sequence[Sequence[str]], most_s: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for command in commands:
        try:
            found.append(plain.run(command, most_s))
        except plain.Failed as reason:
            print(f"the plain loop failed: {reason}", flush=True)
    return found


def _options(recipe: Mapping[str, Any], loader: Mapping[str, Any] | None) -> list[str]:
    """What a plan says beside batch size and learning rate: the loader is the one that its times hold for."""
    words = ["--threads", str(recipe.get("num_threads") or 1)]
    changes = recipe.get("optimizer_changes") or {}
    for option, value in (("--changes", changes), ("--loader", loader)):
        words += [option, json.dumps(value)] if value else []
    return words


def best_cells(trainings: Sequence[Training]) -> dict[str, dict[str, Any]]:
    """The best cell of each grid that is there, trained now with the fresh seeds."""
    found: dict[str, dict[str, Any]] = {}
    for training in trainings:
        best = grid.best(training, load(FOLDER / f"{training.name}.npz", training.fingerprint))
        if best is None:
            print(f"{training.name}: no grid, so no regret; run grid.py {training.name}", flush=True)
            continue
        runs = fresh(training, best.batch_size, best.lr, _MOST * best.seconds)
        seconds = statistics.median(verdicts.fresh_seconds({"fresh": runs}))
        at = {"batch_size": best.batch_size, "lr": best.lr, "in_grid_s": best.seconds, "at_edge": best.at_edge}
        found[training.name] = {**at, "fingerprint": training.fingerprint, "seconds": seconds, "fresh": runs}
        print(f"{training.name}: best cell B={best.batch_size} lr={best.lr:.3g}: {seconds:.2f} s", flush=True)
    return found


def _draw(name: str) -> str:
    """The tables of a results file, written beside it."""
    kept = read(name)
    best_s = {training: cell["seconds"] for training, cell in kept["best"].items() if cell["seconds"]}
    text = verdicts.table(kept["rows"], best_s, {each.name: each.description for each in TRAININGS.values()})
    (RESULTS / f"{name}.md").write_text(text)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _measure(asked: argparse.Namespace, name: str) -> None:
    chosen = [TRAININGS[each] for each in asked.training or (QUICK if asked.quick else TRAININGS)]
    seeds = asked.seeds or (SEARCH_SEEDS[:1] if asked.quick else SEARCH_SEEDS)
    kept: dict[str, Any] = read(name) if asked.resume and (RESULTS / f"{name}.json").exists() else {}
    known = {each.name: each.fingerprint for each in TRAININGS.values()}
    rows = [row for row in kept.get("rows", []) if row["fingerprint"] == known.get(row["training"])]
    best = {k: cell for k, cell in kept.get("best", {}).items() if cell["fingerprint"] == known.get(k)}
    there = {(row["training"], row["seed"]) for row in rows}
    if not asked.quick:
        best |= best_cells([training for training in chosen if training.name not in best])
    for training in chosen:
        for seed in seeds:
            if (training.name, seed) in there:
                continue
            best_s = best.get(training.name, {}).get("seconds")
            row = row_of(training, seed, budget=asked.budget or ("2m" if asked.quick else "10m"), best_s=best_s)
            rows.append(row)
            order = list(TRAININGS)
            rows.sort(key=lambda row: (order.index(row["training"]), row["seed"]))
            write(name, _finite({"best": best, "rows": rows}))
            recipe = row["recipe"] and f"B={row['recipe']['batch_size']} lr={row['recipe']['lr']:.3g}"
            print(f"{training.name} seed {seed}: {row['status']}, {recipe}, {row['wall_s']:.0f} s", flush=True)


def main() -> None:
    """Measure what the command line asks for, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", nargs="*", help=f"of {', '.join(TRAININGS)}")
    parser.add_argument("--quick", action="store_true", help=f"one seed of {' and '.join(QUICK)}, no regret")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the searches")
    parser.add_argument("--budget", help="of each search; 10m, or 2m with --quick")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there, add those that are not")
    parser.add_argument("--redraw", action="store_true", help="only make the tables anew")
    asked = parser.parse_args()
    if unknown := set(asked.training) - set(TRAININGS):
        parser.error(f"no training is called {', '.join(sorted(unknown))}; there are {', '.join(TRAININGS)}")
    name = "real-quick" if asked.quick else "real"
    if not asked.redraw:
        _measure(asked, name)
    print(_draw(name))


if __name__ == "__main__":
    main()
