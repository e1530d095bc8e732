"""Checkpoint of a run: all that another process needs to go on with it, as `runs/<id>/checkpoint.pt` beside its rows.

It holds the model (buffers that are in no `state_dict` too), the optimizer, and the random generators; the evaluations
are the run's rows, and the position in the stream of examples follows from the step. A run that goes on from there
makes the same steps as one that never stopped, where the model and the optimizer keep all that changes in parameters,
buffers and state, and where workers of a loader draw nothing at random.

A checkpoint belongs to the first so many rows, whose hash it holds; one of other rows is not used. Whatever is wrong
with a checkpoint costs the checkpoint: the run is then made again from its seed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import StoreError
from ..hardware.live_bytes import bytes_of, tensors_in
from ..hardware.random_state import RandomState, preserved_random_state
from ..store.courses import rows_sha256
from ..store.files import open_regular, replaced
from ..store.records import Row, RunConfig, RunStatus
from ..store.runs import StoredRun
from ..tasks.update import Update
from ..tasks.workload import Workload
from .replay import history_of
from .stopping import History

__all__ = ["FILE", "Checkpoint", "Checkpoints", "state_of"]

FILE = "checkpoint.pt"

_FORMAT = 2
_MOST_BYTES = 10**9


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run as it stood at an evaluation.

    Attributes:
        rows: of the run up to there.
        state: what `state_of` made.
    """

    rows: tuple[Row, ...]
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Steps made."""
        return int(self.state["step"])

    @property
    def evaluations(self) -> list[Row]:
        """Rows of the evaluations so far, the one before the first step included."""
        return [row for row in self.rows if row["kind"] == "evaluation"]

    def history(self, config: RunConfig) -> History:
        """The evaluations so far, as a configuration judges them."""
        history = history_of(self.rows, config)
        assert history is not None
        return history

    def fits(self, workload: Workload, config: RunConfig) -> bool:
        """Whether the task's model and optimizer take the state; tried on fresh ones, as they were saved by it."""
        with preserved_random_state(config.seed):
            model = workload.model(config.seed)
            try:
                self.put_into(model, Update(workload, model, config.lr, config.optimizer_changes))
            except ValueError:
                return False
        return True

    def put_into(self, model: nn.Module, update: Update) -> RandomState:
        """Make a fresh model and its update what they were; returns the random state to go on from.

        Raises:
            ValueError: they are of another make.
        """
        try:
            model.load_state_dict(self.state["model"])
            own = dict(model.named_buffers())
            with torch.no_grad():
                for name, value in self.state["buffers"].items():
                    own[name].copy_(value)
            update.load_state(self.state["update"])
        except (KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"the checkpoint does not fit the model: {error}") from error
        return _random_from(self.state["random"])


def state_of(step: int, model: nn.Module, update: Update, random: RandomState) -> dict[str, Any]:
    """State of a training at an evaluation, in types that `torch.load` reads without running code."""
    whole = model.state_dict()
    return {
        "step": step,
        "model": _on_host(whole),
        "buffers": _on_host({name: value for name, value in model.named_buffers() if name not in whole}),
        "update": _on_host(update.state()),
        "random": _random_to(random),
    }


@dataclass(kw_only=True)
class Checkpoints:
    """The checkpoints of a results folder.

    Attributes:
        runs: the folder of the runs.
        keep: whether they are written; what there is is read in any case.
        most_bytes: of all together, beyond which the oldest go; `None`: no limit.
        say: hears, once each, that old ones were removed or that one could not be written.
    """

    runs: Path
    keep: bool = True
    most_bytes: int | None = _MOST_BYTES
    say: Callable[[str], object] = lambda note: None
    _said: set[str] = field(default_factory=set[str])

    def load(self, run: StoredRun) -> Checkpoint | None:
        """The checkpoint of a run; `None` where there is none that can be used."""
        path = self.runs / run.id / FILE
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                held = cast(dict[str, Any], torch.load(file, map_location="cpu", weights_only=True))
            rows, sha256 = int(held["rows"]), held["rows_sha256"]
            if held["format"] != _FORMAT or rows_sha256(path.with_name("rows.jsonl"), rows) != sha256:
                return None
            return Checkpoint(rows=tuple(run.rows[:rows]), state=held["state"])
        except Exception:  # whatever is wrong with the file, the run can be made again from its seed
            return None

    def save(self, run: StoredRun, state: Callable[[], Mapping[str, Any]]) -> None:
        """Keep the state of a run where a later question can go on from it; the disk's refusal is only said.

        Args:
            run: as it was just stored.
            state: makes the state of its training.
        """
        path = self.runs / run.id / FILE
        if not self.keep or not can_go_on(run):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return
        try:
            whole = state()
            size = bytes_of(tensors_in(whole))
            if self.most_bytes is not None and size > self.most_bytes:
                self._once(
                    f"the training state of a run takes {size / 1e9:.3g} GB: no checkpoints are kept, and a run that "
                    "is to go on in another command is made again (--keep-checkpoints keeps them)"
                )
                return
            assert run.result is not None
            held = {"format": _FORMAT, "rows": len(run.rows), "rows_sha256": run.result.rows_sha256, "state": whole}
            with replaced(path) as file:
                torch.save(held, file)
        except (StoreError, RuntimeError, TypeError, AttributeError) as error:
            self._once(f"a checkpoint could not be kept ({' '.join(str(error).split())}); the runs are, and go on")
        self._make_room(path)

    def _make_room(self, newest: Path) -> None:
        """Remove the oldest checkpoints while all of them together take too much."""
        if self.most_bytes is None:
            return
        with contextlib.suppress(OSError):
            kept = sorted(self.runs.glob(f"*/{FILE}"), key=lambda p: (p == newest, p.lstat().st_mtime_ns, p))
            total = sum(path.lstat().st_size for path in kept)
            for path in kept[:-1]:
                if total <= self.most_bytes:
                    return
                total -= path.lstat().st_size
                path.unlink()
                self._once(
                    f"the checkpoints take over {self.most_bytes / 1e9:.3g} GB: the oldest go, and their runs are made "
                    "again when they are to go on (--keep-checkpoints keeps all)"
                )

    def _once(self, note: str) -> None:
        kind = note[:20]
        if kind not in self._said:
            self._said.add(kind)
            self.say(note)


def can_go_on(run: StoredRun) -> bool:
    """Whether any question can ask for more of a finished run: it did not diverge, nor come to its schedule's end."""
    if run.result is None or run.result.status is RunStatus.DIVERGED:
        return False
    return run.config.schedule == "constant" or run.result.steps < run.config.max_steps


def _on_host(value: Any) -> Any:
    """The same with every tensor on the host, apart from what goes on training."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _on_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_host(item) for item in value)
    return value


def _random_to(random: RandomState) -> dict[str, Any]:
    name, keys, *rest = random.numpy_state
    version, words, gauss = random.python_state
    return {
        "torch": random.torch_state,
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *map(float, rest)],
        "python": [int(version), torch.tensor(words, dtype=torch.int64), gauss],
        "cuda": random.cuda_states,
    }


def _random_from(held: Mapping[str, Any]) -> RandomState:
    name, keys, position, has_gauss, cached = held["numpy"]
    version, words, gauss = held["python"]
    return RandomState(
        held["torch"],
        (name, keys.numpy().astype(np.uint32), int(position), int(has_gauss), cached),
        (version, tuple(words.tolist()), gauss),
        held["cuda"],
    )
