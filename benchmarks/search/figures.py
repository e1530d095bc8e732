"""Regret against search cost, intervals and break-even points, from the raw rows in `benchmarks/search/results/`.

    python benchmarks/search/figures.py                  # tables in Markdown; regret.svg and regret-seconds.svg
    python benchmarks/search/figures.py --ours curve --rivals rivals

A search's regret curve says what the recipe that it would give after each cost is worth: its time to target on fresh
seeds ÷ that of the table's best cell; infinite before there is one. Cost is in units of the best run.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from charts import Line, chart
from ours import summary
from replay import COSTS
from results import FOLDER, read

__all__ = ["bootstrap", "break_even", "common", "curves_of_ours", "main", "quantile", "regret_table", "total_table"]

SHOWN = (3.0, 5.0, 10.0, 20.0, 50.0)
OURS = "batchscope"
TRAININGS = tuple(sorted({round(10 ** (k / 8)) for k in range(33)}))
_RESAMPLES = 1000

Row = Mapping[str, Any]


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """As floats, `None` being infinite."""
    return np.array([math.inf if value is None else value for value in values], float)


def quantile(values: Sequence[float] | np.ndarray, at: float) -> float:
    """A quantile that infinite values do not spoil: the next higher of the values."""
    return float(np.quantile(np.asarray(values), at, method="higher"))


def curves_of_ours(rows: Sequence[Row], costs: Sequence[float] = COSTS) -> list[dict[str, Any]]:
    """Our searches as curves: after each cost, the recipe of the dearest search of that task, profile and seed so far.

    Args:
        rows: of `ours.py`, for several numbers of trainings.
        costs: where the curve is read.
    """
    cases: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row.get("current") is None:
            cases[row["task"], row["profile"], row["seed"]].append(row)
    curves: list[dict[str, Any]] = []
    for (task, profile, seed), searches in cases.items():
        done = [[row for row in searches if row["cost"] is not None and row["cost"] <= cost] for cost in costs]
        dearest = [max(each, key=lambda row: row["cost"]) if each else {} for each in done]
        first = searches[0]
        head = {"rival": OURS, "task": task, "half": first["half"], "profile": profile, "seed": seed}
        of_cost = {
            "regret": [row.get("regret") for row in dearest],
            "trained": [row.get("verified", False) for row in dearest],
        }
        curves.append(head | {"best_s": first["best_s"], **of_cost})
    return curves


def bootstrap(
    rows: Sequence[Row],
    statistic: Callable[[Sequence[Row]], float],
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The 90 % interval of a statistic of rows: tasks are drawn with replacement, then seeds within each.

    Args:
        rows: each with a `task` and a `seed`; rows of one seed (its profiles) stay together.
        statistic: of any such rows.
        resamples: how many times.
        seed: of the draws.
    """
    grouped: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        grouped[row["task"]][row["seed"]].append(row)
    tasks = [list(seeds.values()) for seeds in grouped.values()]
    rng = np.random.default_rng(seed)
    drawn: list[float] = []
    for _ in range(resamples):
        picked = [tasks[i] for i in rng.integers(len(tasks), size=len(tasks))]
        chosen = [seeds[j] for seeds in picked for j in rng.integers(len(seeds), size=len(seeds))]
        drawn.append(statistic(list(itertools.chain.from_iterable(chosen))))
    return quantile(drawn, 0.05), quantile(drawn, 0.95)


def regret_at(rows: Sequence[Row], cost: float) -> np.ndarray:
    """Regret of every search after a cost."""
    index = max(i for i, each in enumerate(COSTS) if each <= cost)
    return numbers([row["regret"][index] for row in rows])


def regret_table(rows: Sequence[Row], costs: Sequence[float] = SHOWN) -> str:
    """Median regret with its bootstrap interval, and the 90th percentile, in Markdown: a line a rival."""
    head = [f"{cost:g} runs" for cost in costs]
    lines = ["| search | " + " | ".join(head) + " |", "| --- |" + " --- |" * len(costs)]
    for rival, own in by_rival(rows).items():
        cells: list[str] = []
        for cost in costs:
            found = regret_at(own, cost)
            low, high = bootstrap(own, lambda part, at=cost: quantile(regret_at(part, at), 0.5), resamples=200)
            middle = f"{_short(quantile(found, 0.5))} ({_short(low)} to {_short(high)})"
            cells.append(f"{middle}; {_short(quantile(found, 0.9))}")
        lines.append(f"| {rival} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def total_at(own: Sequence[Row], trainings: float) -> float:
    """Median over tasks and profiles of search and trainings together, at the cost at which that is least.

    A trial that reached the target, or a run at the recipe, is the first of the trainings.
    """
    return min(quantile(cost + _trained_for(own, cost, trainings), 0.5) for cost in COSTS)


def _trained_for(own: Sequence[Row], cost: float, trainings: float) -> np.ndarray:
    index = COSTS.index(cost)
    made = np.array([row["trained"][index] if isinstance(row["trained"], list) else row["trained"] for row in own])
    regret = regret_at(own, cost)
    return np.where(np.isinf(regret), math.inf, (trainings - made) * np.minimum(regret, 1e9))


def break_even(rows: Sequence[Row], ours: Sequence[Row], against: str) -> tuple[float, float] | None:
    """The fewest and the most trainings at which our search and its recipes take less time than a rival and its.

    Args:
        rows: of rivals.
        ours: curves of ours.
        against: the rival, which stops at the cost that is best for it.

    Returns:
        `None` where there are none; the most are infinite where they are more than were looked at.
    """
    own = by_rival(rows)[against]
    wins = [n for n in TRAININGS if total_at(ours, n) < total_at(own, n)]
    return (min(wins), max(wins) if max(wins) < TRAININGS[-1] else math.inf) if wins else None


def common(rivals: Sequence[Row], curves: Sequence[Row]) -> tuple[list[Row], set[str]]:
    """The rows of all on the tasks and profiles on which everybody was run, and the tasks left out."""
    rows = [*curves, *rivals]
    cases = [{(row["task"], row["profile"]) for row in own} for own in by_rival(rows).values()]
    shared = set.intersection(*cases)
    left_out = {task for each in cases for task, _ in each} - {task for task, _ in shared}
    return [row for row in rows if (row["task"], row["profile"]) in shared], left_out


def total_table(rows: Sequence[Row], trainings: Sequence[int] = (1, 3, 10, 30, 100)) -> str:
    """Search and trainings together, in best runs: medians, each rival at the search cost that is best for it."""
    lines = [
        "| search | " + " | ".join(f"{n} training{'s' * (n > 1)}" for n in trainings) + " |",
        "| --- |" + " --- |" * len(trainings),
    ]
    for rival, own in by_rival(rows).items():
        lines.append(f"| {rival} | " + " | ".join(_short(total_at(own, n)) for n in trainings) + " |")
    return "\n".join(lines)


def ours_table(rows: Sequence[Row]) -> str:
    """Our searches by the number of trainings asked for, each figure with its bootstrap interval, in Markdown."""
    names = {
        "regret_median": "regret, median",
        "regret_p95": "95th percentile",
        "cost_median": "cost, median",
        "faster_than_default": "search and training before one at the default",
        "covered_90": "90 % intervals cover",
        "covered_50": "50 %",
        "log2_critical": "critical batch size, off by (log2)",
        "log2_lr": "rate, off by (log2)",
    }
    lines = [
        "| trainings | searches | refused | " + " | ".join(names.values()) + " |",
        "| --- | --- | --- |" + " --- |" * len(names),
    ]
    asked = [row for row in rows if row.get("current") is None]
    for trainings in sorted({row["trainings"] for row in asked}, key=lambda n: n or 0.0):
        own = [row for row in asked if row["trainings"] == trainings]
        figures = summary(own)
        cells = [f"{'default' if trainings is None else f'{trainings:g}'} | {len(own)} | {figures['refused']}"]
        for name in names:
            low, high = bootstrap(own, lambda part, of=name: summary(part)[of], resamples=200)
            cells.append(f"{_short(figures[name])} ({_short(low)} to {_short(high)})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def keep_table(rows: Sequence[Row]) -> str:
    """What was said of a current recipe that was the best cell, and of the default, in Markdown."""
    lines = ["| current recipe | searches | kept | right | wrong | its regret, median |", "| --- |" + " --- |" * 5]
    for which in ("best", "default"):
        own = [row for row in rows if row.get("current") == which]
        if own:
            said = [row.get("right") for row in own]
            regret = quantile(numbers([row.get("current_regret") for row in own]), 0.5)
            kept = sum(bool(row.get("kept")) for row in own)
            figures = (len(own), kept, said.count(True), said.count(False), _short(regret))
            lines.append(f"| {which} | " + " | ".join(str(each) for each in figures) + " |")
    return "\n".join(lines)


def by_rival(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each rival, in the order in which they come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["rival"], []).append(row)
    return found


def draw(rows: Sequence[Row], path: Path, *, seconds: bool = False) -> None:
    """Median (full) and 90th percentile (dashed) of regret against cost, in best runs or in seconds, as SVG."""
    lines: list[Line] = []
    for rival, own in by_rival(rows).items():
        if seconds:
            ends = np.array([row["best_s"] for row in own])
            xs = np.geomspace(ends.min(), ends.max() * COSTS[-1], 30)
            found = np.array([[_after(row, x) for row in own] for x in xs])
        else:
            xs = np.array([cost for cost in COSTS if cost > 0])
            found = np.array([regret_at(own, cost) for cost in xs])
        for at in (0.5, 0.9):
            lines.append(Line(rival, xs, np.array([quantile(each, at) for each in found]), dashed=at != 0.5))
    unit = "seconds on the profile" if seconds else "best runs"
    path.write_text(chart(lines, x=f"search cost, {unit}", y="regret: median (full), 90th percentile (dashed)"))


def _after(row: Row, seconds: float) -> float:
    index = max(i for i, cost in enumerate(COSTS) if cost <= max(0.0, seconds / row["best_s"]))
    return math.inf if row["regret"][index] is None else row["regret"][index]


def _short(value: float) -> str:
    return "∞" if math.isinf(value) else "–" if math.isnan(value) else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def report(rivals: Sequence[Row], ours: Sequence[Row]) -> str:
    """Both halves: regret against cost, search and trainings together, and where we break even."""
    parts: list[str] = []
    for half in ("design", "held-out"):
        mine, others = ([row for row in found if row["half"] == half] for found in (ours, rivals))
        if not mine and not others:
            continue
        rows, left_out = common(others, curves_of_ours(mine))
        tasks = sorted({row["task"] for row in rows})
        parts.append(f"### {half}\n\nTasks: {', '.join(tasks)}.")
        if left_out:
            parts.append(f"Left out, because not everybody was run there: {', '.join(sorted(left_out))}.")
        parts.append("\nMedian regret (90 % bootstrap interval); 90th percentile.\n")
        parts.append(regret_table(rows) + "\n\nSearch and trainings together, in best runs, median:\n")
        parts.append(total_table(rows) + "\n")
        if (own := by_rival(rows).get(OURS)) is not None:
            said = [f"{rival}: {_range(break_even(rows, own, rival))}" for rival in by_rival(rows) if rival != OURS]
            parts.append(f"Trainings for which our search takes the least time, against {', '.join(said)}.\n")
        if mine:
            parts.append(f"Our search on all {len({row['task'] for row in mine})} tasks:\n\n" + ours_table(mine) + "\n")
        if any(row.get("current") for row in mine):
            parts.append(keep_table(mine) + "\n")
    return "\n".join(parts)


def _range(trainings: tuple[float, float] | None) -> str:
    if trainings is None:
        return "none"
    fewest, most = trainings
    return f"{fewest:g} or more" if math.isinf(most) else f"{fewest:g} to {most:g}"


def main() -> None:
    """Print the tables and draw the charts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", default="rivals", help="name of the results file of the replay")
    parser.add_argument("--ours", default="ours", help="name of the results file of our searches")
    parser.add_argument("--keep", default="keep", help="name of the results file of searches with a current recipe")
    arguments = parser.parse_args()
    found = {name: read(name) if (FOLDER / f"{name}.json").exists() else [] for name in vars(arguments).values()}
    rivals, ours = found[arguments.rivals], [*found[arguments.ours], *found[arguments.keep]]
    print(report(rivals, ours))
    rows, _ = common(rivals, curves_of_ours(ours))
    draw(rows, FOLDER / "regret.svg")
    draw(rows, FOLDER / "regret-seconds.svg", seconds=True)


if __name__ == "__main__":
    main()
