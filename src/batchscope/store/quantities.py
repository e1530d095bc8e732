"""Numbers as people give them: whole ones stay exact or are refused, and none is infinite or no number. No torch.

Every option, argument and setting that counts something is read here, so that 1000.5 examples are refused wherever
they are written, and 1e3 are a thousand.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, SupportsFloat, cast

from ..errors import UsageError

__all__ = ["MOST", "checked_members", "finite_number", "parse_number", "parse_whole", "whole_number"]

MOST = 10**15
"""The largest number that is taken: more is counted nowhere, and a float64 still holds each whole number below it."""

_LONGEST = 24
"""Characters of a value that a message repeats."""


def whole_number(value: object, name: str, *, least: int = 1, most: int = MOST) -> int:
    """Whole number that was given, as an `int`.

    Args:
        value: an integer of Python, NumPy or torch, or a float without a fraction.
        name: what it is called where it was given, for example `--steps`.
        least: that makes sense.
        most: that makes sense.

    Raises:
        UsageError: it is no number (`True` and "8" are none), has a fraction, or lies outside.

    >>> whole_number(64.0, "--batch-size"), whole_number(7, "--seed", least=0)
    (64, 7)
    """
    whole = _whole(value)
    if whole is None:
        raise UsageError(f"{name} is {_shown(value)}; it must be a whole number, at least {least}")
    if whole < least:
        raise UsageError(f"{name} is {_shown(value)}; it must be at least {least}")
    if whole > most:
        raise UsageError(f"{name} is {_shown(value)}; it must be at most {most:,}")
    return whole


def finite_number(value: object, name: str, *, least: float | None = None, most: float = MOST) -> float:
    """Number that was given, as a `float`.

    Args:
        value: an integer or a float of Python, NumPy or torch.
        name: what it is called where it was given, for example `--epochs`.
        least: that makes sense; `None`: every number above 0 does.
        most: that makes sense.

    Raises:
        UsageError: it is no number (`True` and "8" are none), NaN, infinite, too large or too small.

    >>> finite_number(3, "--epochs"), finite_number(0, "share", least=0)
    (3.0, 0.0)
    """
    number = _finite(value)
    if number is None or abs(number) > most:
        raise UsageError(f"{name} is {_shown(value)}; it must be a number{f' of at most {most:,}' * (most < math.inf)}")
    if (number < least) if least is not None else (number <= 0):
        wanted = f"at least {least:g}" if least is not None else "a number above 0"
        raise UsageError(f"{name} is {_shown(value)}; it must be {wanted}")
    return number


def parse_whole(text: str, name: str, *, least: int = 1, most: int = MOST) -> int:
    """Whole number as it is written: `1000`, `1e3`, `64.0`; no digit is lost on the way.

    Raises:
        UsageError: it is none, or lies outside.

    >>> parse_whole("1e3", "--examples"), parse_whole("9007199254740993", "x", most=10**16)
    (1000, 9007199254740993)
    """
    number, shown = _decimal(text), _shown(text.strip())
    if number is None:
        raise UsageError(f"{name} is {shown}; it must be a whole number, at least {least}")
    if number > most or number < -most:  # 1e999999999 is never written out
        wanted = f"at most {most:,}" if number > 0 else f"at least {least}"
        raise UsageError(f"{name} is {shown}; it must be {wanted}")
    if number != number.to_integral_value():
        raise UsageError(f"{name} is {shown}; it must be a whole number, at least {least}")
    return whole_number(int(number), name, least=least, most=most)


def parse_number(text: str, name: str) -> float:
    """Number above 0 as it is written: `0.1`, `1e-3`.

    Raises:
        UsageError: it is none, not above 0, infinite or too large.

    >>> parse_number("1e-3", "--lr")
    0.001
    """
    number, shown = _decimal(text), _shown(text.strip())
    if number is None or number > MOST:
        raise UsageError(f"{name} is {shown}; it must be a number above 0 and at most {MOST:,}")
    if number <= 0:
        raise UsageError(f"{name} is {shown}; it must be a number above 0")
    return finite_number(float(number), name)


def checked_members(
    record: object, *, whole: Mapping[str, str] | None = None, finite: Mapping[str, str] | None = None
) -> None:
    """Check the numbers of a frozen record as it is made, and hold them as `int` and `float`; `None` stays.

    Args:
        record: a dataclass.
        whole: names of its members that count, and what they are called in messages.
        finite: the same of members that measure, and are above 0.

    Raises:
        UsageError: one is not such a number.
    """
    kinds: list[tuple[Mapping[str, str], Any]] = [(whole or {}, whole_number), (finite or {}, finite_number)]
    for names, checked in kinds:
        for member, name in names.items():
            if (value := getattr(record, member)) is not None:
                object.__setattr__(record, member, checked(value, name))


def _whole(value: object) -> int | None:
    if _truth(value):
        return None
    try:
        return operator.index(cast(Any, value))
    except TypeError:
        number = _finite(value)
        return int(number) if number is not None and number.is_integer() else None


def _truth(value: object) -> bool:
    """Whether a value is `True` or `False`, in Python, NumPy or torch."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def _finite(value: object) -> float | None:
    """A number as a float; `None` of what is none, not finite, or beyond the range of floats."""
    if _truth(value) or isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        return None
    try:
        number = float(cast(SupportsFloat, value))
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several numbers
        return None
    return number if math.isfinite(number) else None


def _decimal(text: str) -> Decimal | None:
    """A number as it is written; `None` of what is none, NaN or infinite."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _shown(value: object) -> str:
    """A value in a message: short, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**_LONGEST:
        return f"about {'-' if value < 0 else ''}1e{round(math.log10(abs(value)))}"
    text = (value or "empty") if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
