"""The arrays `x_train, y_train, x_val, y_val[, x_test, y_test]`, of an `.npz` or of elsewhere, read and checked."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ...errors import TaskError

__all__ = ["Arrays", "checked", "load_npz", "read_arrays"]

_REQUIRED = ("x_train", "y_train", "x_val", "y_val")


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Inputs and targets by part (`train`, `val`, perhaps `test`).

    Attributes:
        x: inputs, examples first.
        y: int64 labels of shape (examples,), or float32 targets of shape (examples, outputs).
        classes: number of classes; 0 for regression.
    """

    x: Mapping[str, NDArray[np.generic]]
    y: Mapping[str, NDArray[np.generic]]
    classes: int


def load_npz(
    path: Path, *, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, NDArray[np.generic]]:
    """The named arrays of an `.npz` file.

    Raises:
        TaskError: there is no such file, it is no `.npz`, it lacks a required array, or an array holds Python objects.
    """
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*") if p.suffix in (".npz", ".txt"))
        beside = f"; in that folder stand {', '.join(there[:8])}" if there else ""
        raise TaskError(f"there is no file {path}{beside}; write --set path=FILE.npz")
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            if missing := [name for name in required if name not in file.files]:
                raise TaskError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(file.files) or 'no array'}")
            return {name: file[name] for name in (*required, *optional) if name in file.files}
    except (ValueError, TypeError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise TaskError(
            f"{path} cannot be read as an .npz of plain arrays ({error}); write it with numpy.savez_compressed"
        ) from error


def read_arrays(path: Path) -> Arrays:
    """Read and check an `.npz` file of arrays.

    Raises:
        TaskError: an array is missing, of uneven length, not finite, or labels are impossible.
    """
    return checked(load_npz(path, required=_REQUIRED, optional=("x_test", "y_test")), path)


def checked(data: Mapping[str, NDArray[np.generic]], path: Path) -> Arrays:
    """The inputs and targets that these arrays hold.

    Args:
        data: `x_train, y_train, x_val, y_val[, x_test, y_test]`.
        path: what messages call their source.

    Raises:
        TaskError: an array is of uneven length, not finite, or labels are impossible.
    """
    if ("x_test" in data) != ("y_test" in data):
        alone = "x_test" if "x_test" in data else "y_test"
        raise TaskError(f"{path} has {alone} alone; give both of x_test and y_test, or none")
    parts = [part for part in ("train", "val", "test") if f"x_{part}" in data]
    for part in parts:
        x, y = data[f"x_{part}"], data[f"y_{part}"]
        if x.ndim < 2:
            raise TaskError(f"x_{part} in {path} has shape {x.shape}; it needs examples first, then features or pixels")
        if len(x) != len(y):
            raise TaskError(f"x_{part} in {path} has {len(x)} examples, y_{part} has {len(y)}; they must be equal")
        if len(x) == 0:
            raise TaskError(f"x_{part} in {path} has no examples")
        if x.shape[1:] != (shape := data["x_train"].shape[1:]):
            raise TaskError(f"an example in x_{part} of {path} has shape {x.shape[1:]}, in x_train {shape}")
        for name in (f"x_{part}", f"y_{part}"):
            _check_finite(name, data[name], path)
    y = {part: data[f"y_{part}"] for part in parts}
    classes = _classes(y, path) if y["train"].dtype.kind in "iub" else 0
    return Arrays(
        x={part: data[f"x_{part}"] for part in parts},
        y={part: _as_labels(v, part, path) if classes else _as_targets(v) for part, v in y.items()},
        classes=classes,
    )


def _check_finite(name: str, values: NDArray[np.generic], path: Path) -> None:
    if values.dtype.kind not in "fiub":
        raise TaskError(f"{name} in {path} has dtype {values.dtype}; it must hold numbers")
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    bad = ~np.isfinite(values.astype(np.float64))
    first = int(bad.reshape(len(values), -1).any(1).argmax())
    raise TaskError(
        f"{name} in {path} holds {int(bad.sum())} NaN or infinite values of {values.size}, the first in "
        f"example {first}; fill or drop them"
    )


def _classes(y: Mapping[str, NDArray[np.generic]], path: Path) -> int:
    lowest = {part: int(v.min()) for part, v in y.items()}
    highest = {part: int(v.max()) for part, v in y.items()}
    classes = highest["train"] + 1
    for part in y:
        if lowest[part] < 0:
            raise TaskError(f"y_{part} in {path} has labels from {lowest[part]}; classes are numbered from 0")
        if highest[part] >= classes:
            raise TaskError(
                f"y_{part} in {path} has labels up to {highest[part]}, y_train only up to {classes - 1}: "
                f"a model with {classes} classes cannot hold them"
            )
    distinct = len(np.unique(y["train"]))
    if classes > 10 * distinct + 10:
        raise TaskError(
            f"y_train in {path} has {distinct} distinct labels in the range {lowest['train']} to {highest['train']}; "
            f"number the classes 0 to {distinct - 1}, or store y as float for regression"
        )
    return max(2, classes)


def _as_labels(y: NDArray[np.generic], part: str, path: Path) -> NDArray[np.generic]:
    if y.size != len(y):
        raise TaskError(f"integer y_{part} in {path} has shape {y.shape}; one label an example is needed: ({len(y)},)")
    return y.reshape(-1).astype(np.int64)


def _as_targets(y: NDArray[np.generic]) -> NDArray[np.generic]:
    return y.reshape(len(y), -1).astype(np.float32)
