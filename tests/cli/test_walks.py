"""From a command to the optimizer's step: how many files of the package one has to open to follow it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import batchscope

Cli = Callable[..., Any]

PACKAGE = Path(batchscope.__file__).parent
MOST_FILES = 8

TASK = '''
import traceback
import torch
from batchscope.tasks.builtin.digits import digits

class Watched(torch.optim.SGD):
    """Keeps who called each step."""
    stacks = set()
    def step(self, closure=None):
        Watched.stacks.add(tuple(frame.filename for frame in traceback.extract_stack()))
        return super().step(closure)

class Digits:
    def __init__(self):
        task = digits()
        self.model, self.train_data, self.loss, self.evaluate = task.model, task.train_data, task.loss, task.evaluate
    def optimizer(self, params, lr):
        return Watched(params, lr)
'''


@pytest.fixture
def walks(cli: Cli) -> Iterator[Callable[[str], set[tuple[str, ...]]]]:
    """Runs a command in this process; gives the package's files on the stack at each kind of step, outermost first."""
    Path("watched.py").write_text(TASK, encoding="utf-8")

    def of(command: str) -> set[tuple[str, ...]]:
        ended = cli(command)
        assert ended.status == 0, ended.err
        return {ours(stack) for stack in sys.modules["watched"].Watched.stacks}

    yield of
    sys.modules.pop("watched", None)


def ours(stack: tuple[str, ...]) -> tuple[str, ...]:
    paths = dict.fromkeys(Path(name) for name in stack)
    return tuple(path.relative_to(PACKAGE).as_posix() for path in paths if path.is_relative_to(PACKAGE))


@pytest.mark.parametrize(
    ("command", "through"),
    [
        (
            "find watched.py:Digits --target val_loss<=0.5 --trainings 1 --budget 20s",
            ("cli/commands.py", "search/find.py", "search/stages.py", "search/runs.py"),
        ),
        (
            "study watched.py:Digits --batch-sizes 64 --lrs 0.1 --seeds 1 --epochs 1",
            ("cli/commands.py", "cli/laboratory.py", "laboratory/study.py", "laboratory/records.py"),
        ),
    ],
    ids=["find", "study"],
)
def test_a_step_is_at_most_eight_files_away(
    walks: Callable[[str], set[tuple[str, ...]]], command: str, through: tuple[str, ...]
) -> None:
    found = walks(command)
    training = [files for files in found if "training/runner.py" in files]
    assert training
    assert all(tuple(file for file in files if file in through) == through for files in training)
    assert all(files[-3:] == ("training/runner.py", "training/loop.py", "tasks/update.py") for files in training)
    assert max(map(len, found)) <= MOST_FILES, max(found, key=len)


def test_the_stack_is_counted_by_file_once(tmp_path: Path) -> None:
    inside = str(PACKAGE / "cli" / "commands.py")
    assert ours((str(tmp_path), inside, traceback.__file__, inside)) == ("cli/commands.py",)
