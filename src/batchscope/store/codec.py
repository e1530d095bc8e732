"""Codec of records, to JSON types and back: no NaN on the way out, no member missing or unknown on the way in."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["Record", "decode", "encode"]

Record = TypeVar("Record")

_AS_THEY_ARE = frozenset((str, int, bool, type(None)))


def encode(value: Any) -> Any:
    """Turn records into JSON types; NaN and the infinities become `null`.

    A member is called as its field is, or as the field's metadata say under `member`.
    """
    if type(value) in _AS_THEY_ARE:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: encode(getattr(value, f.name)) for name, f in _members_of(type(value))[1].items()}
    if isinstance(value, enum.Enum):
        return encode(value.value)
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [encode(item) for item in value]
    plain = _plain_number(value)
    return str(value) if plain is None else encode(plain)


def _plain_number(value: Any) -> bool | int | float | None:
    """The number of Python in one of another library, such as a scalar of NumPy; `None`: it is no number."""
    item = getattr(value, "item", None)
    inner = item() if callable(item) and getattr(value, "shape", None) == () else None
    return inner if isinstance(inner, bool | int | float) else None


def decode(cls: type[Record], data: Any, where: str = "") -> Record:
    """Turn JSON types into a record.

    Raises:
        ValueError: a member is missing, unknown, or of another type; the message names it.
    """
    return _decode(cls, data, where or cls.__name__)


def _decode(kind: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind):
        return _decode_record(typing.cast(type, kind), data, where)
    if origin in (typing.Union, types.UnionType):
        return _decode_optional(kind, data, where)
    if origin is typing.Literal:
        return _one_of(typing.get_args(kind), data, where)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), data, where)
    if origin is not None and issubclass(origin, Mapping):
        return _decode_mapping(typing.get_args(kind)[1], data, where)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(_one_of(tuple(member.value for member in kind), data, where))
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return _as_float(data, where)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise ValueError(f"{where} is {data!r}, not {kind.__name__}")
    return data


def _as_float(data: int, where: str) -> float:
    try:
        return float(data)
    except OverflowError:
        raise ValueError(f"{where} is beyond the largest number that is computed with") from None


def _decode_optional(kind: Any, data: Any, where: str) -> Any:
    arguments = typing.get_args(kind)
    if data is None and type(None) in arguments:
        return None
    return _decode(next(a for a in arguments if a is not type(None)), data, where)


def _one_of(allowed: tuple[Any, ...], data: Any, where: str) -> Any:
    if data not in allowed:
        raise ValueError(f"{where} is {data!r}, not one of {', '.join(map(str, allowed))}")
    return data


def _decode_tuple(arguments: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise ValueError(f"{where} is {type(data).__name__}, not a list")
    kinds = [arguments[0]] * len(data) if arguments[-1] is Ellipsis else list(arguments)
    if len(kinds) != len(data):
        raise ValueError(f"{where} has {len(data)} members, not {len(kinds)}")
    return tuple(_decode(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, data, strict=True)))


def _decode_mapping(kind: Any, data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} is {type(data).__name__}, not an object")
    missing = math.nan if kind is float else None  # encode writes null for a metric that is not finite
    items = {key: missing if item is None else item for key, item in data.items()}
    if kind is Any or all(type(item) is kind for item in items.values()):
        return items
    return {key: _decode(kind, item, f"{where}.{key}") for key, item in items.items()}


def _decode_record(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} is {type(data).__name__}, not an object")
    hints, fields, plain = _members_of(kind)
    if unknown := sorted(set(data) - set(fields)):
        raise ValueError(f"{where} has an unknown member {unknown[0]!r}")
    values = {}
    for name, f in fields.items():
        if name in data and type(data[name]) in plain[name]:
            values[f.name] = data[name]
        elif name in data:
            values[f.name] = _decode(hints[f.name], data[name], f"{where}.{name}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where} lacks {name!r}")
    return kind(**values)


@functools.cache
def _members_of(kind: type) -> tuple[dict[str, Any], dict[str, dataclasses.Field[Any]], dict[str, frozenset[type]]]:
    """Types of a record's fields by their names; by the members' names, the fields and the types taken as they are."""
    hints, fields = typing.get_type_hints(kind), {_member(f): f for f in dataclasses.fields(kind)}
    return hints, fields, {name: _taken_as_is(hints[f.name]) for name, f in fields.items()}


def _taken_as_is(kind: Any) -> frozenset[type]:
    """Types of JSON that are of a kind already, such as `str` and `None` of an optional text."""
    optional = typing.get_origin(kind) in (typing.Union, types.UnionType)
    kinds = typing.get_args(kind) if optional else (kind,)
    return frozenset(kinds) if set(kinds) <= {str, int, float, bool, type(None)} else frozenset()


def _member(of: dataclasses.Field[Any]) -> str:
    return of.metadata.get("member", of.name)
