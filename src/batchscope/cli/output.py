"""How a command answers: tables for a person, or one JSON object for a program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError
from ..store.codec import encode
from .signals import while_answering
from .streams import answer_lost, say, write_object

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["UNWRITTEN", "answer", "hand_over"]

UNWRITTEN = StoreError.exit_status
"""Exit status where there is an answer, and something that programs rely on could not be written."""


def answer(as_json: bool, data: Any, view: Sequence[RenderableType]) -> None:
    """Write to stdout: the data as valid JSON on one line, without NaN or infinities, or the view."""
    if as_json:
        text = json.dumps(encode(data), allow_nan=False)
        with while_answering():
            write_object(text)
    else:
        from .terminal import show, stdout

        with while_answering():
            show(stdout(), view)


def hand_over(
    as_json: bool,
    data: Any,
    view: Sequence[RenderableType],
    *,
    file: Path,
    unwritten: Mapping[str, str],
    status: int = 0,
    why: str = "",
) -> int:
    """Print an answer, then make its page; what could not be written is said, and costs nothing but itself.

    Args:
        as_json: whether for a program.
        data: the answer.
        view: the same for a person.
        file: that holds it.
        unwritten: what could not be written of it so far, and why.
        status: that it ends with.
        why: what the page shows, in words; empty: it has none.

    Returns:
        The exit status: another where something is not written that programs rely on; a page is for people.
    """
    from ..training.unwritten import ANSWER, EARLIER, NO_TIME

    kept = ANSWER not in unwritten
    answer(as_json, data, [*view, *([f"For programs: {file}"] if kept else [])])
    if kept and answer_lost() is not None:
        say(f"The answer is in {file}.")
    say(*(f"Not written: {reason}" for reason in unwritten.values()))
    if why and kept:
        _add_page(as_json, file.parent, why)
    return UNWRITTEN if unwritten.keys() - {EARLIER, NO_TIME} else status


def _add_page(as_json: bool, folder: Path, why: str) -> None:
    from .pages import write_page

    try:
        page = write_page(folder)
    except Exception as error:  # whatever it is, the answer is there
        say(f"The page was not made: {error}", f"batchscope report {folder} makes it from the answer.")
        return
    if not as_json:
        answer(False, None, [f"{why}: {page}"])
