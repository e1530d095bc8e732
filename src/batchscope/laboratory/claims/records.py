"""Records of claims: a statement's verdict, the number that decides, and the runs behind it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ...store.codec import encode
from ...store.records import SCHEMA, Estimate
from ...wording import number, with_interval
from ..records import Study

__all__ = ["NOTHING", "Claim", "Claims", "Comparison", "Verdict", "in_words"]

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
class Comparison:
    """One thing that a verdict rests on: an effect and where it would have to lie, or a finding in words alone.

    >>> effect = Estimate(value=1.5, low=1.2, high=1.9, n=5, unit="", method="")
    >>> c = Comparison(what="the ratio", effect=effect, relation="above", bounds=(1.0,), minimum_effect=0.05)
    >>> c.sentence
    'the ratio is 1.5 (1.2–1.9); it holds where the interval lies above 1, and not where it lies below 1.05'
    """

    what: str
    """The effect in words; without a relation, the whole finding."""
    conditions: tuple[str, ...] = ()
    """Under which it was measured, the outermost first."""
    effect: Estimate = NOTHING
    relation: Literal["", "above", "below", "off", "within"] = ""
    """How the effect would have to lie to the bounds; empty: nothing was compared."""
    bounds: tuple[float, ...] = ()
    """One number; with `within` the two ends."""
    minimum_effect: float = field(default=0.0, metadata={"member": "least"})
    """The smallest effect that would count."""
    rule: str = ""
    """Words for the relation, where the numbers alone do not say it."""

    @property
    def sentence(self) -> str:
        """The comparison in words, its conditions in front."""
        return ": ".join((*self.conditions, self._unconditional))

    @property
    def _unconditional(self) -> str:
        if not self.relation:
            return self.what
        return f"{self.what} is {with_interval(self.effect)}; {self.rule or self._required}"

    @property
    def _required(self) -> str:
        if self.relation == "within":
            return f"it holds where the interval lies from {number(self.bounds[0])} to {number(self.bounds[1])}"
        bound, least = self.bounds[0], self.minimum_effect
        if self.relation == "off":
            return f"it holds where the interval lies off {number(bound)} by more than {number(least)}"
        counts, side = (bound + least, "below") if self.relation == "above" else (bound - least, "above")
        fails = f", and not where it lies {side} {number(counts)}" if least else ""
        return f"it holds where the interval lies {self.relation} {number(bound)}{fails}"

    def after(self, other: Comparison | None) -> str:
        """The comparison in words where it follows another one: conditions that both share are not said again."""
        shared = other is not None and self.conditions == other.conditions
        return self._unconditional if shared else self.sentence


def in_words(comparisons: Sequence[Comparison]) -> str:
    """All comparisons of a verdict as one text, for `reason`."""
    before = (None, *comparisons)
    return "; ".join(now.after(previous) for previous, now in zip(before, comparisons, strict=False))


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
    comparisons: tuple[Comparison, ...] = ()
    """What `reason` says, one by one; empty in files of earlier versions, which have the reason alone."""
    agrees: bool | None = None
    """Of a definition: whether what was counted is as the text has it; `None`: nothing was counted."""


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
        """The statements that a measurement could decide here."""
        return tuple(claim for claim in self.claims if claim.verdict is not Verdict.NOT_TESTABLE)

    @property
    def decided(self) -> tuple[Claim, ...]:
        """The statements that were decided."""
        return tuple(claim for claim in self.claims if claim.verdict.decided)

    def answer(self) -> dict[str, Any]:
        """The members that scripts rely on, in JSON types."""
        return {"task": self.task, "claims": encode(self.claims)}
