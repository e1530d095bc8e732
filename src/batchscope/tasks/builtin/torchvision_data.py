"""Reading a data set of torchvision, downloaded where it is not yet there."""

from __future__ import annotations

import importlib
import sys
from contextlib import redirect_stdout
from inspect import isclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TaskError
from ..settings import near_miss
from .array_file import Arrays, checked
from .validation_split import SIXTH, split_in_words, split_off

__all__ = ["PREFIX", "ROOT", "read_torchvision"]

PREFIX = "torchvision:"
"""What a path begins with that names a data set of torchvision."""

ROOT = "batchscope-data"
"""The folder, under the current one, into which data are downloaded."""

_INSTEAD = (
    "or give --set path= a folder with MNIST's IDX files, a folder of images in class sub-folders, or an .npz file"
)


def read_torchvision(name: str) -> Arrays:
    """Read `torchvision.datasets.NAME`: its training set, of which a sixth is split off to validate, and its test set.

    Args:
        name: of a class that is called with `train=True` and `train=False` and has `data` and `targets`: MNIST, KMNIST,
            FashionMNIST, CIFAR10, CIFAR100.

    Raises:
        TaskError: torchvision cannot be imported, has no such data set, or does not get it; or it has another form.
    """
    make = _data_set(name)
    (x_train, y_train), (x_test, y_test) = (_arrays(make, name, train=train) for train in (True, False))
    parts = split_off(x_train, y_train, SIXTH, f"{PREFIX}{name}")
    note = f"{PREFIX}{name} has no validation part: {split_in_words(parts)}"
    return checked({**parts, "x_test": x_test, "y_test": y_test}, Path(f"{PREFIX}{name}"), (note,))


def _data_set(name: str) -> Any:
    try:
        datasets = importlib.import_module("torchvision").datasets
    except Exception as error:  # a build for another torch raises RuntimeError, OSError or ImportError
        if isinstance(error, ModuleNotFoundError) and error.name == "torchvision":
            why = f"is not installed here ({error}): pip install -c constraints.txt torchvision"
        else:
            why = f"cannot be imported here ({_said(error)}): install the build that belongs to this torch"
        raise TaskError(f"path={PREFIX}{name} needs torchvision, which {why}, {_INSTEAD}") from error
    make = getattr(datasets, name, None)
    if not isclass(make):
        known = [key for key, value in vars(datasets).items() if isclass(value)]
        raise TaskError(
            f"torchvision.datasets has no {name!r}{near_miss(name, known)}; write for example path={PREFIX}MNIST, "
            f"{_INSTEAD}"
        )
    return make


def _arrays(make: Any, name: str, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
    try:
        with redirect_stdout(sys.stderr):  # stdout is for the one answer of a command
            part = make(root=ROOT, train=train, download=True)
        return np.asarray(part.data), np.asarray(part.targets)
    except (TypeError, AttributeError) as error:
        raise TaskError(
            f"torchvision.datasets.{name} is not, like MNIST, a training set and a test set with `data` and `targets` "
            f"({_said(error)}); use another one, {_INSTEAD}"
        ) from error
    except Exception as error:  # whatever a download and its unpacking may raise
        raise TaskError(
            f"torchvision.datasets.{name} could not be loaded into {ROOT} ({_said(error)}); look at the network, "
            f"{_INSTEAD}"
        ) from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
