"""What each part of the search has earned: our own search on the design half, with one part taken out or changed.

    python benchmarks/search/ablations.py                       # all variants; about two hours
    python benchmarks/search/ablations.py --variants as-it-is no-milestone --tasks digits-sgd --seeds 2

Every variant plays the same tasks, profiles and seeds; rows go to `benchmarks/search/results/ablations.json`, with the
bootstrapped difference to the search as it is, paired by search.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap

import batchscope.search.first_looks
import batchscope.search.law
import batchscope.search.stages
import batchscope.search.state
import batchscope.search.strategies.anchors
from ours import Asked, score
from results import write
from tables import TASKS
from yardstick import Yardstick, tables

__all__ = ["VARIANTS", "compared", "main"]

Patch = tuple[Any, str, Any]

_PLAIN_PRIOR = batchscope.search.law.prior_from


def _behind(factor: float) -> list[Patch]:
    return [(module, "BEHIND", factor) for module in (batchscope.search.strategies.anchors, batchscope.search.stages)]


VARIANTS: Mapping[str, Sequence[Patch]] = {
    "as-it-is": (),
    "no-milestone": [(batchscope.search.first_looks, "milestone_of", lambda rows, target: None)],
    "behind-1.5": _behind(1.5),
    "wide-rates": [(batchscope.search.strategies.anchors, "_LRS_AROUND", (0.8, 1.0, 1.25))],
    "no-noise-scale": [
        (batchscope.search.state, "prior_from", lambda rate_range, noise_scale: _PLAIN_PRIOR(rate_range, None)),
    ],
    "no-probes": [(batchscope.search.stages, "_MOST_PROBES", 0)],
}
"""What is put in place of what; everything else stays."""


@contextmanager
def patched(patches: Sequence[Patch]) -> Iterator[None]:
    """The attributes replaced inside, and put back."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def compared(rows: Sequence[Mapping[str, Any]], variant: str) -> dict[str, Any]:
    """A variant against the search as it is, on the searches that both made.

    Returns:
        Medians, and the mean difference in the logarithms of regret and of cost with 95 % intervals over searches;
        above 0: the part that was taken out had earned its place. A recipe that failed counts as a regret of 5.
    """
    key = ("task", "profile", "seed")
    plain = {tuple(row[k] for k in key): row for row in rows if row["variant"] == "as-it-is"}
    other = {tuple(row[k] for k in key): row for row in rows if row["variant"] == variant}
    both = sorted(set(plain) & set(other))
    figures: dict[str, Any] = {"variant": variant, "searches": len(both)}
    for name in ("regret", "cost"):
        pairs = np.array([[_finite(side[where][name]) for side in (plain, other)] for where in both])
        difference = np.log(pairs[:, 1] / pairs[:, 0])
        figures |= {
            f"{name}_median": float(np.median(pairs[:, 1])),
            f"{name}_p95": float(np.quantile(pairs[:, 1], 0.95)),
        }
        figures[f"log_{name}_difference"] = [float(difference.mean()), *_interval(difference)]
    return figures


def _finite(value: float | None) -> float:
    return min(5.0 if value is None else value, 100.0) if value is None or math.isfinite(value) else 5.0


def _interval(difference: np.ndarray) -> tuple[float, float]:
    if len(difference) < 2 or not difference.std():
        return float(difference.mean()), float(difference.mean())
    found = bootstrap((difference,), np.mean, rng=np.random.default_rng(0), confidence_level=0.95)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def main(argv: Sequence[str] | None = None, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Play the variants named on the command line, and return the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    design = [name for name, task in TASKS.items() if task.half == "design"]
    parser.add_argument("--variants", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--tasks", nargs="*", choices=design, default=design)
    parser.add_argument("--profiles", nargs="*", default=["knee64", "knee512", "knee4096"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", default="ablations")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    yardstick = Yardstick(may_train=True, keep=False)
    rows: list[dict[str, Any]] = []
    for variant in arguments.variants:
        with patched(VARIANTS[variant]):
            for table in tables(arguments.tasks):
                for profile in arguments.profiles:
                    for seed in range(arguments.seeds):
                        row = score(table, yardstick, Asked(profile=profile, seed=seed))
                        rows.append({"variant": variant, **row})
                        say(f"{variant} {table.task.name} {profile} {seed} {row['regret']:.3f} {row['cost']:.2f}")
        figures = [compared(rows, name) for name in dict.fromkeys(row["variant"] for row in rows)]
        write(arguments.part, rows, summary=figures)
        say(str(figures[-1]))
    return rows


if __name__ == "__main__":
    main()
