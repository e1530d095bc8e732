"""Fewer lines, points and rows than there are runs: a page of 10,000 runs still opens, and says what it leaves out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ..wording import count

__all__ = ["MOST_CURVES", "MOST_POINTS", "evenly", "left_out"]

MOST_CURVES = 200
"""Runs whose rows are read and drawn."""
MOST_POINTS = 1000
"""Runs of one kind in a figure, or in a table."""

Item = TypeVar("Item")


def evenly(items: Sequence[Item], most: int, keep: Callable[[Item], bool] = lambda item: False) -> tuple[Item, ...]:
    """At most so many items, evenly chosen with the first and the last, and those to keep, in their order.

    >>> evenly(range(100), 5), evenly(range(100), 3, lambda i: i == 7), evenly("abc", 5)
    ((0, 25, 50, 74, 99), (0, 7, 50, 99), ('a', 'b', 'c'))
    """
    if len(items) <= most:
        return tuple(items)
    chosen = {round(i * (len(items) - 1) / (most - 1)) for i in range(most)}
    return tuple(item for i, item in enumerate(items) if i in chosen or keep(item))


def left_out(shown: int, of: int, how: str = "drawn") -> str:
    """Sentence on what a figure or a table leaves out, with a space before it; empty where it leaves out nothing.

    >>> left_out(200, 10000), left_out(3, 3)
    (' Of these 10,000 runs 200 are drawn, evenly chosen.', '')
    """
    return f" Of these {count(of)} runs {count(shown)} are {how}, evenly chosen." if shown < of else ""
