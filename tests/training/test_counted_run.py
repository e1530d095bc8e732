"""Counts of a real run, against counts by hand and against what the user's own code was handed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import Dataset, TensorDataset

from batchscope.errors import UsageError
from batchscope.tasks.batches import index_stream
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload
from batchscope.training.counted_run import CountedRun, count_run

DATA_SEED_OFFSET = 1_000_003


def sgd(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
    return SGD(params, lr=lr)


class Recorder:
    """A task that keeps the examples of each batch that its loss is handed; an example's value is its index."""

    def __init__(self, data: Any) -> None:
        self.data, self.batches, self.evaluations = data, list[Any](), 0

    def model(self) -> nn.Module:
        return nn.Linear(1, 1).double()

    def train_data(self) -> Any:
        return self.data

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        self.batches.append(batch)
        return model(batch[0][:, None]).square().mean()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return sgd(params, lr)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        self.evaluations += 1
        return {"val_loss": 1.0}


def numbers(examples: int) -> Tensor:
    return torch.arange(examples, dtype=torch.float64)


class Items(Dataset[Any]):
    """A data set that computes its examples, so that they come through a DataLoader."""

    def __init__(self, examples: int) -> None:
        self.values = numbers(examples)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        return (self.values[index],)


@pytest.fixture(params=["in memory", "loaded"])
def recorder(request: pytest.FixtureRequest) -> Recorder:
    return Recorder(TensorDataset(numbers(24)) if request.param == "in memory" else Items(24))


def test_whole_epochs_by_hand(recorder: Recorder) -> None:
    assert count_run(Workload(recorder), batch_size=8, epochs=3, lr=0.0) == CountedRun(
        batch_size=8,
        accumulate=1,
        epochs=3,
        examples_in_set=24,
        updates=9,
        batches=9,
        passes=9,
        smallest_batch=8,
        largest_batch=8,
        smallest_pass=8,
        largest_pass=8,
        examples_seen=72,
        least_uses=3,
        most_uses=3,
        whole_epochs=True,
        updates_in_first_epoch=3.0,
        updates_until_all_seen=3,
        shortened="",
    )
    assert recorder.evaluations == 0


def test_single_examples_are_updates_and_all_of_them_are_one(recorder: Recorder) -> None:
    workload = Workload(recorder)
    one, whole = (count_run(workload, batch_size=size, epochs=2, lr=0.0) for size in (1, 24))
    assert (one.updates, one.examples_seen, one.updates_in_first_epoch, one.most_uses) == (48, 48, 24.0, 2)
    assert (whole.updates, whole.examples_seen, whole.updates_in_first_epoch, whole.most_uses) == (2, 48, 1.0, 2)


def test_accumulation_has_smaller_passes_and_the_same_updates(recorder: Recorder) -> None:
    found = count_run(Workload(recorder), batch_size=8, epochs=2, lr=0.0, accumulate=4)
    assert (found.updates, found.batches, found.passes) == (6, 6, 24)
    assert (found.smallest_batch, found.largest_batch, found.smallest_pass, found.largest_pass) == (8, 8, 2, 2)
    assert (found.least_uses, found.most_uses, found.updates_in_first_epoch) == (2, 2, 3.0)


def test_a_batch_that_does_not_divide_the_set(recorder: Recorder) -> None:
    """Two epochs of 24 at 10 are 4.8 steps, so 5: 50 examples, two of them a third time."""
    found = count_run(Workload(recorder), batch_size=10, epochs=2, lr=0.0)
    assert (found.updates, found.examples_seen, found.whole_epochs) == (5, 50, False)
    assert (found.least_uses, found.most_uses) == (2, 3)
    assert (found.updates_in_first_epoch, found.updates_until_all_seen) == (2.4, 3)
    assert (found.smallest_batch, found.largest_batch) == (10, 10)


def test_the_users_loss_gets_what_it_would_get_otherwise(recorder: Recorder) -> None:
    count_run(Workload(recorder), batch_size=6, epochs=2, lr=0.0, accumulate=2, seed=5)
    stream = index_stream(24, 6, 5 + DATA_SEED_OFFSET)
    expected = torch.cat([next(stream) for _ in range(8)]).split(3)
    assert len(recorder.batches) == 16
    for batch, indices in zip(recorder.batches, expected, strict=True):
        assert isinstance(batch, list)
        assert len(batch) == 1
        assert batch[0].tolist() == indices.tolist()


def test_a_run_that_would_be_long_is_shortened(recorder: Recorder) -> None:
    workload = Workload(recorder)
    fewer = count_run(workload, batch_size=8, epochs=9, lr=0.0, most_steps=8)
    assert (fewer.epochs, fewer.updates, fewer.whole_epochs) == (2, 6, True)
    assert fewer.shortened == "9 epochs are 27 steps, more than 8: 2 were counted"
    cut = count_run(workload, batch_size=8, epochs=1, lr=0.0, most_steps=2)
    assert (cut.epochs, cut.updates, cut.whole_epochs) == (1, 2, False)
    assert (cut.least_uses, cut.most_uses, cut.updates_in_first_epoch, cut.updates_until_all_seen) == (0, 1, None, None)
    assert "cut after 2 steps, in its first epoch" in cut.shortened


class Named(NamedTuple):
    x: Tensor
    y: Tensor


class Padded(Recorder):
    """Has a collate and a batch_size of its own."""

    def collate(self, items: list[Any]) -> dict[str, Any]:
        x = torch.stack([item[0] for item in items])
        return {"named": Named(x, x + 1), "words": ["a"] * len(items)}

    def batch_size(self, batch: Any) -> int:
        return len(batch["words"])

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        self.batches.append(batch)
        return model(batch["named"].x[:, None]).square().mean()


@pytest.mark.parametrize("data", [TensorDataset(numbers(12)), Items(12)])
def test_the_users_collate_goes_on_working(data: Any) -> None:
    padded = Padded(data)
    found = count_run(Workload(padded), batch_size=4, epochs=2, lr=0.0)
    assert (found.updates, found.least_uses, found.most_uses) == (6, 2, 2)
    for batch in padded.batches:
        assert isinstance(batch["named"], Named)
        assert batch["words"] == ["a"] * 4
        assert torch.equal(batch["named"].y, batch["named"].x + 1)


def test_a_task_without_evaluate_counts_what_is_left_to_train() -> None:
    made = task(
        model=lambda: nn.Linear(1, 1).double(),
        train=TensorDataset(numbers(40)[:, None]),
        loss=lambda model, batch: model(batch[0]).square().mean(),
        optimizer=sgd,
    )
    found = count_run(Workload(made), batch_size=9, epochs=2, lr=0.0)
    assert (found.examples_in_set, found.updates, found.least_uses, found.most_uses) == (36, 8, 2, 2)


def test_only_passes_that_go_back_are_counted() -> None:
    class Twice(Recorder):
        def loss(self, model: nn.Module, batch: Any) -> Tensor:
            super().loss(model, batch)
            return super().loss(model, batch)

    found = count_run(Workload(Twice(TensorDataset(numbers(12)))), batch_size=4, epochs=1, lr=0.0)
    assert (found.passes, found.examples_seen) == (3, 12)


def test_a_run_that_diverges_is_counted_to_its_end(recorder: Recorder) -> None:
    found = count_run(Workload(recorder), batch_size=1, epochs=20, lr=1e6)
    assert (found.updates, found.least_uses, found.most_uses) == (480, 20, 20)


def test_the_callers_generators_are_left_alone(recorder: Recorder) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    count_run(Workload(recorder), batch_size=4, epochs=1, lr=0.1)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


@pytest.mark.parametrize(
    "bad", [{"batch_size": 25}, {"batch_size": 0}, {"epochs": 0}, {"accumulate": 3}, {"most_steps": 0}]
)
def test_impossible_requests(recorder: Recorder, bad: dict[str, int]) -> None:
    arguments: dict[str, Any] = {"batch_size": 8, "epochs": 1, "lr": 0.1, **bad}
    with pytest.raises(UsageError, match="no larger than the training set"):
        count_run(Workload(recorder), **arguments)


def test_a_single_epoch_that_is_rounded_down_misses_examples(recorder: Recorder) -> None:
    """One epoch of 24 at 10 is 2.4 steps, so 2."""
    found = count_run(Workload(recorder), batch_size=10, epochs=1, lr=0.0)
    assert (found.updates, found.examples_seen, found.least_uses, found.most_uses) == (2, 20, 0, 1)
    assert (found.updates_in_first_epoch, found.updates_until_all_seen, found.whole_epochs) == (None, None, False)


class Slow(Items):
    """Takes long enough to load for the loader to have workers, which get the examples by another process."""

    def __getitem__(self, index: int) -> Any:
        busy = torch.zeros(200_000)
        for _ in range(20):
            busy.add_(1.0)
        return super().__getitem__(index)


def test_workers_hand_over_the_indices() -> None:
    workload = Workload(Recorder(Slow(12)))
    assert workload.loader_workers > 0
    found = count_run(workload, batch_size=4, epochs=2, lr=0.0)
    assert (found.updates, found.examples_seen, found.least_uses, found.most_uses) == (6, 24, 2, 2)
