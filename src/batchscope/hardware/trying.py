"""A step that may cost the process its life is announced before it is tried; what came of it is known afterwards."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

__all__ = ["STEP", "STEP_TIMES", "Trying", "unannounced"]

STEP, STEP_TIMES = "a step whose memory is measured", "the timing of steps"
"""What a bench tries."""


class Trying(Protocol):
    """Announces what is tried inside; `training.attempts` keeps it in a results folder."""

    def __call__(self, what: str, micro_batch_size: int, survived: int = 0) -> AbstractContextManager[object]:
        """Announce it.

        Args:
            what: `STEP` or `STEP_TIMES`.
            micro_batch_size: examples at once.
            survived: the largest number of them that went well so far.

        Raises:
            OutOfMemory: it killed a process, so that it is not to be tried in this one.
        """
        ...


def unannounced(what: str, micro_batch_size: int, survived: int = 0) -> AbstractContextManager[object]:
    """Announce nothing."""
    del what, micro_batch_size, survived
    return nullcontext()
