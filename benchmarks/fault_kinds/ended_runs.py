"""Commands whose runs end in each way, with and without loader workers: nothing alive, nothing kept.

The command runs inside a process whose cyclic garbage collector is off, and which goes on after it: then no child may
be alive, and no model that the task made. A model that a reference cycle held would be.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .case import Fault, Seen, processes_of

__all__ = ["faults"]

_LIMIT_S = 150.0

_TASK = '''
import os
import time
import weakref

import torch
from models_made import MADE
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

MAIN, CALLS = os.getpid(), {}
X = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
Y = X[:, :1] * X[:, 1:2]
torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)  # torch imports a part of itself here, and keeps that frame


def late(what, number):
    """Whether this is a late call of its kind, when runs are under way."""
    CALLS[what] = CALLS.get(what, 0) + 1
    return CALLS[what] > number


class Data(Dataset):
    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 256

    def __getitem__(self, index):
        if self.how == "example" and (os.getpid() != MAIN or len(MADE) > 8) and late("example", 100):
            raise OSError("no such image")
        if self.how == "slow":
            time.sleep(0.01)
        return X[index], Y[index]


class Task:
    def __init__(self, how, workers):
        self.how, self.loader_options = how, {"num_workers": workers}

    def model(self):
        model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        MADE.append(weakref.ref(model))
        return model

    def train_data(self):
        return Data(self.how)

    def loss(self, model, batch):
        if torch.is_grad_enabled() and len(MADE) > 8:
            if self.how == "loss" and late("loss", 30):
                raise OSError("no such row")
            if self.how == "interrupted" and late("loss", 30):
                raise KeyboardInterrupt
        return F.mse_loss(model(batch[0]), batch[1])

    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)

    def evaluate(self, model):
        if self.how == "evaluate" and len(MADE) > 8 and late("evaluate", 4):
            raise OSError("no such file")
        return {"val_loss": float(F.mse_loss(model(X[256:]), Y[256:]))}


def task(how: str = "ends", workers: int = 0):
    return Task(how, workers)
'''

_COMMAND = """
import gc
import json
import sys
from pathlib import Path

gc.disable()
from models_made import MADE

from batchscope.cli.commands import main

try:
    main(sys.argv[1:])
except SystemExit as ended:
    status = ended.code
own = Path("/proc/self").resolve().name
stats = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
seen = {
    "status": status,
    "made": len(MADE),
    "models": sum(model() is not None for model in MADE),
    "children": sum(stat[1] == own and stat[0] != "Z" for stat in stats),
}
Path("seen.json").write_text(json.dumps(seen))
"""

_STUDY = "study watched.py --batch-sizes 8,32 --lrs {lr} --seeds 1 --epochs 2 --out out"
_FIND = "find watched.py --target val_loss<=0.5 --max-batch-size 32 --budget 25s --out out"


@dataclass(frozen=True, kw_only=True)
class _Way:
    """A way to end: what the task does, the command, and the statuses that it may end with."""

    what: str
    how: str
    words: str
    statuses: tuple[int, ...]


_WAYS = (
    _Way(what="end", how="ends", words=_STUDY.format(lr="0.05"), statuses=(0,)),
    _Way(what="raise in __getitem__", how="example", words=_STUDY.format(lr="0.05"), statuses=(2,)),
    _Way(what="are cut by the budget", how="slow", words=f"{_STUDY.format(lr='0.05')} --budget 4s", statuses=(3,)),
    _Way(what="diverge", how="ends", words=_STUDY.format(lr="1e6"), statuses=(0, 3)),
    _Way(what="raise in loss", how="loss", words=_STUDY.format(lr="0.05"), statuses=(2,)),
    _Way(what="raise in evaluate", how="evaluate", words=_STUDY.format(lr="0.05"), statuses=(2,)),
    _Way(what="are interrupted", how="interrupted", words=_STUDY.format(lr="0.05"), statuses=(130,)),
    _Way(what="are paused and let go", how="ends", words=_FIND, statuses=(0, 3)),
)
_QUICK = 3


def faults(quick: bool) -> Iterator[Fault]:
    """Each way to end, without workers and with two; a few of them, with workers, where it is to be quick."""
    for workers in (2,) if quick else (0, 2):
        for way in _WAYS[:_QUICK] if quick else _WAYS:
            what = f"runs that {way.what}, {workers or 'no'} workers"
            yield Fault(what=what, tried=partial(_tried, way, workers))


def _tried(way: _Way, workers: int, folder: Path) -> Seen:
    (folder / "watched.py").write_text(_TASK, encoding="utf-8")
    (folder / "models_made.py").write_text("MADE = []\n", encoding="utf-8")
    (folder / "command.py").write_text(_COMMAND, encoding="utf-8")
    words = [*way.words.split(), "--set", f"how={way.how}", "--set", f"workers={workers}"]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "command.py", *words], cwd=folder, stdout=said, stderr=said, start_new_session=True
        )
        status = process.wait(_LIMIT_S)
    left = processes_of(process.pid)
    path = folder / "seen.json"
    if status or not path.exists():
        return Seen(held=False, said=f"status {status}: {(folder / 'said').read_text(errors='replace')[-200:]}")
    seen = json.loads(path.read_text())
    held = seen["status"] in way.statuses and not seen["models"] and not seen["children"] and not left
    return Seen(held=held and seen["made"] > 0, said="" if held else f"{seen}, {len(left)} processes afterwards")
