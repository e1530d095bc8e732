"""Files of the user's that a task imports, directly or through others: a change in any of them makes it another task.

They are found in two ways. The `import` statements of the task's file, of what it imports, and so on are read, also
those inside functions, which run later. And Python tells of every file whose code it runs (`sys.addaudithook`): so what
is imported under a name that is computed, by its path, from an extension module or a zip file is seen when it is run.
The standard library, installed packages and batchscope itself are left out; their versions are kept with the answer.

Cost: a few milliseconds a file, and a fraction of a microsecond whenever Python tells of something.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["imported_files", "is_users", "late_files", "run_files", "run_since", "sha256_of_each"]

_PACKAGE = Path(__file__).resolve().parents[1]
_STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_GENERATED = "torchinductor_"
"""Beginning of the folders into which `torch.compile` writes the code that it makes."""


def imported_files(path: Path, name: str = "") -> dict[str, Path]:
    """The user's files that a Python file imports, itself not among them, by the names of their modules as paths.

    Args:
        path: of the file.
        name: of its module, which imports that begin with a dot are relative to.
    """
    found: dict[str, Path] = {}
    waiting = [(name, path)]
    seen = {path.resolve()}
    while waiting:
        module, file = waiting.pop()
        for wanted in _imports(file, module):
            known = _file_of(wanted)
            if known is None or known.resolve() in seen:
                continue
            seen.add(known.resolve())
            found[_as_path(wanted, known)] = known
            if known.suffix == ".py":
                waiting.append((wanted, known))
    return dict(sorted(found.items()))


class RunFiles:
    """The files whose code Python has run since `watch` was first called, in their order."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._watching = False

    def watch(self) -> None:
        """Listen from now on; a hook cannot be taken away again."""
        if not self._watching:
            self._watching = True
            sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "exec":
            name = getattr(arguments[0], "co_filename", None)
        elif event == "import":  # of an extension module, with the file that it is loaded from
            name = arguments[1]
        else:
            return
        if isinstance(name, str):
            self._names[name] = None

    @property
    def number(self) -> int:
        """How many there are so far."""
        return len(self._names)

    def since(self, number: int) -> Iterator[Path]:
        """Files of the user's among those after the first so many; of a zip file, itself."""
        for name in list(self._names)[number:]:
            path = _existing(Path(name))
            if path is not None and is_users(path):
                yield path


run_files = RunFiles()


def run_since(number: int, folder: Path) -> dict[str, Path]:
    """The user's files whose code was run since, by the names of their modules as paths.

    Args:
        number: of files that had been run before.
        folder: which the names of files that are no module are relative to.
    """
    names = {file: name for name, module in list(sys.modules.items()) if (file := getattr(module, "__file__", None))}
    found: dict[str, Path] = {}
    for path in run_files.since(number):
        module = names.get(str(path), "__main__")
        relative = os.path.relpath(path, folder).replace(os.sep, "/")
        found[relative if module == "__main__" else _as_path(module, path)] = path
    return found


def late_files(number: int, folder: Path, known: Mapping[str, str], expected: Iterable[str] = ()) -> dict[str, str]:
    """Hashes of the user's files that were run since a task was made, or were in earlier commands.

    Args:
        number: of files that had been run when it was made.
        folder: of the task.
        known: files whose hashes are part of the task already.
        expected: names of files that earlier commands ran late; where they still are, they count as they are now.
    """
    files = {name: path for name, path in run_since(number, folder).items() if name not in known}
    for name in expected:
        path = _expected(name, folder)
        if name not in files and path is not None:
            files[name] = path
    return sha256_of_each(files)


def _expected(name: str, folder: Path) -> Path | None:
    """Where a file of this name is, by its module or beside the task; `None`: nowhere."""
    module = name.rpartition(".")[0].removesuffix("/__init__").replace("/", ".")
    found = None if name.startswith("..") else _file_of(module)
    beside = folder / name
    return found if found is not None and _as_path(module, found) == name else (beside if beside.is_file() else None)


def _existing(path: Path) -> Path | None:
    """A file, or the one that it lies in, as the modules of a zip file do."""
    if not path.is_absolute():
        path = Path.cwd() / path
    return next((each for each in (path, *path.parents) if each.is_file()), None)


def sha256_of_each(files: Mapping[str, Path]) -> dict[str, str]:
    """Hash of the content of each file; one that cannot be read has none, and an empty text stands for it."""
    found: dict[str, str] = {}
    for name, path in files.items():
        try:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            found[name] = ""
    return found


def is_users(path: Path) -> bool:
    """Whether a file belongs to the user: not to Python, to an installed package, or to batchscope."""
    whole = _resolved(path)
    if _INSTALLED.intersection(whole.parts) or whole.is_relative_to(_PACKAGE):
        return False
    if any(part.startswith(_GENERATED) for part in whole.parts):
        return False
    return whole.is_file() and not any(whole.is_relative_to(folder) for folder in _STANDARD)


def _resolved(path: Path) -> Path:
    """The path without links. Thousands of modules share some hundred folders, each of which is looked up once."""
    alone = os.path.islink(path) or not path.is_absolute()
    return path.resolve() if alone else _resolved_folder(path.parent) / path.name


@cache
def _resolved_folder(path: Path) -> Path:
    return path.resolve()


def _imports(path: Path, module: str) -> Iterator[str]:
    """Names of the modules that a file's statements may import, packages before what is in them."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package else []
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            whole = ".".join(filter(None, (base, node.module)))
            if whole:
                yield from _with_parents(whole)
                yield from (f"{whole}.{alias.name}" for alias in node.names if alias.name != "*")


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def _file_of(name: str) -> Path | None:
    """The user's file behind a module's name, without importing it; `None` where there is none."""
    if name.partition(".")[0] in sys.stdlib_module_names or name.partition(".")[0] == _PACKAGE.name:
        return None
    module = sys.modules.get(name)
    path = _path_of(module) if module is not None else _found(name)
    return path if path is not None and is_users(path) else None


def _path_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if isinstance(file, str) else None


def _found(name: str) -> Path | None:
    """Where a module that was not imported would come from."""
    places = None
    parts = list(_with_parents(name))
    for each in parts[:-1]:
        module = sys.modules.get(each)
        spec = getattr(module, "__spec__", None) if module is not None else _spec(each, places)
        places = list(getattr(spec, "submodule_search_locations", None) or [])
        if not places:
            return None
    spec = _spec(parts[-1], places)
    origin = getattr(spec, "origin", None)
    return Path(origin) if isinstance(origin, str) and getattr(spec, "has_location", False) else None


def _spec(name: str, places: list[str] | None) -> object | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, places)
        except Exception:  # a finder of somebody's; the import itself will say what is wrong
            continue
        if spec is not None:
            return spec
    return None


def _as_path(name: str, path: Path) -> str:
    """A module's name as a path, which is the same wherever the project lies: `pkg/sub.py`."""
    whole = name.replace(".", "/")
    return f"{whole}/__init__.py" if path.stem == "__init__" else f"{whole}{path.suffix}"
