"""Loader workers end with the search, without tracebacks, whatever ends it."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from batchscope.errors import TaskError
from batchscope.hardware.device import pick
from batchscope.search.find import find
from batchscope.search.question import Question
from batchscope.store.records import HardwareProfile, Target
from batchscope.tasks.protocol import Task, task
from batchscope.training.progress import Silent

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]
PROFILE = HardwareProfile(name="machine", step_time_s=((1, 1e-3), (64, 2e-3)), capacity_bytes=2**30)


class Examples(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return x, x[:1] * x[1:2]


class Watching(Silent):
    """Does something in the run that begins after so many others, of which some wait at the milestone."""

    def __init__(self, after: int, does: Callable[[], None]) -> None:
        self.after, self.does, self.armed = after, does, False
        self.runs, self.workers = 0, 0

    def run_started(self, *what: Any) -> None:
        assert multiprocessing.active_children() == []
        self.armed = self.runs == self.after
        self.runs += 1

    def do(self) -> None:
        self.workers = len(multiprocessing.active_children())
        self.does()


def made(watching: Watching) -> Task:
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(10**6))

    def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
        if watching.armed and torch.is_grad_enabled():
            watching.do()
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    return task(
        model=lambda: nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)),
        train=Examples(),
        loss=loss,
        optimizer=lambda params, lr: torch.optim.Adam(params, lr=lr),
        evaluate=lambda model: {"val_loss": float(nn.functional.mse_loss(model(x), x[:, :1] * x[:, 1:2]))},
        loader_options={"num_workers": 1},
        name="with-workers",
    )


@pytest.fixture(autouse=True)
def no_workers_are_left(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    assert multiprocessing.active_children() == []
    yield
    assert multiprocessing.active_children() == []
    gc.collect()
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "child process" not in said


def interrupts() -> None:
    raise KeyboardInterrupt


def raises() -> None:
    raise OSError("gone")


def search(out: Path, watching: Watching) -> None:
    question = Question(target=Target.parse("val_loss<=0.2"), max_batch_size=32)
    how: dict[str, Any] = {"device": pick("cpu"), "profile": PROFILE, "progress": watching, "budget_s": 60.0}
    find(made(watching), question, out=out, **how)


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize(("does", "error"), [(interrupts, KeyboardInterrupt), (raises, TaskError)])
def test_workers_end_with_what_interrupts_a_search(
    tmp_path: Path, after: int, does: Callable[[], None], error: type[BaseException]
) -> None:
    watching = Watching(after, does)
    with pytest.raises(error) as caught:
        search(tmp_path, watching)
    assert watching.workers == 1
    assert multiprocessing.active_children() == []  # while the exception, and with it every frame, is still there
    del caught


def test_workers_end_with_a_search_that_comes_to_its_end(tmp_path: Path) -> None:
    search(tmp_path, watching := Watching(-1, raises))
    assert watching.runs > 1
