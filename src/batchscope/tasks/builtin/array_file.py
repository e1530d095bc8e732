"""The arrays `x_train, y_train, x_val, y_val[, x_test, y_test]`, of an `.npz` or of elsewhere, read and checked."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ...errors import TaskError
from ...wording import joined, plural
from .array_names import PARTS, found_names, renamed_in_words
from .validation_split import FIFTH, split_in_words, split_off

__all__ = ["Arrays", "checked", "load_npz", "read_arrays"]

_REQUIRED = ("x_train", "y_train", "x_val", "y_val")
_NAMED = 5
_NUMBERS = "fiub"
_INSTEAD = {
    ".csv": "read its columns, for example by numpy.genfromtxt or pandas, and write them",
    ".tsv": "read its columns, for example by numpy.genfromtxt or pandas, and write them",
    ".npy": "load it with numpy.load, and write inputs and targets",
    ".parquet": "read its columns with pandas, and write them",
    ".pt": "load it with torch.load, and write its tensors as arrays",
    ".pth": "load it with torch.load, and write its tensors as arrays",
    ".zip": "unpack it; a folder of images is read as it is, and arrays are written",
    ".gz": "unpack it; a folder of images is read as it is, and arrays are written",
}
"""What to do with files of other kinds, by their ending."""


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Inputs and targets by part (`train`, `val`, perhaps `test`), as they are stored.

    Attributes:
        x: inputs, examples first.
        y: targets, examples first.
        source: what messages call the data.
        labels: where targets that are texts come from, in words.
        notes: what was taken for what.
    """

    x: Mapping[str, NDArray[np.generic]]
    y: Mapping[str, NDArray[np.generic]]
    source: str
    labels: str = "y holds texts"
    notes: tuple[str, ...] = ()


def load_npz(path: Path, choose: Callable[[Sequence[str]], Mapping[str, str]]) -> dict[str, NDArray[np.generic]]:
    """Arrays of an `.npz` file.

    Args:
        path: the file.
        choose: from the names in the file to those to read, by what the result calls them.

    Raises:
        TaskError: there is no such file, it is no `.npz`, or an array holds Python objects; or as `choose` raises.
    """
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*") if p.suffix in (".npz", ".txt"))
        beside = f"; in that folder stand {', '.join(there[:8])}" if there else ""
        raise TaskError(f"there is no file {path}{beside}; write --set path=FILE.npz")
    name = ""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            read: dict[str, NDArray[np.generic]] = {}
            for meaning, name in choose(file.files).items():
                read[meaning] = file[name]
            return read
    except (ValueError, TypeError, OSError, EOFError, BadZipFile, zlib.error) as error:
        if name and "Object arrays" in str(error):
            raise TaskError(
                f"{name} in {path} holds Python objects; give it one type before it is written: {name}.astype(float) "
                f"for numbers, {name}.astype(str) for names of classes"
            ) from error
        how = _INSTEAD.get(path.suffix.lower(), "write it")
        raise TaskError(
            f"{path} cannot be read as an .npz of plain arrays ({error}); {how} with numpy.savez_compressed(FILE, x=x, "
            "y=y), or x_train, y_train, x_val, y_val"
        ) from error


def read_arrays(path: Path) -> Arrays:
    """Read and check an `.npz` file of arrays.

    Where they have other names, those are taken that are likely meant (`train_images`, `X_valid`, `labels`); where
    there is no validation part, a fifth of the training part is split off.

    Raises:
        TaskError: an array is missing, of uneven length, not finite, or holds no numbers.
    """
    there: list[str] = []
    found: dict[str, str] = {}

    def choose(names: Sequence[str]) -> Mapping[str, str]:
        there.extend(names)
        found.update(_wanted(names, path))
        return found

    data, notes = load_npz(path, choose), [renamed_in_words(found)]
    others = [name for name in there if name not in found.values()]
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        notes.append(f"{plural(len(others), 'array')} of {path.name} passed over: {', '.join(others[:_NAMED])}{more}")
    if "x" in data:
        data |= {"x_train": data.pop("x"), "y_train": data.pop("y")}
    if "x_val" not in data:
        _check_pair(data["x_train"], data["y_train"], "train", str(path))
        data |= split_off(data["x_train"], data["y_train"], FIFTH, str(path))
        notes.append(f"{path.name} has no validation part: {split_in_words(data)}")
    return checked(data, path, tuple(filter(None, notes)))


def checked(data: Mapping[str, NDArray[np.generic]], path: Path, notes: tuple[str, ...] = ()) -> Arrays:
    """The inputs and targets that these arrays hold.

    Args:
        data: `x_train, y_train, x_val, y_val[, x_test, y_test]`.
        path: what messages call their source.
        notes: what was taken for what so far.

    Raises:
        TaskError: an array is of uneven length, not finite, or holds no numbers.
    """
    if ("x_test" in data) != ("y_test" in data):
        alone = "x_test" if "x_test" in data else "y_test"
        raise TaskError(f"{path} has {alone} alone; give both of x_test and y_test, or none")
    parts = [part for part in PARTS if f"x_{part}" in data]
    for part in parts:
        x, y = data[f"x_{part}"], data[f"y_{part}"]
        _check_pair(x, y, part, str(path))
        if x.shape[1:] != (shape := data["x_train"].shape[1:]):
            raise TaskError(f"an example in x_{part} of {path} has shape {x.shape[1:]}, in x_train {shape}")
        _check_numbers(f"x_{part}", x, path)
        if y.dtype.kind not in "US":
            _check_numbers(f"y_{part}", y, path)
    return Arrays(
        x={part: data[f"x_{part}"] for part in parts},
        y={part: data[f"y_{part}"] for part in parts},
        source=str(path),
        notes=notes,
    )


def _wanted(names: Sequence[str], path: Path) -> dict[str, str]:
    """What to read, by its meaning."""
    found = found_names(names, str(path))
    holds = f"it holds {', '.join(names) or 'no array'}"
    if not any(name in found for name in _REQUIRED) and {"x", "y"} <= set(found):
        return {name: found[name] for name in ("x", "y")}
    needed = _REQUIRED if {"x_val", "y_val"} & set(found) else _REQUIRED[:2]
    if missing := [name for name in needed if name not in found]:
        lacks = _REQUIRED if not any(name in found for name in _REQUIRED) else missing
        raise TaskError(f"{path} lacks {', '.join(lacks)}; {holds}")
    return {name: found[name] for name in (*needed, "x_test", "y_test") if name in found}


def _check_pair(x: NDArray[np.generic], y: NDArray[np.generic], part: str, source: str) -> None:
    if x.ndim < 2:
        line = f"; for one feature an example, store x_{part}[:, None]" if x.ndim else ""
        raise TaskError(
            f"x_{part} in {source} has shape {x.shape}; it needs examples first, then features or pixels{line}"
        )
    if not y.ndim:
        raise TaskError(f"y_{part} in {source} is a single value; it needs one target for each of {len(x)} examples")
    if len(x) != len(y):
        raise TaskError(f"x_{part} in {source} has {len(x)} examples, y_{part} has {len(y)}; they must be equal")
    if len(x) == 0:
        raise TaskError(f"x_{part} in {source} has no examples")
    for name, values in {"x": x, "y": y}.items():
        if not values.size:
            raise TaskError(f"{name}_{part} in {source} has shape {values.shape}, which holds no value")


def _check_numbers(name: str, values: NDArray[np.generic], path: Path) -> None:
    if values.dtype.kind not in _NUMBERS:
        raise TaskError(f"{name} in {path} has dtype {values.dtype}; it must hold numbers{_as_numbers(name, values)}")
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    bad = ~np.isfinite(values.astype(np.float64)).reshape(len(values), -1)
    columns = np.flatnonzero(bad.any(0))
    few = ", ".join(map(str, columns[:_NAMED])) + (f" and {len(columns) - _NAMED} more" * (len(columns) > _NAMED))
    where = f", in column{'s' if len(columns) > 1 else ''} {few} of {bad.shape[1]}" if values.ndim == 2 else ""
    empty = [str(column) for column in columns if bad[:, column].all()] if values.ndim == 2 else []
    whole = f"; drop column {joined(empty[:_NAMED])}, which holds nothing else" if empty else "; fill or drop them"
    raise TaskError(
        f"{name} in {path} holds {int(bad.sum())} NaN or infinite values of {values.size}, the first in "
        f"example {int(bad.any(1).argmax())}{where}{whole}"
    )


def _as_numbers(name: str, values: NDArray[np.generic]) -> str:
    """What to write in place of an array of another type."""
    if values.dtype.kind == "M":
        return f": seconds are {name}.astype('datetime64[s]').astype('int64')"
    if values.dtype.kind == "m":
        return f": seconds are {name} / numpy.timedelta64(1, 's')"
    if values.dtype.kind == "c":
        return f": its parts are {name}.real and {name}.imag"
    return f": where they are numbers written as text, {name}.astype(float)" if values.dtype.kind in "US" else ""
