"""Numbers of one column, read as the column is written: decimal comma or point, thousands separators, units, per cent.

What one cell leaves open the others of its column decide, and where they do not, the other columns of the file:
`1,458` beside `1,458,000` is 1458, beside `0,25` it is 1.458. A column that is written in both ways is refused.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ...errors import TableError

__all__ = ["NEVER_CELLS", "SECONDS", "UNKNOWN_CELLS", "Column", "Kind", "style_of"]

Kind = Literal["whole", "count", "measure", "time", "metric"]
"""What the numbers of a column are: whole, counts of steps or examples (with parts of one), times, or anything else."""

_NOT_THERE = ("#n/a", "#na", "<na>", "nat", "na", "n/a", "none", "null", "undefined", "-", "–", "—", "")
UNKNOWN_CELLS = frozenset((*_NOT_THERE, "nan"))
"""Cells that say nothing."""
NEVER_CELLS = UNKNOWN_CELLS | {"inf", "+inf", "infinity", "+infinity", "never"}
"""Cells that say, under the target, that it was never reached."""

SECONDS: dict[str, float] = {
    unit: seconds
    for units, seconds in (
        ("ns nanoseconds", 1e-9),
        ("us µs usec microseconds", 1e-6),
        ("ms msec millis milliseconds", 1e-3),
        ("s sec secs second seconds", 1.0),
        ("min mins minute minutes", 60.0),
        ("h hr hrs hour hours", 3600.0),
    )
    for unit in units.split()
}
"""Units of time; the micro sign as NFKC has it is the Greek letter, which is read as the sign."""
_MOST = 1e15
_LEAST = 1e-15
_NUMBER = re.compile(r"([+-]?)([0-9][0-9.,]*|[.,][0-9]+)([eE][+-]?[0-9]+)?\s*([^\W\d_]+|%)?")
_PLAIN = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_GROUPS = re.compile(r"(?<=[0-9])[ '’](?=[0-9]{3}(?![0-9]))")  # noqa: RUF001 - an apostrophe of spreadsheets
_UNDERSCORE = re.compile(r"(?<=[0-9])_(?=[0-9])")
_JOINERS = frozenset(" '’_")  # noqa: RUF001 - an apostrophe of spreadsheets
_THREE = 3


@dataclass(frozen=True, kw_only=True)
class Column:
    """The cells of a column that is read.

    Attributes:
        name: for messages.
        lines: of the file, one a cell.
        cells: as they stand there.
        kind: of its numbers.
        nothing: cells that stand for no number.
        wanted: what to write instead of a cell that makes no sense.
        signed: whether numbers below 0, and 0, may be there.
        most: largest number.
        scale: by which every number without a unit of its own is multiplied.
    """

    name: str
    lines: Sequence[int]
    cells: Sequence[str]
    kind: Kind
    nothing: frozenset[str] = frozenset()
    wanted: str
    signed: bool = False
    most: float = _MOST
    scale: float = 1.0

    def read(self, where: Callable[[int], str], decimal: str) -> list[float | None]:
        """Numbers of all cells; `None` where a cell says nothing.

        Args:
            where: place of a line, for messages.
            decimal: mark of the column, "." or ",".

        Raises:
            TableError: a cell is no number, or one that is not wanted; some are per cent, and others are not.
        """
        numbers = {cell: self._number(where, line, cell, decimal) for cell, line in self.first.items()}
        self._check_percent(where)
        return [numbers[cell] for cell in self.cells]

    @cached_property
    def first(self) -> dict[str, int]:
        """Cells that differ, each with its first line."""
        found: dict[str, int] = {}
        for cell, line in zip(self.cells, self.lines, strict=True):
            found.setdefault(cell, line)
        return found

    def _number(self, where: Callable[[int], str], line: int, cell: str, decimal: str) -> float | None:
        bare = _bare(cell)
        if bare.lower() in self.nothing:
            return None
        value = self._value(bare, decimal)
        fits = abs(value) < self.most * (1 + 1e-12) and (self.signed or value >= _LEAST)
        if not fits or (self.kind == "whole" and not value.is_integer()):
            seen = f"{cell.strip()!r}" if bare else "empty"
            seen = f"{value:.4g}" if math.isfinite(value) and abs(value) >= self.most and bare else seen
            raise TableError(f"{where(line)}: {self.name} is {seen}; write {self.wanted}")
        return value

    def _value(self, bare: str, decimal: str) -> float:
        if decimal == "." and _PLAIN.fullmatch(bare):
            return float(bare) * self.scale
        match = _NUMBER.fullmatch(bare)
        if match is None:
            return math.nan
        sign, digits, exponent, unit = match.groups()
        factor = self._factor(unit)
        other = "," if decimal == "." else "."
        whole, _, _ = digits.partition(decimal)
        if factor is None or digits.count(decimal) > 1 or not _grouped(whole, other) or other in digits[len(whole) :]:
            return math.nan
        return float(f"{sign}{digits.replace(other, '').replace(decimal, '.')}{exponent or ''}") * factor

    def _factor(self, unit: str | None) -> float | None:
        """By what a number with this unit is multiplied; `None`: the unit makes no sense in this column."""
        if unit is None:
            return self.scale
        if unit == "%":
            return 0.01 if self.kind == "metric" else None
        return SECONDS.get(unit.lower().replace("\u03bc", "µ")) if self.kind == "time" else None

    def _check_percent(self, where: Callable[[int], str]) -> None:
        if self.kind != "metric":
            return
        first: dict[bool, tuple[int, str]] = {}
        for cell, line in self.first.items():
            if _bare(cell).lower() not in self.nothing:
                first.setdefault(_bare(cell).endswith("%"), (line, cell.strip()))
        if len(first) > 1:
            (line, percent), (other, plain) = first[True], first[False]
            raise TableError(
                f"{where(line)}: {self.name} is {percent!r}, and {plain!r} in line {other}; write all cells of "
                "the column with %, or none"
            )


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a column is written.

    Attributes:
        decimal: its decimal mark; `None`: its cells alone do not tell.
        mark: the separator that is there once, before three digits, where they do not tell.
        example: such a cell.
        line: of that cell.
    """

    decimal: Literal[".", ","] | None
    mark: str = ""
    example: str = ""
    line: int = 0

    def settled(self, column: Column, others: AbstractSet[str], separator: str) -> Literal[".", ","] | None:
        """The decimal mark by what the file shows elsewhere; `None`: it may still be either.

        Args:
            column: that is written so.
            others: decimal marks of the columns that tell theirs.
            separator: of the cells of the file.
        """
        if self.decimal is not None:
            return self.decimal
        counts = column.kind in ("whole", "count")
        if self.mark == ".":
            return "." if others != {","} else "," if counts else None
        if others == {"."}:
            return "."
        if counts:
            return "." if _short_beside(column) or (separator == "," and not others) else None
        return "," if others == {","} else None


def style_of(column: Column, where: Callable[[int], str]) -> Style:
    """How the numbers of a column are written, by its cells alone.

    Raises:
        TableError: one cell has a decimal comma and another a decimal point; both are named.
    """
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for cell, line in column.first.items():
        if "," in cell or "." in cell:
            for what in _signs(_bare(cell)):
                seen.setdefault(what, (line, cell.strip()))
    comma = [seen[k] for k in ((",", "decimal"), (".", "thousands")) if k in seen]
    point = [seen[k] for k in ((".", "decimal"), (",", "thousands")) if k in seen]
    either = {mark: seen[mark, "either"] for mark in ",." if (mark, "either") in seen}
    if not comma and "," in either and _no_decimals(column):
        point.append(either[","])
    if (comma and point) or len(either) > 1 or _is_mixed(column, comma, point, either, seen):
        rest = list(either.values())
        (line, one), (other, two) = (
            _two_ways(comma, [*point, *rest]) or _two_ways(point, rest) or _two_ways(rest, rest[1:])
        )
        raise TableError(
            f"{where(line)}: {column.name} is {one!r}, and {two!r} in line {other}: a decimal comma in one and a "
            "decimal point in the other, or separated thousands; write all cells of the column in one way, as 1234.5"
        )
    if comma:
        return Style(decimal=",")
    if point or not either:
        return Style(decimal=".")
    ((mark, (line, cell)),) = either.items()
    return Style(decimal=None, mark=mark, example=cell, line=line)


def _two_ways(some: Sequence[tuple[int, str]], others: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """A cell of each, with their lines; empty: there are not two."""
    return next((sorted((one, other)) for one in some for other in others if one != other), [])


def _is_mixed(
    column: Column,
    comma: Sequence[object],
    point: Sequence[object],
    either: dict[str, tuple[int, str]],
    seen: dict[tuple[str, str], tuple[int, str]],
) -> bool:
    """Whether 1.458 stands beside 0,5, or 1,458 beside 0.5, where nothing says that they are thousands."""
    if comma and "." in either:
        return (".", "thousands") not in seen
    return bool(point) and "," in either and (",", "thousands") not in seen and column.kind not in ("whole", "count")


def _no_decimals(column: Column) -> bool:
    """Whether the numbers are whole and would not be with a decimal comma."""
    if column.kind != "whole":
        return False
    return any("," in cell and not re.search(r",0+$", cell.strip()) for cell in column.first)


def _short_beside(column: Column) -> bool:
    """Whether other cells are plain numbers below 1000, and none is a plain one from there on."""
    plain = [bare for cell in column.first if re.fullmatch(r"[0-9]+", bare := _bare(cell))]
    return bool(plain) and max(map(len, plain)) <= _THREE


def _signs(bare: str) -> list[tuple[str, str]]:
    """Which marks a cell has, and as what: decimal, thousands, or either."""
    match = _NUMBER.fullmatch(bare)
    if match is None:
        return []
    digits, exponent = match.group(2), match.group(3)
    marks = {mark for mark in ",." if mark in digits}
    if len(marks) == 2:
        last = max(marks, key=digits.rfind)
        return [(last, "decimal"), ("," if last == "." else ".", "thousands")]
    (mark,) = marks or {""}
    if not mark:
        return []
    if digits.count(mark) > 1:
        return [(mark, "thousands")]
    before, _, after = digits.partition(mark)
    either = len(after) == _THREE and 1 <= len(before) <= _THREE and before[0] != "0" and not exponent
    return [(mark, "either" if either else "decimal")]


def _grouped(whole: str, mark: str) -> bool:
    """Whether digits are in groups of three, or in none."""
    first, *rest = whole.split(mark)
    return not rest or (1 <= len(first) <= _THREE and all(len(group) == _THREE for group in rest))


def _bare(cell: str) -> str:
    """Cell without what surrounds a number and separates its groups of three, other than comma and point."""
    bare = cell.strip()
    if not bare.isascii():
        bare = unicodedata.normalize("NFKC", bare).strip().replace("−", "-")
    if bare.isalnum():
        return bare
    bare = bare.strip("'\"")
    return _UNDERSCORE.sub("", _GROUPS.sub("", bare)) if _JOINERS & set(bare) else bare
