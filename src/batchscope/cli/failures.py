"""What is said of an error, and the exit status that it has."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

from ..errors import BatchscopeError, UsageError
from .output import answer
from .signals import wants_json
from .streams import say

__all__ = ["INTERNAL", "explain", "failed", "split_quantity", "unforeseen"]

INTERNAL = 3
"""Exit status where batchscope itself is at fault: there is no answer."""


def split_quantity(words: Sequence[str]) -> str:
    """What to write where a number and its unit stand apart behind an option; empty where none do.

    >>> split_quantity(["find", "digits", "--within", "3", "epochs"])
    'Write --within 3epochs'
    """
    for option, amount, unit in zip(words, words[1:], words[2:], strict=False):
        if option.startswith("--") and amount.replace(".", "", 1).isdigit() and (unit.isalpha() or unit == "%"):
            return f"Write {option} {amount}{unit}"
    return ""


def explain(error: BatchscopeError, *, debug: bool) -> None:
    """Say what an error says, or with `debug` where it comes from."""
    if debug:
        _trace(error)
        return
    say(f"batchscope: {error}")
    if not isinstance(error, UsageError) or error.__cause__ is not None:
        say("(--debug shows where)")


def _trace(error: BaseException) -> None:
    say(*"".join(traceback.format_exception(error)).rstrip("\n").split("\n"))


def unforeseen(error: Exception, words: Sequence[str]) -> int:
    """What is said of an error that no room has named, a fault of batchscope."""
    if "--debug" in words:
        _trace(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    said = (
        f"internal error, a fault of batchscope: {type(error).__name__}: {text} ({Path(place.filename).name}, line "
        f"{place.lineno}); please report it with what --debug shows"
    )
    say(f"batchscope: {said}")
    return failed(error, words, INTERNAL, said)


def failed(error: BaseException, words: Sequence[str], status: int, said: str = "") -> int:
    """The exit status of an error; whoever asked for JSON gets an object for it too."""
    if wants_json(words):
        answer(True, {"status": "error", "error": type(error).__name__, "message": said or str(error)}, [])
    return status
