"""What `train_data()` returns: sets of examples of every make are taken, others refused with what to return instead."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, StackDataset, Subset, TensorDataset

from batchscope.errors import TaskError
from batchscope.tasks.map_style import map_style
from batchscope.tasks.workload import Workload

from .preflight.parts import Parts

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3
ROWS = list(zip(X, Y.tolist(), strict=True))


class Whole(Dataset[Any]):
    """Gives several examples at once alone, as torch's loader asks it to."""

    def __len__(self) -> int:
        return len(X)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [(X[i], Y[i]) for i in indices]


class Either(Whole):
    """Takes an index or a list of them, as the data sets of Hugging Face do."""

    def __getitem__(self, index: Any) -> Any:
        return X[index], Y[index]


class Unsized(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return X[index], Y[index]


class Length(Unsized):
    def __init__(self, length: Any) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


class Table:
    """As tables of pandas are: `[0]` is a column."""

    columns, iloc = ("x", "y"), None

    def __len__(self) -> int:
        return 40

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)


def examples() -> Iterator[Any]:
    yield from ROWS


TAKEN: dict[str, Any] = {
    "a list": ROWS,
    "a tensor": X,
    "an array": X.numpy(),
    "two examples of one shape": [X[0], X[1]],
    "a mapping by index": dict(enumerate(ROWS)),
    "several at once": Whole(),
    "an index or several": Either(),
    "a stack": StackDataset(x=X, y=Y),  # pyright: ignore[reportArgumentType]
    "two data sets, joined": ConcatDataset([TensorDataset(X, Y), TensorDataset(X, Y)]),
    "a part by a tensor": Subset(TensorDataset(X, Y), torch.arange(9)),  # pyright: ignore[reportArgumentType]
    "a part by a range": Subset(TensorDataset(X, Y), range(9)),
    "a part by negative indices": Subset(TensorDataset(X, Y), [-1, -2, -40]),
}


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_sets_of_examples_are_taken(data: Any) -> None:
    assert map_style(data) is data


REFUSED: dict[str, tuple[Any, str]] = {
    "columns by name": ({"x": X.tolist(), "y": Y.tolist()}, r"returned a dict \('x', 'y'\).*columns.*StackDataset"),
    "data sets by name": ({"train": TensorDataset(X), "test": TensorDataset(X)}, r"a dict .*such as data\['train'\]"),
    "examples by name": ({"a.png": ROWS[0], "b.png": ROWS[1], "c.png": ROWS[2]}, r"a dict .*list\(data.values\(\)\)"),
    "a pair of tensors": ((X, Y), r"a tuple of 2 columns \(Tensor of shape \(40, 4\).*TensorDataset\(data\[0\], "),
    "a list of two tensors": ([X, Y], r"a list of 2 columns"),
    "a pair of arrays": ((X.numpy(), Y.numpy()), r"TensorDataset\(torch.as_tensor\(data\[0\]\), "),
    "a pair of lists": ([X.tolist(), Y.tolist()], r"a list of 2 columns \(list of 40, list of 40\)"),
    "a pair of data sets": ((TensorDataset(X), TensorDataset(X)), r"2 data sets.*return the one that is trained on"),
    "a table": (Table(), r"returned a Table, a table of columns.*to_numpy"),
    "no length": (Unsized(), r"returned Unsized, which has no __len__.*def __len__"),
    "a broken length": (Length(40.5), r"len\(train_data\(\)\) raised TypeError.*a whole number"),
    "a negative length": (Length(-1), r"len\(train_data\(\)\) raised ValueError"),
    "an endless length": (Length(sys.maxsize), r"has 9.22e\+18 examples.*return an IterableDataset"),
    "no dimension": (torch.tensor(3.0), r"len\(train_data\(\)\) raised TypeError"),
    "one example": ([X[0]], r"has 1 example; at least 2"),
    "a class": (Whole, r"returned the class Whole; return an object of it: Whole\(\.\.\.\)"),
    "a function": (examples, r"returned the function examples.*list\(examples\(\)\)"),
    "a generator": (examples(), r"returned generator.*return a list of its examples"),
    "a path": (Path("data.csv"), r"returned .*data\.csv.*read them in train_data\(\)"),
    "a text": ("data.csv", r"returned 'data\.csv', a str"),
    "nothing": (None, r"returned NoneType, which is neither a data set"),
    "a mask": (Subset(TensorDataset(X, Y), (X[:, 0] > 0).tolist()), r"True and False.*nonzero\(\)"),
    "a part beyond the data": (Subset(TensorDataset(X, Y), [0, 1, 99]), r"run from 0 to 99.*40 examples, 0 to 39"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_set_of_examples_is_refused_with_what_to_return(data: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        map_style(data)


@pytest.mark.parametrize(
    "name", ["columns by name", "a pair of tensors", "a pair of arrays", "a pair of lists", "a mask", "a function"]
)
def test_what_a_refusal_says_to_return_is_taken(name: str) -> None:
    data, _ = REFUSED[name]
    with pytest.raises(TaskError) as refused:
        map_style(data)
    written = re.search(r"(torch\.utils\.data\.\w+\(.*\)|Subset\(.*\)|list\(.*\))$", str(refused.value))
    assert written is not None
    names = {"torch": torch, "data": data, "examples": examples, "Subset": Subset, "mask": X[:, 0] > 0}
    made = eval(written[1], names | ({"data": TensorDataset(X, Y)} if name == "a mask" else {}))
    workload = Workload(Parts(data=made))
    batch = workload.batch(torch.arange(3))
    x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
    assert x.shape == (3, 4)
    assert not y.is_floating_point()


@pytest.mark.parametrize("data", [Whole(), Either(), TensorDataset(X, Y), ROWS], ids=lambda data: type(data).__name__)
def test_every_way_to_ask_gives_the_same_examples(data: Any) -> None:
    workload = Workload(Parts(data=data))
    x, y = workload.batch(torch.tensor([5, 0]))
    assert torch.equal(x, X[[5, 0]])
    assert y.tolist() == [2, 0]
    x, y = next(workload.micro_batches(4, 1, 0))[0]
    assert x.shape == (4, 4)


def test_data_that_were_computed_with_a_graph_are_trained_on_like_others() -> None:
    embedded = nn.Linear(4, 4)(X)
    for data in (TensorDataset(embedded, Y), list(zip(embedded, Y, strict=True)), TensorDataset(X.requires_grad_(), Y)):
        assert not Workload(Parts(data=data)).batch(torch.arange(3))[0].requires_grad
    X.requires_grad_(False)


def test_arrays_that_are_mapped_from_a_file_are_trained_on(tmp_path: Path) -> None:
    X.numpy().tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float32, "r+", shape=(40, 4))
    data = [(row, label) for row, label in zip(mapped, Y.tolist(), strict=True)]
    assert torch.equal(Workload(Parts(data=data)).batch(torch.arange(40))[0], X)
