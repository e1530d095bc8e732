"""A task by name: the built-in ones, a module's, a file's; what is misspelt or broken is said with what to write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from batchscope.errors import TaskError
from batchscope.tasks.loading import load_task
from batchscope.tasks.protocol import Task

GOOD = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

class Line:
    def __init__(self, width: int = 3):
        self.width = width
    def model(self):
        return nn.Linear(self.width, 1)
    def train_data(self):
        return TensorDataset(torch.zeros(8, self.width), torch.zeros(8, 1))
    def loss(self, model, batch):
        return nn.functional.mse_loss(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)

def line(width: int = 3):
    return Line(width)
"""


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_built_in() -> None:
    loaded = load_task("digits", ["optimizer=adamw", "hidden=16"])
    assert isinstance(loaded.task, Task)
    assert loaded.name == "digits"
    assert loaded.settings == {
        "depth": 1,
        "dropout": 0.0,
        "hidden": 16,
        "init": "default",
        "model": "mlp",
        "momentum": 0.9,
        "norm": "none",
        "optimizer": "adamw",
        "scale": "unit",
    }
    assert load_task("digits", {"hidden": 16, "optimizer": "adamw"}).settings == loaded.settings


@pytest.mark.parametrize(
    ("spec", "name"),
    [("tasks.py:line", "tasks-line"), ("tasks.py:Line", "tasks-Line"), ("./tasks.py:line", "tasks-line")],
)
def test_file(spec: str, name: str) -> None:
    write("tasks.py", GOOD)
    loaded = load_task(spec, ["width=5"])
    assert loaded.name == name
    assert loaded.settings == {"width": 5}
    assert loaded.task.model().in_features == 5


def test_a_factory_called_task_needs_no_second_name() -> None:
    write("lines.py", GOOD + "\ntask = line\n")
    assert load_task("lines.py:task").name == "lines"


def test_module_of_the_current_folder_and_of_a_package() -> None:
    write("plain_module.py", GOOD)
    Path("pack").mkdir()
    write("pack/__init__.py", "")
    write("pack/lines.py", GOOD)
    assert load_task("plain_module:line").name == "plain_module-line"
    assert load_task("pack.lines:line").name == "lines-line"


def test_a_file_may_import_its_neighbour() -> None:
    Path("sub").mkdir()
    write("sub/neighbour.py", GOOD)
    write("sub/mine.py", "from neighbour import line\n")
    assert load_task("sub/mine.py:line").name == "mine-line"


def test_a_file_that_is_called_like_another_module() -> None:
    before = sys.modules.get("json")
    write("json.py", GOOD)
    assert load_task("json.py:line").task.model().in_features == 3
    assert sys.modules.get("json") is before


def test_an_edited_file_is_read_again_and_has_another_hash() -> None:
    write("tasks.py", GOOD)
    first = load_task("tasks.py:line")
    assert load_task("tasks.py:line").source_sha256 == first.source_sha256
    write("tasks.py", GOOD.replace("width: int = 3", "width: int = 4"))
    second = load_task("tasks.py:line")
    assert second.task.model().in_features == 4
    assert second.source_sha256 != first.source_sha256


def test_the_data_file_is_part_of_the_hash() -> None:
    data = {"x_train": np.zeros((4, 2)), "y_train": np.arange(4.0), "x_val": np.zeros((4, 2)), "y_val": np.zeros(4)}
    np.savez("data.npz", **data)
    first = load_task("arrays", ["path=data.npz"])
    np.savez("data.npz", **{**data, "y_val": np.ones(4)})
    assert load_task("arrays", ["path=data.npz"]).source_sha256 != first.source_sha256
    assert first.settings["path"] == "data.npz"


def test_a_file_without_a_factory_means_its_factory_task() -> None:
    write("mine.py", f"{GOOD}\ndef task(width: int = 5) -> Line:\n    return line(width)\n")
    assert load_task("mine.py").name == "mine"
    assert load_task("mine.py").task.model().in_features == 5
    assert load_task("mine.py", ["width=7"]).task.model().in_features == 7


def test_a_factory_task_that_was_only_imported_is_not_meant() -> None:
    write("mine.py", f"from batchscope import task\n{GOOD}")
    with pytest.raises(TaskError, match=r"does not say which factory to call: it defines Line, line"):
        load_task("mine.py")


@pytest.mark.parametrize("there", ["pyex.py", "nope.txt", "nopes.py/inner.txt"])
def test_a_file_that_is_not_near_is_not_suggested(there: str, tmp_path: Path) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    write(there, GOOD)
    for spec in ("nope.py:task", "nope"):
        with pytest.raises(TaskError) as caught:
            load_task(spec)
        assert "did you mean" not in str(caught.value)


def test_a_near_file_of_the_same_folder_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write("sub/mine.py", GOOD)
    with pytest.raises(TaskError, match=r"no file sub/mien.py; did you mean 'sub/mine.py'\?"):
        load_task("sub/mien.py:line")
    assert load_task("sub/mine.py:line").name == "mine-line"


def test_the_offered_factory_can_be_called_as_it_is_offered() -> None:
    write("mine.py", GOOD.replace("(self, width: int = 3)", "(self, width: int)"))
    with pytest.raises(TaskError, match=r"write (mine.py:\w+)$") as caught:
        load_task("mine.py")
    assert load_task(str(caught.value).rpartition(" ")[2]).task.model() is not None
    write("needs.py", "def make(path: str, width: int = 3, **others): ...\n")
    with pytest.raises(TaskError, match=r"write for example needs.py:make --set path=VALUE$"):
        load_task("needs.py")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digts", r"no task 'digts'; did you mean 'digits'\?; built in are digits, arrays, text"),
        ("tasks", r"no task 'tasks'; did you mean 'tasks.py'\?"),
        ("tasks.py", r"does not say which factory to call: it defines Line, line; write for example tasks.py:Line"),
        ("only.py", r"does not say which factory to call: write only.py:make"),
        ("empty.py", r"empty.py defines no function or class; `batchscope init FILE.py`"),
        ("tasks.py:lines", r"tasks.py has no 'lines'; did you mean 'line'\?; it defines Line, line"),
        ("tasks.py:torch", r"torch in tasks.py is module, which cannot be called"),
        ("taks.py:line", r"no file taks.py; did you mean 'tasks.py'\?"),
        ("no_such_module:line", r"no module 'no_such_module' to import"),
        ("pack.nothing:line", r"no module 'pack' to import"),
        (
            "raises.py:make",
            r"make\(\) in raises.py raised KeyError: 'alpha' \(raises.py, line 3: return table\['alpha'\]\)",
        ),
        ("none.py:make", r"make\(\) in none.py returned None; end it with `return`"),
        ("half.py:make", r"type Half, which lacks train_data, optimizer; add to it: def train_data\(self\) -> Dataset"),
        ("half.py:the_class", r"type type, which lacks|returned the class"),
        ("syntax.py:make", r"importing syntax.py raised SyntaxError: .* \(syntax.py, line 2\)"),
        ("import.py:make", r"importing import.py raised ModuleNotFoundError: No module named 'nothing_there'"),
        ("exits.py:make", r"importing exits.py raised SystemExit: 1 .*`if __name__ == '__main__':`"),
    ],
)
def test_what_is_wrong_is_said(spec: str, message: str) -> None:
    write("tasks.py", GOOD)
    write("empty.py", "x = 3\n")
    write("only.py", "def make():\n    pass\n\ndef measure(x):\n    pass\n")
    write("raises.py", "def make():\n    table = {}\n    return table['alpha']\n")
    write("none.py", "def make():\n    pass\n")
    half = "class Half:\n    def model(self): ...\n    def loss(self, model, batch): ...\n"
    write("half.py", f"{half}\ndef make():\n    return Half()\n\ndef the_class():\n    return Half\n")
    write("syntax.py", "x = 1\ndef make(:\n")
    write("import.py", "import nothing_there\n")
    write("exits.py", "import sys\nsys.exit(1)\n")
    with pytest.raises(TaskError, match=message) as caught:
        load_task(spec)
    assert "\n" not in str(caught.value)


def test_the_users_own_exception_is_the_cause() -> None:
    write("raises.py", "def make():\n    raise OSError('no such disk')\n")
    with pytest.raises(TaskError) as caught:
        load_task("raises.py:make")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.__traceback__ is not None


def test_a_missing_import_inside_a_module_is_not_called_a_missing_module() -> None:
    write("broken_inside.py", "import nothing_there\n")
    with pytest.raises(TaskError, match=r"importing broken_inside raised ModuleNotFoundError: .*'nothing_there'"):
        load_task("broken_inside:make")


HELPERS = """
def plot(curve=None):
    raise SystemExit("a figure")

def main():
    raise SystemExit("a training")

def measure(model, data):
    return 1.0
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("helpers_before.py", HELPERS + GOOD.replace("def line(width: int = 3):\n    return Line(width)\n", "")),
        (
            "helpers_and_function.py",
            HELPERS + GOOD.replace("width: int = 3):\n        self", "width: int):\n        self"),
        ),
        (
            "of_parts.py",
            f"{HELPERS}\nimport batchscope\nfrom {__name__} import PARTS\n\ndef regression():\n"
            "    return batchscope.task(**PARTS)\n",
        ),
    ],
)
def test_without_a_factory_task_the_advice_names_what_makes_one_and_works(name: str, text: str) -> None:
    """Functions that need no arguments, but make no task (`main`, `plot`), are not what is advised."""
    write(name, text)
    with pytest.raises(TaskError) as caught:
        load_task(name)
    advice = str(caught.value).rpartition("write ")[2].removeprefix("for example ")
    assert advice.startswith(f"{name}:")
    assert isinstance(load_task(advice).task, Task)


PARTS = {
    "model": lambda: torch.nn.Linear(2, 1),
    "train": torch.utils.data.TensorDataset(torch.zeros(8, 2), torch.zeros(8, 1)),
    "loss": lambda model, batch: torch.nn.functional.mse_loss(model(batch[0]), batch[1]),
    "optimizer": lambda params, lr: torch.optim.SGD(params, lr=lr),
}


@pytest.mark.parametrize(
    "text",
    [
        "from functools import partial\ntask = partial(line, width=5)\n",
        "task = lambda: Line(5)\n",
        "class task(Line):\n    def __init__(self):\n        super().__init__(5)\n",
    ],
)
def test_a_file_alone_means_whatever_factory_is_called_task(text: str) -> None:
    write("mine.py", f"{GOOD}\n{text}")
    loaded = load_task("mine.py")
    assert loaded.name == "mine"
    assert loaded.task.model().in_features == 5
    assert load_task("mine.py:task").source_sha256 == loaded.source_sha256


def test_a_factory_task_of_another_file_of_the_users_is_meant_too() -> None:
    write("there.py", f"{GOOD}\ndef task():\n    return Line(4)\n")
    write("here.py", "from there import task\n")
    assert load_task("here.py").task.model().in_features == 4
    Path("pack").mkdir()
    write("pack/__init__.py", "")
    write("pack/mine.py", f"{GOOD}\ntask = line\n")
    assert load_task("pack.mine").name == "mine"


def test_a_task_object_in_the_place_of_a_factory_and_the_advice_followed() -> None:
    write("object.py", f"{GOOD}\ntask = Line()\n")
    for spec in ("object.py", "object.py:task"):
        with pytest.raises(
            TaskError, match=r"task in object.py is a task, and a factory .*write `def task\(\): return"
        ):
            load_task(spec)
    write("object.py", f"{GOOD}\ndef task(): return Line()\n")
    assert load_task("object.py").name == "object"
