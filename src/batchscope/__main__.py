"""`python -m batchscope` is `batchscope`."""

from .cli import program

program()
