"""Modules that a user names on the command line: by their name, or by the file that they stand in."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from ..errors import TaskError
from .settings import nearest
from .user_code import explained

__all__ = ["callables_of", "files_run_once", "module_of", "near_file", "sources_of"]


def module_of(where: str) -> ModuleType:
    """The module with a name (`package.module`), or in a file (`path/to/file.py`), imported.

    A file is run anew each time, but within `files_run_once`.

    Raises:
        TaskError: there is none, or it fails when it is imported.
    """
    return _module_of_file(Path(where)) if where.endswith(".py") or "/" in where else _module_of_name(where)


@contextmanager
def files_run_once() -> Generator[None]:
    """Run a file once inside, however often it is named: what is taken from it then belongs together."""
    _run.append({})
    try:
        yield
    finally:
        _run.pop()


_run: list[dict[Path, ModuleType]] = []
"""Modules of the files that were run since, for each `files_run_once` that is open."""


def callables_of(module: ModuleType) -> list[str]:
    """The public functions and classes that a module itself defines, in the order of the file."""
    members = vars(module).items()
    return [
        name
        for name, value in members
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def sources_of(made: Callable[..., Any]) -> list[Path]:
    """The file in which a function or class is written; none where Python does not know it."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(made))
    except TypeError:
        return []
    return [Path(file)] if file else []


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TaskError(f"there is no file {path}{near_file(path)}; give a task as path/to/file.py:factory")
    if _run and path.resolve() in _run[-1]:
        return _run[-1][path.resolve()]
    folder, name = str(path.parent.resolve()), path.stem
    if folder not in sys.path:
        sys.path.insert(0, folder)
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) != str(path.resolve()):
        name = f"batchscope_task_{name}"
    loader = _AlwaysFromSource(name, str(path.resolve()))
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, loader, origin=loader.path))
    module.__file__ = loader.path
    sys.modules[name] = module
    with explained(f"importing {path}", "what a file does when it is run belongs under `if __name__ == '__main__':`"):
        loader.exec_module(module)
    if _run:
        _run[-1][path.resolve()] = module
    return module


def near_file(path: Path) -> str:
    """Hint at a Python file of the same folder, by the name without the suffix, which all of them share."""
    there = {p.stem: p for p in sorted(path.parent.glob("*.py")) if p.is_file()} if path.parent.is_dir() else {}
    close = nearest(path.stem, list(there))
    return f"; did you mean {str(there[close])!r}?" if close is not None else ""


class _AlwaysFromSource(importlib.machinery.SourceFileLoader):
    """Loader without cached bytecode, which is stale when a file is edited twice within a second at one length."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _module_of_name(name: str) -> ModuleType:
    if "" not in sys.path and str(Path().resolve()) not in sys.path:
        sys.path.insert(0, str(Path().resolve()))
    try:
        with explained(f"importing {name}"):
            return importlib.import_module(name)
    except TaskError as error:
        missing = error.__cause__
        if isinstance(missing, ModuleNotFoundError) and missing.name and f"{name}.".startswith(f"{missing.name}."):
            raise TaskError(
                f"there is no module {missing.name!r} to import; run from the folder that holds it, "
                "install it, or give the file: path/to/file.py:factory"
            ) from missing
        raise
