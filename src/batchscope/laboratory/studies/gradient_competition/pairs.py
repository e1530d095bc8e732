"""Pairs of batches whose gradients compete, as they were kept, and what follows from them. Numbers only.

For two batches with the gradients `a` and `b` at the same weights, `b'` is the second one recomputed after the step on
the first, and `g` the gradient of both batches as one: `(a + b)/2` for a mean loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ....fits import intervals
from ....store.not_applicable import not_applicable
from ....store.records import Estimate
from ...records import Study

__all__ = ["COLUMNS", "NOTES", "Arrow", "Pairs", "pairs_of"]

COLUMNS = (
    "norm_a",
    "norm_b",
    "norm_b_after",
    "norm_of_sum",
    "norm_of_sum_in_turn",
    "norm_as_one",
    "cosine",
    "cosine_in_turn",
    "as_one_x",
    "as_one_y",
    "outside",
)
"""What is kept of each pair; `as_one` in the plane of `a` and `b'`, with `a` along x and `b'` above it."""

NOTES = "competition"
"""The kind of the notes, one a checkpoint and batch size."""
_WHAT = "pair"


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """One pair in the plane of its two single steps; the way of a step is its arrow times −lr."""

    first: tuple[float, float]
    second: tuple[float, float]
    both: tuple[float, float]
    as_one: tuple[float, float]
    outside: float | None
    """The share of `as_one` that is not in the plane."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """All pairs of one batch size at one checkpoint."""

    seed: int
    part: str
    epoch: float
    label: str
    batch_size: int
    reason: str
    """Why there are none; empty where there are."""
    wanted: int = 0
    columns: Mapping[str, tuple[float | None, ...]]

    def __len__(self) -> int:
        return len(self.columns["norm_a"]) if self.columns else 0

    def norms(self, name: str) -> list[float]:
        """A column that is known for every pair."""
        return [value or 0.0 for value in self.columns[name]]

    @property
    def cosines(self) -> list[float]:
        """Between `a` and `b`, of the pairs where neither is zero."""
        return [value for value in self.columns["cosine"] if value is not None]

    @property
    def sum_of_norms(self) -> list[float]:
        """`‖a‖ + ‖b‖`."""
        return [a + b for a, b in zip(self.norms("norm_a"), self.norms("norm_b"), strict=True)]

    @property
    def sum_of_norms_in_turn(self) -> list[float]:
        """`‖a‖ + ‖b'‖`."""
        return [a + b for a, b in zip(self.norms("norm_a"), self.norms("norm_b_after"), strict=True)]

    @property
    def kept(self) -> list[float]:
        """`‖a + b‖ ÷ (‖a‖ + ‖b‖)`, of the pairs where it is known."""
        return _ratios(self.norms("norm_of_sum"), self.sum_of_norms)

    @property
    def kept_in_turn(self) -> list[float]:
        """`‖a + b'‖ ÷ (‖a‖ + ‖b'‖)`, of the pairs where it is known."""
        return _ratios(self.norms("norm_of_sum_in_turn"), self.sum_of_norms_in_turn)

    @property
    def mean_cosine(self) -> Estimate:
        """Mean cosine over the pairs."""
        return intervals.mean_correlation(self.cosines)

    @property
    def share_opposed(self) -> float | None:
        """Pairs with a cosine below zero."""
        return sum(c < 0 for c in self.cosines) / len(self.cosines) if self.cosines else None

    @property
    def ratio_kept(self) -> Estimate:
        """The mean of `‖a + b‖` over that of `‖a‖ + ‖b‖`: an update at twice the batch size to the mean of two."""
        return intervals.ratio_of_paired_means(zip(self.norms("norm_of_sum"), self.sum_of_norms, strict=True))

    @property
    def ratio_kept_in_turn(self) -> Estimate:
        """The mean of `‖a + b'‖` over that of `‖a‖ + ‖b'‖`: as `ratio_kept`, the second gradient recomputed."""
        return intervals.ratio_of_paired_means(
            zip(self.norms("norm_of_sum_in_turn"), self.sum_of_norms_in_turn, strict=True)
        )

    @property
    def ratio_of_second(self) -> Estimate:
        """The mean of `‖b'‖` over that of `‖b‖`: what the first step does to the second gradient."""
        return intervals.ratio_of_paired_means(zip(self.norms("norm_b_after"), self.norms("norm_b"), strict=True))

    @property
    def ratio_of_ways(self) -> Estimate:
        """The mean of `‖g‖` over that of `‖a + b'‖`: the way of one step on both to that of two."""
        return intervals.ratio_of_paired_means(
            zip(self.norms("norm_as_one"), self.norms("norm_of_sum_in_turn"), strict=True)
        )

    @property
    def ratio_per_step(self) -> Estimate:
        """The mean of `2 ‖g‖` over that of `‖a + b'‖`: the way of one step on both to the mean of two."""
        return intervals.ratio_of_paired_means(
            zip([2 * n for n in self.norms("norm_as_one")], self.norms("norm_of_sum_in_turn"), strict=True)
        )

    @property
    def median_outside(self) -> float | None:
        """Median of the share of `g` that is not in the plane of the two steps."""
        measured = [value for value in self.columns["outside"] if value is not None]
        return median(measured) if measured else None

    def median_arrow(self) -> Arrow | None:
        """The pair that keeps as much as half of the others at most, of those with a known angle."""
        kept = [
            (total / apart, i)
            for i, (total, apart) in enumerate(
                zip(self.norms("norm_of_sum_in_turn"), self.sum_of_norms_in_turn, strict=True)
            )
            if apart > 0 and self.columns["cosine_in_turn"][i] is not None
        ]
        return self._arrow(sorted(kept)[(len(kept) - 1) // 2][1]) if kept else None

    def _arrow(self, i: int) -> Arrow:
        row = {name: values[i] for name, values in self.columns.items()}
        cosine, length = max(-1.0, min(1.0, row["cosine_in_turn"] or 0.0)), row["norm_b_after"] or 0.0
        first, second = (row["norm_a"] or 0.0, 0.0), (length * cosine, length * math.sqrt(1 - cosine * cosine))
        return Arrow(
            first=first,
            second=second,
            both=(first[0] + second[0], second[1]),
            as_one=(row["as_one_x"] or 0.0, row["as_one_y"] or 0.0),
            outside=row["outside"],
        )


def pairs_of(study: Study) -> tuple[Pairs, ...]:
    """Everything that was noted, by seed, then by epoch, then by batch size."""
    found = [_read(data) for data in study.read_note(NOTES).values()]
    return tuple(sorted(found, key=lambda p: (p.seed, p.part == "end", p.epoch, p.batch_size)))


def _read(data: Mapping[str, Any]) -> Pairs:
    named: dict[str, Any] = {name: data[name] for name in ("seed", "part", "epoch", "label", "batch_size")}
    if (why := not_applicable(data)) is not None:
        return Pairs(**named, reason=why, columns={})
    columns = {name: tuple(data["columns"][name]) for name in COLUMNS}
    whole = all(v is not None for name in COLUMNS if name.startswith("norm_") for v in columns[name])
    if not whole:
        return Pairs(**named, reason="a gradient is no number", columns={})
    return Pairs(**named, reason="", wanted=data["wanted"], columns=columns)


def _ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True) if b > 0]
