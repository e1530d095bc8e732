"""JSON that comes from a file, within bounds: so large, so deep, finite numbers, each member once.

A file of a results folder, or one that a user names, may have been edited, damaged, or made by another program. What is
beyond the bounds is refused with a `ValueError` that says why, whatever Python's own limits are.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any, NoReturn

__all__ = ["MOST_BYTES", "MOST_DEEP", "MOST_DIGITS", "parse", "parse_lines"]

MOST_BYTES = 64 * 2**20
"""Size of a file that holds one JSON value."""
MOST_DEEP = 100
"""Lists and objects inside one another."""
MOST_DIGITS = 300
"""Of a whole number: every one of so many is a finite float."""

_SHAPE = bytes.maketrans(b"123456789E", b"000000000e")
_SUSPECT = (b"0" * (MOST_DIGITS + 1), b"0e000", b"0e+000")
"""In the shape of a text, where a number may be out of bounds: only then is each looked at."""
_BRACKETS = b"[{]}"
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


def parse(content: bytes) -> Any:
    """Value of a JSON text.

    Raises:
        ValueError: it is no JSON, or beyond the bounds; the message says which.

    Example:
        >>> parse(b'{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has {len(content):,} bytes, more than {MOST_BYTES:,}")
    _check_depth(content)
    text = content.decode(json.detect_encoding(content))
    return json.loads(text, parse_constant=_refuse, object_pairs_hook=_once, **_numbers(content))


def parse_lines(content: bytes) -> list[Any]:
    r"""Values of a text with one JSON value a line.

    Raises:
        ValueError: a line is no JSON, or beyond the bounds.

    Example:
        >>> parse_lines(b'{"a": 1}\n{"a": 2}\n')
        [{'a': 1}, {'a': 2}]
    """
    lines = content.splitlines()
    joined = b",".join(lines)  # at once, so that the names of members are in memory once
    _check_depth(joined)
    values: list[Any] = json.loads(b"[%s]" % joined, parse_constant=_refuse, **_numbers(joined))
    if len(values) != len(lines):
        raise ValueError("a line holds no single value")
    return values


def _numbers(content: bytes) -> dict[str, Any]:
    shape = content.translate(_SHAPE)
    return {"parse_int": _whole, "parse_float": _finite} if any(part in shape for part in _SUSPECT) else {}


def _check_depth(content: bytes) -> None:
    """Make sure of the depth before anything recurses. Brackets inside strings count only where it may matter."""
    if content.count(b"[") + content.count(b"{") <= MOST_DEEP:
        return
    if _depth(content) > MOST_DEEP and (deep := _depth(_STRING.sub(b"", content))) > MOST_DEEP:
        raise ValueError(f"its lists and objects lie {deep:,} deep, more than {MOST_DEEP}")


def _depth(content: bytes) -> int:
    brackets = content.translate(None, _NO_BRACKETS)
    return max(itertools.accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has the member {next(n for n in names if names.count(n) > 1)!r} twice")
    return members


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > MOST_DIGITS:
        raise ValueError(f"a number has {len(text.lstrip('-')):,} digits, more than {MOST_DIGITS}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is not finite")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"the number {text} is not finite")
