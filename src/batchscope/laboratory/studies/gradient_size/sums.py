"""Shen's sums of gradients as they were kept, and what follows from them. Numbers only; `summing_gradients` measures.

In each repeat every batch size B goes through the same M samples in floor(M/B) steps of SGD, from the same weights;
`norm` is that of `B/M Σ_s g_s`, one layer's gradients added up and scaled to the mean of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....fits import intervals
from ....store.codec import decode
from ....store.not_applicable import not_applicable
from ....store.records import Estimate
from ....wording import number, with_interval
from ...records import Study

__all__ = ["NOTES", "Bins", "GradientSums", "Size", "gradient_sums_of"]

NOTES = "gradient-sums"
"""The kind of the notes, one a checkpoint."""
_UNIT = "loss per weight"


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Counts of gradient values in equal bins over `[−limit, limit]`, those of exactly zero apart."""

    limit: float
    counts: tuple[int, ...]
    below: int
    above: int
    zeros: int

    @property
    def total(self) -> int:
        """All values."""
        return sum(self.counts) + self.below + self.above + self.zeros

    @property
    def width(self) -> float:
        """Of a bin."""
        return 2 * self.limit / len(self.counts)

    @property
    def centres(self) -> list[float]:
        """Of the bins."""
        return [(i - len(self.counts) // 2) * self.width for i in range(len(self.counts))]

    def share_beyond(self, magnitude: float) -> float:
        """Of all values, those in bins whose centre is farther from zero."""
        inside = sum(n for n, c in zip(self.counts, self.centres, strict=True) if abs(c) > magnitude)
        return (inside + self.below + self.above) / self.total


@dataclass(frozen=True, kw_only=True)
class Size:
    """What was measured at one batch size."""

    batch_size: int
    steps: int
    norm: Estimate
    sd: float | None
    relative_error: float | None
    rescaled_sd: float | None
    """Standard deviation of the norms, scaled so that their mean is that of the largest batch size."""
    norms: tuple[float, ...]
    """One a repeat."""
    beyond: tuple[int, ...]
    """Values at or beyond the mark, one count a repeat."""
    beyond_published: int
    """Values at or beyond the mark of the publication."""
    bins: Bins
    mode: float | None
    full_width: float | None
    """At half of the maximum."""

    @property
    def in_words(self) -> str:
        """The norm with its interval, and its standard deviation."""
        return with_interval(self.norm) + ("" if self.sd is None else f", standard deviation {number(self.sd)}")

    @property
    def relative_sd(self) -> float | None:
        """Standard deviation over mean."""
        return self.sd / self.norm.value if self.sd is not None and self.norm.value else None

    @property
    def root_mean_square(self) -> float:
        """Of the values of a sum."""
        entries = self.bins.total / len(self.norms)
        return math.sqrt(math.fsum(n * n for n in self.norms) / len(self.norms) / entries)


@dataclass(frozen=True, kw_only=True)
class GradientSums:
    """One checkpoint of one run."""

    seed: int
    part: str
    epoch: float
    label: str
    reason: str
    """Why there are no numbers; empty where there are."""
    layer: str = ""
    samples: int = 0
    lr: float = 0.0
    wanted: int = 0
    """Repeats that were asked for."""
    repeats: int = 0
    processes: int = 1
    mark: float = 0.0
    published_mark: float = 0.0
    published_repeats_s: Estimate | None = None
    """What 1,000 repeats take in one process."""
    sizes: tuple[Size, ...] = ()
    """Increasing; without those at which small steps diverged."""
    diverged: tuple[int, ...] = ()

    def at(self, batch_size: int) -> Size | None:
        """One batch size."""
        return next((s for s in self.sizes if s.batch_size == batch_size), None)

    @property
    def smallest(self) -> Size:
        """The smallest batch size."""
        return self.sizes[0]

    @property
    def largest(self) -> Size:
        """The largest batch size, of which a repeat is one gradient."""
        return self.sizes[-1]

    def way(self, size: Size) -> float:
        """How far the layer goes on the way through the samples: `lr · M/B · norm`, the mean over the repeats."""
        return self.lr * self.samples / size.batch_size * (size.norm.value or 0.0)

    @property
    def change_of_norm(self) -> Estimate:
        """Paired difference of the norms, largest batch size minus smallest: in a repeat both have the same samples."""
        pairs = zip(self.largest.norms, self.smallest.norms, strict=True)
        return intervals.paired_difference(pairs, _UNIT)

    @property
    def ratio_of_spreads(self) -> Estimate:
        """Ratio of the relative standard deviations of the norms, largest batch size over smallest."""
        pairs = zip(self.largest.norms, self.smallest.norms, strict=True)
        return intervals.ratio_of_relative_standard_deviations(pairs)

    @property
    def ratio_of_ways(self) -> Estimate:
        """Ratio of the ways through the samples, smallest batch size over largest."""
        steps = self.largest.batch_size / self.smallest.batch_size
        pairs = zip(self.smallest.norms, self.largest.norms, strict=True)
        return intervals.ratio_of_paired_means((steps * small, large) for small, large in pairs)

    @property
    def beside(self) -> Size:
        """What the largest batch's tail is compared with: batch size 2 as published, else the smallest."""
        return next((s for s in self.sizes[:-1] if s.batch_size == 2), self.smallest)

    @property
    def ratio_of_tails(self) -> Estimate:
        """Ratio of the counts of values at or beyond the mark, largest batch size over `beside`."""
        return intervals.ratio_of_counts(self.largest.beyond, self.beside.beyond)


def gradient_sums_of(study: Study) -> tuple[GradientSums, ...]:
    """Every checkpoint that something was noted about, by seed, the earlier first."""
    found = [_read(data) for data in study.read_note(NOTES).values()]
    return tuple(sorted(found, key=lambda s: (s.seed, s.part == "end", s.epoch)))


def _read(data: Mapping[str, Any]) -> GradientSums:
    named: dict[str, Any] = {name: data[name] for name in ("seed", "part", "epoch", "label")}
    if (why := not_applicable(data)) is not None:
        return GradientSums(**named, reason=why)
    sums = data["sums"]
    sizes = sorted((_size(data, i) for i in range(len(sums["batch_sizes"]))), key=lambda s: s.batch_size)
    known = tuple(s for s in sizes if all(math.isfinite(n) for n in s.norms))
    reason = "" if known and known[-1] is sizes[-1] else "the gradient of the largest batch is no number"
    return GradientSums(
        **named,
        reason=reason,
        layer=sums["layer"],
        samples=sums["samples"],
        lr=sums["lr"],
        wanted=data["wanted"],
        repeats=len(sums["repeats"]),
        processes=data["processes"],
        mark=data["mark"],
        published_mark=data["histograms"][0]["tails"][0]["mark"],
        published_repeats_s=decode(Estimate, data["published_repeats_s"]),
        sizes=known,
        diverged=tuple(s.batch_size for s in sizes if s not in known),
    )


def _size(data: Mapping[str, Any], i: int) -> Size:
    spread, histogram, shape = data["spreads"][i], data["histograms"][i], data["shapes"][i] or {}
    beyond: Sequence[Sequence[int]] = data["beyond"]
    return Size(
        batch_size=spread["batch_size"],
        steps=spread["steps"],
        norm=decode(Estimate, spread["norm"]),
        sd=spread["sd"],
        relative_error=spread["relative_error"],
        rescaled_sd=spread["rescaled_sd"],
        norms=tuple(math.nan if n is None else n for n in data["sums"]["norms"][i]),
        beyond=tuple(row[i] for row in beyond),
        beyond_published=histogram["tails"][0]["count"],
        bins=Bins(
            limit=histogram["limit"],
            counts=tuple(histogram["counts"]),
            below=histogram["below"],
            above=histogram["above"],
            zeros=histogram["zeros"],
        ),
        mode=shape.get("mode"),
        full_width=shape.get("full_width_at_half_maximum"),
    )
