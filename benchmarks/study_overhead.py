"""What a study takes beyond its trainings: short runs on a slow data set with workers, beside the same as plain loops.

    python benchmarks/study_overhead.py            # 10 runs of 3 epochs, three times in turn
    python benchmarks/study_overhead.py --quick    # 4 runs, once

An example takes 2 ms to load, two workers load. The plain loop is what a person writes: a `DataLoader` with the same
workers, kept over the epochs of a training, the same model, optimizer, batch sizes, learning rates, epochs and seeds,
and as many evaluations as the study's runs have. Each is a process of its own, from beginning to end: imports, and in
the study the preflight, the timing of steps, measurements on the training data, the store and the page.

The result, with the ratio of the medians, goes to `benchmarks/results/study_overhead.json`; 1 where it is above 1.5.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from batchscope.store.runs import read_runs
from record import write

MOST = 1.5
EPOCHS, LRS = 3, (0.01, 0.1)

TASK = """
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

X = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))
Y = (X[:, :4].sum(1) > 0).long()
TRAIN = {examples}


class Slow(Dataset):
    def __len__(self):
        return TRAIN

    def __getitem__(self, index):
        time.sleep(0.002)
        return X[index], Y[index]


class Task:
    loader_options = {{"num_workers": 2, "persistent_workers": True}}

    def model(self):
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))

    def train_data(self):
        return Slow()

    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)

    def evaluate(self, model):
        return {{"val_loss": float(F.cross_entropy(model(X[TRAIN:]), Y[TRAIN:]))}}


def task():
    return Task()
"""

PLAIN = """
import itertools
import json
import sys

import torch
from slow import task
from torch.utils.data import DataLoader

EPOCHS = {epochs}
for batch_size, lr, evaluations in json.loads(sys.argv[1]):
    made = task()
    torch.manual_seed(0)
    model = made.model()
    optimizer = made.optimizer(model.parameters(), lr)
    loader = DataLoader(made.train_data(), batch_size, shuffle=True, **made.loader_options)
    steps, step = EPOCHS * len(loader), 0
    due = {{steps * (number + 1) // evaluations for number in range(evaluations)}}
    for batch in itertools.chain.from_iterable(itertools.repeat(loader, EPOCHS)):
        optimizer.zero_grad()
        made.loss(model, batch).backward()
        optimizer.step()
        step += 1
        if step in due:
            model.eval()
            with torch.no_grad():
                made.evaluate(model)
            model.train()
"""

Trained = list[tuple[int, float, int]]
"""Batch size, learning rate and evaluations of each run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Time both in turn; 1 where the study takes more than 1.5 times as long."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(arguments).quick
    sizes, examples, repeats = ((16, 64), 200, 1) if quick else ((8, 16, 32, 64, 128), 500, 3)
    load, studies, plains, trained = os.getloadavg(), list[float](), list[float](), Trained()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "slow.py").write_text(TASK.format(examples=examples), encoding="utf-8")
        (folder / "plain.py").write_text(PLAIN.format(epochs=EPOCHS), encoding="utf-8")
        for number in range(repeats):
            studies.append(_study(folder, sizes, folder / f"out-{number}"))
            trained = _trained(folder / f"out-{number}")
            plains.append(_seconds(folder, "plain.py", json.dumps(trained)))
            print(f"study {studies[-1]:.1f} s, plain loops {plains[-1]:.1f} s", flush=True)
    ratio = median(studies) / median(plains)
    result: dict[str, Any] = {
        "runs": len(trained),
        "examples": examples,
        "study_s": studies,
        "plain_s": plains,
        "ratio": ratio,
        "load_before": load,
        "load_after": os.getloadavg(),
    }
    print(f"{len(trained)} runs: {ratio:.2f} times the plain loops, at most {MOST}")
    if not quick:
        write("study_overhead", result)
    return int(ratio > MOST)


def _study(folder: Path, sizes: Sequence[int], out: Path) -> float:
    words = f"study slow.py --batch-sizes {','.join(map(str, sizes))} --lrs {','.join(map(str, LRS))} --seeds 1"
    return _seconds(folder, "-m", "batchscope", *words.split(), "--epochs", str(EPOCHS), "--out", str(out), "--json")


def _trained(out: Path) -> Trained:
    """What the study trained, and how often each run was evaluated."""
    return [
        (run.config.batch_size, run.config.lr, sum(row["kind"] == "evaluation" for row in run.rows))
        for run in read_runs(out)
    ]


def _seconds(folder: Path, *words: str) -> float:
    """Seconds that Python takes for some words, in a process of its own."""
    began = time.perf_counter()
    how = {"cwd": folder, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "stdout": subprocess.DEVNULL}
    subprocess.run([sys.executable, *words], check=True, **how)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
