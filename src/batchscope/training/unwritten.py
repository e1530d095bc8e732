"""What could not be written of an answer that was found: it costs the file, never the answer. No torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager

from ..errors import StoreError
from ..wording import showable

__all__ = ["ANSWER", "EARLIER", "MODEL", "NO_TIME", "PAGE", "TIME", "Hears", "if_possible", "logged"]

ANSWER, MODEL, PAGE, TIME = "answer", "model", "page", "time"
"""What is written once there is an answer: its file, the trained model, its page, the time that was used."""

EARLIER, NO_TIME = "the earlier answer", "no time for a model"
"""What is missing though nothing that was asked for failed to be written: a copy of an earlier answer that can be asked
for again, and a model that there was no time to train."""

Hears = Callable[[str, str], object]
"""Hears what could not be written, and why, in a sentence."""


def logged(what: str, why: str) -> None:
    """Log the sentence as a warning, where the caller of the library listens to nothing else."""
    logging.getLogger("batchscope").warning("%s", showable(why))


@contextmanager
def if_possible(hears: Hears, what: str, *, disk_only: bool = False) -> Generator[None]:
    """Write what is written inside, or say why it is not.

    Args:
        hears: hears it.
        what: is written.
        disk_only: whether other refusals than the disk's are raised, as that of a folder of another question.
    """
    try:
        yield
    except StoreError as error:
        if disk_only and not isinstance(error.__cause__, OSError):
            raise
        hears(what, str(error))
