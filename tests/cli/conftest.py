"""A search on a task with one fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .sound import SOUND

Cli = Callable[..., Any]


@pytest.fixture
def search(cli: Cli, profile: Path) -> Callable[..., Any]:
    """`find` on the sound task with one member replaced, on a machine with fixed step times."""

    def run(member: str = "", *words: str | Path, target: str = "val_loss<=0.9", trainings: float = 0.5) -> Any:
        body = "\n".join(f"    {line}" for line in (member or "pass").splitlines())
        Path("mine.py").write_text(f"{SOUND}\nclass Mine(Sound):\n{body}\n", encoding="utf-8")
        command = f"find mine.py:Mine --trainings {trainings} --out out --hardware"
        return cli(command, profile, "--target", target, *words)

    return run
