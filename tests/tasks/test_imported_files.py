"""The user's files that a task imports are part of what it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchscope.tasks.imported_files import imported_files
from batchscope.tasks.loading import load_task

TASK = """
import json
import numpy
import torch
from helpers import width
from lib.data import make as made
from . import nothing

def task():
    from batchscope.tasks.builtin.digits import digits
    return Wrapped(digits())

class Wrapped:
    def __init__(self, inner):
        self.train_data, self.loss, self.optimizer = inner.train_data, inner.loss, inner.optimizer
        self.inner = inner
    def model(self):
        import lazy
        import importlib
        importlib.import_module("com" + "puted")
        return self.inner.model()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of several files, in a folder of its own."""
    files = {
        "mine.py": TASK.replace("from . import nothing\n", ""),
        "helpers.py": "import deeper\nwidth = 3\n",
        "deeper.py": "depth = 1\n",
        "lazy.py": "import broken\n",
        "computed.py": "",
        "broken.py": "def (",
        "unrelated.py": "",
        "lib/__init__.py": "",
        "lib/data.py": "from . import parts\nfrom .parts import one\ndef make(): ...\n",
        "lib/parts.py": "one = 1\n",
        "lib/other.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in files:
        monkeypatch.delitem(sys.modules, name.removesuffix(".py").split("/")[0], raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


IMPORTED = [
    *("broken.py", "deeper.py", "helpers.py", "lazy.py"),
    *("lib/__init__.py", "lib/data.py", "lib/parts.py"),
]


def test_imports_are_followed_into_functions_and_packages_and_not_into_libraries(project: Path) -> None:
    assert list(imported_files(project / "mine.py", "mine")) == IMPORTED
    assert not {"helpers", "lazy", "lib"} & set(sys.modules), "nothing was imported to find out"


@pytest.mark.parametrize("name", ["mine.py", *IMPORTED])
def test_a_change_in_a_file_that_is_imported_makes_another_task(project: Path, name: str) -> None:
    before = load_task("mine.py")
    assert sorted(before.files) == sorted([*IMPORTED, "mine.py"])
    (project / name).write_text((project / name).read_text() + "# changed\n", encoding="utf-8")
    after = load_task("mine.py")
    assert [each for each in after.files if after.files[each] != before.files[each]] == [name]
    assert after.source_sha256 != before.source_sha256


def test_a_change_elsewhere_does_not(project: Path) -> None:
    before = load_task("mine.py")
    for name in ("unrelated.py", "lib/other.py"):
        (project / name).write_text("# changed\n", encoding="utf-8")
    assert load_task("mine.py").identity("cpu") == before.identity("cpu")


def test_what_is_imported_under_a_computed_name_is_seen_once_it_was(project: Path) -> None:
    (project / "broken.py").write_text("", encoding="utf-8")
    loaded = load_task("mine.py")
    assert loaded.late_files() == {}
    loaded.task.model()
    assert list(loaded.late_files()) == ["computed.py"]


def test_a_built_in_task_has_no_files_of_the_users() -> None:
    assert load_task("digits").files == {}
