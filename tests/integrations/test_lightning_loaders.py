"""Loaders of a Lightning data module taken apart: data set, collate, workers, order, and what is held back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("lightning", reason="lightning is not installed: pip install -e '.[integrations]'")

import lightning as L
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

from batchscope.integrations.lightning import task
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload

from .lightning_modules import (
    QUIET,
    Data,
    Plain,
    Unvalidated,
    assert_equal,
    run,
    table,
    weights,
)

pytestmark = QUIET


class OwnLoaders(Plain):
    """Makes its loaders itself, as small scripts do."""

    def setup(self, stage: str) -> None:
        self.held = Data()
        self.held.setup(stage)

    def train_dataloader(self) -> Any:
        return self.held.train_dataloader()

    def val_dataloader(self) -> Any:
        return self.held.val_dataloader()


class WithoutValidationData(Data):
    val_dataloader = L.LightningDataModule.val_dataloader


def test_a_module_with_loaders_needs_no_data_module() -> None:
    found = check(Workload(task(OwnLoaders)))
    assert found.metrics.keys() == {"val_loss", "val_accuracy"}
    assert_equal(weights(run(Workload(task(OwnLoaders))).model), weights(run(Workload(task(Plain, Data))).model))


@pytest.mark.parametrize(("module", "data"), [(Unvalidated, Data), (Plain, WithoutValidationData)])
def test_without_validation_a_part_of_the_training_data_is_held_back(module: Any, data: Any) -> None:
    workload = Workload(task(module, data))
    assert workload.held_back == 6
    assert check(workload).metrics.keys() == {"val_loss"}
    said = " ".join(workload.notes)
    assert ("validation_step() of Plain is not used" in said) is (module is Plain)


class Numbered(Dataset[Any]):
    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Any:
        return {"x": self.x[index], "y": self.y[index]}


def joined(examples: list[Any]) -> Any:
    return [torch.stack([each[name] for each in examples]) for name in ("x", "y")]


class Weighted(Data):
    """A collate, workers and a sampler; the batches are changed on their way to the device."""

    def train_dataloader(self) -> Any:
        x, y = table()
        sampler = WeightedRandomSampler([1.0] * 32 + [0.0] * 32, 48, generator=torch.Generator())
        data = Numbered(x[:64], y[:64])
        return DataLoader(data, 8, sampler=sampler, collate_fn=joined, num_workers=1, persistent_workers=True)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [2.0 * batch[0] if self.trainer.training else batch[0], batch[1]]


def test_the_loader_is_taken_apart() -> None:
    made = task(Plain, Weighted)
    assert made.loader_options == {"num_workers": 1, "persistent_workers": True, "prefetch_factor": 2}
    assert made.collate is joined
    assert made.sampler(1) == made.sampler(1) != made.sampler(2)
    assert max(made.sampler(0)) < 32
    del made.loader_options
    workload = Workload(made)
    assert (workload.epoch, len(workload.drawable)) == (48, len(set(made.sampler(0))))
    model, batch = workload.model(0), workload.batch(torch.arange(8))
    doubled = F.cross_entropy(model(2.0 * batch[0]), batch[1])
    assert workload.loss(model, batch).item() == pytest.approx(doubled.item())


class Unending(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            x = torch.randn(6)
            yield x, (x[0] > 0).long()


class Streamed(Data):
    def train_dataloader(self) -> Any:
        return DataLoader(Unending(), batch_size=8)


def test_a_stream_is_one() -> None:
    workload = Workload(task(Plain, Streamed))
    assert workload.examples_in_epoch is None
    assert check(workload).metrics["val_loss"] > 0
    assert run(workload, steps=3).steps == 3
