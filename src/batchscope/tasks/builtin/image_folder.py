"""Reading a folder of images whose sub-folders are the classes. Needs Pillow, which is imported when it is used."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import TaskError
from ...wording import plural
from .array_file import Arrays, checked
from .image_layout import read_layout
from .validation_split import FIFTH, split_in_words, split_off

__all__ = ["IMAGE_SIDE", "read_image_folder"]

IMAGE_SIDE = 128
"""Pixels in height and width, as Chang and Pathak (2020) had them."""

_ENDINGS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)
_GREY = ("1", "L", "LA")
_NAMED = 5
_MOST_IN_16_BITS = 2**16 - 1
_BYTES_IN_16_BITS = _MOST_IN_16_BITS // 255


def read_image_folder(folder: Path, size: int) -> Arrays:
    """The images of `CLASS/` or of `train/CLASS/`, `val/CLASS/` and `test/CLASS/`, as `size` x `size` pixels.

    Classes are numbered in the order of their names. Without a folder `val`, a fifth of the training images is split
    off, in a fixed random order. Images are (N, size, size) where all files are grey, else (N, 3, size, size), bytes
    unless a file has 16 bits a channel; an alpha channel is dropped, of several frames the first is read. Whatever its
    shape, an image is stretched to the square, bilinear with antialiasing.

    Args:
        folder: holds the sub-folders; `image_layout` says which are read.
        size: height and width of the result.

    Raises:
        TaskError: the folders are not as above, an image cannot be read, or Pillow is not installed.
    """
    pillow = _pillow()
    layout = read_layout(folder, _readable(pillow))
    listed = layout.files
    if len(listed["train"]) < 2:
        raise TaskError(f"{folder} has one class to train on, {next(iter(listed['train']))}; at least two are needed")
    labelled = {part: [(f, name) for name, fs in named.items() for f in fs] for part, named in listed.items()}
    reader = _Reader(pillow, size)
    pixels = reader.read([file for part in labelled.values() for file, _ in part])
    ends = np.cumsum([len(part) for part in labelled.values()])[:-1]
    data: dict[str, NDArray[np.generic]] = {}
    for part, images in zip(labelled, np.split(pixels, ends), strict=True):
        data |= {f"x_{part}": images, f"y_{part}": np.array([name for _, name in labelled[part]])}
    notes = [*layout.notes, *reader.notes()]
    if "val" not in listed:
        data |= split_off(data["x_train"], data["y_train"], FIFTH, str(folder))
        notes.append(f"there is no folder val: {split_in_words(data)}")
    return replace(checked(data, folder, tuple(notes)), labels="each sub-folder is a class")


class _Reader:
    """Reader of image files into one array; it remembers what it had to decide.

    Args:
        pillow: the module `PIL.Image`.
        size: height and width of what is read.
    """

    def __init__(self, pillow: ModuleType, size: int) -> None:
        self._pillow, self._size = pillow, size
        self._shapes = Counter[tuple[int, int]]()
        self._deep, self._moving, self._grey = 0, 0, True

    def read(self, files: Sequence[Path]) -> NDArray[Any]:
        """Pixels, (files, size, size) where all files are grey, else (files, 3, size, size).

        Raises:
            TaskError: files cannot be read; all are counted, the first named.
        """
        pixels: NDArray[Any] = np.empty((len(files), 3, self._size, self._size), dtype=np.uint8)
        unreadable: list[str] = []
        for place, file in enumerate(files):
            try:
                one = self._one(file)
            except Exception as error:  # a broken file raises almost anything
                unreadable.append(f"{file} ({' '.join(str(error).split())})")
                continue
            if one.dtype == np.uint16 and pixels.dtype == np.uint8:
                pixels = pixels.astype(np.uint16) * np.uint16(_BYTES_IN_16_BITS)
            elif one.dtype == np.uint8 and pixels.dtype == np.uint16:
                one = one.astype(np.uint16) * np.uint16(_BYTES_IN_16_BITS)
            pixels[place] = one
        if unreadable:
            more = f" and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
            raise TaskError(
                f"{len(unreadable)} of {len(files)} images cannot be read: {', '.join(unreadable[:_NAMED])}{more}; "
                "convert them, or move them out of the folder"
            )
        return pixels[:, 0] if self._grey else pixels

    def notes(self) -> list[str]:
        """What was decided: sizes, bits and frames."""
        read = sum(self._shapes.values())
        width, height = self._shapes.most_common(1)[0][0]
        several = f" and {plural(len(self._shapes) - 1, 'other size')}" if len(self._shapes) > 1 else ""
        said: list[str] = []
        if set(self._shapes) != {(self._size, self._size)}:
            said.append(
                f"{plural(read, 'image')} of {height} x {width}{several} stretched to {self._size} x {self._size}"
            )
        if self._deep:
            said.append(f"{plural(self._deep, 'image')} of {read} with 16 bits a channel, which are kept")
        if self._moving:
            said.append(f"{plural(self._moving, 'image')} of several frames, of which the first is read")
        return said

    def _one(self, file: Path) -> NDArray[Any]:
        """Pixels of a file, (3, size, size) or, of a grey one of 16 bits, (size, size); bytes or uint16."""
        square, bilinear = (self._size, self._size), self._pillow.Resampling.BILINEAR
        with self._pillow.open(file) as image:
            self._moving += bool(getattr(image, "is_animated", False))
            if image.mode == "F":
                raise ValueError("floating-point pixels; store the images in an .npz file")
            if image.mode.startswith("I"):
                exact = image.convert("F")
                low, high = exact.getextrema()
                if low < 0 or high > _MOST_IN_16_BITS:
                    raise ValueError(f"more than 16 bits a channel, {low:.0f} to {high:.0f}")
                pixels = np.rint(np.asarray(exact.resize(square, bilinear))).astype(np.uint16)
                self._deep += 1
            else:
                self._grey = self._grey and image.mode in _GREY
                pixels = np.asarray(image.convert("RGB").resize(square, bilinear)).transpose(2, 0, 1)
            self._shapes[image.size] += 1
            return pixels


def _readable(pillow: ModuleType) -> frozenset[str]:
    """Endings of images that this Pillow reads."""
    known = pillow.registered_extensions()
    return frozenset(ending for ending in _ENDINGS if known.get(ending) in pillow.OPEN)


def _pillow() -> ModuleType:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise TaskError(
            f"a folder of images needs Pillow, which is not installed here ({error}): "
            "pip install -c constraints.txt pillow"
        ) from error
