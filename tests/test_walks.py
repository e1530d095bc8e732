"""From a command to a step of the optimizer it is a short walk, and the walks that docs/architecture.md shows exist."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import batchscope

Cli = Callable[..., Any]

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(batchscope.__file__).parent
MOST_FILES = 7

COMMANDS = {
    "find": "find digits --hardware machine.json --target val_loss<=0.8",
    "study of a task": "study digits --batch-sizes 64 --lrs 0.1 --seeds 1 --epochs 1",
    "named study": "study fixed_epochs --quick",
}


@pytest.mark.usefixtures("profile")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_few_files_lie_between_a_command_and_a_step(command: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    walk: list[str] = []
    plain = torch.optim.SGD.step

    def step(self: torch.optim.SGD, *args: Any, **kwargs: Any) -> Any:
        files = [Path(frame.filename) for frame in traceback.extract_stack(limit=80)]
        ours = [file.relative_to(PACKAGE).as_posix() for file in files if file.is_relative_to(PACKAGE)]
        if "training/loop.py" in ours:
            walk[:] = dict.fromkeys(ours)
            raise KeyboardInterrupt
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    assert cli(command).status == 130
    assert walk[0].startswith("cli/")
    assert walk[-1] == "training/loop.py"
    assert len(walk) <= MOST_FILES


def test_the_walks_of_the_architecture_exist() -> None:
    section = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Three walks")[2]
    walks = [line for block in re.findall(r"^```text\n(.*?)^```", section, re.M | re.S) for line in block.splitlines()]
    files = {f"{file}.py" for line in walks for file in re.findall(r"\b[a-z]+(?:/[a-z_]+)+\b(?!/)", line)}
    assert {"search/find.py", "training/loop.py", "report/sections/steps_and_examples.py"} <= files
    missing = [file for file in files if not (PACKAGE / file).exists() and not (PACKAGE / file[:-3]).is_dir()]
    assert missing == []
