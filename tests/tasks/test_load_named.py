"""What a factory makes a task of, found by its name, is part of the task: its file, what that imports, and its name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import batchscope
from batchscope.errors import TaskError
from batchscope.tasks.loading import load_named, load_task


def made_of(parts: str) -> Any:
    """A factory as those of the integrations are."""
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    return batchscope.task(
        model=load_named(parts),
        train=TensorDataset(x, x.sum(1, keepdim=True)),
        loss=lambda model, batch: nn.functional.mse_loss(model(batch[0]), batch[1]),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
    )


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the factory, in a module that is not the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = ModuleType("an_integration_of_it")
    module.__file__ = torch.__file__
    monkeypatch.setattr(made_of, "__module__", module.__name__)
    monkeypatch.setattr(module, "task", made_of, raising=False)
    monkeypatch.setitem(sys.modules, "an_integration_of_it", module)
    return "an_integration_of_it:task"


def written(width: int, name: str = "parts_of_it.py") -> None:
    Path("width_of_it.py").write_text(f"WIDTH = {width}\n")
    Path(name).write_text(
        "from torch import nn\nfrom width_of_it import WIDTH\n\n\ndef make():\n    return nn.Linear(3, 1)\n"
    )
    for module in ("width_of_it", "parts_of_it", "others_of_it"):
        sys.modules.pop(module, None)


def test_its_files_are_the_tasks(spec: str) -> None:
    loaded: list[Any] = []
    for width in (1, 1, 2):
        written(width)
        loaded.append(load_task(spec, ["parts=parts_of_it.py:make"]))
    one, same, other = (each.source_sha256 for each in loaded)
    assert one == same != other
    assert {"parts_of_it.py", "width_of_it.py"} <= set(loaded[0].files)
    assert loaded[0].name == "parts_of_it-make"
    assert loaded[0].folder == Path.cwd()


def test_another_task_of_the_same_factory_does_not_count_its_files(spec: str) -> None:
    written(1)
    load_task(spec, ["parts=parts_of_it.py:make"])
    written(1, name="others_of_it.py")
    assert "parts_of_it.py" not in load_task(spec, ["parts=others_of_it.py:make"]).files


def test_what_is_not_there_is_named(spec: str) -> None:
    with pytest.raises(TaskError, match=r"there is no file nowhere\.py"):
        load_task(spec, ["parts=nowhere.py:make"])
