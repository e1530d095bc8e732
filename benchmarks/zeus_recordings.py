"""Recorded trainings of real workloads (`../shared/data/zeus_traces`: You et al., NSDI 2023), and regret on them."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

__all__ = ["EXAMPLES", "Recording", "recordings"]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "zeus_traces"
CARDS = ("v100", "a40", "p100", "rtx6000")
EXAMPLES = {"cifar100": 50_000, "movielens-1m": 994_169, "squad": 88_524}
"""Training examples; they scale steps and seconds of a step alike, and no regret depends on them."""
SHARE, SPACING = 0.6, 2


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One workload on one card."""

    workload: str
    card: str
    target: float
    epochs: dict[int, list[float]]
    """To the target, of each repeat at each batch size; infinite: never."""
    epoch_time_s: dict[int, float]
    lr: dict[int, str]

    @cached_property
    def sizes(self) -> list[int]:
        """Batch sizes, ascending."""
        return sorted(self.epochs)

    @cached_property
    def sound(self) -> list[int]:
        """Batch sizes at which every repeat reaches the target."""
        return [b for b in self.sizes if all(map(math.isfinite, self.epochs[b]))]

    def time(self, size: int) -> float:
        """Mean time to target, seconds."""
        return float(np.mean(self.epochs[size])) * self.epoch_time_s[size]

    @cached_property
    def best(self) -> float:
        """The least of them."""
        return min(self.time(b) for b in self.sizes)

    def nearest(self, size: float) -> float:
        """Regret of the recorded size that is nearest."""
        return self.time(min(self.sizes, key=lambda b: abs(math.log(b / size)))) / self.best

    def regret(self, size: float) -> float:
        """Regret of a size, between recorded ones on the straight line of logarithms."""
        below, above = (
            max((b for b in self.sizes if b <= size), default=0),
            min((b for b in self.sizes if b >= size), default=0),
        )
        if not below or not above or below == above:
            return self.nearest(size)
        times = [self.time(below), self.time(above)]
        if not all(map(math.isfinite, times)):
            return self.nearest(size)
        return math.exp(float(np.interp(math.log(size), np.log([below, above]), np.log(times)))) / self.best

    def subsets(self, number: int) -> list[tuple[int, ...]]:
        """Sizes spaced at least 2x apart, the two smallest of which reach the target in every repeat."""
        return [
            sizes
            for sizes in itertools.combinations(self.sizes, number)
            if all(b >= SPACING * a for a, b in itertools.pairwise(sizes)) and set(sizes[:2]) <= set(self.sound)
        ]

    def write(self, sizes: Iterable[int], path: Path) -> None:
        """The rows of some sizes as a table for `fit`."""
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["batch_size", "epochs_to_target", "epoch_time_s", "lr"])
            for b in sizes:
                for epochs in self.epochs[b]:
                    table.writerow(
                        [b, f"{epochs:g}" if math.isfinite(epochs) else "", self.epoch_time_s[b], self.lr[b]]
                    )


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


def recordings() -> list[Recording]:
    """Every workload on every card."""
    found: list[Recording] = []
    train = _rows("summary_train.csv")
    for key in dict.fromkeys((r["dataset"], r["network"], r["optimizer"]) for r in train):
        own = [r for r in train if (r["dataset"], r["network"], r["optimizer"]) == key]
        target = _target(own)
        epochs: dict[int, list[float]] = {}
        for row in own:
            if float(row["target_metric"]) == target:
                epochs.setdefault(int(row["batch_size"]), []).append(_epoch(row))
        lr = {int(r["batch_size"]): r["learning_rate"] for r in own}
        for card in CARDS:
            times = _epoch_times(card, key)
            sizes = sorted(set(epochs) & set(times))
            found.append(
                Recording(
                    workload=key[0],
                    card=card,
                    target=target,
                    epochs={b: epochs[b] for b in sizes},
                    epoch_time_s={b: times[b] for b in sizes},
                    lr={b: lr[b] for b in sizes},
                )
            )
    return found


def _epoch(row: dict[str, str]) -> float:
    return float(row["target_epoch"]) if row["target_epoch"] not in ("", "nan") else math.inf


def _target(rows: list[dict[str, str]]) -> float:
    """The hardest that at least 60 % of the sizes reach in every repeat."""
    sizes = {r["batch_size"] for r in rows}
    reached = [
        target
        for target in {float(r["target_metric"]) for r in rows}
        if sum(
            all(math.isfinite(_epoch(r)) for r in rows if (r["batch_size"], float(r["target_metric"])) == (b, target))
            for b in sizes
        )
        >= SHARE * len(sizes)
    ]
    return max(reached)


def _epoch_times(card: str, key: tuple[str, str, str]) -> dict[int, float]:
    """Seconds per epoch at the highest power limit of each size."""
    own = [r for r in _rows(f"summary_power_{card}.csv") if (r["dataset"], r["network"], r["optimizer"]) == key]
    own.sort(key=lambda r: float(r["power_limit"]))
    return {int(r["batch_size"]): float(r["time_per_epoch"]) for r in own}
