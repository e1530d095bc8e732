"""Members and arguments that cannot be meant as they are written: each is one message that says what to write."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

import batchscope
from batchscope.errors import TaskError
from batchscope.tasks.loading import as_loaded
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload

X = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X, X.sum(1, keepdim=True))


class Keyed(Dataset[Any]):
    """Examples that are dicts, so that no batch of them is a pair."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return {"ids": X[index], "labels": X[index].sum()[None], "mask": X[index]}


def pair_loss(model: nn.Module, batch: Any) -> Any:
    inputs, labels = batch
    return nn.functional.mse_loss(model(inputs), labels)


def made(**changes: Any) -> Any:
    members: dict[str, Any] = {
        "model": lambda: nn.Linear(3, 1),
        "train": DATA,
        "loss": pair_loss,
        "optimizer": lambda params, lr: torch.optim.SGD(params, lr=lr),
        "name": "made",
    }
    return batchscope.task(**(members | changes))


def sampler_written(seed: int) -> WeightedRandomSampler:
    """As the message says."""
    return WeightedRandomSampler([1.0] * 64, 64, generator=torch.Generator().manual_seed(seed))


WRITE_SAMPLER = (
    r"write sampler=lambda seed: WeightedRandomSampler\(w, n, generator=torch.Generator\(\).manual_seed\(seed\)\)"
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sampler": WeightedRandomSampler([1.0] * 64, 64)},
            f"its sampler is WeightedRandomSampler, .*{WRITE_SAMPLER}",
        ),
        ({"sampler": lambda: range(64)}, rf"its sampler takes \(\), .*{WRITE_SAMPLER}"),
        ({"loss": lambda batch: batch}, r"its loss takes \(batch\), .*write loss=lambda model, batch: \.\.\."),
        ({"evaluate": lambda: {}}, r"its evaluate takes \(\), .*write evaluate=lambda model: \.\.\."),
        ({"evaluate": {"val_loss": 1.0}}, r"its evaluate is dict, which cannot be called"),
    ],
)
def test_a_member_that_cannot_be_called_as_it_is(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        as_loaded(made(**changes))


def test_what_the_messages_advise_is_taken() -> None:
    as_loaded(made(sampler=sampler_written, optimizer=torch.optim.SGD, evaluate=lambda model, more=1: {}))


class WithoutModel:
    name = "class"

    def model(self) -> nn.Module:
        return nn.Linear(3, 1)

    def train_data(self) -> Dataset[Any]:
        return DATA

    def loss(self, batch: Any) -> Any:
        return batch

    def optimizer(self, params: Any, lr: float) -> Any:
        return torch.optim.SGD(params, lr=lr)


def test_the_form_of_a_class_is_advised_to_a_class() -> None:
    task: Any = WithoutModel()
    with pytest.raises(
        TaskError, match=r"its loss takes \(batch: .*\).*write def loss\(self, model, batch\) -> Tensor"
    ):
        as_loaded(task)


@pytest.mark.parametrize(
    ("argument", "meant"),
    [("ema", "ema_decay"), ("clip", "before_update"), ("collate_fn", "collate"), ("los_weight", "loss_weight")],
)
def test_an_argument_that_is_none(argument: str, meant: str) -> None:
    with pytest.raises(TaskError, match=f"no argument '{argument}'; did you mean '{meant}'"):
        made(**{argument: 0.98})


def test_an_argument_like_none_lists_all() -> None:
    with pytest.raises(TaskError, match=r"no argument 'zzz'; it has model, train, .*, val$"):
        made(zzz=1)


def test_a_loader_of_validation_data_is_refused() -> None:
    with pytest.raises(TaskError, match=r"val is a DataLoader, .*val=loader.dataset; or"):
        made(val=DataLoader(DATA, 8))
    with pytest.raises(TaskError, match=r"val=loader.dataset, and its collate_fn as collate"):
        made(val=DataLoader(DATA, 8, collate_fn=lambda examples: examples))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {},
            r"too many values to unpack.*the batch is a dict with the keys ids, labels, mask \(batch\['ids'\] \(\d+"
            r", 3\) float32, .*made by torch's default_collate; a"
            r" collate_fn of your loader goes into the task's collate",
        ),
        ({"collate": lambda examples: torch.zeros(3, len(examples))}, r"the batch is a Tensor .*the task's collate$"),
    ],
)
def test_a_batch_that_loss_does_not_expect_is_described(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check(Workload(made(train=Keyed(), batch_size=lambda batch: 16, **changes)))
