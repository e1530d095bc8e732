"""Notes on columns whose spread is not what it seems: constant, set by one value, or elsewhere outside training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...wording import number, plural
from .scaling import Columns

__all__ = ["notes_on_columns"]

_NAMED = 5
_SAMPLE = 1000
_SQUEEZED = 1e-3
"""Middle half of a column, in standard deviations, below which single values set its scale."""
_SAME = 1e-6
"""Relative distance from a constant up to which another part has it too."""
_FAR = 100.0
"""Standard deviations from the training part's mean from which on a value is said."""


def notes_on_columns(values: Mapping[str, NDArray[Any]], columns: Columns, name: str) -> tuple[str, ...]:
    """Sentences on constant columns, on columns that an outlier scales, and on parts far from the training part.

    Args:
        values: by part, as they were before they were scaled.
        columns: as they were scaled.
        name: of the array without its part.

    Cost: sorts at most 1,000 examples.
    """
    flat = {part: v.reshape(len(v), -1) for part, v in values.items()}
    said = [_constant(flat, columns, name), _outliers(flat["train"], columns, name)]
    said += [_far(flat[part], columns, part, name) for part in flat if part != "train"]
    return tuple(filter(None, said))


def _constant(flat: Mapping[str, NDArray[Any]], columns: Columns, name: str) -> str:
    there = np.flatnonzero(columns.constant)
    if not there.size:
        return ""
    verb = "is" if len(there) == 1 else "are"
    varies = [f"{name}_{part}" for part, v in flat.items() if _differs(v[:, there], flat["train"][:, there])]
    other = f", though not in {' and '.join(varies)}" if varies else ""
    return f"{_columns(there)} of {name} {verb} constant in training, up to rounding{other}, and set to 0"


def _differs(values: NDArray[Any], train: NDArray[Any]) -> bool:
    """Whether columns that are constant in training, up to rounding, are something else here."""
    if train.dtype.kind != "f":
        return bool((values != train[0]).any())
    slack = np.ptp(train, axis=0) + _SAME * np.abs(train[0])
    return bool((np.abs(values - train[0]) > slack).any())


def _outliers(train: NDArray[Any], columns: Columns, name: str) -> str:
    sample = train[:: len(train) // _SAMPLE + 1].astype(np.float64) - columns.mean
    low, middle, high = np.quantile(sample, (0.25, 0.5, 0.75), axis=0)
    squeezed = ~columns.constant & (high > low) & (high - low < _SQUEEZED * columns.sd)
    if not squeezed.any():
        return ""
    there = np.flatnonzero(squeezed)
    column = there[0]
    example = int(np.abs(train[:, column].astype(np.float64) - columns.mean[column] - middle[column]).argmax())
    value = float(train[example, column])
    median = float(middle[column] + columns.mean[column])
    return (
        f"a few far values set the scale of {_columns(there)} of {name} (training example {example}: {value:.3g}, the "
        f"median is {number(median)}), next to which the rest hardly differs: clip or drop them"
    )


def _far(values: NDArray[Any], columns: Columns, part: str, name: str) -> str:
    largest = columns.largest[part]
    column = int(largest.argmax())
    if largest[column] < _FAR:
        return ""
    example = int(np.abs(values[:, column].astype(np.float64) - columns.mean[column]).argmax())
    return (
        f"{name}_{part} lies up to {number(float(largest[column]))} standard deviations from the training part ("
        f"example {example}, column {column}: {float(values[example, column]):.3g})"
    )


def _columns(there: Sequence[int] | NDArray[np.intp]) -> str:
    named = ", ".join(map(str, there[:_NAMED]))
    if len(there) == 1:
        return f"column {named}"
    return f"{plural(len(there), 'column')} ({named}{', ...' if len(there) > _NAMED else ''})"
