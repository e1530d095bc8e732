"""Template of a task, `batchscope init FILE.py`: a commented task file that runs as it is."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import IO

from ..errors import UsageError

__all__ = ["FACTORY", "write_task_file"]

FACTORY = "task"
"""The name of the factory in the file."""


def write_task_file(path: Path | str) -> Path:
    """Write a task file with its own small data set and comments on what to replace.

    Args:
        path: a file that is not there yet; its name ends with `.py`, folders on the way are made.

    Returns:
        The path. `FILE.py:task` is then a task.

    Raises:
        UsageError: the file exists, its name is no Python module's, or it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.stem.isidentifier():
        stem = "".join(c if c.isalnum() else "_" for c in path.name.removesuffix(".py")) or "my_task"
        stem = f"_{stem}" if stem[0].isdigit() else stem
        better = path.parent / f"{stem}.py"
        raise UsageError(f"{path} cannot be imported as a Python module; write for example {better}")
    template = (files("batchscope.tasks") / "template.py.txt").read_text(encoding="utf-8")
    text = template.replace("{file}", path.name).replace("{factory}", FACTORY).replace("{class_name}", "MyTask")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            _write_or_remove(path, file, text)
    except OSError as error:
        if path.exists():
            raise UsageError(f"{path} exists already and is left as it is; give another name") from None
        raise UsageError(f"{path} cannot be written: {error.strerror}; choose a folder that you may write") from error
    return path


def _write_or_remove(path: Path, file: IO[str], text: str) -> None:
    try:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
