"""`batchscope claims` on a small task of the user's own: the contract, resumption, the page, the budget, bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscope.laboratory.claims.statements import statements

Cli = Callable[..., Any]

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset


def parts(n, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=draw)
    return x, ((x[:, 0] * x[:, 1] + 0.3 * torch.randn(n, generator=draw)) > 0).long()


class Task:
    def model(self):
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))

    def train_data(self):
        return TensorDataset(*parts(96, 0))

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr, momentum=0.9)

    def evaluate(self, model):
        found = {}
        for name, seed in (("val", 1), ("test", 2)):
            x, y = parts(64, seed)
            out = model(x)
            found[f"{name}_loss"] = float(nn.functional.cross_entropy(out, y))
            found[f"{name}_accuracy"] = float((out.argmax(1) == y).float().mean())
        return found


def task():
    return Task()


class Normalised(Task):
    def model(self):
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

    def train_data(self):
        return TensorDataset(*parts(40, 0))


def normalised():
    return Normalised()
"""
COMMAND = "claims small.py:task --batch-sizes 4,32 --lrs 0.03,0.3 --seeds 2 --epochs 2 --out out"
VERDICTS = {"held", "not held", "depends", "undecided", "not testable"}


@pytest.fixture
def small(cli: Cli) -> Cli:
    Path("small.py").write_text(TASK, encoding="utf-8")
    return cli


def test_every_statement_has_its_verdict_and_nothing_is_made_twice(small: Cli) -> None:
    ended = small(f"{COMMAND} --json")
    assert ended.status == 0, ended.err
    answer = ended.answer
    assert set(answer) == {"task", "claims"}
    assert [claim["id"] for claim in answer["claims"]] == list(statements())
    ids = {path.name for path in Path("out/runs").iterdir()}
    for claim in answer["claims"]:
        members = {"id", "statement", "source", "pair", "verdict", "on", "reason", "effect", "runs"}
        assert set(claim) == members | {"comparisons", "agrees"}
        assert claim["verdict"] in VERDICTS
        assert (claim["verdict"] == "depends") == (claim["on"] is not None)
        assert claim["reason"]
        assert set(claim["effect"]) == {"value", "low", "high", "n", "unit", "method"}
        assert set(claim["runs"]) <= ids
    assert sum(claim["verdict"] in ("held", "not held", "depends") for claim in answer["claims"]) >= 30
    checked = [claim for claim in answer["claims"] if claim["reason"].startswith("a definition; ")]
    assert len(checked) == 17
    assert not [claim["id"] for claim in checked if not claim["reason"].startswith("a definition; checked: ")]
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert small("report out").status == 0
    assert Path("out/report.html").read_text(encoding="utf-8") == page
    again = small(COMMAND)
    assert again.status == 0
    assert re.match(r"Of \d+ statements that .* can test", again.out)
    assert len(again.out.splitlines()) <= 24
    assert {path.name for path in Path("out/runs").iterdir()} == ids
    assert json.loads(Path("out/claims.json").read_text(encoding="utf-8"))["claims"] == answer["claims"]


@pytest.mark.slow
def test_a_model_with_batch_normalisation_and_few_examples_is_asked_what_it_can_be(small: Cli) -> None:
    ended = small("claims small.py:normalised --batch-sizes 4,16 --lrs 0.03,0.3 --seeds 2 --epochs 1 --out out --json")
    assert ended.status == 0, ended.err
    claims = {claim["id"]: claim for claim in ended.answer["claims"]}
    for identifier in ("S1.7c", "S3.11b"):
        assert claims[identifier]["verdict"] == "not testable"
        assert "single example" in claims[identifier]["reason"]
    assert "batch normalisation, so an example's gradient depends on its batch" in claims["S3.11a"]["reason"]
    assert claims["S3.13a"]["verdict"] in VERDICTS - {"not testable"}, "the task as it came has it: none is compared"
    assert small("claims small.py:normalised --batch-sizes 1,16 --lrs 0.03,0.3 --out other").status == 2


def test_what_the_budget_cuts_off_is_undecided_and_the_same_command_goes_on(small: Cli) -> None:
    ended = small(f"{COMMAND} --json --budget 1s")
    claims = ended.answer["claims"]
    assert {claim["verdict"] for claim in claims} <= VERDICTS
    undecided = [claim for claim in claims if claim["verdict"] == "undecided"]
    assert any("before the budget was used up" in claim["reason"] for claim in undecided)
    assert ended.status == 3
    plans = json.loads(Path("out/claims-plan.json").read_text(encoding="utf-8"))["plans"]
    assert plans[0]["moment"] == "before the first run"
    assert (plans[0]["budget_s"], plans[0]["plan"]["batch_sizes"]) == (1.0, [4, 32])


def test_a_dry_run_trains_nothing(small: Cli) -> None:
    ended = small(f"{COMMAND} --dry-run")
    assert ended.status == 0
    assert "2 batch sizes, 2 learning rates, 2 seeds, 2 epochs" in " ".join(ended.out.split())
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("claims small.py:task --batch-sizes 4", "at least two of each"),
        ("claims small.py:task --lrs 0.1", "at least two of each"),
        ("claims small.py:task --batch-sizes 4,x", "--batch-sizes is x; it must be a whole number"),
        ("claims small.py:task --seeds 1", "at least 2, better 5"),
        ("claims small.py:task --batch-sizes 4,400", "larger than the training set of 96"),
        ("claims small.py:task --metric f1", "not among what the task evaluates"),
        ("claims small.py:task --metric test_loss", "test metrics are reported only"),
        ("claims small.py:task --epochs 0", "--epochs is 0; it must be a number above 0"),
        ("claims digitz", "digitz"),
    ],
)
def test_what_makes_no_sense_is_one_message(small: Cli, words: str, message: str) -> None:
    ended = small(f"{words} --out out")
    assert (ended.status, ended.out) == (2, "")
    messages = [line for line in ended.err.splitlines() if line.startswith("batchscope: ")]
    assert len(messages) == 1, ended.err
    assert re.search(message, messages[0]), messages[0]
