"""Joining of examples: what torch's collation joins is taken, what it does not is refused, with the example and why."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate

from batchscope.errors import TaskError
from batchscope.tasks.collation import Collation, joined, odd_one
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

from .preflight.parts import Parts, fixed_metrics

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
COLLATE = r"give the task a method collate\(examples\) -> batch"


class Pair(NamedTuple):
    x: Tensor
    y: int


@dataclasses.dataclass
class Record:
    x: Tensor
    y: Any


class Picture:
    """As pictures of Pillow are."""

    def getbands(self) -> tuple[str, ...]:
        return ("L",)


def rows(odd: Any = ..., at: int = 50) -> list[Any]:
    made: list[Any] = [(x, i % 3) for i, x in enumerate(X)]
    return made if odd is ... else [*made[:at], odd, *made[at + 1 :]]


JOINED: dict[str, list[Any]] = {
    "tensors and numbers": rows(),
    "a tensor without dimension": [(x, torch.tensor(i)) for i, x in enumerate(X)],
    "numbers of several types": [(x, i if i % 2 else np.int64(i)) for i, x in enumerate(X)],
    "texts": [(x, f"{i}.png") for i, x in enumerate(X)],
    "named tuples": [Pair(x, i) for i, x in enumerate(X)],
    "dicts in dicts": [{"in": {"x": x, "meta": {"id": i}}, "y": True} for i, x in enumerate(X)],
    "arrays": [(x.numpy(), np.float64(0.5)) for x in X],
    "lists of numbers": [(x.tolist(), i) for i, x in enumerate(X)],
    "bool": [(x > 0, bool(i % 2)) for i, x in enumerate(X)],
}


@pytest.mark.parametrize("data", JOINED.values(), ids=JOINED)
def test_what_torch_joins_is_joined(data: Any) -> None:
    assert odd_one(data) is None
    made, theirs = joined(data[:4], None), default_collate(data[:4])
    assert repr(made) == repr(theirs)
    Collation(data=data, collate=None).look_through(0.0)


SPARSE = X[0].to_sparse()
ODD: dict[str, tuple[Any, str]] = {
    "None": (None, "example 50 of .* is None.*leave it out"),
    "None in it": ((X[0], None), r"example 50 of .* holds None in example\[1\].*fill it"),
    "another length": ((torch.zeros(5), 0), r"tensor of shape \(5,\) in example\[0\].*pad_sequence"),
    "another shape": ((torch.zeros(2, 2), 0), r"tensor of shape \(2, 2\) in example\[0\].*bring them to one size"),
    "a list for a tensor": ((X[0].tolist(), 0), r"a list of 4 in example\[0\] where another has a tensor"),
    "a text for a number": ((X[0], "1"), r"holds '1' in example\[1\] where another has "),
    "a longer tuple": ((X[0], 0, 0), "is a tuple of 3 where another has a tuple of 2"),
    "a picture": ((Picture(), 0), r"holds a picture \(.*Picture\) in example\[0\].*ToTensor"),
    "a sparse tensor": ((SPARSE, 0), r"holds a sparse tensor .*\.to_dense\(\)"),
    "an array of objects": (
        (np.array([1, None], dtype=object), 0),
        r"type object in example\[0\].*astype\('float32'\)",
    ),
    "a time": ((X[0], np.datetime64("2020-01-01")), r"in example\[1\]"),
    "a set": ((X[0], {1}), r"an object of type set in example\[1\].*real numbers"),
    "a data class": (Record(X[0], 0), r"is an object of type Record.*dataclasses\.asdict"),
}


@pytest.mark.parametrize(("odd", "message"), ODD.values(), ids=ODD)
def test_an_example_unlike_the_others_is_named_before_anything_is_measured(odd: Any, message: str) -> None:
    with pytest.raises(TaskError, match=f"{message}.*{COLLATE}"):
        Workload(Parts(data=rows(odd)))


@pytest.mark.parametrize("held_back", [False, True])
def test_the_number_of_an_example_is_that_in_the_data_of_the_user(held_back: bool) -> None:
    made = task(
        model=lambda: torch.nn.Linear(4, 3),
        train=rows((X[0], None), at=17),  # pyright: ignore[reportArgumentType]
        loss=lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1]),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        evaluate=None if held_back else fixed_metrics,
    )
    with pytest.raises(TaskError, match=r"example 17 of train_data\(\), counted from 0, holds None"):
        Workload(made)


def test_other_keys_are_named() -> None:
    data: list[Any] = [{"x": x, "y": 0} for x in X]
    with pytest.raises(TaskError, match=rf"example 9 of .* has no 'y', other than another.*same keys.*{COLLATE}"):
        Workload(Parts(data=[*data[:9], {"x": X[9]}, *data[10:]]))
    with pytest.raises(TaskError, match=r"example 9 of .* has 'z' beside, other than another"):
        Workload(Parts(data=[*data[:9], {"x": X[9], "y": 0, "z": 0}, *data[10:]]))


@pytest.mark.parametrize(
    ("value", "raised"),
    [(np.arange(4.0)[::-1], "stride"), (np.arange(4, dtype=">f4"), "byte order"), (2**70, "Overflow")],
)
def test_what_only_torch_can_tell_is_told_in_its_words(value: Any, raised: str) -> None:
    with pytest.raises(TaskError, match=f"torch's collation of examples .* raised .*{raised}.*{COLLATE}"):
        Workload(Parts(data=[(value, i) for i in range(20)]))


def pad(examples: list[Any]) -> Any:
    xs, ys = zip(*examples, strict=True)
    return torch.nn.utils.rnn.pad_sequence(list(xs), batch_first=True), torch.tensor(ys)


@pytest.mark.parametrize(
    ("data", "collate"),
    [
        ([(x[: 2 + i % 3], i) for i, x in enumerate(X)], pad),
        ([Record(x, i) for i, x in enumerate(X)], lambda e: Record(torch.stack([r.x for r in e]), torch.zeros(len(e)))),
        ([(SPARSE, i) for i in range(60)], lambda e: (torch.stack([x for x, _ in e]), torch.zeros(len(e)))),
        ([(x, None) for x in X], lambda e: torch.stack([x for x, _ in e])),
    ],
    ids=["padded", "data class", "sparse", "None left out"],
)
def test_a_collate_as_the_message_says_works(data: Any, collate: Any) -> None:
    with pytest.raises(TaskError, match=COLLATE):
        Workload(Parts(data=data))
    parts = Parts(data=data)
    setattr(parts, "collate", collate)  # noqa: B010 - no member of the parts
    workload = Workload(parts)
    batch = workload.batch(torch.arange(5))
    assert workload.count(batch) == 5
    disposable = workload.disposable(0)
    for made in (disposable.draw(6), disposable.largest_batch(6)):
        assert workload.count(made) == 6


def test_a_collate_that_fails_is_told_from_torchs() -> None:
    parts = Parts(data=rows())
    setattr(parts, "collate", lambda examples: examples["x"])  # noqa: B010
    with pytest.raises(
        TaskError, match=r"^collate\(examples\) raised TypeError: list indices .* \(test_collation.py, "
    ):
        Workload(parts)
    setattr(parts, "collate", lambda examples: None)  # noqa: B010
    with pytest.raises(TaskError, match=r"collate\(examples\) returned None"):
        Workload(parts)


class Late(Dataset[Any]):
    """Of the training examples one does not load, or is not like the others; loading takes long enough not to look."""

    def __init__(self, odd: Any) -> None:
        self.odd = odd

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Any:
        if index != 50:
            return X[index], index
        if isinstance(self.odd, Exception):
            raise self.odd
        return self.odd


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ((X[0], None), r"example 50 of train_data\(\), counted from 0, holds None in example\[1\]"),
        (
            OSError("no img_50.jpg"),
            r"batch of train_data\(\) raised OSError: no img_50.jpg .*; example 50 of train_data",
        ),
    ],
    ids=["not alike", "not loaded"],
)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_example_that_fails_in_a_run_is_named(
    odd: Any, message: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Collation, "look_through", lambda self, example_s: None)
    parts = Parts(data=Late(odd))
    setattr(parts, "loader_options", {"num_workers": workers})  # noqa: B010
    workload = Workload(parts)
    steps = workload.micro_batches(10, 2, 0)
    with pytest.raises(TaskError, match=message):
        list(itertools.islice(steps, 6))
    steps.close()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_example_of_a_stream_that_cannot_be_joined_is_told(workers: int) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            for i in range(10**9):
                yield torch.zeros(4 if i < 5000 else 3), 0

    parts = Parts(data=Stream())
    setattr(parts, "loader_options", {"num_workers": workers})  # noqa: B010
    steps = Workload(parts).micro_batches(400, 1, 0, skip=12)
    with pytest.raises(TaskError, match=rf"^an example of train_data\(\) holds a tensor of shape \(3,\).*{COLLATE}"):
        list(itertools.islice(steps, 2))
    steps.close()


def test_examples_that_are_held_back_are_joined_with_the_same_words() -> None:
    late = Late((X[0], None))
    collation = Collation(data=late, collate=None, numbers=torch.arange(100, 160))
    with pytest.raises(TaskError, match=r"example 150 of train_data\(\)"):
        collation.batch(range(40, 60))
