"""Which run comes next: strategies over plain numbers, one file each; a file's name is what `--search` takes.

Every module here but `space`, which they share, and `anchors`, which is our own search, holds an `OFFER`. From here:
`SEARCHES`, `offer_of`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .space import Offer

__all__ = ["SEARCHES", "SearchName", "offer_of"]

SEARCHES = ("anchors", *sorted({module.name for module in pkgutil.iter_modules(__path__)} - {"anchors", "space"}))
"""What `--search` takes, ours first."""

if TYPE_CHECKING:
    SearchName = str
else:
    SearchName = Literal[SEARCHES]
"""One of `SEARCHES`; the command line lists them in its help and refuses any other."""


def offer_of(search: str) -> Offer:
    """The strategy of one of `SEARCHES` other than `anchors`, read from its file.

    Example:
        >>> offer_of("grid").words
        'a grid'
    """
    return importlib.import_module(f"{__name__}.{search}").OFFER
