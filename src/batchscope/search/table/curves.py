"""Runs from a table of curves, one row an evaluation: which rows are one run, and where it first passed the target.

A run is what has the same name and batch size; without a column of names, the same batch size, learning rate and seed.
The first passage is that of `fits.curves`: between two evaluations, straight in the logarithm of the step.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import TableError
from ...fits.curves import first_passage
from ...store.records import Target
from ...wording import plural
from .measurement import Measurement
from .names import Unit

__all__ = ["Evaluations", "runs_of_curves"]


_SEVERAL = 3
"""Rows from which a run with a learning rate that changes can be told from several runs of one row."""


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """Rows of a table of curves, column by column; every column has one entry a row.

    Attributes:
        path: of the file.
        lines: of the rows.
        left_out: indices of rows that do not count.
        runs: names of the runs; `None`: the file has none.
        batch_sizes: examples a step.
        positions: where in the run, in `unit`; `None` in a row that says nothing.
        values: of the metric; `None`: not evaluated there, or not finite.
        lrs: learning rates; `None`: the file has none.
        seeds: `None` where not known.
        seconds: of a step or an epoch.
        position: role of the positions.
        unit: of the positions.
    """

    path: Path
    lines: Sequence[int]
    left_out: frozenset[int]
    runs: Sequence[str] | None
    batch_sizes: Sequence[float | None]
    positions: Sequence[float | None]
    values: Sequence[float | None]
    lrs: Sequence[float | None] | None
    seeds: Sequence[int | None]
    seconds: Sequence[float | None]
    position: str
    unit: Unit

    def where(self, index: int) -> str:
        """Place of a row, for messages."""
        return f"{self.path} line {self.lines[index]}"


def runs_of_curves(table: Evaluations, target: Target) -> tuple[list[Measurement], tuple[str, ...]]:
    """The runs of a table of curves.

    Args:
        table: of evaluations.
        target: on its metric.

    Returns:
        One measurement a run, in the order of their first rows, and how the curves were read, where that was not plain.

    Raises:
        TableError: rows of several runs cannot be told apart, no row has a value, or each run has a single row and all
            are as long, so that when they passed the target is not known.
    """
    groups = _groups(table)
    evaluated = {key: rows for key, rows in groups.items() if any(table.values[i] is not None for i in rows)}
    if not evaluated:
        raise TableError(f"{table.path}: no row has a value of {target.metric}; give --column {target.metric}=NAME")
    shift, notes = _shift(table)
    runs = [_run(table, rows, target, shift) for rows in evaluated.values()]
    if len(groups) > len(evaluated):
        notes.append(f"{plural(len(groups) - len(evaluated), 'run')} left out, without a value of {target.metric}")
    if all(len(rows) == 1 for rows in evaluated.values()):
        notes.append(_of_single_rows(table, runs, target))
    else:
        rows = sum(map(len, evaluated.values()))
        notes.append(f"{plural(rows, 'row')} are the curves of {plural(len(runs), 'run')}: {_told_by(table)}")
    if table.lrs is not None and any(len({table.lrs[i] for i in rows} - {None}) > 1 for rows in evaluated.values()):
        notes.append("learning rates change along runs; the largest of each counts")
    return runs, tuple(notes)


def _groups(table: Evaluations) -> dict[Hashable, list[int]]:
    """Rows of each run, by position."""
    groups = _grouped(table, by_lr=table.runs is None)
    if table.runs is None and table.lrs is not None and min(map(len, groups.values())) == 1:
        whole = _grouped(table, by_lr=False)
        if all(_is_one_run(table, rows) for rows in whole.values()):
            groups = whole
    for rows in groups.values():
        if (pair := _twice(table, rows)) is not None:
            one, other = pair
            position, size = table.positions[one], int(table.batch_sizes[one] or 0)
            raise TableError(
                f"{table.where(other)}: batch size {size} has another value at {table.position} {position:g} already: "
                f"line {table.lines[one]}; these are rows of several runs: add a column run, or give --column run=NAME"
            )
    return groups


def _is_one_run(table: Evaluations, rows: Sequence[int]) -> bool:
    """Whether rows whose learning rates differ look like one run with a schedule: they go on, row by row."""
    positions = [table.positions[i] for i in rows]
    return len(rows) >= _SEVERAL and len(set(positions)) == len(rows) and list(rows) == sorted(rows)


def _grouped(table: Evaluations, *, by_lr: bool) -> dict[Hashable, list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for i, position in enumerate(table.positions):
        if position is None or i in table.left_out:
            continue
        if position < 0:
            raise TableError(f"{table.where(i)}: {table.position} is {position:g}; write a number from 0 on")
        name = table.runs[i].strip() if table.runs is not None else ""
        lr = table.lrs[i] if by_lr and table.lrs is not None else None
        groups.setdefault((name, table.batch_sizes[i], table.seeds[i], lr), []).append(i)
    if not groups:
        raise TableError(f"{table.path}: no row has a value of {table.position}; say where in the run it was evaluated")
    return {key: sorted(rows, key=lambda i: table.positions[i] or 0.0) for key, rows in groups.items()}


def _twice(table: Evaluations, rows: Sequence[int]) -> tuple[int, int] | None:
    """Two rows of one position with different values; `None`: there are none."""
    before: int | None = None
    for i in rows:
        if table.values[i] is None:
            continue
        if (
            before is not None
            and table.positions[i] == table.positions[before]
            and table.values[i] != table.values[before]
        ):
            return min(before, i), max(before, i)
        before = i
    return None


def _shift(table: Evaluations) -> tuple[float, list[str]]:
    """What is added to positions: 1 where whole epochs are counted from 0 and logged at their end."""
    known = [p for p, v in zip(table.positions, table.values, strict=True) if p is not None and v is not None]
    if table.unit != "epochs" or min(known, default=1.0) != 0 or not all(p.is_integer() for p in known):
        return 0.0, []
    return 1.0, ["epochs begin at 0; each was taken to be logged at its end, so epoch 0 counts as one"]


def _run(table: Evaluations, rows: Sequence[int], target: Target, shift: float) -> Measurement:
    points = {table.positions[i]: table.values[i] for i in rows if table.values[i] is not None}
    steps = [(position or 0.0) + shift for position in points]
    reached = first_passage(steps, [v or 0.0 for v in points.values()], target.value, rising=target.mode == "max")
    seconds = [s for i in rows if (s := table.seconds[i]) is not None]
    lrs = [lr for i in rows if table.lrs is not None and (lr := table.lrs[i]) is not None]
    first = min(rows)
    if reached == 0:
        raise TableError(
            f"{table.where(first)}: this run is at {target} at {table.position} 0 already, before any training; give a "
            "harder target"
        )
    return Measurement(
        line=table.lines[first],
        batch_size=int(table.batch_sizes[first] or 0),
        to_target=reached,
        seconds=statistics.median(seconds) if seconds else None,
        lr=max(lrs, default=None),
        seed=table.seeds[first],
        length=max((table.positions[i] or 0.0) + shift for i in rows),
    )


def _of_single_rows(table: Evaluations, runs: Sequence[Measurement], target: Target) -> str:
    """Note on runs of a single row each.

    Raises:
        TableError: all runs that are at the target are as long.
    """
    lengths = {run.to_target for run in runs if run.to_target is not None}
    if len(lengths) == 1 and len(runs) > 1:
        raise TableError(
            f"{table.path}: each run has a single row, and all that are at {target} ended at {table.position} "
            f"{lengths.pop():g}: when they passed it is not known; give the whole curves, one row an evaluation"
        )
    return (
        f"each run has a single row; one that is at {target} there counts as having reached it at that {table.position}"
    )


def _told_by(table: Evaluations) -> str:
    if table.runs is not None:
        return "those of one name, batch size and seed are one run"
    return "those of one batch size, learning rate and seed are one run"
