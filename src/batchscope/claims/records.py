"""What is said of a statement after measuring: a verdict, the number that decides, and the runs behind it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from ..codec import encode
from ..records import SCHEMA, Estimate
from ..study import Study

__all__ = ["NOTHING", "Claim", "Claims", "Verdict"]

NOTHING = Estimate(value=None, low=None, high=None, n=0, unit="", method="nothing was measured")


class Verdict(enum.StrEnum):
    """What this task says of a statement."""

    HELD = "held"
    NOT_HELD = "not held"
    DEPENDS = "depends"
    UNDECIDED = "undecided"
    NOT_TESTABLE = "not testable"

    @property
    def meaning(self) -> str:
        """The sentence a user reads."""
        return _MEANING[self]

    @property
    def decided(self) -> bool:
        """Whether the evidence was enough."""
        return self in (Verdict.HELD, Verdict.NOT_HELD, Verdict.DEPENDS)


_MEANING = {
    Verdict.HELD: "it is so on this task, beyond the intervals",
    Verdict.NOT_HELD: "it is not so on this task: the opposite, or nothing that would count, beyond the intervals",
    Verdict.DEPENDS: "it is so under one condition and not so under another, both beyond the intervals",
    Verdict.UNDECIDED: "the evidence is not enough to tell",
    Verdict.NOT_TESTABLE: "nothing that is measured here decides it",
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement and what this task says of it."""

    id: str
    statement: str
    source: str
    pair: str | None
    """The statement that says the opposite."""
    verdict: Verdict
    on: str | None
    """What it depends on; only with `depends`."""
    reason: str
    """What was compared, with its numbers; why nothing was decided; or why it cannot be."""
    effect: Estimate
    """The number that decides."""
    runs: tuple[str, ...]
    """The ids of the runs behind it."""


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Every statement with its verdict on one task, and the study that they rest on."""

    task: str
    claims: tuple[Claim, ...]
    study: Study
    """Rows, summary and measurements of the runs."""
    schema: int = SCHEMA

    @property
    def testable(self) -> tuple[Claim, ...]:
        """Those that a measurement could decide here."""
        return tuple(claim for claim in self.claims if claim.verdict is not Verdict.NOT_TESTABLE)

    @property
    def decided(self) -> tuple[Claim, ...]:
        """Those that were."""
        return tuple(claim for claim in self.claims if claim.verdict.decided)

    def answer(self) -> dict[str, Any]:
        """The members that scripts rely on, in JSON types."""
        return {"task": self.task, "claims": encode(self.claims)}
