"""The command line: the only room that prints. Every command is a call into the library.

From here: `program`, which `batchscope` and `python -m batchscope` run, and `main`, a command line inside another
program.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn

from .signals import as_program, uninterrupted
from .streams import only_answers_on_stdout

if TYPE_CHECKING:
    from .commands import main

__all__ = ["main", "program"]


def program() -> NoReturn:
    """Be the program: signals are taken before anything large is imported."""
    as_program(sys.argv[1:], _status)


def _status(words: Sequence[str]) -> int:
    """Exit status of a command line, with stdout for its answer alone to the end of the process."""
    with ExitStack() as streams:
        with uninterrupted():
            streams.enter_context(only_answers_on_stdout(to_the_end=True))
        from .commands import status_of

        return status_of(words)


def __getattr__(name: str) -> Any:
    if name != "main":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .commands import main

    return main
