"""The command line: the only room that prints. Every command is a call into the library.

From here: `main`, which `batchscope` and `python -m batchscope` run.
"""

from .commands import main

__all__ = ["main"]
