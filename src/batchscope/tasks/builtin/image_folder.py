"""Reading a folder of images whose sub-folders are the classes. Needs Pillow, which is imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ...errors import TaskError
from .array_file import Arrays, checked
from .validation_split import split_off

__all__ = ["IMAGE_SIDE", "read_image_folder"]

IMAGE_SIDE = 128
"""Pixels in height and width, as Chang and Pathak (2020) had them."""

_ENDINGS = (".png", ".jpg", ".jpeg")
_PARTS = ("train", "val", "test")
_FIFTH = 0.2
_GREY = ("1", "L", "LA")
_NAMED = 5

Listed = Mapping[str, Mapping[str, Sequence[Path]]]


def read_image_folder(folder: Path, size: int) -> Arrays:
    """The images of `CLASS/` or of `train/CLASS/`, `val/CLASS/` and `test/CLASS/`, as bytes of `size` x `size` pixels.

    Classes are numbered in the order of their names. Without a folder `val`, a fifth of the training images is split
    off, in a fixed random order. Images are (N, size, size) where all files are grey, else (N, 3, size, size); an alpha
    channel is dropped. Whatever its shape, an image is stretched to the square, bilinear with antialiasing.

    Args:
        folder: holds the sub-folders; names that begin with a dot or with two underscores are passed over.
        size: height and width of the result.

    Raises:
        TaskError: the folders are not as above, an image cannot be read, or Pillow is not installed.
    """
    listed = _listed(folder)
    classes = {name: label for label, name in enumerate(listed["train"])}
    if len(classes) < 2:
        raise TaskError(f"{folder} has one class to train on, {next(iter(classes))}; at least two are needed")
    labelled = {part: [(f, classes[name]) for name, fs in named.items() for f in fs] for part, named in listed.items()}
    pixels = _pixels([file for part in labelled.values() for file, _ in part], size)
    ends = np.cumsum([len(part) for part in labelled.values()])[:-1]
    data: dict[str, NDArray[np.generic]] = {}
    for part, images in zip(labelled, np.split(pixels, ends), strict=True):
        data |= {f"x_{part}": images, f"y_{part}": np.array([label for _, label in labelled[part]])}
    if "val" not in listed:
        data |= split_off(data["x_train"], data["y_train"], _FIFTH, str(folder))
    return checked(data, folder)


def _listed(folder: Path) -> Listed:
    """The files of each class of each part; without a folder `train` that holds classes, all are of `train`."""
    there = {sub.name: sub for sub in _sub_folders(folder)}
    if "train" not in there or not _sub_folders(there["train"]):
        return {"train": _classes(folder)}
    if strange := [name for name in there if name not in _PARTS]:
        raise TaskError(
            f"{folder} has the sub-folders {', '.join(there)}; beside train only val and test are read: "
            f"rename or move {', '.join(strange)}"
        )
    listed = {part: _classes(there[part]) for part in _PARTS if part in there}
    for part, classes in listed.items():
        if unknown := [name for name in classes if name not in listed["train"]]:
            raise TaskError(
                f"{there[part]} has the class {unknown[0]}, which {there['train']} lacks; "
                f"its classes are {', '.join(listed['train'])}"
            )
    return listed


def _classes(folder: Path) -> dict[str, list[Path]]:
    classes = {sub.name: _images(sub) for sub in _sub_folders(folder)}
    if not any(classes.values()):
        raise TaskError(
            f"{folder} holds {_some_names(folder)}: neither MNIST's IDX files (train-images-idx3-ubyte and so on) nor "
            "images in a sub-folder for each class (CLASS/*.png, .jpg or .jpeg)"
        )
    for name, images in classes.items():
        if not images:
            raise TaskError(
                f"the class folder {folder / name} has no .png, .jpg or .jpeg file; it holds "
                f"{_some_names(folder / name)}: convert them, or move the folder elsewhere"
            )
    return classes


def _sub_folders(folder: Path) -> list[Path]:
    there = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    return sorted(there, key=lambda path: path.name)


def _images(folder: Path) -> list[Path]:
    there = (path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS and not path.name.startswith("."))
    return sorted((path for path in there if path.is_file()), key=lambda path: path.name)


def _some_names(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "") or "nothing"


def _pixels(files: Sequence[Path], size: int) -> NDArray[np.uint8]:
    pillow = _pillow()
    pixels = np.empty((len(files), 3, size, size), dtype=np.uint8)
    all_grey, unreadable = True, list[str]()
    for place, file in enumerate(files):
        try:
            with pillow.open(file) as image:
                if image.mode[0] in "IF":
                    raise ValueError(f"more than 8 bits a channel, mode {image.mode}")
                all_grey = all_grey and image.mode in _GREY
                small = image.convert("RGB").resize((size, size), pillow.Resampling.BILINEAR)
                pixels[place] = np.asarray(small).transpose(2, 0, 1)
        except Exception as error:  # a broken file raises almost anything
            unreadable.append(f"{file} ({' '.join(str(error).split())})")
    if unreadable:
        more = f" and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
        raise TaskError(
            f"{len(unreadable)} of {len(files)} images cannot be read: {', '.join(unreadable[:_NAMED])}{more}; "
            "convert them, or move them out of the folder"
        )
    return pixels[:, 0] if all_grey else pixels


def _pillow() -> ModuleType:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise TaskError(
            f"a folder of images needs Pillow, which is not installed here ({error}): "
            "pip install -c constraints.txt pillow"
        ) from error
