"""A question, two configurations and a result, written into a results folder and told again in the tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from batchscope.store.records import RunConfig, RunResult, RunStatus
from batchscope.store.runs import RunWriter, Store

QUESTION = {"task": "toy", "settings": {"hidden": 3}, "seed": 0}
CONFIG = RunConfig(task="toy", batch_size=8, micro_batch_size=8, lr=0.1, max_steps=10)
OTHER = replace(CONFIG, lr=0.2)
RESULT = RunResult(
    status=RunStatus.REACHED,
    message="",
    steps=3,
    examples=24,
    device_seconds=0.5,
    steps_to_target=2.5,
    last={"val_loss": 0.1},
    best={"val_loss": 0.1},
    best_step=3,
    first={"val_loss": 1.0},
)


def make_row(step: int) -> dict[str, Any]:
    return {"kind": "evaluation", "step": step, "metrics": {"val_loss": 1 / (step + 1)}}


def write_rows(writer: RunWriter, rows: int) -> None:
    for step in range(rows):
        writer.append(make_row(step))


def finish(store: Store, config: RunConfig = CONFIG) -> Path:
    """A finished run of three rows; its folder."""
    writer = store.start(config)
    write_rows(writer, 3)
    writer.finish(RESULT)
    return writer.folder
