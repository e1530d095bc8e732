"""Budgets of 1 s to 60 s over what is slow: examples, evaluations, steps, the start of loader workers.

The task writes its longest step and evaluation into a file, and the time from its loading to the end. A
budget holds where the command ends within it, a tenth of it or the longest step or evaluation, whichever is longer,
counted from that moment, and where no answer rests on a run of fewer steps than a handful.

Each command has `SLACK_S` besides, whatever its budget, and what its process waited for a processor that other programs
had (`/proc/self/schedstat`), so that a busy machine judges as an idle one. What is slow sleeps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from batchscope.store.runs import read_runs

from .case import Fault, Seen, begin, end

__all__ = ["SLACK_S", "faults"]

SLACK_S = 2.0
"""Seconds for plan and page."""
_HANDFUL = 5
_LIMIT_S = 180.0

_TASK = """
import atexit, json, time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

HERE = Path(__file__).parent
LONGEST = {"step": 0.0, "evaluation": 0.0}


def waited():
    # seconds that this process waited for a processor that others had
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def write():
    (HERE / "longest.json").write_text(json.dumps(LONGEST))


class Points(Dataset):
    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 512

    def __getitem__(self, index):
        time.sleep(self.seconds)
        x = torch.randn(8, generator=torch.Generator().manual_seed(index))
        return x, (x.sum() > 0).long()


class Slow:
    def __init__(self, example_s, evaluation_s, step_s, workers):
        self.example_s, self.evaluation_s, self.step_s = example_s, evaluation_s, step_s
        self.last = None
        if workers:
            self.loader_options = {"num_workers": workers}

    def model(self):
        self.last = None
        return nn.Linear(8, 2)

    def train_data(self):
        return Points(self.example_s)

    def loss(self, model, batch):
        began = time.monotonic()
        time.sleep(self.step_s)
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        now = time.monotonic()
        waited = 0.0 if self.last is None else began - self.last
        if now - began + waited > LONGEST["step"]:
            LONGEST["step"] = now - began + waited
            write()
        self.last = now
        return loss

    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)

    def evaluate(self, model):
        began = time.monotonic()
        time.sleep(self.evaluation_s)
        x = torch.randn(256, 8, generator=torch.Generator().manual_seed(10**6))
        loss = nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long())
        self.last = None
        if time.monotonic() - began > LONGEST["evaluation"]:
            LONGEST["evaluation"] = time.monotonic() - began
            write()
        return {"val_loss": float(loss)}


def task(example_s: float = 0.0, evaluation_s: float = 0.0, step_s: float = 0.0, workers: int = 0):
    began, before = time.monotonic(), waited()

    def ends():
        clock = {"seconds": time.monotonic() - began, "waited": waited() - before}
        (HERE / "clock.json").write_text(json.dumps(clock))

    atexit.register(ends)
    return Slow(example_s, evaluation_s, step_s, workers)
"""

_COMMANDS = {
    "find": (),
    "study": ("--batch-sizes", "8,64", "--lrs", "0.1,0.5", "--epochs", "3"),
    "claims": (),
    "bench": (),
    "noise": (),
}
_SLOW = {
    "examples": ("example_s=0.004",),
    "evaluations": ("evaluation_s=0.8",),
    "steps": ("step_s=0.15",),
    "workers": ("example_s=0.004", "workers=4"),
}


@dataclass(frozen=True, kw_only=True)
class _Case:
    command: str
    slow: str
    budget_s: int


def faults(quick: bool) -> Iterator[Fault]:
    """Each command with each thing that is slow, at several budgets; with `quick` a search and a noise run."""
    for case in _cases(quick):
        what = f"{case.command} --budget {case.budget_s}s with slow {case.slow}"
        yield Fault(what=what, tried=partial(_tried, case))


def _cases(quick: bool) -> Iterator[_Case]:
    if quick:
        yield _Case(command="find", slow="evaluations", budget_s=3)
        yield _Case(command="find", slow="workers", budget_s=3)
        yield _Case(command="noise", slow="steps", budget_s=3)
        return
    for budget_s in (1, 3, 10, 30, 60):
        for command in _COMMANDS:
            for slow in _SLOW if budget_s <= 10 else ("examples", "workers"):
                yield _Case(command=command, slow=slow, budget_s=budget_s)


def _tried(case: _Case, folder: Path) -> Seen:
    (folder / "slow.py").write_text(_TASK)
    words = [case.command, "slow.py:task", "--budget", f"{case.budget_s}s", "--out", "out", *_COMMANDS[case.command]]
    settings = [word for setting in _SLOW[case.slow] for word in ("--set", setting)]
    ended = end(begin([*words, *settings], folder), folder, _LIMIT_S)
    if ended.status not in (0, 3):
        return Seen(held=False, said=f"status {ended.status}: {ended.stderr.strip().splitlines()[-1:]}")
    clock, longest = (_read(folder / name) for name in ("clock.json", "longest.json"))
    took_s = clock["seconds"]
    allowed_s = case.budget_s + max(0.1 * case.budget_s, *longest.values(), 0.0) + SLACK_S + clock["waited"]
    said = f"{took_s:.1f} s of {allowed_s:.1f} s, status {ended.status}"
    few = case.command == "find" and ended.status == 0 and _longest_run(folder / "out") < _HANDFUL
    return Seen(held=took_s <= allowed_s and not few, said=f"{said}, on too few steps" if few else said)


def _read(path: Path) -> dict[str, float]:
    return json.loads(path.read_text()) if path.exists() else {}


def _longest_run(out: Path) -> int:
    """Steps of the longest finished run."""
    return max((run.result.steps for run in read_runs(out) if run.result is not None), default=0)
