"""A search on a task of the user's: what is the user's stays as it was, and every run is made as it says."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from .folders import Cli

OWN = '''
import copy
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

class Own:
    """Keeps a prototype of its own, counts calls, and notes the size of every batch that it trains on."""
    made = []
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(300, 4, generator=generator)
        self.y = (self.x[:, 0] > 0).long()
        self.prototype = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 2)).eval()
        self.prototype.counter = 19
        self.sizes = []
        Own.made.append(self)
    def model(self):
        return copy.deepcopy(self.prototype)
    def train_data(self):
        return TensorDataset(self.x[:200], self.y[:200])
    def loss(self, model, batch):
        if torch.is_grad_enabled():
            assert model.training
            self.sizes.append(len(batch[0]))
        return F.cross_entropy(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model):
        assert not model.training
        return {"val_loss": F.cross_entropy(model(self.x[200:]), self.y[200:])}
'''
OWN_FIND = "find own.py:Own --hardware machine.json --target val_loss<=0.15 --trainings 8 --out out"


def random_state() -> tuple[bytes, bytes, Any]:
    """Of the three generators that a user's code may draw from."""
    torch_state = torch.get_rng_state().numpy().tobytes()
    return torch_state, np.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002


@dataclass(frozen=True)
class Searched:
    """The task above after a search in a folder: its object, and the random states before and after."""

    folder: Path
    task: Any
    before: tuple[bytes, bytes, Any]
    after: tuple[bytes, bytes, Any]

    @property
    def runs(self) -> list[Path]:
        """The folders of the finished runs."""
        return [path.parent for path in self.folder.glob("out/runs/*/result.json")]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, cli_in: Cli, machine: str) -> Searched:
    """One search for the tests that only look at it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    (folder / "machine.json").write_text(machine, encoding="utf-8")
    cli_in(folder, "count --examples 2 --batch-size 1 --epochs 1")  # imports rich, which draws a number then
    before = random_state()
    assert cli_in(folder, OWN_FIND).status == 0
    return Searched(folder, sys.modules["own"].Own.made[-1], before, random_state())


def test_f24_the_callers_random_state_is_left_as_it_was(own: Searched) -> None:
    assert own.after == own.before


@pytest.mark.usefixtures("profile")
@pytest.mark.parametrize("command", ["bench digits --max-batch-size 4 --budget 1s", "noise digits --lr 0.1 --steps 3"])
def test_f24_of_bench_and_noise(cli: Cli, command: str) -> None:
    cli("count --examples 2 --batch-size 1 --epochs 1")
    before = random_state()
    assert cli(command).status == 0
    assert random_state() == before


def test_f25_f26_the_users_model_keeps_its_weights_attributes_and_mode(own: Searched) -> None:
    task = own.task
    assert task.prototype.counter == 19
    assert not any(module.training for module in task.prototype.modules())
    assert all(p.grad is None for p in task.prototype.parameters())


def test_f28_every_run_is_fed_batches_of_its_own_size(own: Searched) -> None:
    """Of all batches since the range test: as many of each size as steps of it were made; smaller ones for noise."""
    expected: Counter[int] = Counter()
    for path in own.runs:
        config, result = (json.loads((path / name).read_text()) for name in ("config.json", "result.json"))
        rows = map(json.loads, (path / "rows.jsonl").read_text().splitlines())
        noise = [row for row in rows if row["kind"] == "noise"]
        for row in noise:
            expected[row["group_size"]] += row["groups"]
        expected[config["micro_batch_size"]] += (result["steps"] - len(noise)) * config["grad_accum_steps"]
    assert len(expected) > 2
    assert Counter(own.task.sizes[-expected.total() :]) == expected


@pytest.mark.usefixtures("profile")
def test_f29_nothing_temporary_is_left_behind(own: Searched, cli: Cli) -> None:
    source = OWN.replace("return F.cross_entropy(model(batch[0]), batch[1])", "return self.stop(model, batch)")
    source += """
    def stop(self, model, batch):
        from pathlib import Path
        if list(Path("broken").glob("runs/*/result.json")):
            raise ValueError("no more")
        return F.cross_entropy(model(batch[0]), batch[1])
"""
    Path("own.py").write_text(source, encoding="utf-8")
    assert cli(OWN_FIND.replace("--out out", "--out broken")).status == 2
    for out in (own.folder / "out", Path("broken")):
        names = {path.name for path in out.rglob("*") if path.is_file()}
        assert "config.json" in names
        assert names <= {
            *(
                "question.json",
                "bench.json",
                "constant-prediction.json",
                "timing.json",
                "rate-range.json",
                "loader.json",
                "plan.json",
                "report.html",
                "lock",
            ),
            *("ends.json", "answer.json", "config.json", "rows.jsonl", "result.json", "checkpoint.pt"),
        }


def test_f30_a_step_that_does_not_fit_is_said_and_its_run_made_anew_in_parts(cli: Cli, profile: Path) -> None:
    """The profile says that all fits; here, half of it does."""
    source = OWN.replace(
        "            assert model.training\n",
        "            assert model.training\n"
        "            if len(batch[0]) > 20:\n"
        "                raise torch.OutOfMemoryError('scripted: no memory for more than 20 examples')\n",
    )
    Path("own.py").write_text(source, encoding="utf-8")
    ended = cli(f"{OWN_FIND} --json --current batch_size=64,lr=0.3")
    assert ended.status == 0, ended.err
    assert "did not fit" in ended.err
    made = [json.loads(path.read_text(encoding="utf-8")) for path in Path("out").glob("runs/*/config.json")]
    finished = [
        json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        for path in Path("out").glob("runs/*/result.json")
    ]
    assert all(config["micro_batch_size"] <= 20 for config in finished)
    assert any(config["batch_size"] == 64 and config["grad_accum_steps"] == 4 for config in finished)
    assert len(made) > len(finished)
    for path in Path("out").glob("runs/*/result.json"):
        rows = [json.loads(line) for line in (path.parent / "rows.jsonl").read_text().splitlines()]
        assert rows[0]["step"] == 0
        assert json.loads(path.read_text(encoding="utf-8"))["steps"] == rows[-1]["step"]


def test_f32_the_chosen_size_is_shown(cli: Cli, own: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own.folder)
    plan = json.loads(Path("out/plan.json").read_text(encoding="utf-8"))
    shown = cli(OWN_FIND).out.splitlines()
    assert any(
        line.split()[:2] == ["batch", "size"] and line.split()[2] == str(plan["recipe"]["batch_size"]) for line in shown
    )
