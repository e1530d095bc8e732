"""Where the texts contradict each other: statements and those that say the opposite, parted into two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ....wording import joined
from ..records import Claim, Claims, Verdict
from ..statements import statements

__all__ = ["Contradiction", "Side", "contradictions"]

_TITLES: Mapping[str, str] = {
    "S0.5a": "Which converges in fewer epochs, a small batch or a large one?",
    "S3.6b": "Which training runs more smoothly?",
    "S0.19b": "Is the gradient of one large step small, or large?",
    "S1.6": "Which comes sooner to a given accuracy?",
    "S1.15b": "Does a large batch overfit, or does it not get that far?",
}
"""By one statement of each; a contradiction that is not listed is named by its statements."""
_STATES = {
    Verdict.HELD: "holds",
    Verdict.NOT_HELD: "does not hold",
    Verdict.DEPENDS: "depends",
    Verdict.UNDECIDED: "is undecided",
    Verdict.NOT_TESTABLE: "cannot be tested here",
}


Side = tuple[Claim, ...]


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Statements of which each contradicts one of the other side at least."""

    sides: tuple[Side, Side]

    @property
    def title(self) -> str:
        """The contradiction as a question."""
        titles = (_TITLES[claim.id] for side in self.sides for claim in side if claim.id in _TITLES)
        return next(titles, " against ".join(_ids(side) for side in self.sides))

    @property
    def taken(self) -> Side | None:
        """The side that holds here, where all of it does and nothing of the other."""
        for side, other in (self.sides, self.sides[::-1]):
            if _all(side, Verdict.HELD) and _all(other, Verdict.NOT_HELD):
                return side
        return None

    @property
    def conclusion(self) -> str:
        """How the contradiction ends on this task."""
        one, other = self.sides
        verdicts = {claim.verdict for side in self.sides for claim in side}
        if (side := self.taken) is not None:
            against = other if side is one else one
            words = side[0].statement.rstrip(".")
            return f"This task sides with {_ids(side)} (“{words}”), against {_ids(against)}."
        if verdicts == {Verdict.HELD}:
            return "Both sides hold here: what they say is not of the same thing, or not under the same condition."
        if verdicts == {Verdict.NOT_HELD}:
            return "Neither side holds here: no difference that would count, or a condition of each fails."
        if verdicts == {Verdict.UNDECIDED}:
            return "This task does not decide it: the evidence is not enough to tell."
        if Verdict.DEPENDS in verdicts and Verdict.HELD not in verdicts - {Verdict.DEPENDS}:
            on = dict.fromkeys(c.on for side in self.sides for c in side if c.on)
            return f"Both are right in part: it depends on {joined(list(on))}.{self._others(Verdict.DEPENDS)}"
        return f"No side is right throughout: {self._verdict_words()}."

    def _others(self, verdict: Verdict) -> str:
        rest = [c for side in self.sides for c in side if c.verdict is not verdict]
        return f" Of the others, {_states(rest)}." if rest else ""

    def _verdict_words(self) -> str:
        return _states([claim for side in self.sides for claim in side])


def contradictions(claims: Claims) -> tuple[Contradiction, ...]:
    """All contradictions: each statement with those that it contradicts, directly or through others."""
    by_id = {claim.id: claim for claim in claims.claims}
    texts = statements()
    found: list[Contradiction] = []
    seen: set[str] = set()
    for start in texts:
        if start in seen or start not in by_id or not texts[start].contradicted_by:
            continue
        side_of = {start: 0}
        waiting = [start]
        while waiting:
            now = waiting.pop()
            for other in texts[now].contradicted_by:
                if other not in side_of and other in by_id:
                    side_of[other] = 1 - side_of[now]
                    waiting.append(other)
        seen |= set(side_of)
        one, other = (tuple(by_id[i] for i in texts if side_of.get(i) == side) for side in (0, 1))
        found.append(Contradiction(sides=(one, other)))
    return tuple(found)


def _ids(side: Sequence[Claim]) -> str:
    return joined([claim.id for claim in side])


def _all(side: Sequence[Claim], verdict: Verdict) -> bool:
    return all(claim.verdict is verdict for claim in side)


def _states(found: Sequence[Claim]) -> str:
    by_verdict: dict[Verdict, list[str]] = {}
    for claim in found:
        by_verdict.setdefault(claim.verdict, []).append(claim.id)
    plurals = {"holds": "hold", "does not hold": "do not hold", "depends": "depend", "is undecided": "are undecided"}
    return joined(
        [
            f"{joined(ids)} {_STATES[v] if len(ids) == 1 else plurals.get(_STATES[v], _STATES[v])}"
            for v, ids in by_verdict.items()
        ]
    )
