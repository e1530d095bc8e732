"""Measurements that somebody already has, read from a file: one row a run, or one row an evaluation.

```
batch_size   steps_to_target | epochs_to_target | examples_to_target   step_time_s | epoch_time_s   lr   seed
batch_size   step | epoch | examples   METRIC   [run]   ...                     with a target on the metric
```

An empty cell (or nan, inf) in the target's column is a run that never got there; an empty time or learning rate is not
known. Commas, semicolons, tabs or bars separate; numbers are read as their column is written (`numbers`); columns are
found under the names that experiment trackers give them (`names`); further columns do no harm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

from ...errors import TableError
from ...store.records import Target
from ...wording import joined, plural
from .choice import BROKEN, CUT, POSITIONS, UNFINISHED, choose, state_of_run
from .curves import Evaluations, runs_of_curves
from .measurement import Measurement, Table
from .names import ROLES, TARGETS, TIMES, Found, Names, Unit, plain
from .numbers import NEVER_CELLS, UNKNOWN_CELLS, Column, Kind, style_of
from .repeats import copies_of
from .sheet import Sheet

__all__ = ["Measurement", "Table", "read_table"]

_MOST_EXAMPLES = 2**30


def read_table(path: str | Path, *, target: Target | None = None, columns: Mapping[str, str] | None = None) -> Table:
    """Read a file of measurements and check every cell.

    Args:
        path: of the file.
        target: what the runs were after; needed where the file has a row for each evaluation.
        columns: by role (`names.ROLES`, or the target's metric), the name of the column that is meant; default: they
            are found by their names.

    Raises:
        TableError: the file cannot be read, lacks a column, says one thing twice, or holds an impossible number; the
            message names the file and the line, what was seen, and what to write.

    Cost: about 10 µs a row, and 1 µs a cell that is not read.
    """
    sheet = Sheet.read(Path(path))
    names = Names(where=sheet.where(sheet.line), written=sheet.names, chosen=dict(columns or {}))
    return _Reader(sheet, names, target).table()


class _Reader:
    """One file on its way to a table."""

    def __init__(self, sheet: Sheet, names: Names, target: Target | None) -> None:
        self._sheet, self._target = sheet, target
        self._choice = choose(sheet, names, target)
        self._used, self._cells, self._notes = self._choice.used, self._choice.cells, list(self._choice.notes)

    def table(self) -> Table:
        """The table."""
        numbers = self._numbers()
        rows = self._of_curves(numbers) if self._to_target is None else self._of_runs(numbers)
        time = next((role for role in TIMES if role in self._used), None)
        return Table(
            name=self._sheet.path.name,
            rows=tuple(rows),
            unit=self._unit,
            time_of=None if time is None else "step" if time == "step_time_s" else "epoch",
            ignored=self._choice.ignored,
            notes=tuple(self._notes),
        )

    @property
    def _to_target(self) -> str | None:
        return next((role for role in TARGETS if role in self._used), None)

    @property
    def _unit(self) -> Unit:
        if self._to_target is not None:
            return TARGETS[self._to_target]
        return next(unit for role, unit in POSITIONS.items() if role in self._used)

    # --- numbers -----------------------------------------------------------------------------------------------------

    def _numbers(self) -> dict[str, list[float | None]]:
        """Numbers of every column that is read, by role."""
        columns = {
            role: self._column(role, each) for role, each in self._used.items() if role not in ("run", "state", "seed")
        }
        where = self._sheet.where
        styles = {role: style_of(column, where) for role, column in columns.items()}
        told = frozenset(
            s.decimal for r, s in styles.items() if s.decimal is not None and _has_mark(columns[r], s.decimal)
        )
        found: dict[str, list[float | None]] = {}
        for role, column in columns.items():
            style = styles[role]
            decimal = style.settled(column, told, self._sheet.separator)
            if decimal is None:
                bare = style.example.replace(style.mark, "")
                raise TableError(
                    f"{where(style.line)}: {column.name} is {style.example!r}, which may be {bare} or "
                    f"{style.example.replace(',', '.')}, and neither the column nor the others tell; write "
                    f"{bare} or {style.example.replace(',', '.')}0 in its place, and the other cells alike"
                )
            found[role] = column.read(where, decimal)
            if style.mark and style.decimal is None and style.mark != decimal:
                said = style.example.replace(style.mark, "")
                self._notes.append(f"{column.name}: {style.example} in line {style.line} was read as {said}")
            elif style.mark == ",":
                self._notes.append(
                    f"{column.name}: {style.example} in line {style.line} was read as {style.example.replace(',', '.')}"
                )
        return found

    def _column(self, role: str, found: Found) -> Column:
        kind, nothing, wanted, signed, most = _how(role, found)
        return Column(
            name=plain(found.name),
            lines=self._cells.lines,
            cells=self._cells.columns[found.index],
            kind=kind,
            nothing=nothing,
            wanted=wanted,
            signed=signed,
            most=most,
            scale=found.scale,
        )

    def _seeds(self) -> list[int | None]:
        if "seed" not in self._used:
            return [None] * len(self._cells.lines)
        column, found = self._column("seed", self._used["seed"]), list[int | None]()
        for line, cell in zip(column.lines, column.cells, strict=True):
            if re.fullmatch(r"[+-]?[0-9]+", cell.strip()):
                found.append(int(cell))
            else:
                (value,) = replace(column, lines=[line], cells=[cell]).read(self._sheet.where, ".")
                found.append(None if value is None else int(value))
        return found

    def _seconds(self, numbers: Mapping[str, list[float | None]]) -> list[float | None]:
        role = next((role for role in TIMES if role in self._used), None)
        if role is None:
            return [None] * len(self._cells.lines)
        rate, sizes = self._used[role].rate, numbers["batch_size"]
        if not rate:
            return numbers[role]
        parts = [1.0 if rate == "one" else size or 1.0 for size in sizes]
        return [None if x is None else part / x for part, x in zip(parts, numbers[role], strict=True)]

    # --- rows --------------------------------------------------------------------------------------------------------

    def _of_runs(self, numbers: Mapping[str, list[float | None]]) -> list[Measurement]:
        assert self._to_target is not None
        reached, lines = numbers[self._to_target], self._cells.lines
        left = self._copies(reached) | self._without_end(reached)
        lrs, seeds, seconds = numbers.get("lr"), self._seeds(), self._seconds(numbers)
        rows = [
            Measurement(
                line=line,
                batch_size=int(numbers["batch_size"][i] or 0),
                to_target=reached[i],
                seconds=seconds[i],
                lr=lrs[i] if lrs else None,
                seed=seeds[i],
            )
            for i, line in enumerate(lines)
            if i not in left
        ]
        if not rows:
            raise TableError(f"{self._sheet.path}: no row is a finished run; add runs that came to their end")
        return rows

    def _copies(self, reached: Sequence[float | None]) -> set[int]:
        """Rows that are there already; where nothing tells runs apart and results are coarse, they may be repeats."""
        copies = copies_of(self._cells.digests)
        if not copies.rows:
            return set()
        results = {role for role in self._used if role not in ("seed", "run")}
        read = {self._used[role].index for role in results}
        told_apart = any(name.strip() for i, name in enumerate(self._sheet.names) if i not in read)
        if told_apart or not _coarse(reached, self._unit):
            once = set(copies.rows) if told_apart else {i for i in copies.rows if reached[i] is not None}
            if once:
                kept = [(i, j) for i, j in zip(copies.rows, copies.of, strict=True) if i in once]
                shown = replace(copies, rows=tuple(i for i, _ in kept), of=tuple(j for _, j in kept))
                self._notes.append(shown.said(self._cells.lines, "counted once"))
            return once
        self._notes.append(copies.said(self._cells.lines, "repeats"))
        return set()

    def _without_end(self, reached: Sequence[float | None]) -> set[int]:
        """Rows of runs that did not come to their end, so that nobody knows whether they would have reached the target.

        What the column of the target says of a run that was cut short (Optuna's `value`) is no way to the target.
        """
        if "state" not in self._used:
            return set()
        states = [state_of_run(cell) for cell in self._choice.column("state")]
        left = {
            i
            for i, state in enumerate(states)
            if state in (*UNFINISHED, *CUT) or (state in BROKEN and reached[i] is None)
        }
        if left:
            counts = {state: sum(states[i] == state for i in left) for state in sorted({states[i] for i in left})}
            kinds = joined([f"{n} {state}" for state, n in counts.items()])
            self._notes.append(f"{plural(len(left), 'row')} left out, whose runs did not come to their end ({kinds})")
        return left

    def _of_curves(self, numbers: Mapping[str, list[float | None]]) -> list[Measurement]:
        assert self._target is not None
        copies = copies_of(self._cells.digests)
        if copies.rows:
            self._notes.append(copies.said(self._cells.lines, "counted once"))
        position = next(role for role in POSITIONS if role in self._used)
        metric = next(role for role in self._used if role not in ROLES)
        runs = self._choice.column("run") if "run" in self._used else None
        rows, notes = runs_of_curves(
            Evaluations(
                path=self._sheet.path,
                lines=self._cells.lines,
                left_out=frozenset(copies.rows),
                runs=runs,
                batch_sizes=numbers["batch_size"],
                positions=numbers[position],
                values=numbers[metric],
                lrs=numbers.get("lr"),
                seeds=self._seeds(),
                seconds=self._seconds(numbers),
                position=position,
                unit=POSITIONS[position],
            ),
            self._target,
        )
        self._notes += notes
        return rows


def _how(role: str, found: Found) -> tuple[Kind, frozenset[str], str, bool, float]:
    """Kind of a role's numbers, cells that say nothing, what to write, whether they may be below 0, the largest."""
    most = 1e15
    if role == "batch_size":
        return "whole", frozenset(), f"a whole number from 1 to {_MOST_EXAMPLES}", False, _MOST_EXAMPLES
    if role in TARGETS:
        kind: Kind = "measure" if role == "epochs_to_target" else "count"
        return kind, NEVER_CELLS, "a number above 0, or nothing: never reached", False, most
    if role in TIMES:
        return (
            ("measure" if found.rate else "time"),
            UNKNOWN_CELLS,
            "a number above 0, or nothing: not measured",
            False,
            most,
        )
    if role == "lr":
        return "measure", UNKNOWN_CELLS, "a number above 0, or nothing: not known", False, most
    if role == "seed":
        return "whole", UNKNOWN_CELLS, "a whole number", True, most
    if role in POSITIONS:
        kind = "measure" if role == "epoch" else "count"
        return kind, UNKNOWN_CELLS, "a number from 0 on, where in the run the row was evaluated", True, most
    return "metric", NEVER_CELLS | {"-inf", "-infinity"}, "a number, or nothing: not evaluated", True, 1e300


def _has_mark(column: Column, mark: str) -> bool:
    return any(mark in cell or ("," if mark == "." else ".") in cell for cell in column.first)


def _coarse(reached: Sequence[float | None], unit: Unit) -> bool:
    """Whether results are multiples of one amount, as of whole epochs, so that repeats may well agree."""
    values = [value for value in reached if value is not None]
    if not all(value.is_integer() for value in values):
        return False
    return unit == "epochs" or reduce(math.gcd, map(int, values), 0) > 1
