"""Paused runs: which keep their loader workers, and that they go on with the batches of a run in one go."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from batchscope.store.records import RunConfig, RunStatus
from batchscope.store.runs import Store
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload
from batchscope.training.limits import Deadline
from batchscope.training.loop import Training
from batchscope.training.progress import Silent
from batchscope.training.runner import Runner
from batchscope.training.stopping import StepLimitRule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


class Noisy(Dataset[Tensor]):
    """Examples that draw from a global generator."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((1,), float(index)) + torch.rand(1)


class Stream(IterableDataset[Tensor]):
    """Numbers without end, shared out among workers, with noise from a global generator."""

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        number, step = (worker.id, worker.num_workers) if worker else (0, 1)
        while True:
            yield torch.tensor([float(number)]) + torch.rand(1)
            number += step


def collate(examples: list[Tensor]) -> Tensor:
    """It draws too."""
    return torch.stack(examples) + torch.rand(1)


def workload(data: Any, seen: list[float], **options: Any) -> Workload:
    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(float(batch.sum()))
        return model(batch).square().mean()

    made = task(
        model=lambda: nn.Linear(1, 1),
        train=data,
        loss=loss,
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        evaluate=lambda model: {"val_loss": 1.0},
        collate=collate,
        loader_options={"num_workers": 2, **options},
    )
    return Workload(made)


def config(lr: float = 1e-9, **more: Any) -> RunConfig:
    return RunConfig(task="task", batch_size=8, micro_batch_size=8, lr=lr, max_steps=24, **more)


def alive() -> int:
    return len(multiprocessing.active_children())


@pytest.mark.parametrize(("data", "waiting"), [(Noisy, 0), (Stream, 2)])
def test_a_run_that_pauses_has_the_batches_of_one_in_one_go(data: Callable[[], Any], waiting: int) -> None:
    whole, parts = list[float](), list[float]()
    assert Training(workload(data(), whole), config()).advance().status is RunStatus.OUT_OF_STEPS
    training = Training(workload(data(), parts), config())
    for step in (4, 16):
        assert training.advance([StepLimitRule(steps=step)]).status is RunStatus.PAUSED
        assert alive() == waiting
    training.advance()
    assert alive() == 0
    assert len(parts) == 24
    assert parts == whole


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_workers_draw_does_not_depend_on_how_many_they_are(accumulate: int) -> None:
    one, three = list[float](), list[float]()
    for seen, workers in ((one, 1), (three, 3)):
        cut = {"micro_batch_size": 8 // accumulate, "grad_accum_steps": accumulate}
        how = RunConfig(**{**vars(config()), **cut})
        Training(workload(Noisy(), seen, num_workers=workers), how).advance()
    assert one == three
    assert len(set(one)) == 24 * accumulate


def test_of_the_paused_runs_of_a_stream_two_keep_their_workers(tmp_path: Path) -> None:
    """The others pass over what they have had when they go on."""
    seen, whole = list[float](), list[float]()
    Training(workload(Stream(), whole), config()).advance()
    with Store(tmp_path, {}) as store:
        how: dict[str, Any] = {"progress": Silent(), "deadline": Deadline.after(600.0), "at_deadline": "end"}
        runner = Runner(workload=workload(Stream(), seen), store=store, **how)
        first, *_ = [runner.make(config(lr), "", pauses=[StepLimitRule(steps=8)]) for lr in (1e-9, 2e-9, 3e-9, 4e-9)]
        assert alive() == 2 * 2
        seen.clear()
        runner.make(config(), "", stored=first)
        runner.close()
    assert alive() == 0
    assert seen == whole[8:]
