"""Limits of memory: `ulimit -v`, `ulimit -d`, `--memory-limit`; deaths in a measurement or a run; leaks.

A search under 1.5 times what it takes with small batches ends with an answer in micro-batches below the limit. What
killed a process is not tried again in the same way: the next command begins below, or ends with a message. A leak is
named after the second death, or when it meets a limit. Control groups need rights that a benchmark cannot take for
granted: they are read from files in the tests.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fault_kinds.case import Ended, Fault, Seen, finished_runs, lost_of, run

__all__ = ["faults"]

_TASK = '''
import os
import torch
from torch import nn
from torch.utils.data import TensorDataset

KEPT = []

class Held(torch.autograd.Function):
    """Holds so many numbers an example until the backward pass."""

    @staticmethod
    def forward(ctx, h, numbers):
        ctx.save_for_backward(torch.empty(len(h), numbers))
        return h.clone()

    @staticmethod
    def backward(ctx, grad):
        ctx.saved_tensors
        return grad, None

class Net(nn.Module):
    def __init__(self, numbers):
        super().__init__()
        self.numbers, self.first = numbers, nn.Linear(8, 1)

    def forward(self, x):
        return Held.apply(self.first(x), self.numbers if torch.is_grad_enabled() else 1)

class Task:
    def __init__(self, mib: float = 0, wall: int = 0, leak: int = 0, at: str = "step", dies: int = 0):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(640, 8, generator=generator)
        self.y = (self.x[:, :1] + 0.5 * torch.randn(640, 1, generator=generator) > 0).float()
        self.numbers, self.wall, self.leak, self.at, self.dies = int(mib * 2**18), wall, leak, at, dies

    def model(self):
        return Net(self.numbers)

    def train_data(self):
        return TensorDataset(self.x[:512], self.y[:512])

    def loss(self, model, batch):
        if self.wall and len(batch[0]) >= self.wall:
            os.kill(os.getpid(), 9)
        return nn.functional.binary_cross_entropy_with_logits(model(batch[0]), batch[1])

    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)

    def grow(self, at):
        if at == self.at and self.leak:
            KEPT.append(torch.ones(self.leak * 2**18))
            if self.dies and len(KEPT) * self.leak >= self.dies:
                os.kill(os.getpid(), 9)

    def before_update(self, model):
        self.grow("step")

    @torch.no_grad()
    def evaluate(self, model):
        self.grow("evaluation")
        x, y = self.x[512:], self.y[512:]
        return {"val_loss": float(nn.functional.binary_cross_entropy_with_logits(model(x), y))}
'''
_FIND = ("find", "limits.py:Task", "--target", "val_loss<=0.55", "--out", "out", "--json")
_STUDY = ("study", "limits.py:Task", "--batch-sizes", "32", "--lrs", "0.01", "--seeds", "1", "--out", "out", "--json")
_PEAK = """
import sys
from pathlib import Path
from batchscope.cli.commands import main
try:
    main(sys.argv[1:])
finally:
    rows = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("Vm")}
    beside = rows["VmPeak"] - rows["VmSize"]
    Path("peak").write_text(f"{rows['VmPeak']} {rows['VmData'] + beside}")
"""


def faults(quick: bool) -> Iterator[Fault]:
    """Deaths and leaks; without `quick` real limits too."""
    yield Fault(what="killed by steps of 100 examples", tried=partial(_wall, 100))
    yield Fault(what="killed after 1,500 MiB of a leak a step, twice", tried=partial(_leak_that_kills, "step"))
    if quick:
        return
    for wall in (2, 10, 40, 300):
        yield Fault(what=f"killed by steps of {wall} examples", tried=partial(_wall, wall))
    yield Fault(
        what="killed after 300 MiB of a leak an evaluation, twice", tried=partial(_leak_that_kills, "evaluation")
    )
    for option, place in (("-v", 0), ("-d", 1)):
        yield Fault(what=f"ulimit {option}: 1.5 times what small batches take", tried=partial(_limited, option, place))
        yield Fault(what=f"ulimit {option}: a leak a step", tried=partial(_leak_at_a_limit, option, place))
    yield Fault(what="--memory-limit of 1.5 times a small batch", tried=_memory_limit)


def _task(folder: Path) -> None:
    (folder / "limits.py").write_text(_TASK)


def _answer(ended: Ended) -> dict[str, Any]:
    try:
        return json.loads(ended.stdout)
    except ValueError:
        return {}


def _in_memory(ended: Ended, below: int) -> Seen:
    """Whether a search came to an answer in micro-batches below a wall."""
    answer = _answer(ended)
    recipe = answer.get("recipe") or {}
    largest = answer.get("measured", {}).get("largest_micro_batch_size") or {}
    held = ended.status in (0, 3) and bool(recipe) and recipe["micro_batch_size"] < below and largest["value"] < below
    micro = recipe.get("micro_batch_size")
    return Seen(held=held, said=f"status {ended.status}, micro-batch {micro} of at most {largest.get('value')}")


def _wall(size: int, folder: Path) -> Seen:
    _task(folder)
    words = (*_FIND, "--set", f"wall={size}", "--budget", "60s")
    first = run(words, folder)
    before = finished_runs(folder / "out")
    second = run(words, folder)
    if size == 2:  # nothing is left to begin with
        message = _answer(second).get("message", "")
        return Seen(held=first.status == -9 and second.status == 2 and "deaths.json" in message, said=message)
    seen = _in_memory(second, size)
    lost = lost_of(before, finished_runs(folder / "out"))
    return Seen(held=first.status == -9 and seen.held, lost=lost, said=f"after {first.status}: {seen.said}")


def _leak_that_kills(at: str, folder: Path) -> Seen:
    _task(folder)
    each, dies = (3, "dies=1500") if at == "step" else (10, "dies=300")
    words = (*_STUDY, "--steps", "4000", "--budget", "100s", "--set", f"leak={each}", "--set", f"at={at}")
    statuses = [run((*words, "--set", dies), folder).status for _ in range(2)]
    third = run((*words, "--set", dies), folder)
    return _named(third, each, at, f"after {statuses}", held=statuses == [-9, -9])


def _named(ended: Ended, each: int, at: str, before: str = "", *, held: bool = True) -> Seen:
    """Whether a command ended with the name of a leak, its size within a tenth."""
    message = str(_answer(ended).get("message", ""))
    found = re.search(r"memory grew by ([\d.]+) MiB an? (\w+)", message)
    right = found is not None and found[2] == at and abs(float(found[1]) / each - 1) < 0.1
    said = f"{before} {found[0] if found else message[:200]}".strip()
    return Seen(held=held and ended.status == 2 and right, said=f"{said}, {each} MiB are right")


def _peaks(folder: Path) -> list[int]:
    """Address space and data, in KiB, of a search that is held to micro-batches of 4."""
    _task(folder)
    small = folder / "small"
    small.mkdir()
    _task(small)
    (small / "peak.py").write_text(_PEAK)
    words = (*_FIND, "--set", "mib=4", "--max-batch-size", "4", "--budget", "10s")
    # `-m batchscope` and its words are what `run` appends: the program before them takes the words alone
    run(words, small, before=("bash", "-c", 'shift 3; exec "$0" peak.py "$@"', sys.executable))
    return [int(word) for word in (small / "peak").read_text().split()]


def _under(option: str, kib: int) -> tuple[str, ...]:
    return ("bash", "-c", f'ulimit {option} {kib} && exec "$@"', "bash")


def _limited(option: str, place: int, folder: Path) -> Seen:
    kib = int(1.5 * _peaks(folder)[place])
    words = (*_FIND, "--set", "mib=4", "--budget", "60s")
    return _in_memory(run(words, folder, before=_under(option, kib)), kib // 4096)


def _leak_at_a_limit(option: str, place: int, folder: Path) -> Seen:
    kib = int(1.5 * _peaks(folder)[place])
    words = (*_STUDY, "--steps", "4000", "--budget", "100s", "--set", "leak=3")
    return _named(run(words, folder, before=_under(option, kib)), 3, "step")


def _memory_limit(folder: Path) -> Seen:
    _task(folder)
    words = (*_FIND, "--set", "mib=4", "--budget", "60s", "--memory-limit", f"{6 * 8}MiB")
    return _in_memory(run(words, folder), 12)
