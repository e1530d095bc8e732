"""Commands that faults are tried on: a small task whose examples take time to load, with and without loader workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscope.store.runs import read_runs

from .case import Ended, run

__all__ = ["COMMANDS", "Command", "finished_rows", "lost_rows", "prepare"]

TASK = """
import time
import torch
from torch import nn

def numbers(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=generator)
    return x, x.sum(1, keepdim=True)

class Slow(torch.utils.data.Dataset):
    def __init__(self):
        self.x, self.y = numbers(256, 0)
    def __len__(self):
        return len(self.x)
    def __getitem__(self, i):
        time.sleep(0.0003)
        return self.x[i], self.y[i]

class Task:
    def __init__(self, workers: int = 0):
        self.loader_options = {"num_workers": workers}
    def model(self):
        return nn.Linear(8, 1)
    def train_data(self):
        return Slow()
    def loss(self, model, batch):
        return ((model(batch[0]) - batch[1]) ** 2).mean()
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr)
    def evaluate(self, model):
        x, y = numbers(100, 1)
        return {"val_loss": float(((model(x) - y) ** 2).mean())}
"""
MACHINE = {"name": "machine", "step_time_s": [[size, 1e-3 * (1 + size / 64)] for size in (1, 8, 64, 512)]}
"""Fixed step times: the same runs and the same plan on any machine."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command on the task, with so many loader workers."""

    words: tuple[str, ...]
    workers: int

    @property
    def name(self) -> str:
        return f"{self.words[0]} with {self.workers} workers" if self.workers else self.words[0]

    @property
    def line(self) -> list[str]:
        return [self.words[0], "task.py:Task", *self.words[1:], "--set", f"workers={self.workers}", "--out", "out"]

    def undisturbed(self, folder: Path) -> Ended:
        """How the command ends here where nothing disturbs it; carried out in the first call."""
        if self not in _undisturbed:
            beside = folder / "undisturbed"
            beside.mkdir()
            prepare(beside)
            _undisturbed[self] = run([*self.line, "--json"], beside, limit_s=600.0)
        return _undisturbed[self]


_undisturbed: dict[Command, Ended] = {}
_WORDS = {
    "find": ("--target", "val_loss<=0.05", "--trainings", "0.5", "--budget", "60s", "--hardware", "machine.json"),
    "study": ("--batch-sizes", "32,128", "--lrs", "0.03,0.1", "--seeds", "2", "--epochs", "12", "--budget", "60s"),
    "claims": ("--budget", "15s"),
    "bench": ("--budget", "4s"),
}
COMMANDS = {
    (name, workers): Command(words=(name, *words), workers=workers)
    for name, words in _WORDS.items()
    for workers in (0, 2)
}


def prepare(folder: Path) -> None:
    """Write the task and the machine that the commands name."""
    (folder / "task.py").write_text(TASK)
    (folder / "machine.json").write_text(json.dumps(MACHINE))


def finished_rows(out: Path) -> dict[str, Sequence[Any]]:
    """Rows of the finished runs of a results folder; one that is paused is not finished."""
    if not (out / "runs").is_dir():
        return {}
    done = [run for run in read_runs(out) if run.result is not None and run.result.status != "paused"]
    return {run.id: tuple(run.rows) for run in done}


def lost_rows(before: dict[str, Sequence[Any]], after: dict[str, Sequence[Any]]) -> int:
    """How many finished runs are gone, or were made again: one that goes on keeps its rows, times and all."""
    return sum(tuple(after.get(name, ()))[: len(rows)] != tuple(rows) for name, rows in before.items())
