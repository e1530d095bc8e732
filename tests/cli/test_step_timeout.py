"""`--step-timeout` on the command line: a call that hangs ends the command with status 2 and one message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from batchscope.store.runs import read_runs

Cli = Callable[..., Any]

HANGS = "    import time\n    time.sleep(1e6)"
LATER = """
def evaluate(self, model):
    import pathlib, time
    if any(pathlib.Path("out/runs").glob("*/result.json")):
        time.sleep(1e6)
    return super().evaluate(model)
"""


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What torch imports for its first optimizer takes seconds on a busy machine."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1).step()


@pytest.mark.parametrize(
    ("member", "named"),
    [
        (f"def evaluate(self, model):\n{HANGS}", "evaluate(model) did not come back"),
        (f"def __init__(self):\n{HANGS}", "Mine() in mine.py did not come back"),
        (f"def collate(self, examples):\n{HANGS}", "collate(examples) did not come back"),
    ],
    ids=["evaluate", "factory", "collate"],
)
def test_a_member_that_hangs_ends_it_with_one_message(search: Callable[..., Any], member: str, named: str) -> None:
    ended = search(member, "--step-timeout", "5s", "--json")
    assert ended.status == 2
    assert ended.err.count(named) == 1
    assert "mine.py, line" in ended.err
    assert named in json.loads(ended.out)["message"]


def test_finished_runs_are_kept(search: Callable[..., Any]) -> None:
    ended = search(LATER, "--step-timeout", "5s", target="val_loss<=0.3", trainings=20)
    assert ended.status == 2, ended.err
    assert "evaluate(model) did not come back" in ended.err
    kept = [run.id for run in read_runs(Path("out")) if run.result is not None]
    assert kept


@pytest.mark.parametrize("length", ["0s", "-1s", "soon", ""])
def test_a_length_of_time_that_is_none_is_refused(cli: Cli, length: str) -> None:
    ended = cli("bench digits", f"--step-timeout={length}")
    assert ended.status == 2
    assert "--step-timeout" in ended.err
