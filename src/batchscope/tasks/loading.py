"""Loading of a task by its name (`digits`, `package.module:factory`, `path/to/file.py:factory`) into an object."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ..errors import TaskError
from ..hardware.device import within_memory
from ..hardware.random_state import preserved_random_state
from .builtin import BUILT_IN
from .imported_files import imported_files, is_users, late_files, run_files, run_since, sha256_of_each
from .made_in_python import identity_of
from .members import MEMBERS
from .named_modules import callables_of, module_of, near_file, sources_of
from .protocol import Task
from .protocol import task as task_of_parts
from .settings import bind, near_miss, plain
from .unknown_members import refuse_own_update, refuse_unknown_members, refuse_wrong_arguments
from .user_code import explained

__all__ = ["LoadedTask", "as_loaded", "load_beside", "load_named", "load_task"]

_DEFAULT = "task"
"""The factory that is meant where none is named."""

_LINES = {member.name: member.line for member in MEMBERS if member.required}


@dataclass(frozen=True, kw_only=True)
class LoadedTask:
    """Task, and what it was made from.

    Attributes:
        task: the object that the factory returned.
        name: what results call it.
        settings: the factory's arguments as JSON types, defaults included.
        source_sha256: changes when the factory's file, one that it imports, or a file among its settings changes; of a
            built-in task also when a folder among them does.
    """

    task: Task
    name: str
    settings: Mapping[str, Any]
    source_sha256: str
    spec: str = ""
    """What `load_task` was given, so that another process can load it again; empty: the task was made in Python."""
    given: Sequence[str] | Mapping[str, Any] = ()
    """The settings that came with it, as they were written."""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The factory's arguments as it was called with them, defaults included."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """Hash of each of the user's files that the task is made of, by the name of its module as a path."""
    notes: tuple[str, ...] = ()
    """What of it could not be seen, and may change unnoticed."""
    run_before: int = field(default_factory=lambda: run_files.number)
    """How many files Python had run when it was loaded."""
    folder: Path = field(default_factory=Path.cwd)
    """Of its file; where it was made in Python, the current one."""

    def identity(self, device: str) -> dict[str, Any]:
        """What makes it another task, on a device: name, settings, source."""
        own = {"task": self.name, "settings": self.settings, "source_sha256": self.source_sha256}
        return {**own, "files": dict(self.files), "device": device}

    def late_files(self, expected: Iterable[str] = ()) -> dict[str, str]:
        """Hashes of the user's files that its methods imported since it was loaded, or in earlier commands.

        Args:
            expected: names of the files that were imported in earlier commands.
        """
        return late_files(self.run_before, self.folder, self.files, expected)


@within_memory()
def load_task(spec: str, settings: Sequence[str] | Mapping[str, Any] = ()) -> LoadedTask:
    """Find a task's factory, call it, and check what it returns.

    Args:
        spec: `digits`, `arrays`, `text`, `package.module:factory` or `path/to/file.py:factory`; a file or module
            without `:factory` means its factory `task`.
        settings: `KEY=VALUE` texts, or a mapping.

    Raises:
        TaskError: there is no such task, or it cannot be made; the message says what to write.

    What a factory draws at random is the same in every process; the caller's random state is left as it was.

    Example:
        >>> loaded = load_task("digits", ["optimizer=adamw"])
        >>> loaded.name, loaded.settings["optimizer"], loaded.settings["hidden"]
        ('digits', 'adamw', 128)
    """
    run_files.watch()
    run_before = run_files.number
    with preserved_random_state(0):
        factory, name, sources = _factory(spec)
        arguments = bind(factory, settings, name)
        _named.clear()
        with explained(f"{_call(factory)} in {sources[0].name}"):
            task = factory(**arguments)
    _check_members(task, factory, sources[0])
    if _named:  # what an integration made the task of: its code is the task's, and the task is called like it
        name = name if is_users(sources[0]) else "-".join(_named)
        sources = list(dict.fromkeys([*(path for paths in _named.values() for path in paths), *sources]))
    paths = [value for value in arguments.values() if isinstance(value, Path)]
    files = [path for path in paths if path.is_file()]
    folders = [path for path in paths if path.is_dir()] if spec in BUILT_IN else []  # another's may be for its results
    imported = {} if spec in BUILT_IN else _files(sources, run_before)
    sha256 = _sha256([*sources, *imported.values(), *files], folders)
    return LoadedTask(
        task=task,
        name=name,
        settings=plain(arguments),
        source_sha256=sha256,
        spec=spec,
        given=settings,
        arguments=arguments,
        files=sha256_of_each(imported),
        folder=sources[0].parent.resolve(),
    )


def as_loaded(task: LoadedTask | Task) -> LoadedTask:
    """A task object made in Python, as if it had been loaded: told apart by its name, its code and what it holds.

    Raises:
        TaskError: it has no name.
    """
    run_files.watch()
    if isinstance(task, LoadedTask):
        if task.spec or task.source_sha256:
            return task
        loaded, name = task, task.name
    else:
        loaded, name = None, getattr(task, "name", None)
    if not isinstance(name, str) or not name.strip():
        raise TaskError(
            f"the task ({type(task).__name__}) has no name, and results folders tell tasks apart by it; add "
            'name="my-task" to batchscope.task(...), or to your class'
        )
    made = loaded.task if loaded is not None else cast(Task, task)
    what = f"the task {name!r}, an object of type {type(made).__name__}"
    refuse_own_update(made, what)
    refuse_unknown_members(made, what)
    refuse_wrong_arguments(made, what)
    identity = identity_of(made)
    return LoadedTask(
        task=made,
        name=name,
        settings=loaded.settings if loaded is not None else {},
        source_sha256=identity.sha256,
        files=identity.files,
        notes=identity.notes,
    )


_named: dict[str, list[Path]] = {}
"""Files of what `load_named` found while the task at hand was made, by its name."""


def load_named(spec: str) -> Callable[..., Any]:
    """A function or class of the user's by its name, for a factory that makes a task of it.

    The task that is being loaded then counts as made of its file, and of those that the file imports.

    Args:
        spec: `package.module:name` or `path/to/file.py:name`.

    Raises:
        TaskError: there is none; the message says what to write.
    """
    value, name, sources = _factory(spec)
    _named[name] = sources
    return value


_run_for: dict[Path, dict[str, Path]] = {}
"""Files that were run while the task in a file was loaded, by that file: a second load in one process runs none."""


def _files(sources: Sequence[Path], run_before: int) -> dict[str, Path]:
    """The user's files that a task is made of: those that its factory stands in, what they import, and what was run."""
    own = {source.name for source in sources}
    files = ((name, _module_file(module)) for name, module in list(sys.modules.items()))
    names = {Path(file).resolve(): name for name, file in files if file and os.path.basename(file) in own}
    found: dict[str, Path] = {}
    for source in sources:
        found |= imported_files(source, names.get(source.resolve(), source.stem))
    first, seen = sources[0].resolve(), {path.resolve() for path in (*sources, *found.values())}
    ran = {name: path for name, path in run_since(run_before, first.parent).items() if path.resolve() not in seen}
    known = _run_for[first] = {**_run_for.get(first, {}), **ran}
    return {**{source.name: source for source in sources if is_users(source)}, **found, **dict(sorted(known.items()))}


def load_beside(spec: str) -> Callable[..., Any]:
    """As `load_named`, for what belongs to the same task and does not name it."""
    value, _, sources = _factory(spec)
    for last in list(_named.values())[-1:]:
        last += [path for path in sources if path not in last]
    return value


def _module_file(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else None


def _factory(spec: str) -> tuple[Callable[..., Any], str, list[Path]]:
    """The factory, the task's name, and the files whose change makes it another task."""
    if spec in BUILT_IN:
        folder = Path(__file__).parent / "builtin"
        module = importlib.import_module(f"batchscope.tasks.builtin.{spec}")
        others = sorted(p for p in folder.iterdir() if p.suffix in (".py", ".npz") and p.stem not in BUILT_IN)
        return getattr(module, spec), spec, [folder / f"{spec}.py", *others]
    where, colon, attribute = spec.rpartition(":")
    if not colon:
        where, attribute = spec, ""
    if not colon and "." not in where and "/" not in where:
        raise _misspelt(spec)
    module = module_of(where)
    if not attribute and not _has_default(module):
        raise TaskError(f"{spec} does not say which factory to call: {_offer(module, where)}")
    attribute = attribute or _DEFAULT
    factory, offer = getattr(module, attribute, None), _offer(module, where)
    if factory is None:
        raise TaskError(f"{where} has no {attribute!r}{near_miss(attribute, callables_of(module))}; {offer}")
    if isinstance(factory, Task) and not inspect.isclass(factory):
        raise TaskError(
            f"{attribute} in {where} is a task, and a factory is called for, which makes one anew for every process: "
            f"write `def {_DEFAULT}(): return ...`"
        )
    if not callable(factory):
        raise TaskError(f"{attribute} in {where} is {type(factory).__name__}, which cannot be called; {offer}")
    stem = Path(where).stem if where.endswith(".py") else where.rpartition(".")[2]
    own = getattr(module, "__file__", None)
    sources = [*([Path(own)] if own else []), *sources_of(factory)]
    return factory, stem if attribute in (_DEFAULT, stem) else f"{stem}-{attribute}", list(dict.fromkeys(sources))


def _misspelt(spec: str) -> TaskError:
    hint = near_miss(spec, BUILT_IN) or near_file(Path(spec))
    return TaskError(
        f"there is no task {spec!r}{hint}; built in are {', '.join(BUILT_IN)}, your own is path/to/file.py:factory or "
        "package.module:factory (`batchscope init FILE.py` writes an example)"
    )


def _offer(module: ModuleType, where: str) -> str:
    names = callables_of(module)
    if not names:
        return f"{where} defines no function or class; `batchscope init FILE.py` writes an example of a factory"
    makers = [name for name in names if _makes_tasks(getattr(module, name), module)]
    others = [name for name in names if inspect.isfunction(getattr(module, name))]
    likely = makers or others or names
    without = [name for name in likely if not _required(getattr(module, name))]
    if len(without) == 1:
        return f"write {where}:{without[0]}"
    chosen = (without or likely)[0]
    settings = "".join(f" --set {name}=VALUE" for name in _required(getattr(module, chosen)))
    return f"it defines {', '.join(names)}; write for example {where}:{chosen}{settings}"


def _has_default(module: ModuleType) -> bool:
    """Whether the module has something called `task`, its own or another's, that is not `batchscope.task`."""
    factory = getattr(module, _DEFAULT, None)
    return factory is not task_of_parts and (callable(factory) or isinstance(factory, Task))


def _makes_tasks(value: Any, module: ModuleType) -> bool:
    """Whether it is a task class, or a function whose code names one, or `batchscope.task`."""
    if inspect.isclass(value):
        return _is_task_class(value)
    names = set(inspect.unwrap(value).__code__.co_names)
    makers = {n for n, v in vars(module).items() if v is task_of_parts or (inspect.isclass(v) and _is_task_class(v))}
    return bool(names & makers) or ("batchscope" in names and _DEFAULT in names)


def _is_task_class(value: type) -> bool:
    return all(callable(getattr(value, member, None)) for member in _LINES)


def _required(value: Any) -> list[str]:
    """The arguments that a function or class cannot be called without."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(value).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]


def _check_members(task: Any, factory: Callable[..., Any], source: Path) -> None:
    call = f"{_call(factory)} in {source.name}"
    if task is None:
        raise TaskError(f"{call} returned None; end it with `return` and the task")
    what = f"{call} returned an object of type {type(task).__name__}"
    refuse_own_update(task, what)
    missing = [member for member in _LINES if not callable(getattr(task, member, None))]
    if missing:
        raise TaskError(
            f"{what}, which lacks {', '.join(missing)}; add to it: {' '.join(_LINES[member] for member in missing)}"
        )
    if inspect.isclass(task):
        raise TaskError(f"{call} returned the class {task.__name__}; return an object of it: {task.__name__}()")
    refuse_unknown_members(task, what)
    refuse_wrong_arguments(task, what)


def _call(factory: Callable[..., Any]) -> str:
    return f"{getattr(factory, '__name__', type(factory).__name__)}()"


def _sha256(files: Sequence[Path], folders: Sequence[Path]) -> str:
    """Hash of the files' contents, and of the names and contents of what lies in the folders."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(_content_sha256(path))
    for folder in folders:
        for path in _data_files(folder):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + _content_sha256(path))
    return digest.hexdigest()


def _content_sha256(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _data_files(folder: Path) -> list[Path]:
    """The files at the depths at which built-in tasks read: FOLDER/FILE, FOLDER/CLASS/FILE, FOLDER/PART/CLASS/FILE."""
    found = (path for depth in ("*", "*/*", "*/*/*") for path in folder.glob(depth))
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))
