"""Checkpoints of a run at which a study measures: early in training, where Shen (2018) measured, and at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from ..wording import number, plural

if TYPE_CHECKING:
    from ..store.runs import StoredRun

__all__ = ["KEPT", "Checkpoint", "checkpoints_of"]

KEPT: tuple[float | Literal["last"], ...] = (0, 1, 2, "last")
"""What a run must keep for `checkpoints_of`."""
_EARLY = (2, 1, 0)


class Checkpoint(NamedTuple):
    """Weights of a run, by what they are called where they are kept."""

    kept: float | Literal["last"]
    part: Literal["start", "early", "end"]
    epoch: float
    seed: int

    @property
    def name(self) -> str:
        """Name of the checkpoint in files."""
        return f"seed-{self.seed}-{self.part}"

    @property
    def label(self) -> str:
        """Name of the checkpoint in sentences."""
        if self.part == "end":
            return f"at the end (epoch {number(self.epoch)})"
        return f"after {plural(self.epoch, 'epoch')}" if self.epoch else "at the start"


def checkpoints_of(run: StoredRun, examples: int) -> tuple[Checkpoint, ...]:
    """The start of a run, the end of epoch 2, and the end of the run.

    A run that ends with its second epoch or before has the end of its first one instead, and the shortest have only
    their start and their end.
    """
    steps = [row["step"] for row in run.rows if row.get("kind") == "evaluation"]
    size, seed = run.config.batch_size, run.config.seed

    def step_at(epoch: float) -> int | None:
        return next((s for s in steps if (s + 0.5) * size >= epoch * examples), None)

    last = run.result.steps if run.result else steps[-1]
    early = next((e for e in _EARLY if (at := step_at(e)) is not None and at < last), 0)
    found = [Checkpoint(early, "early", float(early), seed)] if early else []
    start, end = Checkpoint(0, "start", 0.0, seed), Checkpoint("last", "end", last * size / examples, seed)
    return (start, *found, end)
