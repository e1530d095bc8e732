"""The trained model of a run: kept with the run, and given to whoever asked for it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..probes.noise_scale import probes_of
from ..store.files import explained
from ..store.runs import StoredRun
from ..tasks.workload import Workload
from .loop import Training
from .stopping import StepLimitRule

__all__ = ["hand_over", "keep"]

_NAME = "model.pt"


def keep(model: nn.Module, folder: Path) -> None:
    """Write the model's `state_dict` into the folder of its run, whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    state = {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in _state(model)}
    _write(lambda temporary: torch.save(state, temporary), folder / _NAME)


def _state(model: nn.Module) -> Iterable[tuple[str, Any]]:
    return model.state_dict().items()


def hand_over(run: StoredRun, folder: Path, path: Path, workload: Workload) -> None:
    """Put the trained model of a run at `path`, a `state_dict` for `torch.load`.

    Args:
        run: a finished one; its model is that of its best evaluation, which is the last one where it had a target.
        folder: of the run.
        path: where to; an old file there is replaced.
        workload: to train the run again up to there where its model was not kept: it follows from its configuration.

    Raises:
        StoreError: it cannot be written.
    """
    kept, result = folder / _NAME, run.result
    if not kept.exists() and result is not None:
        training = Training(workload, run.config, probes=probes_of(run.config))
        training.advance([StepLimitRule(steps=result.best_step)])
        keep(training.model, folder)
    _write(lambda temporary: shutil.copyfile(kept, temporary), path)


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
