"""What a search is asked, and how people write sizes, times and recipes on a command line. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .errors import TargetError, UsageError
from .records import Target

__all__ = ["CurrentRecipe", "Question", "parse_bytes", "parse_current", "parse_seconds"]

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1} | {
    name: size
    for power, letter in enumerate("kmgt", 1)
    for name, size in ((letter, 1024**power), (f"{letter}ib", 1024**power), (f"{letter}b", 1000**power))
}
_QUANTITY = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*([a-zA-Z]*)\s*")


@dataclass(frozen=True, kw_only=True)
class CurrentRecipe:
    """The batch size and rate in use today."""

    batch_size: int
    lr: float


@dataclass(frozen=True, kw_only=True)
class Question:
    """Everything that decides the answer of a search, the task and the hardware apart.

    Attributes:
        target: when training is done; `None`: chosen from the pilot run.
        objective: what is to be least, time to target or examples to target.
        current: kept unless the gain is clear.
        schedule: of the learning rate.
        max_batch_size: no larger batch is recommended.
        memory_limit: bytes that a step may take.
        seed: of every choice made at random.
        trainings: how often the recipe will be used; a probe is bought when it saves more than it costs over all of
            them.
    """

    target: Target | None = None
    objective: Literal["time", "examples"] = "time"
    current: CurrentRecipe | None = None
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_batch_size: int | None = None
    memory_limit: int | None = None
    seed: int = 0
    trainings: float = 30.0

    def __post_init__(self) -> None:
        if self.max_batch_size is not None and self.max_batch_size < 1:
            raise UsageError(f"--max-batch-size is {self.max_batch_size}; it must be at least 1")
        if self.trainings <= 0:
            raise UsageError(f"--trainings is {self.trainings:g}; it must be above 0")


def parse_seconds(text: str, name: str = "--budget") -> float:
    """A length of time: `90`, `90s`, `10m`, `1.5h`.

    Raises:
        UsageError: it is not one, or not above zero.

    Example:
        >>> parse_seconds("1.5h")
        5400.0
    """
    value = _quantity(text, _SECONDS)
    if value is None or value <= 0:
        raise UsageError(f"{name} {text!r} is not a length of time above zero; write for example 90s, 10m or 1.5h")
    return value


def parse_bytes(text: str, name: str = "--memory-limit") -> int:
    """An amount of memory: `500MB`, `8GiB`, `8G` (binary), or bytes.

    Raises:
        UsageError: it is not one, or not above zero.

    Example:
        >>> parse_bytes("2k")
        2048
    """
    value = _quantity(text, _BYTES)
    if value is None or value < 1:
        raise UsageError(f"{name} {text!r} is not an amount of memory above zero; write for example 500MB or 8GiB")
    return int(value)


def _quantity(text: str, units: Mapping[str, float]) -> float | None:
    match = _QUANTITY.fullmatch(text)
    if match is None or match.group(2).lower() not in units:
        return None
    return float(match.group(1)) * units[match.group(2).lower()]


def parse_current(text: str) -> CurrentRecipe:
    """The recipe in use: `batch_size=32,lr=0.001`.

    Raises:
        TargetError: a part is missing, unknown, repeated or not a positive number.

    Example:
        >>> parse_current("batch_size=32, lr=1e-3")
        CurrentRecipe(batch_size=32, lr=0.001)
    """
    example = "write for example 'batch_size=32,lr=0.001'"
    parts: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or key not in ("batch_size", "lr") or key in parts:
            raise TargetError(f"the current recipe {text!r} has the part {part.strip()!r}; {example}")
        parts[key] = value.strip()
    if missing := {"batch_size", "lr"} - set(parts):
        raise TargetError(f"the current recipe {text!r} lacks {' and '.join(sorted(missing))}; {example}")
    try:
        batch_size, lr = int(parts["batch_size"]), float(parts["lr"])
    except ValueError as error:
        raise TargetError(f"the current recipe {text!r} is not made of numbers ({error}); {example}") from None
    if batch_size < 1 or not 0 < lr < float("inf"):
        raise TargetError(
            f"the current recipe {text!r} needs a batch size of at least 1 and a positive rate; {example}"
        )
    return CurrentRecipe(batch_size=batch_size, lr=lr)
