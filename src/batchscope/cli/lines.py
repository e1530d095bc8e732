"""A table of many rows: laid out in a moment, where a table of rich takes a millisecond a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style

__all__ = ["Lines"]


class Lines:
    """Table of one line a row, which is never folded.

    Args:
        numbers: labels of the columns of numbers, which come first; a label may have several lines.
        texts: labels of the others.
    """

    def __init__(self, numbers: Sequence[str], texts: Sequence[str]) -> None:
        self._numbers = len(numbers)
        self._heads = [label.split("\n") for label in (*numbers, *texts)]
        self._rows: list[tuple[str, ...]] = []

    def add(self, *cells: str) -> None:
        """Add a row: a cell a column."""
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """The head, then all rows."""
        depth = max(map(len, self._heads))
        heads = list(zip(*(["" for _ in range(depth - len(head))] + head for head in self._heads), strict=True))
        widths = [max(map(len, column)) for column in zip(*heads, *self._rows, strict=True)]
        sides = [">" if i < self._numbers else "<" for i in range(len(widths))]
        form = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
        for head in heads:
            yield Segment(form.format(*head).rstrip(), Style(bold=True))
            yield Segment.line()
        if self._rows:
            yield Segment("\n".join(form.format(*row).rstrip() for row in self._rows))
            yield Segment.line()
