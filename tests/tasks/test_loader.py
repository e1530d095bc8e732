"""The loader of a task: its options are used, its workers die, hang and end with one message and no remains."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from batchscope.errors import TaskError
from batchscope.hardware.bench import measure
from batchscope.report.loading import loader_in_words
from batchscope.store.records import RunConfig, RunStatus
from batchscope.tasks.protocol import task
from batchscope.tasks.step_timeout import watching
from batchscope.tasks.workload import Workload
from batchscope.training.loop import Training
from batchscope.training.stopping import StepLimitRule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]
WORKERS = {"num_workers": 2}


class Numbers(Dataset[Tensor]):
    """Examples of which one does something else, in a worker."""

    def __init__(self, at_30: Any = None) -> None:
        self.at_30, self.parent = at_30, os.getpid()

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Tensor:
        if index == 30 and self.at_30 is not None and os.getpid() != self.parent:
            self.at_30()
        return torch.full((1,), float(index))


def workload(data: Dataset[Any], options: Any = None, **more: Any) -> Workload:
    made = task(
        model=lambda: nn.Linear(1, 1),
        train=data,
        loss=lambda model, batch: model(batch[0] if isinstance(batch, list) else batch).square().mean(),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        evaluate=lambda model: {"val_loss": 1.0},
        loader_options=options,
    )
    return Workload(made, **more)


def config(steps: int = 40) -> RunConfig:
    return RunConfig(task="task", batch_size=8, micro_batch_size=8, lr=1e-3, max_steps=steps)


@pytest.fixture(autouse=True)
def no_workers_are_left() -> Iterator[None]:
    yield
    gc.collect()
    assert multiprocessing.active_children() == []


def test_options_are_used_as_they_are_and_give_the_same_batches() -> None:
    given = {"num_workers": 1, "prefetch_factor": 3, "persistent_workers": True}
    own, theirs = workload(Numbers()), workload(Numbers(), given)
    assert (own.loader_workers, theirs.loader_workers) == (0, 1)
    assert theirs.loader_options == given
    streams = [each.micro_batches(8, 2, 5) for each in (own, theirs)]
    for _ in range(12):
        first, second = (next(stream) for stream in streams)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for stream in streams:
        stream.close()


def test_tensors_in_memory_are_loaded_by_workers_only_where_the_task_asks_for_them() -> None:
    data = TensorDataset(torch.arange(64.0)[:, None])
    assert workload(data).in_memory
    assert workload(data, {"num_workers": 0}).in_memory
    asked = workload(data, {"num_workers": 1})
    assert not asked.in_memory
    stream = asked.micro_batches(8, 1, 5)
    assert torch.equal(next(stream)[0][0], next(workload(data).micro_batches(8, 1, 5))[0][0])
    stream.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 4, "shuffle": True}, "loader_options sets batch_size, shuffle: .* leave it out"),
        ({"collate_fn": len}, "loader_options sets collate_fn"),
        ([("num_workers", 2)], "loader_options is .*must be a dict"),
        ({"num_worker": 2}, "unexpected keyword argument 'num_worker'.*change loader_options"),
        ({"num_workers": 0, "prefetch_factor": 4}, "prefetch_factor.*change loader_options"),
        ({"num_workers": -1}, "num_workers.*change loader_options"),
    ],
)
def test_options_that_cannot_be_used_are_refused_with_what_to_change(options: Any, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        workload(Numbers(), options)


def test_the_bench_keeps_the_options_and_says_them() -> None:
    found = measure(workload(Numbers(), WORKERS), max_batch_size=8, budget_s=0.5)
    assert found.loader_options == WORKERS
    assert loader_in_words(found).startswith("step times hold for a loader with num_workers=2")
    in_memory = measure(workload(TensorDataset(torch.zeros(64, 1))), max_batch_size=8, budget_s=0.5)
    assert in_memory.in_memory
    assert loader_in_words(in_memory) == ""


def raises() -> None:
    raise OSError("no such image")


@pytest.mark.parametrize(
    ("at_30", "said"),
    [
        (
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            r"a loader worker \(process \d+\) (was killed by signal: Killed|exited)",
        ),
        (lambda: os._exit(3), r"a loader worker \(process \d+\) exited unexpectedly"),
        (raises, r"train_data\(\) raised OSError: no such image \(test_loader.py, line \d+: .*in a loader worker"),
        (lambda: time.sleep(1e6), r"from its 2 loader workers did not come back within 1 s, .* hangs"),
    ],
)
def test_a_worker_that_dies_raises_or_hangs_ends_the_run_with_one_message(at_30: Any, said: str) -> None:
    training = Training(workload(Numbers(at_30), WORKERS), config())
    with pytest.raises(TaskError, match=said), watching(1.0):
        training.advance()


def test_workers_of_one_run_do_not_end_those_of_another(capfd: pytest.CaptureFixture[str]) -> None:
    """Workers of the second run inherit the first one's stream; what they throw away of it is not theirs to end."""
    first = Training(workload(Numbers(), WORKERS), config())
    first.advance([StepLimitRule(steps=8)])
    second = Training(workload(Numbers(gc.collect), WORKERS), config())
    second.advance()
    assert first.advance().status is RunStatus.OUT_OF_STEPS
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_workers_end_with_what_the_users_code_raises_in_the_training_process(
    error: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    made = workload(Numbers(), WORKERS)
    losses = []

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        losses.append(1)
        if len(losses) == 5:
            raise error
        return model(batch).square().mean()

    made.task.loss = loss  # type: ignore[method-assign]
    with pytest.raises((error, TaskError)):
        Training(made, config()).advance()
    assert multiprocessing.active_children() == []
    assert "Traceback" not in capfd.readouterr().err


class Unpicklable(Numbers):
    """Holds a function that only this process has."""

    def __init__(self) -> None:
        super().__init__(at_30=lambda: None)


@pytest.mark.parametrize("context", ["spawn", "forkserver", multiprocessing.get_context("spawn")])
def test_data_that_cannot_be_sent_to_workers_get_one_message(context: Any) -> None:
    options = {"num_workers": 2, "multiprocessing_context": context}
    with pytest.raises(TaskError, match=r"asks for 2 loader workers, and the data cannot be pickled .* needs .*lambda"):
        workload(Unpicklable(), options)
    assert workload(Unpicklable(), {"num_workers": 2}).loader_workers == 2


def test_where_workers_need_a_pickled_copy_and_none_were_asked_for_there_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(self: Numbers, index: int) -> Tensor:
        time.sleep(0.001)
        return torch.full((1,), float(index))

    monkeypatch.setattr(Numbers, "__getitem__", slow)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none=False: "spawn")
    made = workload(Unpicklable())
    assert made.loader_workers == 0
    assert any("loaded without workers: the data cannot be pickled" in note for note in made.notes)
