"""Identity of a task that was made in Python: its name, its code, the values it holds, the files it imports.

Code counts as it is compiled, with the functions and classes of the same module that it names, so that a script may
ask another question of the same task without making it another one. Values count as they were when the task was first
seen in this process: numbers, texts, containers of them, and the contents of tensors and arrays.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sys
import types
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..hardware.live_bytes import bytes_of, plain_parts
from .imported_files import imported_files, is_users, sha256_of_each

__all__ = ["Identity", "identity_of"]

_DEEPEST = 6
_MOST_BYTES, _MOST_ITEMS = 256 * 2**20, 100_000

_known: dict[int, tuple[weakref.ref[Any], Identity]] = {}
"""Identities by the address of their objects, which live as long as the reference does."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a task made in Python is told apart by.

    Attributes:
        sha256: of its code and values.
        files: hash of each file of the user's that its code imports, or stands in outside of the program itself.
        notes: what could not be seen.
    """

    sha256: str
    files: Mapping[str, str]
    notes: tuple[str, ...]


def identity_of(task: object) -> Identity:
    """The identity of a task object; the same for the same object, however it has changed since."""
    entry = _known.get(id(task))
    if entry is not None and entry[0]() is task:
        return entry[1]
    found = _looked_at(task)
    with contextlib.suppress(TypeError):  # an object that nothing can refer to weakly is looked at again
        _known[id(task)] = (weakref.ref(task), found)
    return found


def _looked_at(task: object) -> Identity:
    look = _Look()
    look.at(task, 0)
    files: dict[str, Path] = {}
    for name in sorted(look.modules):
        path = getattr(sys.modules.get(name), "__file__", None)
        if not isinstance(path, str) or not is_users(Path(path)):
            continue
        files |= imported_files(Path(path), name)
        if name != "__main__":
            files[f"{name.replace('.', '/')}.py"] = Path(path)
    unseen = (
        f"the code of {', '.join(sorted(look.unseen))} cannot be read: after a change in it, give another --out"
        if look.unseen
        else ""
    )
    return Identity(sha256=look.digest.hexdigest(), files=sha256_of_each(files), notes=tuple(filter(None, [unseen])))


@dataclass
class _Look:
    """A walk over an object, which hashes what it meets."""

    digest: Any = field(default_factory=hashlib.sha256)
    modules: set[str] = field(default_factory=set[str])
    unseen: set[str] = field(default_factory=set[str])
    _met: dict[int, object] = field(default_factory=dict[int, object])

    def add(self, *words: object) -> None:
        self.digest.update("\0".join(map(str, words)).encode(errors="backslashreplace") + b"\1")

    def at(self, value: Any, depth: int) -> None:
        """Hash a value: itself if it is simple, else its kind and its parts."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | Path | torch.dtype):
            self.add(type(value).__name__, repr(value))
            return
        if id(value) in self._met or depth > _DEEPEST:
            self.add("met", type(value).__qualname__)
            return
        self._met[id(value)] = value
        if isinstance(value, Tensor | np.ndarray):
            self._array(value, depth)
        elif isinstance(value, types.CodeType):
            self._code(value, depth)
        elif isinstance(value, functools.partial):
            self._each([value.func, value.args, value.keywords], depth)
        elif isinstance(value, types.FunctionType):
            self._function(value, depth)
        elif isinstance(value, types.MethodType):
            self._each([value.__func__, value.__self__], depth)
        elif isinstance(value, type):
            self._class(cast("type[Any]", value), depth)
        elif isinstance(value, types.ModuleType):
            self.add("module", value.__name__)
        else:
            self._object(value, depth)

    def _each(self, values: Any, depth: int) -> None:
        for value in values:
            self.at(value, depth + 1)

    def _array(self, value: Tensor | np.ndarray[Any, Any], depth: int) -> None:
        if isinstance(value, Tensor):
            self._tensor(value)
            return
        self.add(type(value).__name__, tuple(value.shape), value.dtype)
        if value.dtype.hasobject:
            self.at(value.tolist(), depth + 1)  # its bytes are addresses
        elif value.nbytes <= _MOST_BYTES:
            self.digest.update(np.ascontiguousarray(value).tobytes())

    def _tensor(self, tensor: Tensor) -> None:
        shape = tensor.size(0) if tensor.is_nested else tuple(tensor.shape)
        self.add(type(tensor).__name__, shape, tensor.dtype)
        if tensor.is_meta or bytes_of([tensor]) > _MOST_BYTES:
            return
        for part in plain_parts(tensor.detach()):
            host = part.cpu().resolve_conj().resolve_neg().contiguous()
            self.digest.update(host.view(-1).view(torch.uint8).numpy().tobytes())

    def _code(self, code: types.CodeType, depth: int) -> None:
        self.add("code", code.co_name, code.co_code.hex(), *code.co_names, *code.co_varnames)
        for constant in code.co_consts:
            if isinstance(constant, frozenset):
                self.add(*sorted(map(repr, cast("frozenset[Any]", constant))))
            elif isinstance(constant, types.CodeType):
                self._code(constant, depth)
            else:
                self.add(repr(constant))

    def _function(self, function: types.FunctionType, depth: int) -> None:
        if self._is_foreign(function):
            self.add("function", function.__module__, function.__qualname__)
            return
        self.add("function", function.__qualname__)
        self.at(function.__code__, depth)
        self._each([function.__defaults__, function.__kwdefaults__], depth)
        for cell in function.__closure__ or ():
            try:
                self.at(cell.cell_contents, depth + 1)
            except ValueError:  # a cell that nothing was put into yet
                self.add("empty")
        for name in sorted(_names(function.__code__)):
            named = function.__globals__.get(name)
            if isinstance(named, type | types.FunctionType) or _is_simple(named):
                self.add(name)
                self.at(named, depth + 1)

    def _class(self, made: type[Any], depth: int) -> None:
        self.add("class", made.__module__, made.__qualname__)
        if self._is_foreign(made):
            return
        self._each(made.__bases__, depth)
        for name, member in sorted(vars(made).items()):
            inner = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
            counts = isinstance(inner, types.FunctionType | type) or _is_simple(inner)
            if counts and name not in ("__module__", "__firstlineno__", "__qualname__"):
                self.add(name)
                self.at(inner, depth + 1)

    def _object(self, value: Any, depth: int) -> None:
        kind = cast("type[Any]", type(value))
        self.at(kind, depth)
        if isinstance(value, Mapping):
            for key, item in list(cast("Mapping[Any, Any]", value).items())[:_MOST_ITEMS]:
                self.at(key, depth + 1)
                self.at(item, depth + 1)
        elif isinstance(value, list | tuple):
            items = cast("list[Any] | tuple[Any, ...]", value)
            self.add(len(items))
            self._each(items[:_MOST_ITEMS], depth)
        elif isinstance(value, set | frozenset):
            self.add(*sorted(map(repr, cast("set[Any]", value))))
        elif isinstance(value, types.BuiltinFunctionType):
            self.add(value.__module__, value.__qualname__)
        elif hasattr(value, "__wrapped__"):
            self.at(value.__wrapped__, depth + 1)
        elif held := _attributes(value):
            for name, item in held:
                self.add(name)
                self.at(item, depth + 1)
        elif callable(value) and self._is_foreign(kind):
            self.unseen.add(kind.__qualname__)

    def _is_foreign(self, code: Any) -> bool:
        """Whether code is not the user's: then its name says what it is; else the module's files are looked at."""
        name = str(getattr(code, "__module__", None) or "")
        file = getattr(sys.modules.get(name), "__file__", None)
        if name in sys.builtin_module_names or (isinstance(file, str) and not is_users(Path(file))):
            return True
        self.modules.add(name)
        return False


def _names(code: types.CodeType) -> set[str]:
    """Global names in a function's code and in that of the functions inside it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*(_names(each) for each in inner))


def _attributes(value: object) -> list[tuple[str, Any]]:
    """The public attributes of an object, by their names."""
    slots = (slot for kind in type(value).__mro__ for slot in cast("tuple[str, ...]", getattr(kind, "__slots__", ())))
    names = {*getattr(value, "__dict__", {}), *slots}
    return [(name, getattr(value, name, None)) for name in sorted(names) if not name.startswith("_")]


def _is_simple(value: object) -> bool:
    return isinstance(value, bool | int | float | str | tuple)
