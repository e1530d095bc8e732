"""How the verdicts come about, and how far they can be trusted."""

from __future__ import annotations

from .....report.blocks import Judged, Section, Text, Verdicts
from .....wording import count, number, percent, plural, sentence
from ...comparisons import LOSS, TIME
from ...records import Claims, Verdict
from ...results import TaskResults

_TEXTS = (
    "The four texts: S0 and S1 are two collages, pages of single sentences that someone cut out of several articles "
    "and put together; where a sentence comes from stands behind it, as far as that could be found out. S2 is an "
    "article of SabrePC on epochs, batch size and iterations, S3 the article “Batch Size Vs. Batch Count”."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """The rule, the seeds, and the warning."""
    verdicts = [v for v in Verdict if any(c.verdict is v for c in claims.claims)]
    meanings = tuple(Judged((), v.value, "", "", (sentence(v.meaning),)) for v in verdicts)
    return Section(
        "reading", "How to read the verdicts", (Text((_TEXTS, *_rule(e), _warning(claims))), Verdicts(meanings))
    )


def _rule(e: TaskResults) -> tuple[str, ...]:
    small, large = e.ends
    return (
        "Each statement was turned into a number and a bound before anything was run. The number's 90 % confidence "
        f"interval over {plural(len(e.plan.seeds), 'seed')} decides: not held where the whole interval lies short of "
        "the smallest effect that would count, otherwise held where it lies wholly beyond the bound, and undecided in "
        f"all other cases. Fixed beforehand, too, is what counts: {percent(LOSS)} of a loss, half a point of a "
        f"hundred of an accuracy, {percent(TIME)} of a time or a number of steps.",
        f"“Small” and “large” are the ends of the grid, batch sizes {count(small)} and {count(large)}. “One learning "
        f"rate” is {number(e.one_rate)}, the best for batch size {count(small)}, for all of them.",
    )


def _warning(claims: Claims) -> str:
    n = len(claims.decided)
    if not n:
        return "Nothing was decided yet."
    return (
        f"{plural(n, 'statement')} {'was' if n == 1 else 'were'} decided at once. Were every interval only just "
        f"decisive, about {count(max(1, n / 20))} of the verdicts would be wrong by chance alone, so a single one "
        "that surprises is worth a second look, with more seeds or on another task. And all of them are about this "
        "task, this model and this device."
    )
