"""How well the law of steps holds on trainings of industrial size, and how well its intervals say so.

    python benchmarks/mlperf.py            # every triple, what is left out in turn, the tables of the docs
    python benchmarks/mlperf.py --quick    # a dozen triples a workload, no ablations, nothing written
    python benchmarks/mlperf.py --hardware PROFILE.json    # the gain from doubling the devices, on that device

The tables (`../shared/data/mlperf_rcp`: reference convergence points of MLPerf) hold the way to the target of seven
full-size trainings at 5 to 13 batch sizes, each tuned for its size by those who submitted it, with 10 to 88 repeats.

From the first five repeats at every three batch sizes that lie at least 1.5 times apart, the law predicts the steps at
all others. The truth is the mean of all repeats there. *Error* is |predicted ÷ true - 1|, in logarithms. *Holds* is the
share of truths in the 90 % interval of that mean; *trainings* the share of single trainings in the interval that `fit`
prints. Every size counts once a triple; *over workloads* each workload has the same weight. The constants of what the
law misses were chosen on every other workload in alphabetical order, and are reported on the rest.

The critical batch size follows from all repeats. The gain from doubling k devices is the time to target of the best
batch size on k ÷ that on 2k, where a device takes 1 + m/32 units of time for a step on m examples (or what the given
profile says) and exchanging gradients costs nothing: an upper bound. Raw results: `benchmarks/results/mlperf.json`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import multiprocessing
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from scipy.special import ndtri

from batchscope.fits import untuned_steps
from batchscope.fits.step_time import fit_step_time
from batchscope.hardware.profile import load_profile
from batchscope.search.table import untuned
from batchscope.search.table.reading import read_table
from batchscope.search.table.runs import runs_of
from batchscope.search.table.untuned import UntunedFit
from batchscope.store.records import TARGET_OF_TABLE
from batchscope.wording import number, with_interval
from record import write

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mlperf_rcp"
EXAMPLES = {
    "bert": None,
    "cosmoflow": 524_288,
    "dlrm_dcnv2": 4_195_197_692,
    "maskrcnn": 117_266,
    "resnet": 1_281_167,
    "retinanet": 1_170_301,
    "stable_diffusion": None,
}
"""Training examples; `None`: the table counts in examples."""
CHOSEN_ON = tuple(sorted(EXAMPLES)[::2])
APART, REPEATS = 1.5, 5
QUICK = 12
_QUANTILES = ndtri((np.arange(16) + 0.5) / 16)
_KNEE = 32

Rows = list[dict[str, str]]


class Workload:
    """One table, by batch size."""

    def __init__(self, name: str) -> None:
        self.name, self.examples = name, EXAMPLES[name]
        with (DATA / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._column = next(column for column in rows[0] if column.endswith("_to_target"))
        self.rows: dict[int, Rows] = defaultdict(list)
        for row in rows:
            self.rows[int(row["batch_size"])].append(row)
        self.sizes = sorted(self.rows)

    def log_examples(self, size: int) -> np.ndarray:
        """Of all repeats at a batch size."""
        return np.log([float(row[self._column]) * (self.examples or 1) for row in self.rows[size]])

    def truth(self, size: int) -> float:
        """Log of the mean examples to the target."""
        return float(np.log(np.exp(self.log_examples(size)).mean()))

    def triples(self) -> list[tuple[int, ...]]:
        """Every three batch sizes that lie far enough apart."""
        return [
            sizes
            for sizes in itertools.combinations(self.sizes, 3)
            if all(larger >= APART * size for size, larger in itertools.pairwise(sizes))
        ]

    def fit(self, sizes: Sequence[int], folder: Path, repeats: int | None = REPEATS) -> UntunedFit:
        """The law as `batchscope fit` has it from the first repeats at some sizes."""
        rows = [row for size in sizes for row in self.rows[size][:repeats]]
        path = folder / f"{self.name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        table = read_table(path)
        runs = runs_of(table, self.examples, TARGET_OF_TABLE)
        return UntunedFit.of(runs, tuple(self.sizes), grain=table.evaluated_every(self.examples), seed=0)


def predictions(workload: Workload, sizes: tuple[int, ...], folder: Path) -> Iterator[dict[str, Any]]:
    """What the law says of the other batch sizes, beside the truth; in log examples."""
    steps = workload.fit(sizes, folder).posterior.steps
    for size in workload.sizes:
        if size in sizes:
            continue
        draws = steps.log_steps(size)[:, None] + math.log(size)
        mean = np.quantile(draws + steps.misfit(size)[:, None] * _QUANTILES, (0.05, 0.5, 0.95))
        single = np.quantile(draws + steps.spread(size)[:, None] * _QUANTILES, (0.05, 0.95))
        truth, own = workload.truth(size), workload.log_examples(size)
        yield {
            "from": list(sizes),
            "batch_size": size,
            "extrapolated": not sizes[0] < size < sizes[-1],
            "truth": truth,
            "predicted": mean.tolist(),
            "holds": bool(mean[0] <= truth <= mean[2]),
            "trainings": float(((own >= single[0]) & (own <= single[1])).mean()),
        }


def _from(name: str, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        return list(predictions(Workload(name), sizes, Path(folder)))


def all_predictions(quick: bool, workers: int) -> dict[str, list[dict[str, Any]]]:
    """Of every workload, from every triple; or from some, evenly spaced."""
    jobs: list[tuple[str, tuple[int, ...]]] = []
    for name in EXAMPLES:
        triples = Workload(name).triples()
        jobs += [(name, sizes) for sizes in (triples[:: max(1, len(triples) // QUICK)] if quick else triples)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in EXAMPLES}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:  # with what is patched
        for (name, _), rows in zip(jobs, pool.map(_from, *zip(*jobs, strict=True)), strict=True):
            found[name] += rows
    return found


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the documents quote of one workload."""

    def error(some: Sequence[Mapping[str, Any]]) -> float | None:
        return float(np.expm1(np.median([abs(r["predicted"][1] - r["truth"]) for r in some]))) if some else None

    return {
        "predictions": len(rows),
        "error": error(rows),
        "extrapolated": error([r for r in rows if r["extrapolated"]]),
        "holds": float(np.mean([r["holds"] for r in rows])),
        "trainings": float(np.mean([r["trainings"] for r in rows])),
        "width": float(np.exp(np.median([r["predicted"][2] - r["predicted"][0] for r in rows]))),
    }


def over_workloads(each: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Medians of the errors and means of the shares; each workload has the same weight."""
    return {
        "workloads": list(each),
        **{key: float(np.median([own[key] for own in each.values()])) for key in ("error", "extrapolated", "width")},
        **{key: float(np.mean([own[key] for own in each.values()])) for key in ("holds", "trainings")},
        "least_holds": min(own["holds"] for own in each.values()),
    }


def summary(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Figures by workload, over all, over those that constants were chosen on, and over the others."""
    each = {name: figures(rows) for name, rows in found.items()}
    return {
        "workloads": each,
        "all": over_workloads(each),
        "pooled": figures([row for rows in found.values() for row in rows]),
        "chosen_on": over_workloads({name: own for name, own in each.items() if name in CHOSEN_ON}),
        "reported_on": over_workloads({name: own for name, own in each.items() if name not in CHOSEN_ON}),
    }


def _exactly(steps: Any, grain: Any) -> None:
    """In place of `untuned.repeats_of`: evaluations are not known of."""


_AS_IT_WAS = {"_OWN_SD": 0.0, "_SCALES": np.ones(1), "_MISFIT_SD": 0.08}
ABLATIONS: dict[str, Mapping[str, Any]] = {
    "nothing": {},
    "a part of each size's own": {"_OWN_SD": 0.0},
    "an unknown size of what the law misses": {"_SCALES": np.ones(1)},
    "both, what it misses 0.08 as before": _AS_IT_WAS,
    "evaluations": {"repeats_of": _exactly},
}
"""What is left out of the law's doubt, by constants of `fits.untuned_steps`, or how repeats count."""


def ablation(changes: Mapping[str, Any], workers: int) -> dict[str, Any]:
    """Figures from a dozen triples a workload, with something left out."""
    with ExitStack() as stack:
        for name, value in changes.items():
            stack.enter_context(mock.patch.object(untuned if name == "repeats_of" else untuned_steps, name, value))
        return summary(all_predictions(True, workers))


def of_all_repeats(step_time: Callable[[float], float]) -> dict[str, Any]:
    """Critical batch size, knee exponent, and the gain from doubling the devices, from the whole tables."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in EXAMPLES:
            workload = Workload(name)
            law = workload.fit(workload.sizes, Path(folder), None).posterior
            critical, knee = law.critical_batch_size(), law.knee_exponent()
            found[name] = {
                "sizes": [workload.sizes[0], workload.sizes[-1]],
                "critical_batch_size": [critical.value, critical.low, critical.high],
                "knee_exponent": [knee.value, knee.low, knee.high],
                "text": with_interval(critical),
                "doubling": doubling(workload, law.steps, step_time),
            }
    return found


def doubling(
    workload: Workload, steps: untuned_steps.UntunedPosterior, step_time: Callable[[float], float]
) -> list[dict[str, Any]]:
    """Gain from twice the devices, from as many on as the smallest size keeps busy to as many as the largest does."""
    low, high = workload.sizes[0], workload.sizes[-1]
    sizes = np.unique(np.concatenate([np.geomspace(low, high, 40).round(), workload.sizes]))
    log_steps = steps.log_steps(sizes)

    def log_time(devices: int) -> np.ndarray:
        each = [step_time(size / devices) for size in sizes]
        return (log_steps + np.log(each)).min(axis=1)

    found: list[dict[str, Any]] = []
    devices = max(1, round(low / _KNEE))
    while devices <= high / _KNEE and len(found) < 12:
        gain = np.exp(log_time(devices) - log_time(2 * devices))
        low_gain, value, high_gain = np.quantile(gain, (0.05, 0.5, 0.95))
        found.append({"devices": devices, "gain": [float(value), float(low_gain), float(high_gain)]})
        devices *= 2
    return found


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def tables(results: Mapping[str, Any]) -> str:
    """The tables of `docs/industrial.md`, in Markdown."""
    law = results["law"]
    lines = [
        "| workload | predictions | median error | extrapolated | interval holds | trainings in theirs | width |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    named = {
        **{name + (" (chosen on)" if name in CHOSEN_ON else ""): own for name, own in law["workloads"].items()},
        "over the four": law["chosen_on"],
        "over the three others": law["reported_on"],
        "over all seven": law["all"],
        "all predictions pooled": law["pooled"],
    }
    for name, own in named.items():
        cells = [_share(own["error"]), _share(own["extrapolated"]), f"{own['holds']:.2f}", f"{own['trainings']:.2f}"]
        lines.append(f"| {name} | {own.get('predictions', '')} | " + " | ".join(cells) + f" | {own['width']:.2f} |")
    if results.get("without"):
        lines += ["", "| without | median error | extrapolated | holds, over all seven | least |"]
        lines.append("| --- | --- | --- | --- | --- |")
        for name, own in results["without"].items():
            over = own["all"]
            shares = f"{_share(over['error'])} | {_share(over['extrapolated'])}"
            lines.append(f"| {name} | {shares} | {over['holds']:.2f} | {over['least_holds']:.2f} |")
    lines += ["", "| workload | batch sizes | critical batch size | doubling the devices: from k, gain |"]
    lines.append("| --- | --- | --- | --- |")
    for name, own in results["whole"].items():
        steps = own["doubling"]
        shown = [steps[0], steps[len(steps) // 2], steps[-1]] if len(steps) > 2 else steps
        gains = [f"{number(s['devices'])}: {s['gain'][0]:.2f} ({s['gain'][1]:.2f}–{s['gain'][2]:.2f})" for s in shown]
        low, high = own["sizes"]
        lines.append(f"| {name} | {number(low)} to {number(high)} | {own['text']} | {'; '.join(gains)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dozen triples a workload, nothing written")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--hardware", type=Path, help="profile of a device, from batchscope bench --save")
    asked = parser.parse_args()
    step_time: Callable[[float], float] = lambda examples: 1.0 + examples / _KNEE  # noqa: E731
    if asked.hardware is not None:
        model = fit_step_time(load_profile(asked.hardware).step_time_s)
        step_time = lambda examples: model.seconds(max(1, math.ceil(examples)))  # noqa: E731
    found = all_predictions(asked.quick, asked.workers)
    results: dict[str, Any] = {"law": summary(found), "whole": of_all_repeats(step_time), "without": {}}
    print(tables(results), flush=True)
    if asked.quick:
        return
    data = {"device": str(asked.hardware or f"1 + m/{_KNEE}"), "figures": results, "rows": found}
    write("mlperf", data)
    for name, changes in ABLATIONS.items():
        results["without"][name] = ablation(changes, asked.workers)
        write("mlperf", data)
    print(tables(results))


if __name__ == "__main__":
    main()
