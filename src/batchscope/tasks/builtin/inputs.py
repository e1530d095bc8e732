"""Inputs of a data set as a model takes them: what they are taken for, and how they are scaled.

What values mean is told by their range in the training part, never by their type alone: bytes that are 0 or 1 are no
pixels of 255 levels, and pixels are pixels when they are stored as floats or in 16 bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import TaskError
from ...wording import joined, number, plural
from .column_notes import notes_on_columns
from .scaling import Scale, in_chunks, standard_columns

__all__ = ["Inputs", "read_inputs"]

_MOST_CHANNELS = 4
_LEVELS = (1.0, 16.0, 255.0)
"""Largest values of masks, of four-bit pixels and of bytes; above, the next power of two less 1."""
_DIM = 0.1
"""Largest value below which numbers from 0 on are too small to be pixels from 0 to 1."""
_BRIGHT = 64.0
"""Largest value from which on fractions may be pixels up to 255."""
_STANDARD_MEAN, _STANDARD_SD = 1.0, (0.2, 5.0)
"""Mean at most, and standard deviation, of what counts as standardised already."""
_OWN_RANGES = 0.1
"""Share of a table's columns that stay within the least levels, from which on its bytes are no pixels."""
_OTHER_SCALE = 50.0
"""Ratio of the spreads of two parts from which on they are on different scales."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs as a model takes them.

    Attributes:
        values: by part, float32: (examples, numbers) or (examples, channels, height, width).
        notes: what was taken for what.
    """

    values: Mapping[str, NDArray[np.float32]]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Spread:
    """Range and spread of all values of a part."""

    low: float
    high: float
    mean: float
    sd: float
    whole: bool

    def __str__(self) -> str:
        return f"{self.low:.7g} to {self.high:.7g}"


def read_inputs(x: Mapping[str, NDArray[Any]], *, takes_images: bool, scale: Scale, source: str) -> Inputs:
    """Inputs, scaled by the training part.

    Two dimensions are a table, whose columns are standardised, unless they are bytes that share a range above 16: those
    are pixels, like all of more dimensions. Pixels are divided by the number of their levels, left as they are where
    they are in [-1, 1] or standardised already, and else standardised by one mean and standard deviation.

    Args:
        x: by part, one of them `train`; examples first.
        takes_images: whether the model takes (channels, height, width), not one row of numbers.
        scale: `standard` standardises pixels by one mean and standard deviation whatever their range.
        source: what messages call the data.

    Raises:
        TaskError: two parts are on different scales, or a value is too far from the training part for float32.
    """
    train = x["train"]
    if train.ndim == 2 and not _are_pixels(train):
        return _table(x, f"a table of {plural(train.shape[1], 'column')}")
    spread = {part: _spread(v) for part, v in x.items()}
    _refuse_other_range(spread, source)
    if not takes_images and scale == "unit" and spread["train"].sd and not _levels(spread["train"]):
        return _table(x, f"arrays of {' x '.join(map(str, train.shape[1:]))}, each value of them a column")
    offset, divisor, how = _scaling(spread["train"], scale)
    scaled = {part: _scaled(v, offset, divisor) for part, v in x.items()}
    as_images = {part: _channels_first(v) if takes_images else v.reshape(len(v), -1) for part, v in scaled.items()}
    said = f"inputs are taken as {_shape_in_words(train, takes_images)} ({train.dtype}, {spread['train']}), {how}"
    return Inputs(values=as_images, notes=(said,))


def _table(x: Mapping[str, NDArray[Any]], what: str) -> Inputs:
    columns = standard_columns(x)
    said = f"inputs are taken as {what} ({x['train'].dtype}), each standardised"
    notes = (said, *notes_on_columns(x, columns, "x"), *_other_scale(columns.values))
    return Inputs(values=columns.values, notes=notes)


def _are_pixels(table: NDArray[Any]) -> bool:
    """Whether a table holds bytes that share the range of pixels, as those of flattened images do."""
    if table.dtype != np.uint8 or table.max() <= _LEVELS[1]:
        return False
    low, high = table.min(0), table.max(0)
    varying = high > low
    return float(np.mean(high[varying] <= _LEVELS[1])) < _OWN_RANGES if varying.any() else True


def _spread(values: NDArray[Any]) -> _Spread:
    low, high = float(values.min()), float(values.max())
    middle, total, squares, whole = low / 2 + high / 2, 0.0, 0.0, True
    reach = high / 2 - low / 2 or 1.0
    for chunk in in_chunks(values):
        differences = ((chunk.astype(np.float64) - middle) / reach).ravel()
        total, squares = total + float(differences.sum()), squares + float(differences @ differences)
        whole = whole and (values.dtype.kind != "f" or bool((chunk == np.rint(chunk)).all()))
    mean = total / values.size
    sd = reach * math.sqrt(max(0.0, squares / values.size - mean * mean))
    precision = float(np.finfo(values.dtype).eps) if values.dtype.kind == "f" else float(np.finfo(np.float64).eps)
    constant = sd <= 4 * precision * max(abs(low), abs(high))
    return _Spread(low=low, high=high, mean=middle + reach * mean, sd=0.0 if constant else sd, whole=whole)


def _scaling(train: _Spread, scale: Scale) -> tuple[float, float, str]:
    """What is taken off, what the rest is divided by, and both in words."""
    if not train.sd:
        return train.mean, 1.0, "all of one value: set to 0"
    if scale == "standard" or not (levels := _levels(train)):
        said = f"standardised by their mean {train.mean:.7g} and standard deviation {number(train.sd)}"
        return train.mean, train.sd, said
    if levels == 1.0:
        return 0.0, 1.0, "taken as they are"
    return 0.0, levels, f"divided by {levels:.0f}"


def _levels(train: _Spread) -> float:
    """Number that brings pixels to 0..1; 1 where they are on a common scale already, 0 where none is known."""
    if train.low < 0.0:
        low, high = _STANDARD_SD
        within = train.low >= -1.0 and _DIM < max(-train.low, train.high) <= 1.0
        standard = abs(train.mean) <= _STANDARD_MEAN and low <= train.sd <= high
        return 1.0 if within or (standard and not train.whole) else 0.0
    if train.high <= 1.0:
        return 1.0 if train.high > _DIM or train.high == 0.0 else 0.0
    if not train.whole:
        return _LEVELS[-1] if _BRIGHT <= train.high <= _LEVELS[-1] else 0.0
    if train.high > 2.0**16 - 1:
        return 0.0
    return next((most for most in _LEVELS if train.high <= most), 2.0 ** int(train.high).bit_length() - 1)


def _scaled(values: NDArray[Any], offset: float, divisor: float) -> NDArray[np.float32]:
    scaled = np.empty(values.shape, dtype=np.float32)
    start = 0
    for chunk in in_chunks(values):
        scaled[start : start + len(chunk)] = (chunk.astype(np.float64) - offset) / divisor
        start += len(chunk)
    return scaled


def _refuse_other_range(spread: Mapping[str, _Spread], source: str) -> None:
    train = spread["train"]
    for part, other in spread.items():
        if train.sd and other.sd and not 1 / _OTHER_SCALE < other.sd / train.sd < _OTHER_SCALE:
            ranges = [f"x_{name} from {values}" for name, values in spread.items()]
            raise TaskError(
                f"x_{part} in {source} is on another scale than x_train: {joined(ranges)}; bring all parts to one scale"
            )


def _other_scale(x: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Parts of a table of which most columns spread far less, or far more, than those of the training part."""
    said: list[str] = []
    sd = {part: v[:: len(v) // 1000 + 1].astype(np.float64).std(0) for part, v in x.items()}
    for part in x:
        both = (sd["train"] > 0) & (sd[part] > 0)
        ratio = float(np.median(sd[part][both] / sd["train"][both])) if both.any() else 1.0
        if not 1 / _OTHER_SCALE < ratio < _OTHER_SCALE:
            said.append(f"most columns of x_{part} spread {number(ratio)} times as far as in training: another scale?")
    return said


def _shape_in_words(train: NDArray[Any], takes_images: bool) -> str:
    if train.ndim == 2:
        return f"rows of {train.shape[1]} pixels"
    if train.ndim > 4:
        return f"arrays of {' x '.join(map(str, train.shape[1:]))}, flattened"
    if train.ndim == 3:
        channels, height, width = 1, *train.shape[1:]
    elif _channels_last(train):
        height, width, channels = train.shape[1:]
    else:
        channels, height, width = train.shape[1:]
    plane = f"{channels} channel{'s' if channels > 1 else ''}"
    if train.ndim == 4:
        plane += ", which come last" if _channels_last(train) else ", which come first"
    flat = "" if takes_images else ", flattened"
    return f"images of {height} x {width} with {plane}{flat}"


def _channels_last(images: NDArray[Any]) -> bool:
    return images.shape[3] <= _MOST_CHANNELS < images.shape[1]


def _channels_first(images: NDArray[np.float32]) -> NDArray[np.float32]:
    if images.ndim == 3:
        return images[:, None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if _channels_last(images) else images
