"""Runs end: however a run ends, its workers are gone at once, and nothing holds its model; the cyclic collector is off.

`Training` is dropped with the last name that refers to it, and its model with it. Only where torch imports a part of
itself in an optimizer's first call does it keep a cycle, so the fixture makes one before.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from batchscope.errors import OutOfMemory, TaskError
from batchscope.hardware.bench import measure
from batchscope.hardware.step_rounds import measure_rounds
from batchscope.probes.noise_scale import NoiseScale
from batchscope.probes.train_part import TrainPart
from batchscope.store.records import RunConfig, RunStatus
from batchscope.tasks.preflight.check import check
from batchscope.tasks.protocol import task
from batchscope.tasks.step_timeout import watching
from batchscope.tasks.workload import Workload
from batchscope.training.counted_run import count_run
from batchscope.training.executors.in_process import InProcessExecutor
from batchscope.training.executors.processes import ProcessExecutor
from batchscope.training.limits import CutOff, Deadline
from batchscope.training.loop import Training, train
from batchscope.training.lr_range import measure_rate_range
from batchscope.training.noise import measure_noise
from batchscope.training.stopping import StepLimitRule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]
EXAMPLES = 128


class Models(list[Callable[[], nn.Module | None]]):
    """Every model that was made, held by nobody here."""

    @property
    def alive(self) -> int:
        return sum(made() is not None for made in self)


class Numbers(Dataset[tuple[Tensor, Tensor]]):
    """Examples, one of which does something else where it is loaded in a run."""

    def __init__(self, at_100: Callable[[], object] | None) -> None:
        self.at_100, self.process = at_100, os.getpid()

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 100 and self.at_100 is not None and os.getpid() != self.process:
            self.at_100()
        return torch.full((4,), index % 7 / 7), torch.tensor(index % 3 / 3)


class Calls:
    """Does something in one call of many."""

    def __init__(self, at: int, does: Callable[[], object] | None) -> None:
        self.at, self.does, self.calls = at, does, 0

    def __call__(self) -> bool:
        self.calls += 1
        if self.calls >= self.at and self.does is not None:
            self.does()
            return True
        return False


@pytest.fixture(scope="module", autouse=True)
def optimizers_are_imported() -> None:
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1).step()


@pytest.fixture
def models() -> Iterator[Models]:
    gc.disable()
    try:
        yield Models()
    finally:
        gc.enable()


def workload(
    models: Models,
    workers: int = 2,
    *,
    at_100: Callable[[], object] | None = None,
    in_loss: Callable[[], object] | None = None,
    in_evaluate: Callable[[], object] | None = None,
    loss_is: float | None = None,
) -> Workload:
    losses, evaluations = Calls(8, in_loss or (lambda: None)), Calls(3, in_evaluate)

    def model() -> nn.Module:
        made = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        models.append(weakref.ref(made))
        return made

    def loss(model: nn.Module, batch: Any) -> Tensor:
        late = torch.is_grad_enabled() and losses()
        found = nn.functional.mse_loss(model(batch[0])[:, 0], batch[1])
        return found * loss_is if late and loss_is is not None else found

    def evaluate(model: nn.Module) -> dict[str, float]:
        evaluations()
        return {"val_loss": 1.0}

    made = task(
        model=model,
        train=Numbers(at_100),
        loss=loss,
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        evaluate=evaluate,
        loader_options={"num_workers": workers},
    )
    return Workload(made)


def config(**more: Any) -> RunConfig:
    plain: dict[str, Any] = {"task": "task", "batch_size": 8, "micro_batch_size": 8, "lr": 1e-3, "max_steps": 30}
    return RunConfig(**(plain | more))


def raises(error: type[BaseException] = OSError) -> Callable[[], object]:
    def now() -> object:
        raise error

    return now


def paused(work: Workload) -> RunStatus:
    training = Training(work, config())
    return training.advance([StepLimitRule(steps=8)]).status


def cut(work: Workload) -> None:
    train(work, config(), observers=[Deadline(-1.0).between_steps(30)])


Ends = Callable[[Models, int], object]
ENDS: dict[str, tuple[Ends, type[BaseException] | None]] = {
    "ends": (lambda m, n: train(workload(m, n), config()), None),
    "ends with a probe": (lambda m, n: train(workload(m, n), config(), probes=[NoiseScale(groups=2, every=3)]), None),
    "diverges": (lambda m, n: train(workload(m, n), config(lr=1e6)), None),
    "has a loss that is no number": (lambda m, n: train(workload(m, n, loss_is=float("nan")), config()), None),
    "raises in loss": (lambda m, n: train(workload(m, n, in_loss=raises()), config()), TaskError),
    "raises in evaluate": (lambda m, n: train(workload(m, n, in_evaluate=raises()), config()), TaskError),
    "has no memory": (
        lambda m, n: train(workload(m, n, in_loss=raises(torch.OutOfMemoryError)), config()),
        OutOfMemory,
    ),
    "is interrupted": (
        lambda m, n: train(workload(m, n, in_loss=raises(KeyboardInterrupt)), config()),
        KeyboardInterrupt,
    ),
    "is paused and let go": (lambda m, n: paused(workload(m, n)), None),
    "is never begun": (lambda m, n: Training(workload(m, n), config()).steps, None),
    "is cut by the budget": (lambda m, n: cut(workload(m, n)), CutOff),
    "range test": (
        lambda m, n: measure_rate_range(workload(m, n), batch_size=8, micro_batch_size=8) and None,
        None,
    ),
    "range test raises": (
        lambda m, n: measure_rate_range(workload(m, n, in_loss=raises()), batch_size=8, micro_batch_size=8) and None,
        TaskError,
    ),
    "bench": (lambda m, n: measure(workload(m, n), max_batch_size=8, budget_s=0.3) and None, None),
    "step rounds": (lambda m, n: measure_rounds(workload(m, n), [2, 4], rounds=2, budget_s=0.2) and None, None),
    "preflight": (lambda m, n: check(workload(m, n)) and None, None),
    "noise": (lambda m, n: measure_noise(workload(m, n), steps=20, lr=1e-3, batch_size=8) and None, None),
    "counted run": (lambda m, n: count_run(workload(m, n), batch_size=8, epochs=1, lr=1e-3) and None, None),
}


def ends_with(error: type[BaseException] | None, run: Callable[[], object]) -> None:
    """Let something end; the error, with all frames that it holds, is gone when this returns, and so is a result."""
    if error is None:
        run()
        return
    try:
        run()
    except error:
        assert multiprocessing.active_children() == []  # while every frame is still there
        return
    pytest.fail(f"{error} was not raised")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ENDS)
def test_nothing_is_left_of_a_run(models: Models, how: str, workers: int) -> None:
    run, error = ENDS[how]
    ends_with(error, lambda: run(models, workers))
    assert multiprocessing.active_children() == []
    assert len(models) > 0
    assert models.alive == 0


@pytest.mark.parametrize("at_100", [raises(), lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_nothing_is_left_of_a_run_whose_worker_fails(models: Models, at_100: Callable[[], object]) -> None:
    ends_with(TaskError, lambda: train(workload(models, at_100=at_100), config()))
    assert multiprocessing.active_children() == []
    assert models.alive == 0


def hangs() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1e6)


def test_a_worker_that_never_comes_back_is_not_waited_for(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch waits five seconds for each one, and five more for one that ignores SIGTERM."""
    waits = list[float | None]()
    join = multiprocessing.Process.join

    def seen(self: Any, timeout: float | None = None) -> None:
        began = time.monotonic()
        join(self, timeout)
        waits.append(time.monotonic() - began)

    stream = workload(models, at_100=hangs).micro_batches(EXAMPLES // 2, 1, 0)
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    monkeypatch.setattr(multiprocessing.Process, "join", seen)
    stream.close()
    assert multiprocessing.active_children() == []
    assert waits
    assert max(filter(None, waits), default=0.0) < 4.0


HANGS: dict[str, dict[str, Any]] = {
    "worker": {"at_100": hangs},
    "loss": {"in_loss": threading.Event().wait},
    "evaluate": {"in_evaluate": threading.Event().wait},
}


@pytest.mark.parametrize("where", HANGS)
def test_nothing_is_left_of_a_run_that_hangs(models: Models, where: str) -> None:
    """The watchdog, which still looks on, holds nothing of it."""

    def run() -> None:
        with watching(1.0):
            train(workload(models, **HANGS[where]), config())

    ends_with(TaskError, run)
    assert multiprocessing.active_children() == []
    assert models.alive == 0


def test_nothing_is_left_of_a_run_in_a_thread_whose_worker_hangs(models: Models) -> None:
    """No watchdog can be there; torch waits for the worker, by the same limit."""

    def run() -> None:
        with watching(1.0):
            ends_with(TaskError, lambda: train(workload(models, at_100=hangs), config()))

    with ThreadPoolExecutor(1) as executor:
        executor.submit(run).result()
    assert multiprocessing.active_children() == []
    assert models.alive == 0


def test_a_loader_that_cannot_start_all_workers_leaves_none(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    process, started = multiprocessing.Process, list[object]()
    start = process.start

    def second_fails(self: Any) -> None:
        if started:
            raise OSError("no more processes")
        started.append(self.name)
        start(self)

    work = workload(models)
    monkeypatch.setattr(process, "start", second_fails)
    kept = None
    try:
        train(work, config())
    except TaskError as error:
        kept = error  # with all its frames
    assert kept is not None
    assert len(started) == 1
    assert multiprocessing.active_children() == []


def test_an_observer_of_many_runs_holds_none_that_is_over(models: Models) -> None:
    work = workload(models, 0)
    part = TrainPart(work)
    rows: list[Any] = []
    train(work, config(), observers=[part], on_row=rows.append)
    assert any(row["kind"] == "train_part" for row in rows)
    assert models.alive == 0


class Held:
    """An argument that somebody may hold."""


def fails_with(held: Held) -> None:
    raise OSError


def test_a_call_that_failed_holds_nothing_once_its_future_is_gone(models: Models) -> None:
    with InProcessExecutor() as executor:
        held = Held()
        seen, future = weakref.ref(held), executor.submit(fails_with, held)
        with contextlib.suppress(OSError):  # pytest.raises would hold it
            future.result()
        del held, future
        assert seen() is None


def test_a_result_is_held_by_nobody_while_a_process_waits_for_work(models: Models) -> None:
    with ProcessExecutor(1) as executor:
        future = executor.submit(torch.ones, 3)
        result = future.result()
        seen = weakref.ref(future)
        del future
        deadline = time.monotonic() + 30
        while seen() is not None and time.monotonic() < deadline:
            time.sleep(0.01)  # the thread that handed the result over is on its way to the next call
        assert result.sum() == 3
        assert seen() is None
