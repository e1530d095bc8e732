"""What the texts say and nothing here can decide."""

from __future__ import annotations

from ...claims.evidence import TaskResults
from ...claims.records import Claims
from ...wording import plural
from ..blocks import Section, Text, Verdicts
from ..claims_text import judged
from ..claims_themes import UNTESTABLE, claims_of

_INTRODUCTION = (
    "Some of what the texts say is advice, a judgement of worth, a reference, or about something that one task on "
    "one device cannot show. It stands here for completeness, with the reason."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """All of them, folded."""
    del e
    own = claims_of(claims, UNTESTABLE)
    listed = Verdicts(judged(own, compared=False), plural(len(own), "statement"))
    return Section(UNTESTABLE.name, UNTESTABLE.title, (Text((_INTRODUCTION,)), listed))
