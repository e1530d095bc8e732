"""A task made in Python has a name, and is never taken for another of the same name."""

from __future__ import annotations

import operator
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from batchscope.errors import TaskError
from batchscope.search.find import find
from batchscope.tasks.loading import LoadedTask, as_loaded
from batchscope.tasks.made_in_python import identity_of
from batchscope.tasks.protocol import Task, task

X = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))


def squared(model: nn.Module, batch: Any) -> torch.Tensor:
    return model(batch[0]).square().mean()


def halved(model: nn.Module, batch: Any) -> torch.Tensor:
    return model(batch[0]).square().mean() / 2


def linear(**changes: Any) -> Task:
    parts: dict[str, Any] = {
        "model": lambda: nn.Linear(3, 1),
        "train": TensorDataset(X),
        "loss": squared,
        "optimizer": lambda params, lr: torch.optim.SGD(params, lr=lr),
        "name": "linear",
    }
    return task(**(parts | changes))


def of_width(width: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))


@dataclass
class Own:
    """A class of the user's, with a setting, a counter and data."""

    hidden: int = 4
    name: str = "own"
    calls: int = 0

    def model(self) -> nn.Module:
        self.calls += 1
        return nn.Linear(3, 1)

    def train_data(self) -> TensorDataset:
        return TensorDataset(X)

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return squared(model, batch)

    def optimizer(self, params: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr)


class Other(Own):
    """The same with another loss."""

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return halved(model, batch)


def identity(made: Task) -> Mapping[str, Any]:
    return as_loaded(made).identity("cpu")


@pytest.mark.parametrize("nameless", [linear(name=""), Own(name=" "), Own(name=3)])  # type: ignore[arg-type]
def test_a_task_without_a_name_is_told_what_to_add(tmp_path: Path, nameless: Task) -> None:
    with pytest.raises(TaskError, match=r'has no name, and results folders tell tasks apart by it; add name="my-task"'):
        find(nameless, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_parts_are_the_same_task_and_others_another() -> None:
    assert identity(linear()) == identity(linear())
    assert identity(linear(model=of_width(4))) == identity(linear(model=of_width(4)))
    others = [
        linear(),
        linear(name="other"),
        linear(loss=halved),
        linear(model=of_width(4)),
        linear(model=of_width(5)),
        linear(train=TensorDataset(X + 1.0)),
        linear(train=TensorDataset(X.double())),
        linear(optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9)),
        linear(val=TensorDataset(X)),
        Own(name="linear"),
        Own(name="linear", hidden=5),
        Other(name="linear"),
    ]
    identities = [identity(each) for each in others]
    assert all(identities.count(each) == 1 for each in identities)


def test_an_object_stays_the_same_task_while_it_counts() -> None:
    own = Own()
    before = identity(own)
    own.model()
    assert identity(own) == before
    assert identity(Own()) == before


def test_a_name_may_be_given_beside() -> None:
    loaded = as_loaded(LoadedTask(task=Own(name=""), name="beside", settings={"a": 1}, source_sha256=""))
    assert (loaded.name, loaded.settings) == ("beside", {"a": 1})
    assert loaded.source_sha256


SCRIPT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from width import WIDTH
import batchscope
from batchscope.tasks.loading import as_loaded

def network():
    return nn.Linear(3, WIDTH)

made = batchscope.task(
    model=lambda: network(),
    train=TensorDataset(torch.ones(8, 3)),
    loss=lambda model, batch: model(batch[0]).mean(),
    optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
    name="script",
)
# asked
print(as_loaded(made).identity("cpu"))
"""


def test_a_script_may_ask_otherwise_but_not_of_another_function_or_file(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "width.py").write_text("WIDTH = 1\n", encoding="utf-8")

    def printed() -> str:
        command = [sys.executable, "script.py"]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    first = printed()
    (tmp_path / "script.py").write_text(SCRIPT.replace("# asked", "target = 0.5"), encoding="utf-8")
    assert printed() == first
    (tmp_path / "script.py").write_text(SCRIPT.replace("nn.Linear(3, WIDTH)", "nn.Linear(3, 2)"), encoding="utf-8")
    assert printed() != first
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "width.py").write_text("WIDTH = 1  # changed\n", encoding="utf-8")
    assert printed() != first


def test_code_that_cannot_be_read_is_said() -> None:
    (note,) = as_loaded(linear(model=operator.methodcaller("build"))).notes
    assert "methodcaller" in note
    assert as_loaded(linear(loss=torch.nn.functional.mse_loss, model=torch.ones)).notes == ()


def _holding(value: Any) -> str:
    return identity_of(SimpleNamespace(value=value)).sha256


TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "sparse": lambda x: x.to_sparse(),
    "compressed": lambda x: x.to_sparse_csr(),
    "nested": lambda x: torch.nested.nested_tensor(list(x)),
    "conjugate": lambda x: torch.complex(x, x).conj(),
    "bool": lambda x: x > 0,
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "objects": lambda x: np.array([str(x.tolist()), None], dtype=object),
}


@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_tensors_and_arrays_of_any_kind_count_by_their_contents(make: Any) -> None:
    one, same, other = (make(torch.eye(3) * factor) for factor in (1, 1, -2))
    assert _holding(one) == _holding(same)
    assert _holding(one) != _holding(other)


def test_a_tensor_without_data_counts_by_its_shape() -> None:
    assert _holding(torch.ones(3, device="meta")) != _holding(torch.ones(4, device="meta"))
