"""Record files that are truncated, emptied, garbage, swapped, deleted, nested deeply, or hold impossible numbers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .case import Fault, Seen, run
from .record_folders import COMMANDS, copied, judged, made, words_of

__all__ = ["faults"]

_DEEP, _DIGITS = 100_000, 400


def faults(quick: bool) -> Iterator[Fault]:
    """Every damage to every file of every command, each read by `report` and `runs` and gone on from; or a few."""
    for command in ["find"] if quick else COMMANDS:
        names = _files(made(command) / "out")
        if quick:
            names = [name for name in names if name.endswith(("config.json", "plan.json"))]
        for damage in ["truncated", "digits"] if quick else _DAMAGES:
            for name in names:
                for again in ["report"] if quick else ["report", "runs", command]:
                    what = f"{command}, {_anonymous(name)} {damage}, then {again}"
                    yield Fault(what=what, tried=partial(_damaged, command, name, damage, again))


def _files(out: Path) -> list[str]:
    """Names of the record files in a folder; of runs, those of the first."""
    paths = sorted(path for path in out.rglob("*") if path.suffix in (".json", ".jsonl"))
    first = min((path.parent.name for path in paths if path.parent.parent.name == "runs"), default="")
    names = [path.relative_to(out).as_posix() for path in paths]
    return [name for name in names if not name.startswith("runs/") or name.startswith(f"runs/{first}/")]


def _anonymous(name: str) -> str:
    return re.sub(r"^runs/[^/]+", "runs/ID", name)


def _damaged(command: str, name: str, damage: str, again: str, folder: Path) -> Seen:
    runs, answer = copied(command, folder)
    out, path = folder / "out", folder / "out" / name
    if not _DAMAGES[damage](path, out):
        return Seen(held=True, said="there was nothing to damage")
    words = words_of(command) if again == command else [again, "out"]
    ended = run(words, folder, limit_s=600.0)
    run_of = name.split("/")[1] if name.startswith("runs/") else ""
    measured_again = not run_of and (again == command or name in ("plan.json", "study.json", "claims.json"))
    return judged(ended, folder, runs, None if measured_again else answer, damaged=run_of)


def _cut(share: float) -> Callable[[Path, Path], bool]:
    def cut(path: Path, out: Path) -> bool:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        return True

    return cut


def _written(content: bytes) -> Callable[[Path, Path], bool]:
    def write(path: Path, out: Path) -> bool:
        path.write_bytes(content)
        return True

    return write


def _numbers(number: str) -> Callable[[Path, Path], bool]:
    """Every number of a file that is not in a text becomes another."""

    def replace(path: Path, out: Path) -> bool:
        content = path.read_text()
        changed = re.sub(r"(?<=[:\[ ,])-?\d+(\.\d+)?([eE][-+]?\d+)?(?=[,\]\n}])", number, content)
        path.write_text(changed)
        return changed != content

    return replace


def _swapped(path: Path, out: Path) -> bool:
    """Change places with the file of this name in another run, or with another file of the folder."""
    others = [other for other in sorted(out.rglob(path.name)) if other != path]
    others = others or [other for other in sorted(path.parent.glob(f"*{path.suffix}")) if other != path]
    if not others or others[0].read_bytes() == path.read_bytes():
        return False
    own, other = path.read_bytes(), others[0].read_bytes()
    path.write_bytes(other)
    others[0].write_bytes(own)
    return True


def _deleted(path: Path, out: Path) -> bool:
    path.unlink()
    return True


def _a_folder(path: Path, out: Path) -> bool:
    path.unlink()
    shutil.copytree(out / "runs", path) if (out / "runs").is_dir() and path.parent == out else path.mkdir()
    return True


_DAMAGES: dict[str, Callable[[Path, Path], bool]] = {
    "truncated": _cut(0.5),
    "emptied": _cut(0.0),
    "garbage": _written(bytes(range(256)) * 8),
    "another kind of JSON": _written(b"[1, 2]"),
    "an empty object": _written(b"{}"),
    "deep": _written(b"[" * _DEEP + b"]" * _DEEP),
    "deep object": _written(b'{"a":' * _DEEP + b"1" + b"}" * _DEEP),
    "digits": _numbers("9" * _DIGITS),
    "NaN": _numbers("NaN"),
    "Infinity": _numbers("-Infinity"),
    "swapped": _swapped,
    "deleted": _deleted,
    "a folder": _a_folder,
}
"""What is done to a file; whether it is another one then."""
