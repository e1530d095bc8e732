"""Measurements that somebody already has, read from a file: one row a run, checked cell by cell.

```
batch_size   steps_to_target | epochs_to_target | examples_to_target   step_time_s | epoch_time_s   lr   seed
```

An empty cell (or nan, inf) in the target's column is a run that never got there; an empty time or learning rate is not
known. Commas, semicolons or tabs separate, a byte-order mark and further columns do no harm, and with semicolons or
tabs a comma may be the decimal point.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import TableError

__all__ = ["Measurement", "Table", "read_table"]

Unit = Literal["steps", "epochs", "examples"]

_UNITS: dict[str, Unit] = {
    "steps_to_target": "steps",
    "epochs_to_target": "epochs",
    "examples_to_target": "examples",
}
_TARGETS = tuple(_UNITS)
_TIMES = ("step_time_s", "epoch_time_s")
_KNOWN = ("batch_size", *_TARGETS, *_TIMES, "lr", "seed")
_UNKNOWN_CELLS = ("", "nan", "none", "null", "na", "n/a", "-")
_NEVER_CELLS = (*_UNKNOWN_CELLS, "inf", "+inf", "infinity")
_EXAMPLE = "batch_size,steps_to_target,step_time_s,lr"
_MOST_EXAMPLES, _MOST = 2**30, 1e15
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row: one run.

    Attributes:
        line: in the file, counted from 1.
        batch_size: examples a step.
        to_target: in the table's unit; `None`: the run never reached it.
        seconds: of a step or an epoch, as the table's column says; `None`: not known.
        lr: `None`: not known.
        seed: `None`: not known.
    """

    line: int
    batch_size: int
    to_target: float | None
    seconds: float | None
    lr: float | None
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a file holds.

    Attributes:
        name: the file's.
        rows: in their order.
        unit: of the way to the target.
        time_of: what the seconds are of; `None`: the file has no times.
        ignored: columns that were not read.
    """

    name: str
    rows: tuple[Measurement, ...]
    unit: Unit
    time_of: Literal["step", "epoch"] | None
    ignored: tuple[str, ...]

    def check_examples(self, examples: int | None) -> None:
        """Whether the size of the training set, given or not, goes with the table.

        Raises:
            TableError: it is needed and not there, or smaller than a batch size.
        """
        needed = "epochs_to_target" if self.unit == "epochs" else "epoch_time_s" if self.time_of == "epoch" else None
        if examples is None and needed is not None:
            raise TableError(
                f"{self.name} has the column {needed}, and epochs are steps only when the size of the training set is "
                "known; add --examples N"
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
        if row.to_target is None or self.unit == "steps":
            return row.to_target
        whole = 1.0 if self.unit == "examples" or examples is None else float(examples)
        return row.to_target * whole / row.batch_size

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


def read_table(path: str | Path) -> Table:
    """Read a file of measurements and check every cell.

    Raises:
        TableError: the file cannot be read, lacks a column, says one thing twice, or holds an impossible number; the
            message names the file and the line, what was seen, and what to write.
    """
    path = Path(path)
    lines = [(number, cells) for number, cells in _cells(path) if any(cell.strip() for cell in cells)]
    if not lines:
        raise TableError(f"{path} is empty; write a line of column names, then one line a run, for example {_EXAMPLE}")
    (number, names), *rest = lines
    columns = _Columns.of(f"{path} line {number}", [_plain(name) for name in names])
    if not rest:
        raise TableError(f"{path} has column names and no row; write one line for each run")
    return Table(
        name=path.name,
        rows=tuple(columns.read(f"{path} line {number}", number, cells) for number, cells in rest),
        unit=columns.unit,
        time_of=columns.time_of,
        ignored=tuple(name for name in columns.names if name and name not in _KNOWN),
    )


def _cells(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and cells; decimal commas have become points."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}; give the path of a table of measurements") from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise TableError(f"{path} is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from None
    if "\0" in text:
        raise TableError(f"{path} is not text: it holds a zero byte; save it as CSV in UTF-8")
    header = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(_SEPARATORS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            rows.append((reader.line_num, cells if separator == "," else [c.replace(",", ".") for c in cells]))
    except csv.Error as error:
        raise TableError(
            f"{path} line {reader.line_num}: {error}; write one line a run with cells apart by {_SEPARATORS[separator]}"
        ) from None
    return rows


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


@dataclass(frozen=True, kw_only=True)
class _Columns:
    names: list[str]
    target: str
    time: str | None

    @property
    def unit(self) -> Unit:
        return _UNITS[self.target]

    @property
    def time_of(self) -> Literal["step", "epoch"] | None:
        return None if self.time is None else "step" if self.time == "step_time_s" else "epoch"

    @classmethod
    def of(cls, where: str, names: list[str]) -> _Columns:
        for name in _KNOWN:
            if names.count(name) > 1:
                raise TableError(f"{where}: the column {name} is there {names.count(name)} times; keep one")
        if "batch_size" not in names:
            raise TableError(f"{where}: {_missing(('batch_size',), names)}")
        target = _one_of(where, _TARGETS, names)
        if target is None:
            raise TableError(f"{where}: {_missing(_TARGETS, names)}")
        return cls(names=names, target=target, time=_one_of(where, _TIMES, names))

    def read(self, where: str, line: int, cells: Sequence[str]) -> Measurement:
        if len(cells) > len(self.names) and not any(cell.strip() for cell in cells[len(self.names) :]):
            cells = cells[: len(self.names)]
        if len(cells) != len(self.names):
            raise TableError(
                f"{where}: {len(cells)} cells under {len(self.names)} column names; write one cell for each, empty "
                "where nothing is known"
            )
        by_name = {name: cell.strip() for name, cell in zip(self.names, cells, strict=True)}
        size = _number(
            where, "batch_size", by_name["batch_size"], f"a whole number from 1 to {_MOST_EXAMPLES}", whole=True
        )
        if size > _MOST_EXAMPLES:
            raise TableError(f"{where}: batch_size is {size:.4g}; write a whole number from 1 to {_MOST_EXAMPLES}")
        seconds = by_name.get(self.time or "", "")
        lr, seed = by_name.get("lr", ""), by_name.get("seed", "")
        return Measurement(
            line=line,
            batch_size=int(size),
            to_target=_optional(where, self.target, by_name[self.target], _NEVER_CELLS, "or nothing: never reached"),
            seconds=_optional(where, self.time or "", seconds, _UNKNOWN_CELLS, "or nothing: not measured"),
            lr=_optional(where, "lr", lr, _UNKNOWN_CELLS, "or nothing: not known"),
            seed=None
            if seed.lower() in _UNKNOWN_CELLS
            else int(_number(where, "seed", seed, "a whole number", whole=True, least=-math.inf)),
        )


def _one_of(where: str, kinds: Sequence[str], names: Sequence[str]) -> str | None:
    found = [name for name in kinds if name in names]
    if len(found) > 1:
        raise TableError(f"{where}: {' and '.join(found)} say the same thing twice; keep one of these columns")
    return found[0] if found else None


def _missing(wanted: Sequence[str], names: Sequence[str]) -> str:
    seen = ", ".join(name for name in names if name) or "nothing"
    near = [(name, difflib.get_close_matches(name, wanted, n=1, cutoff=0.5)) for name in names if name not in _KNOWN]
    hint = next((f"write {close[0]} for {name}" for name, close in near if close), f"write for example {_EXAMPLE}")
    lacks = wanted[0] if len(wanted) == 1 else f"one of {', '.join(wanted)}"
    return f"the column names are {seen}, and {lacks} is missing; {hint}"


def _optional(where: str, name: str, cell: str, nothing: Sequence[str], otherwise: str) -> float | None:
    if cell.lower() in nothing:
        return None
    return _number(where, name, cell, f"a number above 0, {otherwise}")


def _number(where: str, name: str, cell: str, wanted: str, *, whole: bool = False, least: float | None = None) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    enough = value >= least if least is not None else value > 0
    if not abs(value) < _MOST or not enough or (whole and not value.is_integer()):
        raise TableError(f"{where}: {name} is {repr(cell) if cell else 'empty'}; write {wanted}")
    return value
