"""Measurements that somebody already has: runs, and the table that they are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import TableError
from .names import Unit

__all__ = ["Measurement", "Table"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One run, in one row or in several.

    Attributes:
        line: of its first row in the file, counted from 1.
        batch_size: examples a step.
        to_target: in the table's unit; `None`: the run never reached it.
        seconds: of a step or an epoch, as the table's column says; `None`: not known.
        lr: `None`: not known.
        seed: `None`: not known.
        length: in the table's unit, how far a run was followed that never reached the target; `None`: not known.
    """

    line: int
    batch_size: int
    to_target: float | None
    seconds: float | None
    lr: float | None
    seed: int | None
    length: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a file holds.

    Attributes:
        name: the file's.
        rows: in their order.
        unit: of the way to the target.
        time_of: what the seconds are of; `None`: the file has no times.
        ignored: columns that were not read.
        notes: how the file was read, where that was not plain.
    """

    name: str
    rows: tuple[Measurement, ...]
    unit: Unit
    time_of: Literal["step", "epoch"] | None
    ignored: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def check_examples(self, examples: int | None) -> None:
        """Whether the size of the training set, given or not, goes with the table.

        Raises:
            TableError: it is needed and not there, or smaller than a batch size.
        """
        needed = "epoch_time_s" if self.time_of == "epoch" else None
        if self.unit == "epochs":
            needed = "epochs_to_target" if all(row.length is None for row in self.rows) else "epoch"
        if examples is None and needed is not None:
            raise TableError(
                f"{self.name} speaks of epochs ({needed}), and epochs are steps only when the size of the training set "
                "is known; add --examples N"
            )
        if examples is None:
            return
        for row in self.rows:
            if row.batch_size > examples:
                raise TableError(
                    f"{self.name} line {row.line}: batch_size {row.batch_size} is larger than the training set of "
                    f"{examples} examples; correct the cell or --examples"
                )

    def steps(self, row: Measurement, examples: int | None) -> float | None:
        """Optimizer steps to the target; `None`: never reached."""
        return self.in_steps(row, row.to_target, examples)

    def in_steps(self, row: Measurement, amount: float | None, examples: int | None) -> float | None:
        """An amount in the table's unit, in optimizer steps of a row's batch size."""
        if amount is None or self.unit == "steps":
            return amount
        whole = 1.0 if self.unit == "examples" or examples is None else float(examples)
        return amount * whole / row.batch_size

    def step_time(self, row: Measurement, examples: int | None) -> float | None:
        """Seconds of one step; `None`: not known."""
        if row.seconds is None or self.time_of == "step" or examples is None:
            return row.seconds
        return row.seconds * row.batch_size / examples

    @property
    def counts_whole_epochs(self) -> bool:
        """Whether the target was looked for at the end of epochs only."""
        reached = [row.to_target for row in self.rows if row.to_target is not None]
        return self.unit == "epochs" and all(value.is_integer() for value in reached)
