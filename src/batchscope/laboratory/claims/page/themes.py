"""Which theme of the page a statement belongs to: that of the first measurement it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..records import Claim, Claims
from ..statements import Need, Statement, statements

__all__ = ["THEMES", "UNTESTABLE", "Theme", "claims_of", "theme_of"]


@dataclass(frozen=True)
class Theme:
    """A section of the page."""

    name: str
    """The anchor, and the word in the page's navigation."""
    title: str
    needs: tuple[Need, ...]


THEMES = (
    Theme("words", "Words and counting", (Need.COUNTERS,)),
    Theme("speed", "Speed of the hardware, and memory", (Need.TIMING, Need.MEMORY)),
    Theme("convergence", "Convergence at equally many epochs", (Need.FIXED_EPOCHS,)),
    Theme("length", "How long to train", (Need.FIXED_STEPS, Need.EARLY_STOPPING)),
    Theme("rate", "The learning rate", (Need.RATE_COMPENSATION,)),
    Theme("gradients", "Gradients", (Need.GRADIENTS,)),
    Theme("distance", "How far, and how sharp", (Need.DISTANCE, Need.SHARPNESS)),
    Theme("normalisation", "Batch normalisation", (Need.BATCH_NORM,)),
    Theme("noise", "Noise as a regulariser", (Need.REGULARISING_NOISE,)),
    Theme("trials", "Trial and error", (Need.TRIAL_AND_ERROR,)),
)
"""In the order of the page."""

UNTESTABLE = Theme("untestable", "What cannot be tested here", ())
"""Of the statements that need no measurement: nothing decides them."""


def theme_of(statement: Statement) -> Theme:
    """The one theme of a statement.

    >>> [theme_of(statements()[name]).name for name in ("S0.4b", "S2.7b", "S0.21")]
    ['distance', 'convergence', 'untestable']
    """
    if not statement.needs:
        return UNTESTABLE
    return next(theme for theme in THEMES if statement.needs[0] in theme.needs)


def claims_of(claims: Claims, theme: Theme) -> Sequence[Claim]:
    """What belongs to a theme, in the order of the texts."""
    texts = statements()
    return [claim for claim in claims.claims if theme_of(texts[claim.id]) is theme]
