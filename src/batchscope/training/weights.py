"""Weights of a run on disk, beside its rows: `runs/<id>/weights-last.pt`, `weights-best.pt`, `weights-epoch-2.pt`.

Each is a `state_dict` on the CPU for `torch.load`, whole or not there. Its hash stands beside it, in
`sha256-weights-last.json`: a file that is not what was written counts as not kept, and its run is trained again.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from ..errors import StoreError
from ..probes.kept_weights import Keep
from ..store.files import explained, file_sha256, open_regular, read_record, replaced, write_json

__all__ = ["are_whole", "copy_weights", "load_weights", "save_weights", "weights_file"]

_PART = 2**20


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What stands beside a file of weights."""

    sha256: str


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
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _note(path).unlink(missing_ok=True)
    with replaced(path) as file:
        torch.save(host, file)
    write_json(_note(path), _Written(sha256=file_sha256(path)))


def are_whole(path: Path) -> bool:
    """Whether weights are there, and what was written."""
    try:
        return read_record(_note(path), _Written).sha256 == file_sha256(path)
    except StoreError:
        return False


def load_weights(path: Path) -> dict[str, Any]:
    """A `state_dict` that was saved, on the CPU.

    Raises:
        StoreError: it cannot be read.
    """
    with explained(path), os.fdopen(open_regular(path), "rb") as file:
        try:
            return cast(dict[str, Any], torch.load(file, map_location="cpu", weights_only=True))
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            why = " ".join(str(error).split())
            raise StoreError(f"{path} is not whole ({why:.80}); remove it, and its run is trained again") from error


def copy_weights(source: Path, path: Path) -> None:
    """Copy saved weights to a file of the user's, whose folder is made; an old file or a link there is replaced.

    Raises:
        StoreError: it cannot be written, or is not what was saved.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        digest = hashlib.sha256()
        with explained(source), os.fdopen(open_regular(source), "rb") as saved:
            while part := saved.read(_PART):
                digest.update(part)
                file.write(part)
        if digest.hexdigest() != read_record(_note(source), _Written).sha256:
            raise StoreError(f"{source} is not what was written; run the same command again, which trains it again")


def _note(path: Path) -> Path:
    return path.with_name(f"sha256-{path.stem}.json")
