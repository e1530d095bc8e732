"""Reading MNIST and its like from the four IDX files in which they are published.

An IDX file is a magic number (two zero bytes, one for the type, one for the number of dimensions), the length of each
dimension as four bytes, the highest first, then the values (http://yann.lecun.com/exdb/mnist/). Only type 8 is read,
unsigned bytes, which all data sets of this layout have.
"""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import TaskError
from .array_file import Arrays, checked
from .validation_split import SIXTH, split_in_words, split_off

__all__ = ["FILES", "find_idx_folder", "read_idx", "read_idx_folder"]

FILES = {
    "x_train": ("train-images-idx3-ubyte", 3),
    "y_train": ("train-labels-idx1-ubyte", 1),
    "x_test": ("t10k-images-idx3-ubyte", 3),
    "y_test": ("t10k-labels-idx1-ubyte", 1),
}
"""The names of the four files, each also with a dot before `idx` and with `.gz` at its end, and their dimensions."""

_UNSIGNED_BYTES = 0x08


def find_idx_folder(folder: Path) -> Path | None:
    """Find the IDX files: in the folder itself, or in `raw` or `NAME/raw` below it, as torchvision leaves them.

    Returns:
        That folder, or `None` where no file bears one of their names.

    Raises:
        TaskError: several data sets lie in the folder.
    """
    if _files(folder):
        return folder
    found = [raw for raw in (folder / "raw", *sorted(folder.glob("*/raw"))) if _files(raw)]
    if len(found) > 1:
        several = ", ".join(str(raw) for raw in found)
        raise TaskError(f"{folder} holds several data sets; write --set path=ONE of {several}")
    return found[0] if found else None


def read_idx_folder(folder: Path) -> Arrays:
    """The training files, of which a sixth is split off to validate (10,000 of 60,000), and the test files.

    Raises:
        TaskError: one of the four files is missing or is not what its name says, or labels are impossible.
    """
    files = _files(folder)
    if missing := [name for array, (name, _) in FILES.items() if array not in files]:
        there = ", ".join(path.name for path in files.values())
        raise TaskError(f"{folder} has {there}; it lacks {' and '.join(missing)} (each may also end in .gz)")
    data = {array: read_idx(path, FILES[array][1]) for array, path in files.items()}
    parts = split_off(data["x_train"], data["y_train"], SIXTH, str(folder))
    note = f"{folder} is read as MNIST's IDX files: {split_in_words(parts)}"
    return checked({**parts, "x_test": data["x_test"], "y_test": data["y_test"]}, folder, (note,))


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The unsigned bytes of an IDX file, which is decompressed where its name ends in `.gz`.

    Args:
        path: the file.
        dimensions: how many it must have.

    Raises:
        TaskError: it cannot be read, or its magic number or its length is another one.
    """
    content, start = _content(path), 4 + 4 * dimensions
    wanted, magic = _UNSIGNED_BYTES * 256 + dimensions, int.from_bytes(content[:4], "big")
    if len(content) >= 4 and magic != wanted:
        raise TaskError(
            f"{path} begins with {content[:4]!r}, the magic number {magic}; an IDX file of bytes in {dimensions} "
            f"dimension{'s' if dimensions > 1 else ''} begins with {wanted}: download it again, or correct its name"
        )
    if len(content) < start:
        raise TaskError(f"{path} ends within its header, after {len(content)} of {start} bytes; download it again")
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").tolist())
    if len(content) - start != prod(shape):
        raise TaskError(
            f"{path} has {len(content) - start} bytes after its header, which announces {prod(shape)} "
            f"({' x '.join(map(str, shape))}); download it again"
        )
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=start).reshape(shape)


def _files(folder: Path) -> dict[str, Path]:
    """The files that are there, by array; one that is not compressed before its compressed twin."""
    found: dict[str, Path] = {}
    for array, (name, _) in FILES.items():
        names = (f"{variant}{gz}" for gz in ("", ".gz") for variant in (name, name.replace("-idx", ".idx")))
        if there := [folder / each for each in names if (folder / each).is_file()]:
            found[array] = there[0]
    return found


def _content(path: Path) -> bytes:
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path, "rb") as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise TaskError(f"{path} cannot be read ({error}); download it again") from error
