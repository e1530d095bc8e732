"""Our own search, run for real on the tables' tasks, and its recipes trained on the nine fresh seeds.

    python benchmarks/search/ours.py --tasks digits-sgd teacher-sgd --profiles knee512 --seeds 3 --part mine
    python benchmarks/search/ours.py --trainings 1 3 10 30 100 --part curve    # regret against cost
    python benchmarks/search/ours.py --current best default --part keep       # is "keep" said when it is right?
    python benchmarks/search/ours.py --set objective=examples budget_s=60     # any option of a question or of `find`

Cost and regret are in units of the table's best cell. Rows go to `benchmarks/search/results/NAME.json` as they come.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from scipy.optimize import least_squares

from batchscope.search.find import find
from batchscope.search.question import CurrentRecipe, Question
from batchscope.store.records import HardwareProfile, Plan, PlanStatus
from replay import DEFAULT_BATCH_SIZE, default_lr
from results import read, write
from tables import KNEES, PROFILES, TASKS, Table, geometric_mean
from yardstick import Yardstick, tables

__all__ = ["Asked", "covered", "critical_batch_size", "kept_rightly", "main", "score"]

SIZES = tuple(2**k for k in range(15))
_GOOD, _BAD, _CLEAR = 1.1, 1.25, 1.05


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One search: where, with which seed, for how many trainings, with which current recipe, and further options."""

    profile: str
    seed: int
    trainings: float | None = None
    current: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def profile_of(name: str) -> HardwareProfile | None:
    """The profile of a knee; `None` is this machine, which the search then measures."""
    if name not in KNEES:
        return None
    times = tuple((size, 1e-3 * (1 + size / KNEES[name])) for size in SIZES)
    return HardwareProfile(name=name, step_time_s=times)


def current_of(table: Table, profile: str, which: str | None) -> CurrentRecipe | None:
    """The recipe said to be in use: the table's best cell, or the default."""
    if which is None:
        return None
    if which == "best":
        best = table.best(profile)
        return CurrentRecipe(batch_size=best.batch_size, lr=best.lr)
    return CurrentRecipe(batch_size=DEFAULT_BATCH_SIZE, lr=default_lr(table.task.optimizer))


def search(table: Table, asked: Asked) -> Plan:
    """One whole search in a folder of its own."""
    task = table.task
    asked_for = {
        "target": task.goal,
        "confirm": 1,  # as the tables have it
        "seed": asked.seed,
        "max_batch_size": max(table.batch_sizes),
        "schedule": task.schedule,
        "current": current_of(table, asked.profile, asked.current),
    }
    if asked.trainings is not None:
        asked_for["trainings"] = asked.trainings
    of_question = {each.name for each in fields(Question)}
    of_find = set(inspect.signature(find).parameters)
    if unknown := set(asked.options) - of_question - of_find:
        raise SystemExit(f"neither a question nor find has the options {sorted(unknown)}")
    asked_for |= {key: value for key, value in asked.options.items() if key in of_question}
    more = {key: value for key, value in asked.options.items() if key in of_find}
    with tempfile.TemporaryDirectory() as out:
        return find(task.load(), Question(**asked_for), out=out, profile=profile_of(asked.profile), **more)


def score(table: Table, yardstick: Yardstick, asked: Asked) -> dict[str, Any]:
    """A search's row: cost, regret, coverage, and the errors of what it says about the task."""
    began = time.perf_counter()
    plan = search(table, asked)
    best, cost_s = table.best(asked.profile), plan.search.device_seconds
    default_s = yardstick.seconds(table, asked.profile, DEFAULT_BATCH_SIZE, default_lr(table.task.optimizer))
    row: dict[str, Any] = {
        "task": table.task.name,
        "half": table.task.half,
        "profile": asked.profile,
        "seed": asked.seed,
        "trainings": asked.trainings,
        "current": asked.current,
        "status": plan.status.value,
        "cost": cost_s / best.time_s,
        "cost_s": cost_s,
        "wall_s": time.perf_counter() - began,
        "runs": plan.search.runs,
        "default": default_s / best.time_s,
        "best_s": best.time_s,
        "regret": math.inf,
        "total": math.inf,
    }
    if plan.recipe is None or plan.predicted is None:
        return row | {"message": plan.message}
    batch_size, lr = plan.recipe.batch_size, plan.recipe.lr
    fresh = yardstick.steps(table, batch_size, lr)
    regret = geometric_mean(fresh) * table.step_time(asked.profile, batch_size) / best.time_s
    low, high = plan.predicted.steps_to_target.low, plan.predicted.steps_to_target.high
    near = min(table.batch_sizes, key=lambda size: abs(math.log(size / batch_size)))
    row |= {
        "batch_size": batch_size,
        "lr": lr,
        "best_batch_size": best.batch_size,
        "best_lr": best.lr,
        "regret": regret,
        "verified": plan.verified is not None,
        "total": row["cost"] + (0.0 if plan.verified else regret),
        "covered_90": covered(fresh, low, high, 0.90),
        "covered_50": covered(fresh, low, high, 0.50),
        "log2_lr": math.log2(lr / table.best_rate(near)[0]),
        "log2_critical": None,
        "probability_within_5_percent": plan.probability_within_5_percent,
    }
    if (fitted := plan.measured.critical_batch_size.value) is not None:
        row["log2_critical"] = math.log2(fitted / critical_batch_size(table))
    if asked.current is not None:
        current = current_of(table, asked.profile, asked.current)
        assert current is not None
        of_current = yardstick.seconds(table, asked.profile, current.batch_size, current.lr) / best.time_s
        kept = plan.status is PlanStatus.KEEP_CURRENT
        row |= {"current_regret": of_current, "kept": kept, "right": kept_rightly(kept, of_current, regret)}
    return row


def covered(fresh: Sequence[float | None], low: float | None, high: float | None, share: float) -> float:
    """Share of fresh runs inside an interval of that share, made from the 90 % one as if it were log-normal.

    Args:
        fresh: steps to target; `None` lies outside.
        low: end of the 90 % interval; `None`: open, and then so is every other interval at that end.
        high: the other end.
        share: 0.9 or 0.5.
    """
    if low is not None and high is not None and share != 0.9:
        middle, half = math.sqrt(low * high), math.sqrt(high / low)
        shrunk = half ** (0.6745 / 1.6449)
        low, high = middle / shrunk, middle * shrunk
    inside = [s is not None and (low or 0.0) <= s <= (math.inf if high is None else high) for s in fresh]
    return sum(inside) / len(inside)


def critical_batch_size(table: Table) -> float:
    """B_c of the law `S_min (1 + (B_c/B)^α)^(1/α)` fitted to the table's best steps, by least squares of logarithms."""
    sizes = np.array(table.batch_sizes, float)
    log_steps = np.log([table.best_rate(size)[1] for size in table.batch_sizes])

    def residuals(theta: np.ndarray) -> np.ndarray:
        low, log_critical, log_alpha = theta
        alpha = np.exp(log_alpha)
        return low + np.logaddexp(0.0, alpha * (log_critical - np.log(sizes))) / alpha - log_steps

    start = [log_steps.min(), float(np.log(np.median(sizes))), 0.2]
    bounds = ([-5.0, 0.0, math.log(0.5)], [25.0, 15.0, math.log(4.0)])
    return float(np.exp(least_squares(residuals, start, bounds=bounds).x[1]))


def kept_rightly(kept: bool, current_regret: float, regret: float) -> bool | None:
    """Whether "keep" was right to be said, or not to be said; `None` where it makes little difference.

    Kept: right up to a regret of the current recipe of 1.1, wrong from 1.25. Not kept: right where the recipe given
    instead is faster by 5 %.
    """
    if not kept:
        return regret * _CLEAR < current_regret
    return True if current_regret <= _GOOD else False if current_regret >= _BAD else None


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The figures of some searches; one that refuses, or whose recipe failed a seed, has infinite regret."""

    def values(key: str, missing: float) -> list[float]:
        return [missing if row.get(key) is None else float(row[key]) for row in rows]

    def quantile(numbers: Sequence[float], at: float) -> float:
        return float(np.quantile(numbers, at, method="higher"))

    regret, cost = values("regret", math.inf), values("cost", math.inf)
    faster = [t < d for t, d in zip(values("total", math.inf), values("default", math.inf), strict=True)]
    right = [row["right"] for row in rows if row.get("right") is not None]
    return {
        "searches": len(rows),
        "regret_median": quantile(regret, 0.5),
        "regret_p90": quantile(regret, 0.9),
        "regret_p95": quantile(regret, 0.95),
        "cost_median": float(np.median(cost)),
        "cost_p90": quantile(cost, 0.9),
        "faster_than_default": float(np.mean(faster)),
        "default_never": sum(math.isinf(each) for each in values("default", math.inf)),
        "covered_90": float(np.mean(values("covered_90", 0.0))),
        "covered_50": float(np.mean(values("covered_50", 0.0))),
        "log2_critical": float(np.median(np.abs(values("log2_critical", math.nan)))),
        "log2_lr": float(np.median(np.abs(values("log2_lr", math.nan)))),
        "refused": sum(math.isinf(each) and "message" in row for each, row in zip(regret, rows, strict=True)),
        "keep_right": float(np.mean(right)) if right else math.nan,
        "wall_s_median": float(np.median(values("wall_s", 0.0))),
    }


def asked_for(arguments: argparse.Namespace) -> Iterator[Asked]:
    """Every search that the command line names, of one task."""
    options = {key: _value(text) for key, text in (each.split("=", 1) for each in arguments.set)}
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    for trainings, current, profile, seed in itertools.product(
        arguments.trainings, arguments.current, arguments.profiles, seeds
    ):
        yield Asked(profile=profile, seed=seed, trainings=trainings, current=current, options=options)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run the searches named on the command line, print a line for each and their summary, and return the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=[])
    parser.add_argument("--half", choices=["design", "held-out"], help="the tasks of one half alone")
    parser.add_argument("--profiles", nargs="*", choices=PROFILES, default=PROFILES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trainings", type=float, nargs="*", default=[None])
    parser.add_argument("--current", nargs="*", choices=["best", "default"], default=[None])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--part", default="ours", help="name of the results file; none where it is empty")
    parser.add_argument("--collect", nargs="+", metavar="PART", help="put results files together instead of searching")
    arguments = parser.parse_args(argv)
    if arguments.collect:
        return collect(arguments.collect, arguments.part)
    torch.set_num_threads(1)
    yardstick = Yardstick(may_train=True, keep=False)
    rows: list[dict[str, Any]] = []
    for table in tables(arguments.tasks):
        if arguments.half not in (None, table.task.half):
            continue
        for asked in asked_for(arguments):
            rows.append(score(table, yardstick, asked))
            print(shown(rows[-1]), flush=True)
            if arguments.part:
                write(arguments.part, rows, summary=_json(summary(rows)))
    if rows:
        print(shown(summary(rows)))
    return rows


def collect(parts: Sequence[str], name: str) -> list[dict[str, Any]]:
    """Put the rows of several results files into one; of a search that stands in two of them, the later."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in itertools.chain.from_iterable(map(read, parts)):
        found[tuple(row[key] for key in ("task", "profile", "seed", "trainings", "current"))] = row
    rows = list(found.values())
    figures = {part: summary(own) for part, own in _parts(rows).items()}
    write(name, rows, summary={part: _json(each) for part, each in figures.items()})
    print(readme_table(figures))
    return rows


def _parts(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The searches of each task, of each half, and all; what was infinite is so again."""
    whole = [row | {key: math.inf for key in ("regret", "total", "default") if row[key] is None} for row in rows]
    parts: dict[str, list[dict[str, Any]]] = {}
    for half in ("design", "held-out"):
        own = [row for row in whole if row["half"] == half]
        parts |= {task: [row for row in own if row["task"] == task] for task in sorted({row["task"] for row in own})}
        parts |= {f"**{half}**": own} if own else {}
    return {**parts, "**all**": whole}


def readme_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """The table of the README, in Markdown."""
    keys = ("searches", "regret_median", "regret_p95", "cost_median", "covered_90")
    lines = [
        "| task | searches | regret, median | 95th percentile | cost, median | 90 % intervals hold |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, each in figures.items():
        cells = (f"{each[key]:.2f}" if key != "searches" else f"{each[key]:.0f}" for key in keys)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(row: Mapping[str, Any]) -> str:
    """A row on one line."""
    return " ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()
    )


def _json(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in figures.items()}


if __name__ == "__main__":
    main()
