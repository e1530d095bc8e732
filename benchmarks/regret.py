"""How good the recommended recipe is, and what finding it costs, against the exhaustive tables of `oracle.py`.

    python benchmarks/regret.py                       # every task and profile, five search seeds each
    python benchmarks/regret.py digits-sgd --part a   # a part, to results/a.json
    python benchmarks/regret.py --collect a b         # parts into results/regret.json

For each task, profile and search seed: a whole `find`, then the recipe on the nine fresh seeds on which the oracle's
best cell was measured. Regret = geometric mean time-to-target of the recipe ÷ that of the oracle's best; cost = the
search's device seconds on that profile ÷ the oracle's best time. Raw results and environment:
`benchmarks/results/regret.json`.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from typing import Any

import numpy as np
import torch

from batchscope.loading import load_task
from batchscope.question import Question
from batchscope.records import HardwareProfile, Plan, Target
from batchscope.sweep import find
from oracle import KNEES, TASKS, Table, geometric_mean
from record import read, write

PROFILES = ("here", *KNEES)
SIZES = tuple(2**k for k in range(15))


def profile_of(name: str) -> HardwareProfile | None:
    """The profile of a knee; `None` is this machine."""
    if name not in KNEES:
        return None
    times = tuple((size, 1e-3 * (1 + size / KNEES[name])) for size in SIZES)
    return HardwareProfile(name=name, step_time_s=times)


def search(table: Table, profile: str, seed: int) -> Plan:
    """One whole search in a folder of its own."""
    task = table.task
    question = Question(target=Target.parse(task.target), seed=seed, max_batch_size=max(task.batch_sizes))
    with tempfile.TemporaryDirectory() as out:
        return find(load_task(task.spec, task.settings), question, out=out, profile=profile_of(profile))


def score(table: Table, profile: str, seed: int) -> dict[str, Any]:
    """Regret and cost of one search."""
    started = time.perf_counter()
    plan = search(table, profile, seed)
    best = table.data["best"][profile]
    row: dict[str, Any] = {
        "task": table.name,
        "profile": profile,
        "seed": seed,
        "status": plan.status.value,
        "cost": plan.search.device_seconds / best["time_s"],
        "runs": plan.search.runs,
        "search_s": time.perf_counter() - started,
    }
    if plan.recipe is None or plan.predicted is None:
        return row | {"regret": None, "message": plan.message}
    batch_size, lr = plan.recipe.batch_size, plan.recipe.lr
    fresh = table.fresh(batch_size, lr, math.ceil(10 * best["steps"] * max(1.0, best["batch_size"] / batch_size)))
    time_s = geometric_mean(fresh) * table.step_time(profile, batch_size)
    predicted = plan.predicted.steps_to_target
    inside = [s is not None and (predicted.low or 0) <= s <= (predicted.high or math.inf) for s in fresh]
    return row | {
        "batch_size": batch_size,
        "lr": lr,
        "best_batch_size": best["batch_size"],
        "best_lr": best["lr"],
        "regret": time_s / best["time_s"],
        "probability_within_5_percent": plan.probability_within_5_percent,
        "predicted_steps": predicted.value,
        "true_steps": geometric_mean(fresh),
        "covered": sum(inside) / len(inside),
        "critical_batch_size": plan.measured.critical_batch_size.value,
        "gradient_noise_scale": plan.measured.gradient_noise_scale.value,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The figures that the README quotes; a refusal counts as infinite regret, as does a recipe that failed a seed."""
    regret = [math.inf if row["regret"] is None else row["regret"] for row in rows]
    cost = [row["cost"] for row in rows]
    return {
        "searches": len(rows),
        "regret_median": float(np.quantile(regret, 0.5, method="higher")),
        "regret_p90": float(np.quantile(regret, 0.9, method="higher")),
        "regret_worst": max(regret),
        "cost_median": float(np.median(cost)),
        "cost_p90": float(np.quantile(cost, 0.9)),
        "covered": float(np.mean([row.get("covered", 0.0) for row in rows])),
        "search_s_median": float(np.median([row["search_s"] for row in rows])),
    }


def by_task(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The summary of each task and of each profile."""
    names = sorted({row["task"] for row in rows}) + sorted({row["profile"] for row in rows})
    return {name: summary([row for row in rows if name in (row["task"], row["profile"])]) for name in names}


def table(rows: list[dict[str, Any]]) -> str:
    """The table of the README, in Markdown."""
    lines = [
        "| task or profile | searches | regret, median | 90th percentile | cost, median |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, figures in {**by_task(rows), "**all**": summary(rows)}.items():
        numbers = (figures[key] for key in ("regret_median", "regret_p90", "cost_median"))
        lines.append(f"| {name} | {figures['searches']} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")
    return "\n".join(lines)


def main() -> None:
    """Score the tasks named on the command line, and print one row a search and the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="*", choices=[*TASKS, []], default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--profiles", nargs="*", default=PROFILES)
    parser.add_argument("--part", default="regret", help="name of the results file")
    parser.add_argument("--collect", nargs="+", default=(), help="names of parts to put together")
    arguments = parser.parse_args()
    if arguments.collect:
        rows = [row for part in arguments.collect for row in read(part)["rows"]]
        write("regret", {"summary": summary(rows), "tasks": by_task(rows), "rows": rows})
        print(table(rows))
        return
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in arguments.task or TASKS:
        oracle = Table(name)
        for profile in arguments.profiles:
            for seed in range(arguments.seeds):
                rows.append(score(oracle, profile, seed))
                shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in rows[-1].items()}
                print(" ".join(f"{k}={v}" for k, v in shown.items()), flush=True)
                write(arguments.part, {"summary": summary(rows), "tasks": by_task(rows), "rows": rows})
    print(summary(rows))


if __name__ == "__main__":
    main()
