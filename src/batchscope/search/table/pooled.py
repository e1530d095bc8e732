"""Large tables: neighbouring batch sizes and learning rates are pooled, so that the fit costs as much as a small one.

A run counts at the batch size of its pool with the examples that it read until the target, which hardly change within a
quarter of an octave; the steps follow from them. Learning rates that are within a tenth count as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...wording import plural
from .measurement import Measurement, Table

__all__ = ["pooled"]

_MOST_SIZES, _MOST_PAIRS = 40, 120
_OCTAVE, _LR_FACTOR = 0.25, 1.1


def pooled(table: Table) -> Table:
    """The table, its batch sizes and learning rates pooled where there are more than a fit can tell apart.

    Cost: linear in the rows; a table of up to 40 batch sizes and 120 pairs with learning rates stays as it is.
    """
    notes: list[str] = []
    sizes = {row.batch_size for row in table.rows}
    rows = table.rows
    if len(sizes) > _MOST_SIZES:
        to = {b: max(1, round(x)) for b, x in _pools(sizes, lambda b: math.log2(b) / _OCTAVE).items()}
        rows = tuple(_at(row, to[row.batch_size], in_steps=table.unit == "steps") for row in rows)
        notes.append(
            f"{plural(len(sizes), 'batch size')} were pooled into {len(set(to.values()))}, each with its neighbours "
            "within a quarter of an octave"
        )
    pairs = {(row.batch_size, row.lr) for row in rows}
    if len(pairs) > _MOST_PAIRS:
        lrs = {row.lr for row in rows if row.lr is not None}
        to_lr = _pools(lrs, lambda lr: math.log(lr) / math.log(_LR_FACTOR))
        rows = tuple(row if row.lr is None else replace(row, lr=float(f"{to_lr[row.lr]:.3g}")) for row in rows)
        notes.append(f"{plural(len(lrs), 'learning rate')} were pooled into {len(set(to_lr.values()))}, within a tenth")
    return replace(table, rows=rows, notes=(*table.notes, *notes)) if notes else table


def _pools(values: Iterable[float], place: Callable[[float], float]) -> Mapping[float, float]:
    """For each value the geometric mean of those in its bin."""
    bins: dict[int, list[float]] = {}
    for value in sorted(values):
        bins.setdefault(math.floor(place(value) + 0.5), []).append(value)
    return {value: mean for own in bins.values() for mean in [_mean(own)] for value in own}


def _mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _at(row: Measurement, size: int, *, in_steps: bool) -> Measurement:
    """A row at another batch size, with the examples that it had."""
    factor = row.batch_size / size if in_steps else 1.0
    reached, length = (None if x is None else x * factor for x in (row.to_target, row.length))
    return replace(row, batch_size=size, to_target=reached, length=length)
