"""`python -m batchscope` is `batchscope`."""

from .cli.commands import main

main()
