"""Numbers brought to a common scale by the training part alone; they keep their digits until that is done.

Everything is centred in float64, whole numbers of 64 bits exactly, before it becomes float32: a signal of 40 s on a
Unix time of 1.7e9 s is lost to float32, whose neighbours lie 128 s apart there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...errors import TaskError

__all__ = ["Columns", "Scale", "in_chunks", "standard_columns", "standard_pixels"]

Scale = Literal["unit", "standard"]
Floats = NDArray[np.float64]

_CHUNK = 1 << 20
_LOW_BITS = 32
_SAMPLE = 100
_RESIDUE_BITS = 5
_SPACINGS = 8.0
"""Epsilons of the precision, relative to the largest value, that rounding scatters a constant over."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Columns on a common scale.

    Attributes:
        values: by part, (examples, columns), float32.
        mean: of each column in the training part.
        sd: standard deviation of each column in the training part; 0 where it is constant.
        constant: which columns are constant in the training part, up to rounding; they are 0 in every part.
        largest: by part, the largest distance from the mean in each column, in standard deviations.
    """

    values: Mapping[str, NDArray[np.float32]]
    mean: Floats
    sd: Floats
    constant: NDArray[np.bool_]
    largest: Mapping[str, Floats]


def standard_columns(values: Mapping[str, NDArray[np.generic]], name: str = "x") -> Columns:
    """Columns minus mean over standard deviation, both of the training part; a constant column becomes 0 everywhere.

    A column is constant where its values differ by no more than rounding does: by 8 epsilon relative to the largest (of
    float32 where it holds all the values, whatever they are stored as); or where they are what is left of numbers of
    order 1 that cancel, small multiples of a tiny power of two. Whole numbers are exact as far as their type counts.

    Args:
        values: by part, one of them `train`; examples first, what follows is taken as columns.
        name: of the array without its part, for messages.

    Raises:
        TaskError: a value lies too far from the training part for float32.

    Cost: three passes; what is needed beyond the result is a megabyte or so.

    Example:
        >>> seconds = {"train": np.array([[1.7e9], [1.7e9 + 40]]), "val": np.array([[1.7e9 + 80]])}
        >>> standard_columns(seconds).values["val"].tolist()
        [[3.0]]
    """
    flat = {part: v.reshape(len(v), -1) for part, v in values.items()}
    train = flat["train"]
    origin = _typical(train)
    mean, low, high = _mean_and_ends(train, origin)
    reach = np.maximum(high - mean, mean - low)
    scale = np.where(reach > 0, reach, 1.0)
    squares = sum((((_minus(c, origin) - mean) / scale) ** 2).sum(0) for c in in_chunks(train))
    sd = scale * np.sqrt(squares / len(train))
    constant = (high - low <= _rounding(train)) | (sd == 0)
    scaled = {part: np.empty(v.shape, dtype=np.float32) for part, v in flat.items()}
    largest = {part: np.zeros(train.shape[1]) for part in flat}
    divisor = np.where(constant, 1.0, sd)
    for part, v in flat.items():
        start = 0
        for chunk in in_chunks(v):
            with np.errstate(over="ignore"):
                z = np.where(constant, 0.0, (_minus(chunk, origin) - mean) / divisor)
            _refuse_far(z, start, f"{name}_{part}")
            largest[part] = np.maximum(largest[part], np.abs(z).max(0))
            scaled[part][start : start + len(chunk)] = z
            start += len(chunk)
    return Columns(
        values=scaled,
        mean=origin[0].astype(np.float64) + mean,
        sd=np.where(constant, 0.0, sd),
        constant=constant,
        largest=largest,
    )


def standard_pixels(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pixels minus mean over standard deviation, in place; one of each, over all pixels of the training part.

    For MNIST they are 0.1307 and 0.3081, with which Shen (2018) scaled. Images that are all alike become 0.

    Example:
        >>> import torch
        >>> standard_pixels({"train": torch.tensor([[0.0, 2.0]]), "val": torch.tensor([[3.0, 1.0]])})
        {'train': tensor([[-1.,  1.]]), 'val': tensor([[2., 0.]])}
    """
    mean, sd = float(parts["train"].mean()), float(parts["train"].std(correction=0)) or 1.0
    return {part: values.sub_(mean).div_(sd) for part, values in parts.items()}


def in_chunks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Consecutive examples, about a million values at a time."""
    step = max(1, _CHUNK // max(1, values[:1].size))
    for start in range(0, len(values), step):
        yield values[start : start + step]


def _mean_and_ends(train: NDArray[Any], origin: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Mean, minimum and maximum of each column, as differences from `origin`."""
    total, low, high = (np.full(train.shape[1], start) for start in (0.0, np.inf, -np.inf))
    for chunk in in_chunks(train):
        differences = _minus(chunk, origin)
        total += differences.sum(0)
        low, high = np.minimum(low, differences.min(0)), np.maximum(high, differences.max(0))
    return total / len(train), low, high


def _minus(values: NDArray[Any], origin: NDArray[Any]) -> Floats:
    """Differences in float64; of whole numbers they are exact before they are rounded once."""
    if values.dtype.kind == origin.dtype.kind and values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        high, low = ((half(values) - half(origin)) for half in (_high, _low))
        return high * 2.0**_LOW_BITS + low
    return values.astype(np.float64) - origin.astype(np.float64)


def _high(values: NDArray[Any]) -> Floats:
    return (values >> values.dtype.type(_LOW_BITS)).astype(np.float64)


def _low(values: NDArray[Any]) -> Floats:
    return (values & values.dtype.type(2**_LOW_BITS - 1)).astype(np.float64)


def _typical(train: NDArray[Any]) -> NDArray[Any]:
    """One value of each column, near its median: an outlier as the origin would cost the others their digits."""
    sample = np.sort(train[:: len(train) // _SAMPLE + 1], axis=0)
    return sample[len(sample) // 2 :][:1]


def _rounding(train: NDArray[Any]) -> Floats:
    """Spread of each column that rounding alone explains; 0 for whole numbers that are held exactly."""
    if train.dtype.kind != "f":
        return np.zeros(train.shape[1])
    largest = np.maximum(train.max(0), -train.min(0)).astype(np.float64)
    precision = np.where(_held_in_float32(train), np.finfo(np.float32).eps, np.finfo(train.dtype).eps)
    precision = np.maximum(precision, float(np.finfo(train.dtype).eps) if train.dtype.itemsize < 8 else 0.0)
    precision = precision.astype(np.float64)
    double = precision < np.finfo(np.float32).eps
    whole = np.ones(train.shape[1], dtype=bool)
    for chunk in in_chunks(train):
        whole &= (chunk == np.rint(chunk)).all(0)
    exact = whole & (largest <= 2 / float(np.finfo(train.dtype).eps))
    residue = ~exact & (largest < np.where(double, 2.0**12, 2.0**4) * precision) & _few_bits(train, largest)
    allowed = _SPACINGS * precision * largest
    return np.where(exact, 0.0, np.where(residue, np.inf, allowed))


def _held_in_float32(train: NDArray[Any]) -> NDArray[np.bool_]:
    """Which columns hold nothing that float32 does not: they have been through it, whatever they are stored as."""
    held = np.ones(train.shape[1], dtype=bool)
    for chunk in in_chunks(train):
        with np.errstate(over="ignore", under="ignore"):
            held &= (chunk.astype(np.float32).astype(chunk.dtype) == chunk).all(0)
    return held


def _few_bits(train: NDArray[Any], largest: Floats) -> NDArray[np.bool_]:
    """Which columns hold small multiples of one power of two: what is left of numbers that cancel."""
    exponent = np.frexp(np.where(largest > 0, largest, 1.0))[1]
    few = np.ones(train.shape[1], dtype=bool)
    for chunk in in_chunks(train):
        multiples = np.ldexp(chunk.astype(np.float64), _RESIDUE_BITS - exponent)
        few &= (multiples == np.rint(multiples)).all(0)
    return few & (largest > 0)


def _refuse_far(z: Floats, start: int, name: str) -> None:
    far = np.abs(z) > float(np.finfo(np.float32).max)
    if far.any() or np.isnan(z).any():
        row, column = np.argwhere(far | np.isnan(z))[0]
        raise TaskError(
            f"{name}, example {start + row}, column {column} lies too far from the training part, {z[row, column]:.1e} "
            "of its standard deviations; correct it, or drop the example"
        )
