"""Rows that are there several times, and times of a step that contradict each other."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...errors import TableError
from ...wording import duration, plural, times

__all__ = ["copies_of", "step_times_of"]

_SHOWN = 3
_NOTED, _REFUSED = 2.0, 10.0
"""Factor between times of one batch size from which they are named, and between their quartiles, refused."""
_NOTED_ACROSS, _REFUSED_ACROSS = 3.0, 100.0
"""The same for two batch sizes, beyond what the batch sizes explain."""


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Rows whose every cell is that of an earlier row.

    Attributes:
        rows: their indices.
        of: the earlier row of each.
    """

    rows: tuple[int, ...]
    of: tuple[int, ...]

    def said(self, lines: Sequence[int], what: Literal["counted once", "repeats"]) -> str:
        """What to say of them, with the first lines."""
        shown = [
            f"line {lines[i]} of line {lines[j]}" for i, j in zip(self.rows[:_SHOWN], self.of[:_SHOWN], strict=True)
        ]
        more = f", and {len(self.rows) - _SHOWN:,} more" if len(self.rows) > _SHOWN else ""
        several = len(self.rows) > 1
        copies = f"{plural(len(self.rows), 'row')} {'are exact copies' if several else 'is an exact copy'}"
        seen = f"{copies} of {'others' if several else 'another'} ({', '.join(shown)}{more})"
        if what == "counted once":
            return f"{seen} and counted once; if they are runs of their own, give them a column seed"
        return f"{seen}, and no column tells runs apart: taken as repeats; if they are not, remove them"


def copies_of(digests: Sequence[int]) -> Copies:
    """Copies among rows; `digests` are equal where all cells are.

    >>> copies_of([5, 7, 5, 5])
    Copies(rows=(2, 3), of=(0, 0))
    """
    first: dict[int, int] = {}
    found = [(i, j) for i, digest in enumerate(digests) if (j := first.setdefault(digest, i)) != i]
    return Copies(rows=tuple(i for i, _ in found), of=tuple(j for _, j in found))


def step_times_of(
    name: str, seconds: Mapping[int, Sequence[tuple[float, int]]]
) -> tuple[tuple[tuple[int, float], ...], tuple[str, ...]]:
    """Median time of a step at each batch size, and what to say of times that contradict each other.

    Args:
        name: of the file.
        seconds: of a step, each with its line, by batch size.

    Returns:
        Batch sizes with seconds, ascending; notes.

    Raises:
        TableError: at a batch size the middle half of the times spans a factor of 10, or two batch sizes differ by 100
            times what a step can grow or shrink by.
    """
    found = sorted((size, sorted(own)) for size, own in seconds.items())
    medians = tuple((size, statistics.median(s for s, _ in own)) for size, own in found)
    return medians, (*_within(name, dict(found), dict(medians)), *_across(name, dict(found), medians))


def _within(
    name: str, seconds: Mapping[int, Sequence[tuple[float, int]]], medians: Mapping[int, float]
) -> tuple[str, ...]:
    """Note on the batch size whose times differ most; refused where no typical one is left."""
    spans: dict[int, float] = {}
    for size, own in seconds.items():
        low, high = own[(len(own) - 1) // 4], own[math.ceil(3 * (len(own) - 1) / 4)]
        if high[0] >= _REFUSED * low[0]:
            raise TableError(
                f"{name}: times of a step at batch size {size} contradict each other: {duration(low[0])} in line "
                f"{low[1]} and {duration(high[0])} in line {high[1]}, {times(high[0] / low[0])} as long; write all in "
                "seconds, and measure each batch size on the same machine"
            )
        spans[size] = own[-1][0] / own[0][0]
    apart = [size for size, span in spans.items() if span >= _NOTED]
    if not apart:
        return ()
    worst = max(apart, key=lambda size: spans[size])
    (low, first), (high, last) = seconds[worst][0], seconds[worst][-1]
    most = f"at {plural(len(apart), 'batch size')} times of a step differ by a factor of 2 or more, most at {worst}"
    return (
        f"{most}: {duration(low)} in line {first} and {duration(high)} in line {last}; the median, "
        f"{duration(medians[worst])}, counts",
    )


def _across(
    name: str, seconds: Mapping[int, Sequence[tuple[float, int]]], medians: Sequence[tuple[int, float]]
) -> tuple[str, ...]:
    """Note on the two neighbouring batch sizes whose times go together least; refused where they cannot at all."""
    if len(medians) < 2:
        return ()
    sizes, logs = np.log(np.array(medians, dtype=float)).T
    rise, larger = np.diff(logs), np.diff(sizes)
    beyond = np.maximum(-rise, rise - larger)
    worst = int(beyond.argmax())
    factor = math.exp(float(beyond[worst]))
    if factor < _NOTED_ACROSS:
        return ()
    (size, low), (other, high) = medians[worst], medians[worst + 1]
    seen = (
        f"a step takes {duration(low)} at batch size {size} (line {seconds[size][0][1]}) and {duration(high)} at "
        f"{other} (line {seconds[other][0][1]})"
    )
    grows = "less with a larger batch" if rise[worst] < 0 else f"{times(math.exp(float(rise[worst])))} as long"
    if factor >= _REFUSED_ACROSS:
        raise TableError(
            f"{name}: times of a step contradict each other: {seen}; write all in seconds, and measure them on one "
            "machine"
        )
    return (f"{seen}: {grows}, which no single machine explains; check that both were measured alike",)
