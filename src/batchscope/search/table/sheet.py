"""A text file of rows and columns: its encoding, what separates its cells, its column names, and some of its columns.

A file of many ignored columns costs their reading, not their memory.
"""

from __future__ import annotations

import csv
import errno
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import TableError
from ...store.files import regular_bytes
from ...wording import plural

__all__ = ["EXAMPLE", "Cells", "Sheet"]

EXAMPLE = "batch_size,steps_to_target,step_time_s,lr"
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
_SEP_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_MOST_BYTES = 2**30
_RULER = re.compile(r"\s*:?-{2,}:?\s*")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Some columns of a file.

    Attributes:
        lines: where each row ends in the file, counted from 1.
        columns: cells by the index of the column.
        digests: of all cells of each row; equal where every cell is the same.
    """

    lines: list[int]
    columns: dict[int, list[str]]
    digests: list[int]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A file whose column names are known.

    Attributes:
        path: of the file.
        separator: of its cells.
        line: of the column names.
        names: of the columns, as written.
    """

    path: Path
    separator: str
    line: int
    names: tuple[str, ...]
    _text: str = field(repr=False)
    _bordered: bool = field(default=False, repr=False)

    @classmethod
    def read(cls, path: Path) -> Sheet:
        """Read a file up to its column names.

        Raises:
            TableError: it cannot be read, is no text, or is empty.
        """
        text = _text_of(path)
        lines = text.splitlines()
        first = next((line for line in lines if line.strip()), "")
        if not first:
            raise TableError(
                f"{path} is empty; write a line of column names, then one line a run, for example {EXAMPLE}"
            )
        if first.lstrip()[0] in "{[":
            raise TableError(
                f"{path} holds JSON; fit reads CSV: write it as such, for example with "
                "pandas.read_json(...).to_csv('runs.csv', index=False)"
            )
        named = _SEP_LINE.fullmatch(first.strip())
        header = next((line for line in lines[lines.index(first) + 1 :] if line.strip()), "") if named else first
        separator = named[1] if named else _separator_of(header)
        sheet = cls(path=path, separator=separator, line=0, names=(), _text=text)
        rows = sheet._rows()
        if named:
            next(rows, None)
        line, names = next(rows, (0, [""]))
        bordered = separator == "|" and len(names) > 2 and not names[0].strip() and not names[-1].strip()
        names = _within_borders(names) if bordered else names
        return cls(path=path, separator=separator, line=line, names=tuple(names), _text=text, _bordered=bordered)

    def where(self, line: int) -> str:
        """Place of a line, for messages."""
        return f"{self.path} line {line}"

    def cells(self, indices: Sequence[int]) -> Cells:
        """Cells of some columns.

        Raises:
            TableError: there is no row, or one has more or fewer cells than there are names.
        """
        lines: list[int] = []
        digests: list[int] = []
        columns: dict[int, list[str]] = {i: [] for i in indices}
        for line, cells in self._rows():
            if line <= self.line:
                continue
            cells = self._whole(line, _within_borders(cells) if self._bordered else cells)
            lines.append(line)
            digests.append(hash(tuple(cells)))
            for i, column in columns.items():
                column.append(cells[i])
        if not lines:
            raise TableError(f"{self.path} has column names and no row; write one line for each run")
        return Cells(lines=lines, columns=columns, digests=digests)

    def _whole(self, line: int, cells: list[str]) -> list[str]:
        """The cells of a row, one under each name."""
        if len(cells) > len(self.names) and not any(cell.strip() for cell in cells[len(self.names) :]):
            cells = cells[: len(self.names)]
        if len(cells) != len(self.names):
            comma = self.separator == "," and len(cells) > len(self.names)
            hint = "; a number with a decimal comma stands in quotes, or semicolons separate the cells" if comma else ""
            raise TableError(
                f"{self.where(line)}: {plural(len(cells), 'cell')} under {plural(len(self.names), 'column name')}; "
                f"write one cell for each, empty where nothing is known{hint}"
            )
        return cells

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Lines and cells of the rows that are not empty, the names among them."""
        reader = csv.reader(io.StringIO(self._text, newline=""), delimiter=self.separator, skipinitialspace=True)
        try:
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if self.separator == "|" and all(_RULER.fullmatch(cell) for cell in cells if cell.strip()):
                    continue
                yield reader.line_num, cells
        except csv.Error as error:
            raise TableError(
                f"{self.path} line {reader.line_num}: {error}; write one line a run with cells apart by "
                f"{_SEPARATORS.get(self.separator, self.separator)}"
            ) from None


def _text_of(path: Path) -> str:
    try:
        content = regular_bytes(path, _MOST_BYTES)
    except OSError as error:
        what = "it is no regular file" if error.errno == errno.ENXIO else error.strerror or error
        raise TableError(f"{path}: {what}; give the path of a table of measurements") from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise TableError(f"{path} is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from None
    if "\0" in text:
        raise TableError(f"{path} is not text: it holds a zero byte; save it as CSV in UTF-8")
    return text


def _within_borders(cells: list[str]) -> list[str]:
    """Cells of a row of Markdown, without the empty ones outside its bars; a row may lack the bars.

    >>> _within_borders(["", "256", "", ""]), _within_borders(["256", ""])
    (['256', ''], ['256', ''])
    """
    if cells[0].strip():
        return cells
    return cells[1:] if cells[-1].strip() else cells[1:-1]


def _separator_of(header: str) -> str:
    """What separates the column names: of commas, semicolons, tabs and bars what is there most often, else spaces."""
    bare = re.sub(r'"[^"]*"', "", header)
    found = max(",;\t|", key=bare.count)
    return found if bare.count(found) else " " if re.search(r"\S\s+\S", bare) else ","
