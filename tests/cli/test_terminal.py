"""The lines of progress in a file or a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from batchscope.cli.terminal import LiveProgress
from batchscope.store.records import RunConfig, Target

CONFIG = RunConfig(
    task="line",
    settings={},
    batch_size=8,
    micro_batch_size=8,
    lr=0.1,
    seed=0,
    target=Target.parse("val_loss<=0.1"),
    max_steps=10,
    device="cpu",
    purpose="study",
)


@pytest.mark.parametrize(
    ("why", "left", "said"),
    [
        ("why", "much left", "run 1: study, batch size 8, learning rate 0.1 (why); much left"),
        ("for its weights", "", "run 1: study, batch size 8, learning rate 0.1 (for its weights)"),
        ("", "", "run 1: study, batch size 8, learning rate 0.1"),
    ],
)
def test_a_part_that_is_empty_is_left_out(why: str, left: str, said: str) -> None:
    file = io.StringIO()
    with LiveProgress(Console(file=file)) as progress:
        progress.run_started(CONFIG, why, left)
    assert file.getvalue() == f"{said}\n"
