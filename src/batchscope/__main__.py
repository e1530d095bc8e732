"""`python -m batchscope` is `batchscope`."""

from .cli import main

main()
