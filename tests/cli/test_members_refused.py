"""A file alone names its factory `task` in every command; what a task may not have is refused through the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .sound import SOUND, refused

Cli = Callable[..., Any]

COMMANDS = {
    "find": "",
    "bench": "",
    "noise": "--steps 20",
    "study": "--batch-sizes 8,16 --lrs 0.1 --seeds 1 --epochs 1",
    "study fixed_epochs": "--batch-sizes 8,16 --lrs 0.1 --seeds 2 --epochs 1",
    "claims": "--batch-sizes 8,16 --lrs 0.1,0.3 --seeds 2 --epochs 1",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_where_no_factory_is_called_task_each_command_says_what_to_write(cli: Cli, command: str) -> None:
    Path("mine.py").write_text(f"{SOUND}\ndef plot(): ...\n", encoding="utf-8")
    refused(cli(f"{command} mine.py {COMMANDS[command]}"), r"does not say which factory to call: write mine.py:Sound$")
    assert not Path("batchscope-runs").exists()


@pytest.mark.parametrize("written", ["mine.py", "mine.py:Sound"])
def test_the_advice_followed(cli: Cli, written: str) -> None:
    """As it was advised, and with the factory called `task`."""
    text = SOUND if ":" in written else f"{SOUND}\ndef task(width: int = 4):\n    return Sound(width)\n"
    Path("mine.py").write_text(text, encoding="utf-8")
    ended = cli(f"noise {written} --steps 20 --lr 0.1")
    assert ended.status == 0, ended.err


MEMBERS = {
    "befor_update": ("def befor_update(self, model): ...", r"'befor_update'.*did you mean 'before_update'"),
    "training_step": (
        "def training_step(self, batch, i): ...",
        r"an update of its own \(training_step\).*one optimizer",
    ),
    "loss_weight": (
        "def loss_weight(self, batch): return 0",
        r"loss_weight\(batch\) returned 0; it must be the number",
    ),
    "precision": ("precision = 'int8'", r"precision is 'int8'; it must be one of 'float32', 'bfloat16', 'float16'"),
    "before_update": ("def before_update(self, model): model.zero_grad()", r"before_update\(model\) left no gradients"),
    "scheduler": (
        "def optimizer(self, params, lr):\n        o = torch.optim.SGD(params, lr=lr)\n"
        "        torch.optim.lr_scheduler.LinearLR(o)\n        return o",
        r"made a scheduler for the optimizer.*--warmup and --schedule.*def schedule",
    ),
    "half": (
        "def optimizer(self, params, lr): return torch.optim.SGD(list(params)[1:], lr=lr)",
        r"leaves 1 of 2 parameter tensors as they are, 12 of 15 numbers \(weight\)",
    ),
}


@pytest.mark.parametrize("member", MEMBERS)
def test_what_a_task_may_not_have_is_one_message(cli: Cli, member: str) -> None:
    line, message = MEMBERS[member]
    Path("mine.py").write_text(f"{SOUND}    {line}\n", encoding="utf-8")
    refused(cli("find mine.py:Sound --target val_loss<=0.6"), message)
