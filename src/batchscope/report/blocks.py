"""Blocks of a page's sections: plain records that the template draws and escapes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

__all__ = [
    "Block",
    "Code",
    "Column",
    "Dispute",
    "Facts",
    "Figure",
    "Json",
    "Judged",
    "Key",
    "Option",
    "Row",
    "Section",
    "Shares",
    "Statement",
    "Switch",
    "Table",
    "Tagged",
    "Text",
    "Verdicts",
    "without",
]

Json = dict[str, Any]
"""A part of a chart's description, in JSON types; the one place where `Any` stands for what Plotly accepts."""

Mark = Literal["line", "dash", "dot", "band", "disc", "small", "open", "arrow", "cross"]


@dataclass(frozen=True)
class Text:
    """Paragraphs; `tone` is `lead` for what must be read first and `note` for what may be skipped."""

    paragraphs: tuple[str, ...]
    tone: Literal["", "lead", "note", "status"] = ""
    badge: str = ""
    doubtful: bool = False
    """Whether the badge is to look like a warning, whatever it says."""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Facts:
    """Facts: names and their values."""

    pairs: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Column:
    """Head of a table's column."""

    label: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Table; it scrolls in its own box when it is wider than the screen."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    emphasised: int | None = None
    """The row to set in bold."""
    kind: ClassVar[str] = "table"


def without(table: Table, label: str) -> Table:
    """The table without a column."""
    at = next(i for i, column in enumerate(table.columns) if column.label == label)
    rows = tuple((*cells[:at], *cells[at + 1 :]) for cells in table.rows)
    return replace(table, columns=(*table.columns[:at], *table.columns[at + 1 :]), rows=rows)


@dataclass(frozen=True)
class Tagged:
    """Statements, each with a tag that says where it comes from, and its source."""

    items: tuple[tuple[str, str, str], ...]
    kind: ClassVar[str] = "tagged"


@dataclass(frozen=True)
class Code:
    """Code of a program to copy."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Key:
    """Entry of a figure's legend, drawn beside the chart and never over it."""

    mark: Mark
    colour: str
    label: str
    group: str = ""
    """The traces' `legendgroup` that this entry shows and hides; empty: the entry only explains."""


@dataclass(frozen=True)
class Option:
    """Position of a switch: the values of every trace, and what changes in the layout."""

    label: str
    data: tuple[tuple[float | None, ...], ...]
    layout: Json


@dataclass(frozen=True)
class Switch:
    """Switch that exchanges one axis of all traces."""

    axis: Literal["x", "y"]
    label: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Figure:
    """Chart with the sentence that says what to conclude from it."""

    name: str
    """Unique on the page; letters and hyphens."""
    title: str
    """What the vertical axis shows."""
    data: tuple[Json, ...]
    layout: Json
    caption: str
    keys: tuple[Key, ...] = ()
    switches: tuple[Switch, ...] = ()
    kind: ClassVar[str] = "figure"

    def drawing(self) -> Json:
        """JSON that the page's script draws from."""
        switches = [
            {"axis": switch.axis, "options": [{"data": o.data, "layout": o.layout} for o in switch.options]}
            for switch in self.switches
        ]
        return {"data": self.data, "layout": self.layout, "switches": switches}


@dataclass(frozen=True)
class Row:
    """Figures beside one another where the screen is wide enough, with a caption each."""

    figures: tuple[Figure, ...]
    kind: ClassVar[str] = "row"


@dataclass(frozen=True)
class Shares:
    """Bar that shows how a whole is made up: verdicts, each with its number."""

    parts: tuple[tuple[str, int], ...]
    kind: ClassVar[str] = "shares"


@dataclass(frozen=True)
class Statement:
    """Statement of a text, with its id and source."""

    id: str
    statement: str
    source: str


@dataclass(frozen=True)
class Judged:
    """Statements that one measurement decides, and its verdict."""

    statements: tuple[Statement, ...] = field(metadata={"member": "said"})
    verdict: str
    on: str
    """What the verdict depends on; mostly empty."""
    effect: str
    reasons: tuple[str, ...]
    """What was compared, a sentence each; more than two are folded."""


@dataclass(frozen=True)
class Verdicts:
    """Statements with their verdicts; with a title they are folded and small."""

    items: tuple[Judged, ...]
    title: str = ""
    kind: ClassVar[str] = "verdicts"


@dataclass(frozen=True)
class Dispute:
    """Statements that contradict each other, side by side, and how it ends here."""

    name: str
    """The anchor; letters and hyphens."""
    title: str
    sides: tuple[tuple[Judged, ...], ...]
    conclusion: str
    kind: ClassVar[str] = "dispute"


Block = Text | Facts | Table | Tagged | Code | Figure | Row | Shares | Verdicts | Dispute


@dataclass(frozen=True)
class Section:
    """Section of a page, with its heading."""

    name: str
    """The anchor; letters and hyphens."""
    title: str
    blocks: tuple[Block, ...]
    folded: bool = False
