"""Data sets of torchvision: a stand-in with the same calls, since neither it nor a network need be there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from batchscope.errors import TaskError
from batchscope.tasks.builtin.arrays import arrays
from batchscope.tasks.loading import load_task


class MNIST:
    """Images and labels are tensors, as in torchvision's."""

    calls: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, root: str, train: bool, download: bool) -> None:
        self.calls.append({"root": root, "train": train, "download": download})
        print("Downloading")
        examples = 60 if train else 10
        self.data = torch.arange(examples, dtype=torch.uint8)[:, None, None].expand(-1, 4, 4) + (0 if train else 100)
        self.targets = torch.arange(examples) % 3


class CIFAR10:
    """Images are an array with the channels last, labels a list, as in torchvision's."""

    def __init__(self, root: str, train: bool, download: bool) -> None:
        self.data = np.zeros((12, 8, 8, 3), np.uint8)
        self.targets = [place % 4 for place in range(12)]


class SVHN:
    def __init__(self, root: str, split: str, download: bool) -> None: ...


class LFWPairs:
    def __init__(self, root: str, train: bool, download: bool) -> None: ...


class Offline:
    def __init__(self, root: str, train: bool, download: bool) -> None:
        raise RuntimeError("Error downloading\n train-images")


class Short(CIFAR10):
    def __init__(self, root: str, train: bool, download: bool) -> None:
        super().__init__(root, train, download)
        self.targets.pop()


@pytest.fixture(autouse=True)
def _torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("torchvision")
    kinds = (MNIST, CIFAR10, SVHN, LFWPairs, Offline, Short)
    module.datasets = SimpleNamespace(**{kind.__name__: kind for kind in kinds}, mnist=ModuleType("mnist"))
    monkeypatch.setitem(sys.modules, "torchvision", module)
    MNIST.calls.clear()


def test_mnist(capsys: pytest.CaptureFixture[str]) -> None:
    task = arrays(path=Path("torchvision:MNIST"), scale="standard")
    assert MNIST.calls == [{"root": "batchscope-data", "train": train, "download": True} for train in (True, False)]
    assert {part: len(x) for part, (x, _) in task.parts.items()} == {"train": 50, "val": 10, "test": 10}
    assert task.parts["test"][1].tolist() == [place % 3 for place in range(10)]
    assert capsys.readouterr().out == ""  # what the data set prints is no answer of ours


def test_images_with_channels_last() -> None:
    task = arrays(path=Path("torchvision:CIFAR10"), model="cnn")
    assert task.parts["train"][0].shape == (10, 3, 8, 8)
    assert task.model()(task.parts["val"][0]).shape == (2, 4)


def test_from_the_command_line() -> None:
    loaded = load_task("arrays", ["path=torchvision:MNIST", "hidden=8"])
    assert loaded.settings["path"] == "torchvision:MNIST"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MNIS", r"has no 'MNIS'; did you mean 'MNIST'\?"),
        ("mnist", r"has no 'mnist'"),  # a module of that name
        ("", r"has no ''; write for example path=torchvision:MNIST, or give --set path= a folder"),
        ("SVHN", r"datasets.SVHN is not, like MNIST, .* \(TypeError: .*'train'\); use another one"),
        ("LFWPairs", r"datasets.LFWPairs is not, like MNIST, .* \(AttributeError: .*'data'\)"),
        (
            "Offline",
            r"Offline could not be loaded into batchscope-data \(RuntimeError: Error downloading train-images\)",
        ),
        ("Short", r"torchvision:Short has 12 training examples and 11 labels"),
    ],
)
def test_what_is_refused(name: str, message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        arrays(path=Path(f"torchvision:{name}"))
    assert "\n" not in str(caught.value)


def test_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(
        TaskError, match=r"needs torchvision, which is not installed here .* constraints.txt torchvision"
    ):
        arrays(path=Path("torchvision:MNIST"))


def test_a_torchvision_of_another_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.syspath_prepend(tmp_path)
    message = r"cannot be imported here \(RuntimeError: operator torchvision::nms does not exist\): install the build"
    with pytest.raises(TaskError, match=message):
        arrays(path=Path("torchvision:MNIST"))
