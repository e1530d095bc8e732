"""The options of every command that measures, and what follows from them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token

from ..search.question import parse_bytes, parse_seconds
from ..store.quantities import parse_number, parse_whole
from ..store.runs import free_folder
from .signals import last_resort

if TYPE_CHECKING:
    from ..hardware.device import Device
    from ..tasks.loading import LoadedTask

__all__ = [
    "RESULTS",
    "Amount",
    "Columns",
    "Flag",
    "Options",
    "Quantity",
    "ResultOptions",
    "Schedule",
    "Targets",
    "Whole",
]

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A switch without a `--no-` form."""

Targets = Annotated[
    tuple[str, ...], Parameter(name="--target", negative="", consume_multiple=False, show_default=False)
]
"""Repeatable."""

Columns = Annotated[
    tuple[str, ...], Parameter(name="--column", negative="", consume_multiple=False, show_default=False)
]
"""Repeatable."""


def _whole(kind: object, tokens: Sequence[Token]) -> int:
    return parse_whole(tokens[0].value, tokens[0].keyword or "the number")


def _seed(kind: object, tokens: Sequence[Token]) -> int:
    return parse_whole(tokens[0].value, "--seed", least=0, most=2**32 - 1)


def _number(kind: object, tokens: Sequence[Token]) -> float:
    return parse_number(tokens[0].value, tokens[0].keyword or "the number")


Whole = Annotated[int, Parameter(converter=_whole, allow_leading_hyphen=True)]
"""Whole number of at least 1: 1000, 1e3 or 64.0; what would have to be rounded is refused."""

Amount = Annotated[float, Parameter(converter=_number, allow_leading_hyphen=True)]
"""Number above 0, and no infinity."""

Quantity = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""A number with a unit; -5s is no option, so that its own message says what is wrong with it."""

Schedule = Literal["constant", "linear", "cosine", "wsd"]
"""Schedules of the learning rate that can be asked for; that of a task is used where it has one."""

RESULTS = Path("batchscope-runs")
"""Where results go that are given no --out."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """Options of every command that leaves results."""

    seed: Annotated[int, Parameter(converter=_seed, allow_leading_hyphen=True)] = 0
    """Seed of all random numbers."""
    out: Path | None = None
    """Results folder. Default: batchscope-runs/NAME, numbered if that belongs to another task or other settings."""
    json: Flag = False
    """Print one JSON object on stdout instead of tables."""
    debug: Flag = False
    """Show the traceback of an error."""

    def folder(self, name: str, asked: Mapping[str, Any]) -> Path:
        """Where the results of a question go."""
        return self.out or free_folder(RESULTS / name, asked)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options(ResultOptions):
    """Options of every command that measures."""

    set: Annotated[
        tuple[str, ...], Parameter(name="--set", negative="", consume_multiple=False, show_default=False)
    ] = ()
    """KEY=VALUE, a keyword argument of the task's factory; may be repeated."""
    budget: Quantity = "10m"
    """Time limit: 90s, 10m, 1.5h, from loading the task on; importing torch does not count. find counts what earlier
    commands with the same question and folder took."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps and so on. Default: the accelerator if there is one."""
    memory_limit: Quantity | None = None
    """Most memory that a training step may take: 8GiB, 500MB. Default: all that the device has."""
    step_timeout: Quantity | None = None
    """Longest that one call of the task's code may take: 90s, 10m. Default: 20 times the longest of its kind, and at
    least 5m; the first of a kind 30m."""
    keep_checkpoints: Annotated[bool | None, Parameter(show_default=False)] = None
    """Keep checkpoints of a search's runs, so that a later command can continue them: all, or none. Default: all up to
    1 GB, then the latest."""

    @property
    def budget_s(self) -> float:
        """The budget in seconds.

        Raises:
            UsageError: it is no length of time.
        """
        return parse_seconds(self.budget)

    @property
    def memory_limit_bytes(self) -> int | None:
        """The memory limit in bytes.

        Raises:
            UsageError: it is no amount of memory.
        """
        return parse_bytes(self.memory_limit) if self.memory_limit else None

    def started(self) -> float:
        """When the budget begins, on the monotonic clock: once torch is there."""
        from ..hardware.device import load_torch

        load_torch()
        return time.monotonic()

    def watching(self) -> AbstractContextManager[None]:
        """Context in which a call of the task's code that hangs ends with a message.

        Raises:
            UsageError: the time-out is no length of time.
        """
        from ..tasks.step_timeout import watching

        asked_s = parse_seconds(self.step_timeout, "--step-timeout") if self.step_timeout is not None else None
        return watching(asked_s, last_resort=last_resort())

    def load(self, task: str) -> LoadedTask:
        """The task; imports torch.

        Raises:
            TaskError: there is no such task, or it cannot be made.
        """
        from ..tasks.loading import load_task

        return load_task(task, list(self.set))

    def picked(self) -> Device:
        """The device that was asked for.

        Raises:
            UsageError: there is no such device here.
        """
        from ..hardware.device import pick

        return pick(self.device)
