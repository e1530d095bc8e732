"""How a command answers: tables for a person, or one JSON object for a program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..store.codec import encode
from .signals import while_answering
from .streams import answers

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["answer"]


def answer(as_json: bool, data: Any, view: Sequence[RenderableType]) -> None:
    """Write to stdout: the data as valid JSON on one line, without NaN or infinities, or the view."""
    if as_json:
        stream, text = answers(), json.dumps(encode(data), allow_nan=False) + "\n"
        with while_answering():
            stream.write(text)
            stream.flush()
    else:
        from .terminal import show, stdout

        with while_answering():
            show(stdout(), view)
            answers().flush()
