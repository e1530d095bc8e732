"""How a command answers: tables for a person, or one JSON object for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["answer"]


def answer(as_json: bool, data: Any, view: Sequence[RenderableType]) -> None:
    """Write to stdout: the data as valid JSON on one line, or the view."""
    if as_json:
        sys.stdout.write(json.dumps(data, allow_nan=False) + "\n")
    else:
        from .terminal import show, stdout

        show(stdout(), view)
