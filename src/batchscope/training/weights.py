"""Weights of a run on disk, beside its rows: `runs/<id>/weights-last.pt`, `weights-best.pt`, `weights-epoch-2.pt`.

Each is a `state_dict` on the CPU for `torch.load`, whole or not there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from ..probes.kept_weights import Keep
from ..store.files import explained

__all__ = ["copy_weights", "load_weights", "save_weights", "weights_file"]


def weights_file(folder: Path, when: Keep) -> Path:
    """Where the weights of a moment stand in the folder of their run.

    >>> weights_file(Path("run"), 2.0).name
    'weights-epoch-2.pt'
    """
    return folder / f"weights-{when if isinstance(when, str) else f'epoch-{when:g}'}.pt"


def save_weights(state: Mapping[str, Any], path: Path) -> None:
    """Write a `state_dict`.

    Raises:
        StoreError: it cannot be written.
    """
    host = {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in state.items()}
    _write(lambda temporary: torch.save(host, temporary), path)


def load_weights(path: Path) -> dict[str, Any]:
    """A `state_dict` that was saved, on the CPU.

    Raises:
        StoreError: it cannot be read.
    """
    with explained(path):
        return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))


def copy_weights(source: Path, path: Path) -> None:
    """Copy saved weights to a file of the user's, whose folder is made; an old file there is replaced.

    Raises:
        StoreError: it cannot be written.
    """
    _write(lambda temporary: shutil.copyfile(source, temporary), path)


def _write(write: Callable[[Path], object], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
