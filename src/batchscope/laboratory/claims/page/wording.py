"""What the sections of the verdicts' page share in words: verdicts as blocks, counts, changes with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ....report.blocks import Block, Judged, Section, Statement, Text, Verdicts
from ....store.records import Estimate
from ....wording import joined, number, plural, sentence, times, with_interval
from ..records import Claim, Claims, Verdict
from ..results import TaskResults
from ..statements import Kind, statements
from .themes import Theme, claims_of

__all__ = [
    "changed",
    "counted",
    "effect_of",
    "judged",
    "missing",
    "no_runs",
    "note",
    "theme_section",
    "times_as",
]

_ORDER = (Verdict.HELD, Verdict.DEPENDS, Verdict.NOT_HELD, Verdict.UNDECIDED, Verdict.NOT_TESTABLE)
_WORDS = {
    Verdict.HELD: ("holds", "hold"),
    Verdict.DEPENDS: ("holds under a condition", "hold under a condition"),
    Verdict.NOT_HELD: ("does not hold", "do not hold"),
    Verdict.UNDECIDED: ("is undecided", "are undecided"),
}
_QUOTED = 3


# --- verdicts ---------------------------------------------------------------------------------------------------------


def effect_of(claim: Claim) -> str:
    """The number that decides, as it stands under a verdict; empty where there is none."""
    ends = (claim.effect.value, claim.effect.low, claim.effect.high)
    return "" if ends == (None, None, None) else with_interval(claim.effect)


def _reasons(claim: Claim) -> tuple[str, ...]:
    """A sentence for each comparison, equal ones once; for a claim that was stored without them, its reason as one."""
    return tuple(dict.fromkeys(sentence(c.sentence) for c in claim.comparisons)) or (sentence(claim.reason),)


def judged(claims: Iterable[Claim], *, compared: bool = True) -> tuple[Judged, ...]:
    """Those that held first; statements that one measurement decides in the same way stand together.

    Args:
        claims: any.
        compared: whether a number decides them; otherwise the reason alone is shown, as one sentence.
    """
    groups: dict[tuple[object, ...], list[Claim]] = {}
    for claim in sorted(claims, key=lambda c: _ORDER.index(c.verdict)):
        groups.setdefault((claim.verdict, claim.on, claim.reason, claim.effect), []).append(claim)
    return tuple(
        Judged(
            statements=tuple(Statement(c.id, c.statement, c.source) for c in group),
            verdict=group[0].verdict.value,
            on=group[0].on or "",
            effect=effect_of(group[0]) if compared else "",
            reasons=_reasons(group[0]) if compared else (sentence(group[0].reason),),
        )
        for group in groups.values()
    )


def counted(claims: Sequence[Claim]) -> str:
    """How the verdicts of a theme fall, as a sentence; empty where nothing can be tested."""
    testable = [c for c in claims if c.verdict is not Verdict.NOT_TESTABLE]
    if not testable:
        return ""
    if len(testable) == 1:
        return f"The one statement here that can be tested {_WORDS[testable[0].verdict][0]} on this task."
    if len(kinds := {c.verdict for c in testable}) == 1:
        every = "Both" if len(testable) == 2 else f"All {len(testable)}"
        return f"{every} statements here that can be tested {_WORDS[kinds.pop()][1]} on this task."
    counts = {verdict: sum(c.verdict is verdict for c in testable) for verdict in _WORDS}
    phrase = joined([f"{n} {_WORDS[v][0 if n == 1 else 1]}" for v, n in counts.items() if n])
    return f"On this task, of {plural(len(testable), 'statement')} that can be tested, {phrase}."


def _not_so(claims: Sequence[Claim]) -> str:
    """What does not hold, quoted; of a sentence that several texts have, one."""
    found = list(dict.fromkeys(c.statement.rstrip(".") for c in claims if c.verdict is Verdict.NOT_HELD))
    if not found:
        return ""
    quoted = joined([f"“{statement}”" for statement in found[:_QUOTED]])
    more = f", and {plural(len(found) - _QUOTED, 'other')} below" if len(found) > _QUOTED else ""
    return f"Not so here: {quoted}{more}."


def theme_section(
    claims: Claims, theme: Theme, textbooks: str, found: Sequence[str], drawn: Sequence[Block]
) -> Section:
    """A section of the page: what the texts say, what this task says, figures, and the statements one by one.

    Args:
        claims: all.
        theme: whose statements stand here.
        textbooks: what the texts say of it, in our words.
        found: sentences from this task's own numbers; empty ones are left out.
        drawn: figures, or a sentence for what is missing.
    """
    own = claims_of(claims, theme)
    definitions = {name for name, statement in statements().items() if statement.kind is Kind.DEFINITION}
    main = [c for c in own if c.verdict is not Verdict.NOT_TESTABLE]
    words = [c for c in own if c.verdict is Verdict.NOT_TESTABLE and c.id in definitions]
    others = [c for c in own if c.verdict is Verdict.NOT_TESTABLE and c.id not in definitions]
    here = " ".join(filter(None, (counted(own), *found, _not_so(own))))
    blocks: list[Block] = [Text((textbooks, here) if here else (textbooks,)), *drawn]
    blocks += [Verdicts(judged(main))] if main else []
    blocks += _folded(words, "definition", _checked(words)) + _folded(others, "statement", "not testable here")
    return Section(theme.name, theme.title, tuple(blocks))


def _checked(definitions: Sequence[Claim]) -> str:
    """How many definitions agree with what was counted; empty where nothing was counted."""
    agree, differ = (sum(c.agrees is wanted for c in definitions) for wanted in (True, False))
    if not agree + differ:
        return ""
    detail = "checked in real runs" if agree == len(definitions) else f"{agree} of them checked in real runs"
    return f"{detail}, {differ} not as the text has it" if differ else detail


def _folded(claims: Sequence[Claim], noun: str, rest: str) -> list[Block]:
    title = ", ".join(filter(None, (plural(len(claims), noun), rest)))
    return [Verdicts(judged(claims, compared=False), title)] if claims else []


# --- sentences --------------------------------------------------------------------------------------------------------


def times_as(effect: Estimate, more: str, less: str, same: str, *, format: Callable[[float], str] = times) -> str:
    """A ratio in words, which way it goes if its interval says so; empty where it is not known.

    >>> def e(*v): return Estimate(value=v[0], low=v[1], high=v[2], n=3, unit="times", method="")
    >>> times_as(e(3, 2, 4), "longer", "shorter", "as long"), times_as(e(1.1, 0.9, 1.3), "longer", "shorter", "as long")
    ('longer: 3 times (2–4)', 'as long within the intervals: 1.1 times (0.9–1.3)')
    """
    if effect.value is None:
        return ""
    if effect.low is not None and effect.low > 1:
        word = more
    elif effect.high is not None and effect.high < 1:
        word = less
    else:
        word = f"{same} within the intervals"
    return f"{word}: {with_interval(effect, format)}"


def changed(change: Estimate, *, larger_is_better: bool = True) -> str:
    """A difference in words, by its interval.

    >>> changed(Estimate(value=-0.04, low=-0.05, high=-0.03, n=3, unit="", method=""))
    'worse by 0.04 (0.03–0.05)'
    """
    if change.value is None:
        return "not known"
    size = change
    if change.value < 0:
        low, high = (None if v is None else -v for v in (change.high, change.low))
        size = Estimate(value=-change.value, low=low, high=high, n=change.n, unit=change.unit, method=change.method)
    if change.low is None or change.high is None or change.low <= 0 <= change.high:
        detail = f"{number(change.value)}, {number(change.low)} to {number(change.high)}"
        return f"no different within the intervals ({detail})"
    better = (change.value > 0) == larger_is_better
    return f"{'better' if better else 'worse'} by {with_interval(size)}"


def note(text: str) -> Text:
    """A remark in place of a figure."""
    return Text((text,), tone="note")


def missing(e: TaskResults, what: str, measurement: str) -> Text:
    """Why a measurement is not drawn: it was not made in time, or cannot be made."""
    return note(f"No figure of {what}: {e.why_not(measurement) or 'nothing in it can be drawn'}.")


def no_runs(what: str) -> Text:
    """Why runs are not drawn."""
    return note(f"No figure of {what}: the runs were not made before the budget was used up, or all diverged.")
