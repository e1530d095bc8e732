"""Records drawn by their annotations alone, so that a new record, or a new member, is drawn without a new line."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import enum
import importlib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

import batchscope
from batchscope.errors import UsageError
from batchscope.store import records
from batchscope.store.records import RunConfig, RunStatus

_SOURCES = Path(batchscope.__file__).parent
_READERS = {"read_note": 1, "read_record": 1, "read": 1, "decode": 0}
"""Functions that read a record, and which of their arguments is its class."""


@cache
def records_that_are_read() -> tuple[type, ...]:
    """Every record of `store.records`, and every dataclass that some line of the package reads from a file."""
    named = [*(getattr(records, name) for name in records.__all__), *_read_somewhere()]
    found = {kind for kind in named if isinstance(kind, type) and dataclasses.is_dataclass(kind)}
    return tuple(sorted(found, key=lambda kind: (kind.__module__, kind.__name__)))


def _read_somewhere() -> Iterator[object]:
    for path in sorted(_SOURCES.rglob("*.py")):
        names = set(_classes_read(ast.parse(path.read_text(encoding="utf-8"))))
        if names:
            relative = path.relative_to(_SOURCES.parent).with_suffix("")
            module = importlib.import_module(".".join(relative.parts).removesuffix(".__init__"))
            yield from (getattr(module, name, None) for name in sorted(names))


def _classes_read(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            place = _READERS.get(name)
            if place is not None and len(node.args) > place and isinstance(node.args[place], ast.Name):
                yield typing.cast(ast.Name, node.args[place]).id


# Names as an operating system and users give them: control characters, bytes that are no UTF-8 as `os.fsdecode` has
# them, and some that are very long.
TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff\x00\x1b\x07\u202e\n"), max_size=6
)
NAMES = TEXT | st.sampled_from(["x" * 20_000, "", "val_loss", "null", "NaN"])
WHOLE = st.integers() | st.integers(2**53, 2**200) | st.integers(-(2**63), 2**63 - 1).map(np.int64)
FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([-0.0, 5e-324, 1.7976931348623157e308])
FINITE |= st.floats(width=32, allow_nan=False, allow_infinity=False).map(np.float32) | FINITE.map(np.float64)
NUMBERLESS = st.sampled_from([math.nan, math.inf, -math.inf, np.float64("nan"), np.float32("inf")])
LEAVES = st.none() | st.booleans() | WHOLE | FINITE | NUMBERLESS | NAMES | st.sampled_from(RunStatus)
LEAVES |= st.booleans().map(np.bool_)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=2) | st.lists(inner, max_size=2).map(tuple) | st.dictionaries(NAMES, inner, max_size=2)
    ),
    max_leaves=5,
)


class Kinds(enum.Enum):
    """Which numbers are drawn."""

    POSSIBLE = "those that the code can make: NaN and the infinities only where there may be no number"
    WILD = "NaN and the infinities also where there must be a number"
    TAME = "small and above 0, which records that look at their members take"


def drawn(kind: Any, kinds: Kinds = Kinds.POSSIBLE, *, may_lack: bool = False) -> st.SearchStrategy[Any]:
    """Any value of an annotation that occurs in records.

    Args:
        kind: the annotation.
        kinds: of numbers.
        may_lack: NaN and the infinities have a meaning here, which is that there is no number.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _of_record(typing.cast(type, kind), kinds)
    if origin in (typing.Union, types.UnionType):
        lacks = type(None) in arguments
        return st.one_of(*(drawn(argument, kinds, may_lack=lacks) for argument in arguments))
    if origin is typing.Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        return st.sampled_from(arguments or list(typing.cast("type[enum.Enum]", kind)))
    if origin is tuple and arguments[-1] is Ellipsis:
        tame = kinds is Kinds.TAME
        return st.lists(drawn(arguments[0], kinds), min_size=int(tame), max_size=1 if tame else 2).map(tuple)
    if origin is tuple:
        return st.tuples(*(drawn(argument, kinds) for argument in arguments))
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(NAMES, drawn(arguments[1], kinds, may_lack=True), max_size=2)
    tame = kinds is Kinds.TAME
    numbers = FINITE | NUMBERLESS if kinds is Kinds.WILD or may_lack else FINITE
    scalars: dict[Any, st.SearchStrategy[Any]] = {
        Any: ANYTHING,
        float: st.floats(0.01, 10.0) if tame else numbers,
        int: st.integers(1, 100) if tame else WHOLE,
        str: NAMES,
        bool: st.booleans() | st.booleans().map(np.bool_),
        type(None): st.none(),
    }
    return scalars[kind]


@st.composite
def _of_record(draw: st.DrawFn, kind: type, kinds: Kinds) -> Any:
    """A record; one that refuses its members when it is made is made of tamer ones."""
    hints = typing.get_type_hints(kind)
    for each in dict.fromkeys((kinds, Kinds.TAME)):
        values = {f.name: draw(drawn(hints[f.name], each)) for f in dataclasses.fields(kind) if f.init}
        if kind is RunConfig:
            parts = [draw(st.integers(1, 64)) for _ in range(3)]
            values |= dict(zip(("micro_batch_size", "grad_accum_steps", "world_size"), parts, strict=True))
            values |= {"batch_size": math.prod(parts)}
        with contextlib.suppress(UsageError, ValueError, RuntimeWarning):
            return kind(**values)
    return reject()
