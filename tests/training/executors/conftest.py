"""Functions in a module of their own, which another process can import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

MODULE = '''
import os
import signal
import sys
import threading

from batchscope.errors import TaskError


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def pid():
    return os.getpid()


def forever(path):
    with open(path, "a") as file:
        file.write("begun\\n")
    threading.Event().wait()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    sys.exit(3)


def fail(kind):
    raise {"task": TaskError("loss: no"), "unpicklable": Unpicklable(1, 2)}[kind]


def interrupt_and_print():
    os.kill(os.getpid(), signal.SIGINT)
    print("printed")
    print("printed", file=sys.stderr)
    os.write(1, b"printed")
    return "alive"


def squared(number, late):
    assert not late()
    return number * number


def inverted(number, late):
    return 1 / number


def everywhere_but(parent, number, late):
    """Fails in every process but one."""
    if os.getpid() != parent:
        raise MemoryError("no memory in this process")
    return os.getpid()


def dies_everywhere_but(parent, number, late):
    if os.getpid() != parent:
        die()
    return os.getpid()


def stuck_but_first(path, number, late):
    if number:
        forever(path)
    return number
'''


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "calls_for_tests.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import calls_for_tests  # pyright: ignore[reportMissingImports]

    return calls_for_tests
