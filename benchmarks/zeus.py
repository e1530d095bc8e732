"""How good a batch size `batchscope fit` recommends from recorded trainings at two or three batch sizes only.

    python benchmarks/zeus.py            # every triple and pair of every workload and card; the table of the docs
    python benchmarks/zeus.py --choose   # also the constants of the prior, each workload left out in turn

The recordings (`../shared/data/zeus_traces`: You et al., NSDI 2023) hold epochs to target of several repeats at each
batch size, and seconds per epoch on four cards. The target of a workload is the hardest that at least 60 % of its batch
sizes reach in every repeat. From the rows of two or three batch sizes, spaced at least 2x apart, the two smallest of
which reach the target in every repeat, a table is written and given to `batchscope.fit`.

*Regret* is the time to target (mean epochs times recorded seconds per epoch at the highest power limit) of the
recommended size ÷ that of the best recorded one. A size between two recorded ones counts with the time on the straight
line of logarithms between them, because nobody who is recommended 96 trains at 64, and two recorded times bound it; it
counts as its nearest neighbour where one of the two never gets there, and beyond the recorded sizes as the last of them
(which is what the card, or the recording, ends with). The other reading, every size as its nearest neighbour, is kept
beside it. A refusal (exit status 3) is right if the best guess that goes with it has a regret above 1.4. Every workload
has the same weight in the quantiles. Raw results and environment: `benchmarks/results/zeus.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from scipy.optimize import least_squares

import batchscope
from batchscope.fits.step_time import fit_step_time
from batchscope.fits.untuned_steps import UntunedPrior, fit_untuned
from record import read, write
from zeus_recordings import EXAMPLES, Recording, recordings

TOO_DEAR = 1.4

Choose = Callable[[Recording, tuple[int, ...]], int]


def recommend(recording: Recording, sizes: tuple[int, ...], folder: Path) -> dict[str, Any]:
    """What `fit` answers from the rows of some sizes; of a refusal, its best guess."""
    path = folder / "table.csv"
    recording.write(sizes, path)
    plan = batchscope.fit(path, examples=EXAMPLES[recording.workload])
    recipe = plan.recipe or plan.alternatives[-1].recipe
    return {
        "workload": recording.workload,
        "card": recording.card,
        "sizes": list(sizes),
        "status": plan.status.value,
        "batch_size": recipe.batch_size,
        "regret": recording.regret(recipe.batch_size),
        "nearest": recording.nearest(recipe.batch_size),
    }


def plain_law(recording: Recording, sizes: tuple[int, ...], *, told: bool = False) -> int:
    """The recorded size that a least-squares fit of S_min (1 + (B_c/B)^a)^(1/a) and of t_0 + c B calls fastest.

    The exponent is 1 where only two sizes reached the target. Sizes from the smallest that failed on are left out;
    `told`: all recorded sizes that fail are.
    """
    reached = [b for b in sizes if b in recording.sound]
    size = np.log(reached)
    steps = np.log([np.mean(recording.epochs[b]) / b for b in reached])

    def law(parameters: np.ndarray, at: np.ndarray) -> np.ndarray:
        alpha = math.exp(parameters[2]) if len(reached) > 2 else 1.0
        return parameters[0] + np.logaddexp(0.0, alpha * (parameters[1] - at)) / alpha

    bounds = ([-40.0, -2.0, -1.2], [40.0, 14.0, 1.6])
    starts = [[float(steps.min()), math.log(b), 0.0] for b in (8, 128, 2048)]
    fits = [least_squares(lambda p: law(p, size) - steps, start, bounds=bounds, max_nfev=200) for start in starts]
    best = min(fits, key=lambda fit: fit.cost).x
    time = fit_step_time([(b, recording.epoch_time_s[b] * b) for b in sizes])
    failed = min((b for b in sizes if b not in recording.sound), default=math.inf)
    known = recording.sound if told else [b for b in recording.sizes if b < failed]
    return min(known, key=lambda b: float(law(best, np.log(b))) + math.log(time.seconds(b)))


RIVALS: dict[str, Choose] = {
    "the best of those measured": lambda r, sizes: min(sizes, key=r.time),
    "the largest measured": lambda r, sizes: max(sizes),
    "the largest measured that reached it": lambda r, sizes: max(b for b in sizes if b in r.sound),
    "the largest recorded": lambda r, sizes: r.sizes[-1],
    "32": lambda r, sizes: 32,
    "plain law, least squares": plain_law,
    "plain law, told which sizes fail": lambda r, sizes: plain_law(r, sizes, told=True),
}


def quantile(values: list[float], weights: list[float], share: float) -> float:
    """The least value that at least this share of the weight does not exceed."""
    order = np.argsort(values)
    below = np.cumsum(np.array(weights)[order]) / np.sum(weights)
    return float(np.array(values)[order][min(int(np.searchsorted(below, share - 1e-9)), len(values) - 1)])


def weights(rows: list[dict[str, Any]]) -> list[float]:
    """Every workload has the same weight."""
    names = [row["workload"] for row in rows]
    return [1.0 / names.count(name) for name in names]


def spread(rows: list[dict[str, Any]], key: str) -> dict[str, float]:
    """Median, 95th percentile and worst."""
    values = [row[key] for row in rows]
    own = weights(rows)
    return {"median": quantile(values, own, 0.5), "p95": quantile(values, own, 0.95), "worst": max(values)}


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the documents quote, for the rows of `fit`."""
    total, own = weights(rows), [row for row in rows if row["status"] != "insufficient-data"]
    refused = [(w, row) for w, row in zip(total, rows, strict=True) if row["status"] == "insufficient-data"]
    weight = sum(w for w, _ in refused)
    right = sum(w for w, row in refused if row["regret"] > TOO_DEAR)
    return {
        "tables": len(rows),
        **spread(own, "regret"),
        "nearest": spread(own, "nearest"),
        "without_refusing": spread(rows, "regret"),
        "refused": weight / sum(total),
        "refused_rightly": right / weight if weight else None,
        "workloads": {
            name: {**spread([r for r in own if r["workload"] == name], "regret")}
            for name in dict.fromkeys(row["workload"] for row in own)
        },
    }


def answers(number: int) -> list[dict[str, Any]]:
    """What `fit` says from every pair or triple of sizes."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            recommend(recording, sizes, Path(folder))
            for recording in recordings()
            for sizes in recording.subsets(number)
        ]


def others(number: int) -> dict[str, Any]:
    """What the rivals come to."""
    found: dict[str, Any] = {}
    for name, choose in RIVALS.items():
        rows = [
            {"workload": recording.workload, "regret": recording.nearest(choose(recording, sizes))}
            for recording in recordings()
            for sizes in recording.subsets(number)
        ]
        found[name] = spread(rows, "regret")
    return found


VARIANTS: dict[str, Callable[[UntunedPrior], UntunedPrior]] = {
    "as it is": lambda p: p,
    "B_c within a factor of 30": lambda p: replace(p, log_critical_batch_size=(math.log(512), math.log(30))),
    "B_c within a factor of 100": lambda p: replace(p, log_critical_batch_size=(math.log(512), math.log(100))),
    "exponent 1.25": lambda p: replace(p, log_alpha=(math.log(1.25), 0.5)),
    "exponent 2": lambda p: replace(p, log_alpha=(math.log(2.0), 0.5)),
    "walls nearer": lambda p: _moved(p, -1.0),
    "walls farther": lambda p: _moved(p, 1.0),
}
"""Other constants of the prior."""


def _moved(prior: UntunedPrior, far: float) -> UntunedPrior:
    upper, lower = prior.log_upper_wall, prior.log_lower_wall
    return replace(prior, log_upper_wall=(upper[0] + far, upper[1]), log_lower_wall=(lower[0] - far, lower[1]))


def leave_one_out() -> dict[str, Any]:
    """Constants chosen on all workloads, and for each workload on the others: the figures of triples for both.

    What is chosen by is the mean of log regret (at most 1.5) of the best guesses, refused or not.
    """
    of_rates = UntunedPrior.for_rates
    found: dict[str, list[dict[str, Any]]] = {}
    for name, change in VARIANTS.items():
        with mock.patch.object(UntunedPrior, "for_rates", lambda slope, change=change: change(of_rates(slope))):
            found[name] = answers(3)
        print(name, {key: round(value, 3) for key, value in _by_workload(found[name]).items()}, flush=True)
    workloads = list(dict.fromkeys(row["workload"] for row in found["as it is"]))

    def chosen(on: list[str]) -> str:
        return min(VARIANTS, key=lambda name: sum(_by_workload(found[name])[w] for w in on))

    out = {w: chosen([other for other in workloads if other != w]) for w in workloads}
    left_out = [row for w in workloads for row in found[out[w]] if row["workload"] == w]
    return {
        "chosen_on_all": chosen(workloads),
        "in_sample": figures(found[chosen(workloads)]),
        "chosen_without": out,
        "left_out": figures(left_out),
        "mean_log_regret": {name: _by_workload(rows) for name, rows in found.items()},
    }


def _by_workload(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {
        name: float(np.mean([math.log(min(row["regret"], math.exp(1.5))) for row in rows if row["workload"] == name]))
        for name in dict.fromkeys(row["workload"] for row in rows)
    }


@contextlib.contextmanager
def _fitted_once() -> Iterator[None]:
    """Steps do not depend on the card: the same rows are fitted once."""
    kept: dict[Any, Any] = {}

    def fit_once(steps: Any, prior: UntunedPrior, **how: Any) -> Any:
        key = (tuple((b, tuple(runs)) for b, runs in steps.items()), prior, tuple(how.items()))
        return kept.get(key) or kept.setdefault(key, fit_untuned(steps, prior, **how))

    with mock.patch("batchscope.search.table.untuned.fit_untuned", fit_once):
        yield


def line(row: dict[str, Any]) -> str:
    """One answer, compactly."""
    sizes = ",".join(map(str, row["sizes"]))
    numbers = f"{row['batch_size']} {row['regret']:.4g} {row['nearest']:.4g}"
    return f"{row['workload']} {row['card']} {sizes} {row['status']} {numbers}"


def table(results: dict[str, Any]) -> str:
    """The table of the documents, in Markdown."""
    lines = [
        "| recommended from | three sizes: median | 95th percentile | worst | two sizes: median | 95th percentile |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in results["triples"]:
        three, two = results["triples"][name], results["pairs"][name]
        cells = [three["median"], three["p95"], three["worst"], two["median"], two["p95"]]
        lines.append(f"| {name} | " + " | ".join("never" if math.isinf(c) else f"{c:.2f}" for c in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="also choose the constants, each workload left out")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    rows: dict[str, list[str]] = {}
    with _fitted_once():
        for name, number in (("triples", 3), ("pairs", 2)):
            found = answers(number)
            results[name] = {"fit": figures(found), **others(number)}
            rows[name] = [line(row) for row in found]
            print(name, results[name]["fit"], flush=True)
        print(table(results))
        if arguments.choose:
            results["leave_one_out"] = leave_one_out()
            print(results["leave_one_out"])
    if not arguments.choose:
        results["leave_one_out"] = read("zeus")["figures"].get("leave_one_out")
    write("zeus", {"figures": results, "rows": rows})


if __name__ == "__main__":
    main()
