"""Where work is done, and why it stays here; a task that goes to another process is the same task there."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from batchscope.tasks.loading import LoadedTask, load_task
from batchscope.tasks.workload import Workload
from batchscope.testing.fake_device import FakeDevice
from batchscope.training.executors.base import CountedExecutor
from batchscope.training.executors.choose import InProcessReason, choose, reason_to_stay
from batchscope.training.executors.completed import completed
from batchscope.training.executors.in_process import InProcessExecutor
from batchscope.training.executors.processes import ProcessExecutor
from batchscope.training.executors.reloadable_task import ReloadableTask, one_thread

MODULE = """
import os

def where(task, number, late):
    return os.getpid(), task.loaded.settings["hidden"], task.workload.independent
"""


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "where_for_tests.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import where_for_tests  # pyright: ignore[reportMissingImports]

    return where_for_tests.where


def never() -> bool:
    return False


def made(spec: str = "digits", given: Sequence[str] | Mapping[str, Any] = ("hidden=8",)) -> ReloadableTask:
    return of_loaded(load_task(spec, given))


def of_loaded(loaded: LoadedTask, **how: Any) -> ReloadableTask:
    return ReloadableTask(
        loaded=loaded, workload=Workload(loaded.task, name=loaded.name, settings=loaded.settings, **how)
    )


def places(executor: CountedExecutor, where: Any, task: ReloadableTask) -> list[Any]:
    with executor:
        return [found for _, found in completed(executor, partial(where, task), range(3), late=never)]


def test_long_work_goes_to_processes_which_load_the_task_themselves(where: Any) -> None:
    task = made()
    task.workload.independent = False
    executor = choose(task, seconds=1e6, processes=2)
    assert isinstance(executor, ProcessExecutor)
    pids = executor.pids
    found = places(executor, where, task)
    assert {pid for pid, *_ in found} <= set(pids)
    assert [rest for _, *rest in found] == [[8, False]] * 3


def test_short_work_stays_here(where: Any) -> None:
    task = made()
    assert reason_to_stay(task, seconds=1.0, processes=2) is InProcessReason.SHORT
    assert reason_to_stay(task, seconds=1.0, processes=2, worth_s=0.5) is None
    executor = choose(task, seconds=1.0, processes=2)
    assert isinstance(executor, InProcessExecutor)
    assert places(executor, where, task) == [(os.getpid(), 8, True)] * 3


def test_work_stays_here_on_one_core() -> None:
    assert reason_to_stay(made(), seconds=1e6, processes=1) is InProcessReason.CORES


def test_a_task_made_in_python_stays_here() -> None:
    task = of_loaded(LoadedTask(task=load_task("digits").task, name="mine", settings={}, source_sha256=""))
    assert reason_to_stay(task, seconds=1e6, processes=2) is InProcessReason.MADE_IN_PYTHON
    with pytest.raises(pickle.PicklingError, match="made in Python"):
        pickle.dumps(task)


def test_settings_that_cannot_be_pickled_keep_the_task_here(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_text(
        "from batchscope.tasks.builtin.digits import digits\ndef odd(scale=None):\n    return digits(hidden=8)\n",
        encoding="utf-8",
    )
    task = made(f"{path}:odd", {"scale": lambda: 1})
    assert reason_to_stay(task, seconds=1e6, processes=2) is InProcessReason.MADE_IN_PYTHON


def test_without_memory_for_two_work_stays_here() -> None:
    task = of_loaded(load_task("digits", ["hidden=8"]), device=FakeDevice(capacity=2**20))
    assert reason_to_stay(task, seconds=1e6, processes=2) is InProcessReason.MEMORY


def test_a_task_that_changed_since_is_measured_here(tmp_path: Path, where: Any) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from batchscope.tasks.builtin.digits import digits as mine\n", encoding="utf-8")
    task = made(f"{path}:mine", {"hidden": 8})
    path.write_text("from batchscope.tasks.builtin.digits import digits as mine  # edited\n", encoding="utf-8")
    executor = choose(task, seconds=1e6, processes=2)
    assert executor.processes == 2
    assert places(executor, where, task) == [(os.getpid(), 8, True)] * 3


def test_a_task_is_loaded_again_once() -> None:
    task = made()
    again = pickle.loads(pickle.dumps(task))
    assert again is pickle.loads(pickle.dumps(task))
    assert (again.loaded.settings, again.loaded.source_sha256) == (task.loaded.settings, task.loaded.source_sha256)
    assert again.workload.examples == task.workload.examples


def test_the_number_of_threads_is_restored() -> None:
    before, workload = torch.get_num_threads(), made().workload
    torch.set_num_threads(2)
    try:
        with one_thread(workload):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
