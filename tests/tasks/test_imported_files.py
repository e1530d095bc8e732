"""The user's files that a task imports are part of what it is."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from batchscope.tasks.imported_files import imported_files, run_files, run_since
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


DYNAMIC = """
import importlib
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from batchscope.tasks.builtin.digits import digits

def by_path(path):
    spec = importlib.util.spec_from_file_location("by_path", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

importlib.import_module("com" + "puted")
plugin = by_path("plugins/plugin.py")
sys.path.insert(0, "packed.zip")
import packed
space = importlib.import_module("space" + ".inner")
exec(compile(Path("script.py").read_text(), "script.py", "exec"))

def task():
    plugin = by_path("plugins/factory.py")
    inner = digits()
    def loss(model, batch):
        by_path("plugins/late.py")
        return inner.loss(model, batch)
    return Wrapped(inner, loss)

class Wrapped:
    def __init__(self, inner, loss):
        self.model, self.train_data, self.loss, self.optimizer = inner.model, inner.train_data, loss, inner.optimizer
"""
RUN = ["computed.py", "packed.zip", "plugins/factory.py", "plugins/plugin.py", "script.py", "space/inner.py"]


@pytest.fixture
def dynamic(project: Path) -> Path:
    """A project whose files are found by no statement: by computed names, by their paths, in a zip file, by `exec`."""
    (project / "mine.py").write_text(DYNAMIC, encoding="utf-8")
    for name in ("script.py", "plugins/plugin.py", "plugins/factory.py", "plugins/late.py", "space/inner.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("", encoding="utf-8")
    with zipfile.ZipFile(project / "packed.zip", "w") as packed:
        packed.writestr("packed.py", "value = 1")
    return project


LOADED = "from batchscope.tasks.loading import load_task; print(*load_task('mine.py').files.items(), sep='\\n')"


def files_in_a_new_process(project: Path) -> dict[str, str]:
    ended = subprocess.run([sys.executable, "-c", LOADED], cwd=project, capture_output=True, text=True, check=True)
    return dict(ast.literal_eval(line) for line in ended.stdout.splitlines())


def test_a_change_in_a_file_that_is_run_under_no_name_makes_another_task(dynamic: Path) -> None:
    before = files_in_a_new_process(dynamic)
    assert sorted(before) == sorted(["mine.py", *RUN])
    for name in RUN:
        with (dynamic / name).open("ab") as file:
            file.write(b"# changed")
    after = files_in_a_new_process(dynamic)
    assert {name for name in after if after[name] != before[name]} == set(RUN)


def test_a_second_load_in_one_process_is_of_the_same_files(dynamic: Path) -> None:
    first = load_task("mine.py")
    assert load_task("mine.py").identity("cpu") == first.identity("cpu")


def test_what_a_method_runs_by_its_path_is_late_and_is_looked_at_again_without_being_run(dynamic: Path) -> None:
    loaded = load_task("mine.py")
    assert loaded.late_files() == {}
    names = ["plugins/late.py", "lib/other.py", "nowhere.py"]
    before = loaded.late_files(names)
    assert sorted(before) == ["lib/other.py", "plugins/late.py"]
    (dynamic / "plugins/late.py").write_text("# changed", encoding="utf-8")
    after = loaded.late_files(names)
    assert [name for name in before if after[name] != before[name]] == ["plugins/late.py"]
    model = loaded.task.model()
    data = loaded.task.train_data()
    loaded.task.loss(model, torch.utils.data.default_collate([data[0], data[1]]))
    assert loaded.late_files() == {"plugins/late.py": after["plugins/late.py"]}


def test_an_extension_module_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = run_files.number
    library = project / "fast.so"
    library.write_bytes(b"1")
    sys.audit("import", "fast", str(library), None, None, None)
    assert list(run_since(number, project)) == ["fast.so"]


def test_a_built_in_task_has_no_files_of_the_users() -> None:
    assert load_task("digits").files == {}
