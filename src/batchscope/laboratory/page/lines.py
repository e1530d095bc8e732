"""What the sections of a study's page share: the arms that are drawn, their names, colours and courses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...report.blocks import Json
from ...report.charts import points, safe, with_errors
from ...wording import count, number, with_interval
from ..courses import Course, course_of
from ..records import Study, SummaryRow

if TYPE_CHECKING:
    from ...store.runs import StoredRun

__all__ = ["Line", "courses_of", "lines_of", "marks_of", "value_of"]

_COLOURS = 8


class Line(NamedTuple):
    """An arm at the best learning rate of its batch size, with the name and the colour that it has in every figure."""

    arm: SummaryRow
    name: str
    """The variant, where there are several, and the batch size."""
    colour: str
    group: str

    @property
    def label(self) -> str:
        """The name with the learning rate."""
        return f"{self.name} at learning rate {number(self.arm.lr)}"


def lines_of(study: Study) -> tuple[Line, ...]:
    """Each batch size (of each variant) at its best learning rate, the smallest first."""
    arms = sorted((s for s in study.summary if s.best_lr), key=lambda s: (s.batch_size, s.variant))
    several = len({a.variant for a in arms}) > 1
    return tuple(
        Line(a, _name(a, several), f"var(--size-{_shade(i, len(arms))})", f"line-{i}") for i, a in enumerate(arms)
    )


def _name(arm: SummaryRow, several: bool) -> str:
    variant = f"{arm.variant or 'as it is'}, " if several else ""
    return f"{variant}batch size {count(arm.batch_size)}"


def _shade(index: int, of: int) -> int:
    return round(index * (_COLOURS - 1) / (of - 1)) if of > 1 else _COLOURS // 2


def courses_of(study: Study, runs: Sequence[StoredRun]) -> tuple[tuple[Line, Course], ...]:
    """The lines with their mean courses; arms whose runs all diverged have none."""
    found = ((line, course_of(study, runs, line.arm)) for line in lines_of(study))
    return tuple((line, course) for line, course in found if course is not None)


def value_of(arm: SummaryRow, name: str) -> float | None:
    """The mean of a value over the seeds."""
    return arm.estimates[name].value if name in arm.estimates else None


def marks_of(lines: Sequence[Line], name: str, *, mark: str = "disc", colour: str = "") -> Json:
    """A value against batch size, with its interval; in one colour, or each line in its own."""
    measured = [line for line in lines if value_of(line.arm, name) is not None]
    found = [line.arm.estimates[name] for line in measured]
    texts = [f"{safe(line.label)}<br>{with_interval(e)}" for line, e in zip(measured, found, strict=True)]
    drawn = points(
        [line.arm.batch_size for line in measured],
        [e.value for e in found],
        texts,
        mark="open" if mark == "open" else "disc",
        colour=colour or "var(--line)",
    )
    below = [(e.value or 0.0) - e.low if e.low is not None else 0.0 for e in found]
    above = [e.high - (e.value or 0.0) if e.high is not None else 0.0 for e in found]
    return with_errors(drawn, below, above)
