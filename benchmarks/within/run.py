"""`find --within 3epochs` on three trainings, against the best cell of an exhaustive grid at equal length.

    python benchmarks/within/run.py bikes --grid                # the grid, about 5 minutes; resumes
    python benchmarks/within/run.py bikes --seeds 0 1 2         # searches, and what their recipes come to
    python benchmarks/within/run.py --redraw                    # the table again, from the raw results

Needs the data in `../shared`. One thread, one process. The grid has batch sizes by factors of 4 and learning rates by
factors of 3, two seeds each, until the best cell lies inside in both. Then

1. the search: `find` with `within`, the metric of the task, its price in trainings at its recipe (`run_equivalents`,
   the bench and the range test included) and as runs alone;
2. its recipe and the grid's best cell trained with the same fresh seeds, 6 to 16, evaluated once, at the end.

The comparison is the mean relative difference of the two over these seeds, in the direction in which the recipe is
worse, with its 90 % t interval. Raw results and environment: `benchmarks/results/within.json`.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

import torch  # noqa: E402

from batchscope.fits import intervals  # noqa: E402
from batchscope.search.find import find  # noqa: E402
from batchscope.search.question import Question, Within  # noqa: E402
from batchscope.store.records import Metric, RunConfig, Target  # noqa: E402
from batchscope.store.runs import read_runs  # noqa: E402
from batchscope.tasks.loading import load_task  # noqa: E402
from batchscope.tasks.workload import Workload  # noqa: E402
from batchscope.training.loop import train  # noqa: E402
from record import RESULTS, read, write  # noqa: E402

EPOCHS = 3
GRID_SEEDS, FIRST_FRESH_SEED = (101, 102), 201
_SIZES, _LRS = 4, 3.0
_BUDGET_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A task, what it is judged by, and where its grid begins."""

    name: str
    metric: Metric
    batch_sizes: tuple[int, ...]
    lrs: tuple[float, ...]
    fresh: int
    """Fresh seeds, as many as its noise asks for."""


TASKS = {
    each.name: each
    for each in (
        Judged(
            name="bikes",
            metric=Metric(name="val_rmse", mode="min"),
            batch_sizes=(4, 16, 64, 256),
            lrs=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
            fresh=16,
        ),
        Judged(
            name="shirts",
            metric=Metric(name="val_auc", mode="max"),
            batch_sizes=(4, 16, 64, 256),
            lrs=(1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3),
            fresh=6,
        ),
        Judged(
            name="shakespeare",
            metric=Metric(name="val_loss", mode="min"),
            batch_sizes=(4, 16, 64, 256),
            lrs=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1),
            fresh=6,
        ),
    )
}


def ends_at(workload: Workload, judged: Judged, batch_size: int, lr: float, seed: int) -> float:
    """Metric at the end of a training of the length, evaluated only there."""
    never = -math.inf if judged.metric.mode == "min" else math.inf
    config = RunConfig(
        task=judged.name,
        batch_size=batch_size,
        micro_batch_size=batch_size,
        lr=lr,
        seed=seed,
        target=Target(metric=judged.metric.name, value=never, mode=judged.metric.mode),
        max_steps=math.floor(EPOCHS * workload.examples / batch_size),
        evaluation_epochs=float(2 * EPOCHS),
        num_threads=1,
    )
    return train(workload, config).last[judged.metric.name]


def fresh_ends(workload: Workload, judged: Judged, batch_size: int, lr: float) -> list[float]:
    """Metric at the end of trainings with the fresh seeds."""
    seeds = range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + judged.fresh)
    return [ends_at(workload, judged, batch_size, lr, seed) for seed in seeds]


def fill(judged: Judged, workload: Workload, cells: list[dict[str, Any]], keep: Any) -> None:
    """Train the cells of the grid that are not there yet."""
    there = {(cell["batch_size"], cell["lr"], cell["seed"]) for cell in cells}
    for size, lr, seed in itertools.product(reversed(judged.batch_sizes), judged.lrs, GRID_SEEDS):
        if (size, lr, seed) in there:
            continue
        end = ends_at(workload, judged, size, lr, seed)
        cells.append({"batch_size": size, "lr": lr, "seed": seed, "end": end if math.isfinite(end) else None})
        keep()
        print(f"{judged.name}: B={size} lr={lr:g} seed {seed}: {end:.4f}", flush=True)


def best_cell(judged: Judged, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The cell of the best mean over the grid's seeds, and whether it lies at an edge of the grid."""
    found: dict[tuple[int, float], list[Any]] = {}
    for cell in cells:
        found.setdefault((cell["batch_size"], cell["lr"]), []).append(cell["end"])
    whole = {pair: statistics.fmean(ends) for pair, ends in found.items() if None not in ends}
    size, lr = (min if judged.metric.mode == "min" else max)(whole, key=lambda pair: whole[pair])
    edge = size in (judged.batch_sizes[0], judged.batch_sizes[-1]), lr in (judged.lrs[0], judged.lrs[-1])
    return {"batch_size": size, "lr": lr, "in_grid": whole[size, lr], "at_edge": list(edge)}


def search(judged: Judged, workload: Workload, seed: int, best_ends: list[float]) -> dict[str, Any]:
    """One search, and its recipe with the fresh seeds."""
    with tempfile.TemporaryDirectory() as folder:
        plan = find(
            load_task(f"{HERE / 'tasks.py'}:{judged.name}"),
            Question(within=Within(amount=EPOCHS, unit="epochs"), metric=judged.metric, seed=seed),
            out=Path(folder) / "out",
            budget_s=_BUDGET_S,
        )
        runs = read_runs(Path(folder) / "out")
    recipe = plan.recipe
    row: dict[str, Any] = {"task": judged.name, "seed": seed, "status": plan.status, "message": plan.message}
    if recipe is None or recipe.lr is None or plan.predicted is None:
        return row
    ends = fresh_ends(workload, judged, recipe.batch_size, recipe.lr)
    sign = 1.0 if judged.metric.mode == "min" else -1.0
    worse = [(sign * own / abs(best), sign * best / abs(best)) for own, best in zip(ends, best_ends, strict=True)]
    training_s = plan.predicted.time_to_target_s.value
    of_bench = plan.bench.device_seconds if plan.bench else 0.0
    return row | {
        "batch_size": recipe.batch_size,
        "lr": recipe.lr,
        "expected_end": plan.expected_end,
        "verified": plan.verified,
        "fresh_ends": ends,
        "worse": intervals.paired_difference(worse),
        "trainings": plan.search.run_equivalents,
        "trainings_without_bench": (plan.search.device_seconds - of_bench) / training_s if training_s else None,
        "training_s": training_s,
        "wall_s": plan.search.seconds,
        "runs": [
            {"batch_size": r.config.batch_size, "lr": r.config.lr, "steps": r.result.steps, "status": r.result.status}
            for r in runs
            if r.result
        ],
    }


def table(kept: Mapping[str, Any]) -> str:
    """The comparison in words, one line a search."""
    lines = ["| task | seed | recipe | best cell | worse by (90 %) | trainings | without the bench |", "|" + "---|" * 7]
    for row in kept["rows"]:
        best, worse = kept["best"][row["task"]], row.get("worse")
        if worse is None:
            lines.append(f"| {row['task']} | {row['seed']} | {row['message']} | | | | |")
            continue
        low, mid, high = (f"{100 * worse[end]:.2f} %" for end in ("low", "value", "high"))
        lines.append(
            f"| {row['task']} | {row['seed']} | {row['batch_size']}, {row['lr']:.3g} | {best['batch_size']}, "
            f"{best['lr']:.3g} | {mid} ({low} to {high}) | {row['trainings']:.1f} | "
            f"{row['trainings_without_bench']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what the command line asks for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="*", choices=[[], *TASKS], default=[])
    parser.add_argument("--grid", action="store_true", help="train the cells that are not there")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="of the searches")
    parser.add_argument("--kept", default="within", help="name of the results file")
    parser.add_argument("--redraw", action="store_true", help="only print the table")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kept: dict[str, Any] = read(asked.kept) if (RESULTS / f"{asked.kept}.json").exists() else {}
    kept = {"grids": kept.get("grids", {}), "best": kept.get("best", {}), "rows": kept.get("rows", [])}
    for name in [] if asked.redraw else asked.task or list(TASKS):
        judged, workload = TASKS[name], Workload(load_task(f"{HERE / 'tasks.py'}:{name}").task)
        cells = kept["grids"].setdefault(name, [])
        if asked.grid:
            fill(judged, workload, cells, lambda: write(asked.kept, kept))
            best = best_cell(judged, cells)
            best["fresh_ends"] = fresh_ends(workload, judged, best["batch_size"], best["lr"])
            kept["best"][name] = best
            write(asked.kept, kept)
            print(f"{name}: {best}", flush=True)
        for seed in asked.seeds:
            row = search(judged, workload, seed, kept["best"][name]["fresh_ends"])
            kept["rows"] = [r for r in kept["rows"] if (r["task"], r["seed"]) != (name, seed)] + [row]
            kept["rows"].sort(key=lambda r: (list(TASKS).index(r["task"]), r["seed"]))
            write(asked.kept, kept)
    if kept["rows"]:
        print(table(read(asked.kept) if (RESULTS / f"{asked.kept}.json").exists() else kept))


if __name__ == "__main__":
    main()
