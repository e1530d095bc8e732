"""Errors that batchscope raises on purpose.

```
BatchscopeError
├── UsageError            the command or call cannot be carried out as written
│   ├── TaskError         the user's task breaks a rule, or could not be loaded
│   ├── TargetError       the target, budget or current recipe makes no sense
│   ├── ProfileError      a hardware profile is truncated or of another schema
│   ├── TableError        a table of measurements lacks a column, or a cell makes no sense
│   └── StoreError        a results folder cannot be read, written or shared
├── OutOfMemory           something did not fit; carries the micro-batch size of a step
└── OutOfTime             the budget ended before there was anything to answer from
```

A message says what happened, the numbers that were seen, and what to change. The command line prints it and ends with
`exit_status`; a traceback appears only under `--debug`.
"""

from __future__ import annotations

__all__ = [
    "BatchscopeError",
    "OutOfMemory",
    "OutOfTime",
    "ProfileError",
    "StoreError",
    "TableError",
    "TargetError",
    "TaskError",
    "UsageError",
]


class BatchscopeError(Exception):
    """Root of the errors; `exit_status` is what the command line ends with."""

    exit_status: int = 2


class UsageError(BatchscopeError):
    """The command or call cannot be carried out as it is written."""


class TaskError(UsageError):
    """The user's task breaks a rule of the protocol, or could not be loaded."""


class TargetError(UsageError):
    """The target, the budget or the current recipe makes no sense for this task."""


class ProfileError(UsageError):
    """A hardware profile is truncated, of another schema, or holds impossible numbers."""


class TableError(UsageError):
    """A table of measurements lacks a column, says one thing twice, or holds a cell that makes no sense."""


class StoreError(UsageError):
    """A results folder cannot be read, cannot be written, or belongs to another question."""


class OutOfMemory(BatchscopeError):
    """Something did not fit into memory: a training step, an evaluation, the model, the data.

    Attributes:
        micro_batch_size: the size of the step that did not fit, in examples; `None`: it was no step, so that smaller
            micro-batches do not help.
    """

    def __init__(self, message: str, *, micro_batch_size: int | None = None) -> None:
        super().__init__(message)
        self.micro_batch_size = micro_batch_size


class OutOfTime(BatchscopeError):
    """The budget ended before anything was measured that an answer could rest on.

    Attributes:
        needs_s: seconds that the next thing would have taken, as far as that is known.
    """

    exit_status: int = 3

    def __init__(self, message: str = "the budget is used up", *, needs_s: float = 0.0) -> None:
        super().__init__(message)
        self.needs_s = needs_s
