"""What the texts say and nothing here can decide."""

from __future__ import annotations

from .....report.blocks import Section, Text, Verdicts
from .....wording import plural
from ...records import Claims
from ...results import TaskResults
from ..themes import UNTESTABLE, claims_of
from ..wording import judged

_INTRODUCTION = (
    "Some of what the texts say is advice, a judgement of worth, a reference, or about something that one task on "
    "one device cannot show. It stands here for completeness, with the reason."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """All statements that cannot be tested, folded."""
    del e
    own = claims_of(claims, UNTESTABLE)
    listed = Verdicts(judged(own, compared=False), plural(len(own), "statement"))
    return Section(UNTESTABLE.name, UNTESTABLE.title, (Text((_INTRODUCTION,)), listed))
