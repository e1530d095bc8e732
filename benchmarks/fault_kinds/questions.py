"""Changed modules, questions that are gone or from elsewhere, and other tasks: nothing is answered from what is old."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .case import Fault, Seen, run
from .record_folders import COMMANDS, PARTS, TASK, copied, judged, words_of

__all__ = ["faults"]

_NEEDS = "from parts import hidden\n"
_EDITED = PARTS.replace("8", "5")
_WAYS = {
    "an import": (_NEEDS, "parts.py"),
    "an import in a function": (
        "def now():\n    from parts import hidden\n    return hidden\nhidden = now()\n",
        "parts.py",
    ),
    "a computed name": ("import importlib\nhidden = importlib.import_module('pa' + 'rts').hidden\n", "parts.py"),
    "a relative import of a package": ("from pack.inner import hidden\n", "pack/parts.py"),
    "a namespace package": ("from space.parts import hidden\n", "space/parts.py"),
    "a module by its path": (
        "import importlib.util\nspec = importlib.util.spec_from_file_location('p', 'plugins/parts.py')\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\nhidden = module.hidden\n",
        "plugins/parts.py",
    ),
    "exec of a file": ("exec(compile(open('parts.py').read(), 'parts.py', 'exec'))\n", "parts.py"),
    "a star": ("from parts import *\n", "parts.py"),
}
"""How the task comes to what it needs, and the file that it comes from."""


def faults(quick: bool) -> Iterator[Fault]:
    """Each way to import, and each way to lose a question, for each command; or a few of `find`."""
    for command in ["find"] if quick else COMMANDS:
        for way in ["a module by its path"] if quick else _WAYS:
            yield Fault(what=f"{command}, {way}, its file changed", tried=partial(_changed_module, command, way))
        for loss in ["deleted"] if quick else _LOSSES:
            for other in [True] if quick else [False, True]:
                whose = "another task" if other else "the same task"
                tried = partial(_lost_question, command, loss, other)
                yield Fault(what=f"{command}, question {loss}, then {whose}", tried=tried)


def _changed_module(command: str, way: str, folder: Path) -> Seen:
    how, name = _WAYS[way]
    (folder / "small.py").write_text(TASK.replace(_NEEDS, how))
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(PARTS)
    if path.parent.name == "pack":
        (path.parent / "__init__.py").write_text("")
        (path.parent / "inner.py").write_text("from .parts import hidden\n")
    step_times = [[size, 1e-3 * (1 + size / 64)] for size in (1, 8, 64, 512, 4096)]
    (folder / "machine.json").write_text(json.dumps({"name": "machine", "step_time_s": step_times}))
    first = run(words_of(command), folder, limit_s=900.0)
    if first.status not in (0, 3):
        return Seen(held=False, said=f"the first command ended with {first.status}: {first.stderr[-200:]}")
    path.write_text(_EDITED)
    second = run(words_of(command), folder, limit_s=900.0)
    message = second.stderr.strip().splitlines()[-1]
    named = second.status == 2 and Path(name).name in message and "has changed since" in message
    if not named:
        return Seen(held=False, said=f"status {second.status}: {message[:200]}")
    shutil.rmtree(folder / "out")
    followed = run([*words_of(command), "--dry-run"], folder, limit_s=900.0)
    return Seen(held=followed.status == 0, said=message[:200])


def _lost_question(command: str, loss: str, other: bool, folder: Path) -> Seen:
    runs, answer = copied(command, folder)
    _LOSSES[loss](folder / "out" / "question.json")
    if other:
        (folder / "parts.py").write_text(_EDITED)
    ended = run(words_of(command), folder, limit_s=900.0)
    seen = judged(ended, folder, runs, answer)
    refused = ended.status == 2 and re.search(r"give another --out|remove the folder", ended.stderr) is not None
    if other:
        return Seen(held=seen.held and refused, lost=seen.lost, said=seen.said)
    return Seen(held=seen.held and (ended.status != 2 or loss == "foreign"), lost=seen.lost, said=seen.said)


def _foreign(path: Path) -> None:
    question = json.loads(path.read_text())
    question["files"] = dict.fromkeys(question["files"], "0" * 64)
    path.write_text(json.dumps(question))


_LOSSES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "truncated": lambda path: path.write_text(path.read_text()[:50]),
    "emptied": lambda path: path.write_text(""),
    "foreign": _foreign,
}
