"""Settings of a factory: `KEY=VALUE` from the command line, converted by the factory's annotations."""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import TaskError, UsageError
from ..store.quantities import parse_whole

__all__ = ["bind", "near_miss", "nearest", "plain"]

_MOST = 10**30
"""Nobody writes a larger whole number; whether a smaller one makes sense is for the factory."""
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def bind(factory: Callable[..., Any], settings: Sequence[str] | Mapping[str, Any], name: str) -> dict[str, Any]:
    """The keyword arguments for a factory, defaults included.

    Args:
        factory: a function or class.
        settings: `KEY=VALUE` texts, or a mapping whose text values are converted likewise.
        name: what messages call the factory.

    Raises:
        TaskError: a setting is malformed, unknown, given twice, missing, or not convertible.
    """
    given = _pairs(settings)
    parameters, hints = inspect.signature(factory).parameters, _hints(factory)
    named = {k: p for k, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    arguments: dict[str, Any] = {}
    for key, value in given.items():
        if key not in named and not takes_any:
            raise TaskError(f"{name} has no setting {key!r}{near_miss(key, list(named))}; {_listed(named)}")
        annotation = hints.get(key, _kind_of_default(named.get(key)))
        arguments[key] = _convert(value, annotation, f"--set {key}={value}") if isinstance(value, str) else value
    if missing := [k for k, p in named.items() if p.default is p.empty and k not in arguments]:
        raise TaskError(f"{name} needs {' '.join(f'--set {key}=VALUE' for key in missing)}; {_listed(named)}")
    defaults = {k: p.default for k, p in named.items() if p.default is not p.empty}
    return {**{k: v for k, v in defaults.items() if k not in arguments}, **arguments}


def plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that can stand in a file, as JSON types; others (functions, devices) are left out."""
    return {key: _plain(value) for key, value in sorted(arguments.items()) if _is_plain(value)}


def near_miss(word: str, known: Sequence[str]) -> str:
    """Hint `; did you mean 'X'?` where a known word is close, else nothing."""
    close = nearest(word, known)
    return f"; did you mean {close!r}?" if close is not None else ""


def nearest(word: str, known: Sequence[str], cutoff: float = 0.6) -> str | None:
    """The known word that is closest; `None` where none is as similar as `cutoff` (0 to 1, difflib's ratio)."""
    return next(iter(get_close_matches(word, known, n=1, cutoff=cutoff)), None)


def _pairs(settings: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(settings, Mapping):
        return dict(settings)
    pairs: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise TaskError(f"--set {text} is not KEY=VALUE; write for example --set optimizer=adamw")
        if key.strip() in pairs:
            raise TaskError(f"--set {key.strip()} is given twice: {pairs[key.strip()]} and {value.strip()}")
        pairs[key.strip()] = value.strip()
    return pairs


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    function = factory.__init__ if inspect.isclass(factory) else getattr(factory, "func", factory)
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}


def _kind_of_default(parameter: inspect.Parameter | None) -> Any:
    default = None if parameter is None or parameter.default is parameter.empty else parameter.default
    return type(default) if isinstance(default, bool | int | float | Path | enum.Enum) else str


def _listed(named: Mapping[str, inspect.Parameter]) -> str:
    return f"its settings are {', '.join(named)}" if named else "it has no settings"


def _convert(text: str, kind: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(text, arguments, where)
    if origin is typing.Literal:
        for choice in arguments:
            if str(choice) == text:
                return choice
        raise _refused(where, f"one of {', '.join(map(str, arguments))}", near_miss(text, [str(a) for a in arguments]))
    if origin in (tuple, list) or kind in (tuple, list):
        return _convert_items(text, origin or kind, arguments, where)
    if kind is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise _refused(where, "true or false")
        return text.lower() in _TRUE
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        for member in kind:
            if text in (member.name, str(member.value)):
                return member
        raise _refused(where, f"one of {', '.join(str(m.value) for m in kind)}")
    if kind in (int, float, Path):
        return _convert_number_or_path(text, kind, where)
    return text


def _convert_number_or_path(text: str, kind: Any, where: str) -> Any:
    try:
        return parse_whole(text, where, least=-_MOST, most=_MOST) if kind is int else kind(text)
    except (UsageError, ValueError):
        raise _refused(where, "a whole number" if kind is int else "a number") from None


def _convert_union(text: str, kinds: tuple[Any, ...], where: str) -> Any:
    if type(None) in kinds and text.lower() in ("none", "null", ""):
        return None
    wanted = sorted((k for k in kinds if k is not type(None)), key=lambda k: k is str)
    for kind in wanted[:-1]:
        try:
            return _convert(text, kind, where)
        except TaskError:
            continue
    return _convert(text, wanted[-1], where)


def _convert_items(text: str, kind: Any, arguments: tuple[Any, ...], where: str) -> Any:
    items = [item.strip() for item in text.strip("()[] ").split(",") if item.strip()]
    if kind is list or not arguments or Ellipsis in arguments:
        kinds = [arguments[0] if arguments else str] * len(items)
    elif len(arguments) != len(items):
        raise _refused(where, f"{len(arguments)} values with commas between them")
    else:
        kinds = list(arguments)
    return kind(_convert(item, k, where) for item, k in zip(items, kinds, strict=True))


def _refused(where: str, wanted: str, hint: str = "") -> TaskError:
    return TaskError(f"{where} must be {wanted}{hint}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | int | float | Path | enum.Enum)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    return str(value) if isinstance(value, Path) else value
