"""`batchscope find` on five trainings that people have, and its recipes in their own trainers, by the wall clock.

    python benchmarks/trainers/run.py --quick            # the two fastest, one fresh seed: about three minutes
    python benchmarks/trainers/run.py                    # all five, three fresh seeds: about twelve minutes
    python benchmarks/trainers/run.py trainer_bert --budget 2m
    python benchmarks/trainers/run.py --redraw           # the table again, from the raw results

Needs the data in `../shared` and the libraries of the extra `integrations`. One thread, one process at a time; nothing
else should run meanwhile. For each training:

1. `find --json` with the task that the integration makes of the script's own objects, told what the script uses now
   (`--current`), within a budget;
2. the recipe in the script's own trainer (`own.py`), with fresh seeds: wall time of training to the target;
3. the script's defaults, with the same seeds.

Raw results and environment: `benchmarks/results/trainers.json` (`trainers-quick.json`), table: `.md` beside it, made by
`verdicts.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import verdicts  # noqa: E402
from trainings import TRAININGS, Training  # noqa: E402

from record import RESULTS, read, write  # noqa: E402

__all__ = ["find", "main", "own", "row_of"]

QUICK = ("lightning_regression", "plain_gpt")
FRESH_SEEDS = (201, 202, 203)
LIBRARIES = ("lightning", "transformers", "accelerate")
LONGEST_S = 60.0
"""A run in the user's own trainer is given up after so much training."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def _run(*words: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """A command of this Python with one thread, away from anything that asks the network."""
    given = {**os.environ, **ONE_THREAD, "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=given, timeout=timeout_s)


def find(training: Training, seed: int, out: Path, budget: str) -> dict[str, Any]:
    """One `find` command: what it printed, its status, and its wall time."""
    words = ["find", *training.words, "--target", training.target, "--seed", str(seed), "--out", str(out)]
    words += ["--current", f"batch_size={training.batch_size},lr={training.lr:g}"]
    words += ["--confirm", "1", "--budget", budget, "--json"]  # the user's trainer stops at its first evaluation there
    began = time.perf_counter()
    done = _run("-m", "batchscope", *words, timeout_s=1800)
    wall_s = time.perf_counter() - began
    try:
        printed = json.loads(done.stdout)
    except ValueError:
        printed = {}
    return {"wall_s": wall_s, "exit": done.returncode, "printed": printed, "stderr": done.stderr}


def own(training: Training, seed: int, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """One run in the user's own trainer; what `recipe` does not say is the script's default.

    Returns:
        What `own.py` prints; where it fails, nothing but `error`, the last line that it wrote.
    """
    settings = {"batch_size": training.batch_size, "lr": training.lr, **recipe, "seed": seed}
    settings["every"] = training.every(settings["batch_size"])
    words = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", f"{value:.9g}")]
    limits = ["--target", training.target, "--max-seconds", str(LONGEST_S)]
    done = _run(str(HERE / "own.py"), training.name, *limits, *words, timeout_s=10 * LONGEST_S)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]}
    return json.loads(lines[-1])


def settings_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan tells the user's trainer: batch size, learning rate, and the steps where a schedule needs them."""
    recipe = plan["recipe"]
    told = {"batch_size": recipe["batch_size"], "lr": recipe["lr"]}
    return told if recipe["schedule"] == "constant" else {**told, "steps": recipe["steps"]}


def row_of(training: Training, seeds: tuple[int, ...], *, seed: int, budget: str) -> dict[str, Any]:
    """One search, and what its recipe and the script's defaults came to in the user's own trainer."""
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        found = find(training, seed, Path(folder) / "out", budget)
    plan: Mapping[str, Any] = found["printed"]
    recipe = settings_of(plan) if plan.get("recipe") else None
    return {
        "training": training.name,
        "target": training.target,
        "default": {"batch_size": training.batch_size, "lr": training.lr},
        "exit": found["exit"],
        "status": plan.get("status"),
        "message": plan.get("message") or found["stderr"][-2000:],
        "notes": plan.get("notes"),
        "wall_s": found["wall_s"],
        "recipe": plan.get("recipe"),
        "predicted": plan.get("predicted"),
        "fresh": [own(training, each, recipe) for each in seeds] if recipe else [],
        "defaults": [own(training, each, {}) for each in seeds],
        "load": [load_before, os.getloadavg()],
    }


def _draw(name: str) -> str:
    text = verdicts.table(read(name)["rows"], {each.name: each.description for each in TRAININGS.values()})
    (RESULTS / f"{name}.md").write_text(text)
    return text


def _measure(asked: argparse.Namespace, name: str) -> None:
    seeds = FRESH_SEEDS[:1] if asked.quick else FRESH_SEEDS
    order = list(TRAININGS)
    whole = (RESULTS / f"{name}.json").exists() and asked.training  # some anew: the others' rows are kept
    rows = [row for row in read(name)["rows"] if row["training"] not in asked.training] if whole else []
    for each in asked.training or (QUICK if asked.quick else order):
        row = row_of(TRAININGS[each], seeds, seed=asked.seed, budget=asked.budget or ("40s" if asked.quick else "75s"))
        rows = sorted([*rows, row], key=lambda row: order.index(row["training"]))
        write(name, {"versions": {library: version(library) for library in LIBRARIES}, "rows": rows})
        recipe = row["recipe"] and f"batch size {row['recipe']['batch_size']}, lr {row['recipe']['lr']:.3g}"
        print(f"{each}: {row['status']}, {recipe}, {row['wall_s']:.0f} s", flush=True)


def main() -> None:
    """Measure what the command line asks for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", nargs="*", help=f"of {', '.join(TRAININGS)}")
    parser.add_argument("--quick", action="store_true", help=f"one fresh seed of {' and '.join(QUICK)}")
    parser.add_argument("--seed", type=int, default=0, help="of the searches")
    parser.add_argument("--budget", help="of each search; 75s, or 40s with --quick")
    parser.add_argument("--redraw", action="store_true", help="only make the table anew")
    asked = parser.parse_args()
    if unknown := set(asked.training) - set(TRAININGS):
        parser.error(f"no training is called {', '.join(sorted(unknown))}; there are {', '.join(TRAININGS)}")
    name = "trainers-quick" if asked.quick else "trainers"
    if not asked.redraw:
        _measure(asked, name)
    print(_draw(name))


if __name__ == "__main__":
    main()
