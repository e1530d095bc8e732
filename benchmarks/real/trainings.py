"""The six trainings of the benchmark: each a task file as people write them, its target, and where its grid begins."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TRAININGS", "Training"]

TASKS = Path(__file__).resolve().parent / "tasks"


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training.

    Attributes:
        name: also the name of its file in `tasks/`, of its grid, and of its rows.
        target: `METRIC<=VALUE` or `METRIC>=VALUE`.
        examples: of the training data: no batch is larger.
        evaluate_every: examples between two evaluations, for a plain loop: about 4 % of a good training.
        batch_size: the centre of the grid.
        lr: likewise.
        seconds: a guess of the best training's steps on one thread, for the first forecast and the first limit.
        description: one line.
    """

    name: str
    target: str
    examples: int
    evaluate_every: int
    batch_size: int
    lr: float
    seconds: float
    description: str

    @property
    def file(self) -> Path:
        """The task file, whose factory is `task`."""
        return TASKS / f"{self.name}.py"

    @property
    def fingerprint(self) -> str:
        """What makes it another training: what was measured on another is not used."""
        asked = f"{self.target} {self.evaluate_every}".encode()
        return hashlib.sha256(asked + b"\0" + self.file.read_bytes()).hexdigest()[:12]

    def every(self, batch_size: int) -> int:
        """Steps between two evaluations."""
        return max(1, round(self.evaluate_every / batch_size))


_ALL = (
    Training(
        name="images",
        target="val_loss<=0.42",
        examples=25_000,
        evaluate_every=2500,
        batch_size=64,
        lr=0.03,
        seconds=8.0,
        description="augmented images, batch normalisation, two loader workers",
    ),
    Training(
        name="tables",
        target="val_loss<=0.082",
        examples=12_143,
        evaluate_every=6000,
        batch_size=64,
        lr=0.03,
        seconds=5.0,
        description="examples as dicts, an own collate",
    ),
    Training(
        name="text",
        target="val_loss<=2.1",
        examples=15_685,
        evaluate_every=320,
        batch_size=16,
        lr=0.01,
        seconds=10.0,
        description="a small GPT",
    ),
    Training(
        name="sequences",
        target="val_loss<=1.82",
        examples=29_242,
        evaluate_every=500,
        batch_size=16,
        lr=0.005,
        seconds=8.0,
        description="sequences of unequal length, padded",
    ),
    Training(
        name="decoding",
        target="val_loss<=0.1",
        examples=2000,
        evaluate_every=120,
        batch_size=12,
        lr=0.03,
        seconds=6.0,
        description="examples that take 2 ms each to decode",
    ),
    Training(
        name="evaluation",
        target="val_loss<=0.2",
        examples=14_000,
        evaluate_every=4000,
        batch_size=64,
        lr=0.1,
        seconds=6.0,
        description="an evaluation as dear as 20 steps",
    ),
)

TRAININGS: dict[str, Training] = {training.name: training for training in _ALL}
