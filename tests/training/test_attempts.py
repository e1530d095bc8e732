"""What killed a process in a measurement is not tried again in the same way; deaths here are real, of forked copies."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from batchscope.errors import OutOfMemory, TaskError, UsageError
from batchscope.hardware.device import Device
from batchscope.hardware.trying import STEP, STEP_TIMES
from batchscope.store.attempts import DEATHS, Attempt, Growth
from batchscope.store.records import Bench, RunConfig
from batchscope.store.runs import Store, StoredRun, run_id
from batchscope.tasks.workload import Workload
from batchscope.training.attempts import CHECK, CONSTANT, Trials
from batchscope.training.forked_trial import CopyDied, first_in_a_copy
from batchscope.training.limits import Deadline
from batchscope.training.prepare import Wanted, bench_of, check_task, with_constant
from batchscope.training.progress import Silent
from batchscope.training.runner import Runner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux only")

ABOUT = {"schema": 3, "command": "find", "task": "wall"}
WALL = 48
CPU = Device(torch.device("cpu"))
NEVER = 10**9
LONG = 160.0
"""Seconds for timing, so that no step is too long to be run, however busy the machine is."""


TESTS = os.getpid()


def killed() -> None:
    """Kill the process, unless it is the one that should have known."""
    if os.getpid() == TESTS:
        pytest.fail("this process went into the wall")
    os.kill(os.getpid(), signal.SIGKILL)


class Wall:
    """A task that kills its process at so many examples at once, or after so many steps."""

    def __init__(self, *, wall: int = NEVER, step: int = NEVER, evaluation: int = NEVER, norm: bool = False) -> None:
        self.wall, self.step, self.evaluation, self.norm = wall, step, evaluation, norm
        self.steps = self.evaluations = 0

    def model(self) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1)) if self.norm else nn.Linear(2, 1)

    def train_data(self) -> TensorDataset:
        x = torch.linspace(-1.0, 1.0, 400).reshape(200, 2)
        return TensorDataset(x, x[:, :1] + 0.1)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        if len(batch[0]) >= self.wall:
            killed()
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def before_update(self, model: nn.Module) -> None:
        self.steps += 1
        if self.steps >= self.step:
            killed()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        self.evaluations += 1
        if self.evaluations >= self.evaluation:
            killed()
        return {"val_loss": float(next(model.parameters()).detach().square().sum())}


def command(work: Callable[[], object]) -> int:
    """Do some work in a process of its own; the signal that killed it, or 0."""
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) * -1


def bench(folder: Path, **wall: Any) -> Bench:
    with Store(folder, ABOUT) as store:
        workload = Workload(Wall(**wall), name="wall")
        wanted = Wanted(budget_s=1.0, timing_s=LONG)
        preflight = with_constant(workload, check_task(workload, wanted, store=store), store)
        return bench_of(workload, wanted, preflight, store=store)


@pytest.mark.parametrize("wall", [20, WALL, 150])
def test_the_next_command_begins_below(tmp_path: Path, wall: int) -> None:
    """Whatever met the wall first: it costs one process."""
    assert command(lambda: bench(tmp_path, wall=wall)) == signal.SIGKILL
    found = bench(tmp_path, wall=wall)
    assert wall // 2 <= found.largest_micro_batch_size < wall
    assert found.memory_bound
    assert any("an earlier command died" in note for note in found.notes)


@pytest.mark.parametrize(("killed", "largest"), [(True, 16), (None, 16), (False, 200)])
def test_where_memory_is_known_to_lack_nothing_larger_is_tried(
    tmp_path: Path, killed: bool | None, largest: int
) -> None:
    """Where the kernel killed nothing it was killed from outside, and the copy shows it."""
    bury(tmp_path, Attempt(what=STEP, micro_batch_size=64, survived=16, killed=killed))
    found = bench(tmp_path)
    assert found.largest_micro_batch_size == largest
    assert found.memory_bound == (largest < 200)


def bury(folder: Path, *deaths: Attempt) -> None:
    with Store(folder, ABOUT) as store:
        store.attempts._write(deaths)  # pyright: ignore[reportPrivateUsage] - what a dead process leaves


def test_the_advice_works(tmp_path: Path) -> None:
    bury(tmp_path, Attempt(what=STEP, micro_batch_size=64, survived=16, killed=True))
    assert bench(tmp_path).largest_micro_batch_size == 16
    (tmp_path / DEATHS).unlink()
    assert bench(tmp_path).largest_micro_batch_size == 200


def test_with_more_memory_it_is_tried_again(tmp_path: Path) -> None:
    bury(tmp_path, Attempt(what=STEP, micro_batch_size=64, survived=16, killed=True, free_bytes=2**20))
    assert bench(tmp_path).largest_micro_batch_size == 200


def test_where_nothing_survived_it_is_one_message(tmp_path: Path) -> None:
    bury(tmp_path, Attempt(what=STEP, micro_batch_size=1, survived=0, killed=True))
    with pytest.raises(OutOfMemory, match=DEATHS):
        bench(tmp_path)


@pytest.mark.parametrize(("size", "norm"), [(1, False), (3, True)])
def test_where_the_timing_of_the_smallest_step_killed_it_is_one_message(tmp_path: Path, size: int, norm: bool) -> None:
    """A model with batch normalisation has no step of one example."""
    bury(tmp_path, Attempt(what=STEP_TIMES, micro_batch_size=size, killed=True))
    with pytest.raises(OutOfMemory, match=rf"timing of steps of {size} example.*killed the process once.*{DEATHS}"):
        bench(tmp_path, norm=norm)


def test_a_timing_that_comes_through_is_forgotten(tmp_path: Path) -> None:
    """One death that nobody can explain changes nothing, and nothing is said of a copy."""
    bury(tmp_path, Attempt(what=STEP_TIMES, micro_batch_size=200))
    found = bench(tmp_path)
    assert found.largest_micro_batch_size == 200
    assert not any("earlier command" in note for note in found.notes)
    assert not (tmp_path / DEATHS).exists()


def test_batch_sizes_that_were_asked_for(tmp_path: Path) -> None:
    wanted = Wanted(budget_s=1.0, timing_s=LONG, batch_sizes=(8, 64))

    def measured(wanted: Wanted) -> Bench:
        with Store(tmp_path, ABOUT) as store:
            workload = Workload(Wall(wall=WALL), name="wall")
            return bench_of(workload, wanted, check_task(workload, wanted, store=store), store=store)

    assert command(lambda: measured(wanted)) == signal.SIGKILL
    with pytest.raises(UsageError, match="at most 8"):
        measured(wanted)
    assert measured(Wanted(budget_s=1.0, timing_s=LONG, batch_sizes=(8,))).largest_micro_batch_size == 8


@pytest.mark.parametrize("what", [CHECK, CONSTANT])
def test_a_measurement_that_kills_is_refused_or_left_out(tmp_path: Path, what: str) -> None:
    at = {"evaluation": 1} if what == CHECK else {"wall": 20}
    assert command(lambda: bench(tmp_path, **at)) == signal.SIGKILL
    if what == CHECK:
        with pytest.raises(OutOfMemory, match="check of the task"):
            bench(tmp_path, **at)
    else:
        assert bench(tmp_path, **at).largest_micro_batch_size < 20


@pytest.mark.parametrize(
    ("killed", "deaths", "said"), [(None, 2, "killed the process twice"), (False, 4, "not for want of memory")]
)
def test_another_measurement_is_refused_after_some_deaths(
    tmp_path: Path, killed: bool | None, deaths: int, said: str
) -> None:
    """Somebody who ends processes is no lack of memory, and no reason for smaller micro-batches."""
    death = Attempt(what="the short run", micro_batch_size=8, killed=killed)

    def tried() -> None:
        with Store(tmp_path, ABOUT) as store, Trials(store, CPU).of("the short run", 8):
            pass

    bury(tmp_path, *[death] * (deaths - 1))
    tried()
    assert not (tmp_path / DEATHS).exists()  # it came through
    bury(tmp_path, *[death] * deaths)
    with pytest.raises(OutOfMemory, match=said) as raised:
        tried()
    assert (raised.value.micro_batch_size == 8) == (killed is None)
    (tmp_path / DEATHS).unlink()
    tried()


CONFIG = RunConfig(task="wall", batch_size=8, micro_batch_size=8, lr=0.01, max_steps=60)


def train(folder: Path, config: RunConfig = CONFIG, **wall: Any) -> StoredRun:
    with Store(folder, ABOUT) as store:
        runner = Runner(
            workload=Workload(Wall(**wall), name="wall"),
            store=store,
            progress=Silent(),
            deadline=Deadline.after(60.0),
            at_deadline="end",
        )
        return runner.make(config, "because")


def test_a_run_that_was_killed_from_outside_is_made_again(tmp_path: Path) -> None:
    assert command(lambda: train(tmp_path, step=30)) == signal.SIGKILL
    assert train(tmp_path).result is not None
    assert not (tmp_path / DEATHS).exists()


def test_a_run_that_dies_at_the_same_place_is_not_made_for_ever(tmp_path: Path) -> None:
    """It counts as one that did not fit, so that a search goes on with smaller micro-batches."""
    for _ in range(3):
        assert command(lambda: train(tmp_path, step=30)) == signal.SIGKILL
    with pytest.raises(OutOfMemory) as raised:
        train(tmp_path, step=30)
    assert raised.value.micro_batch_size == 8
    other = RunConfig(task="wall", batch_size=8, micro_batch_size=4, grad_accum_steps=2, lr=0.01, max_steps=60)
    assert train(tmp_path, other).result is not None


def test_a_run_that_the_kernel_killed_is_not_made_again(tmp_path: Path) -> None:
    bury(tmp_path, Attempt(what="a run", micro_batch_size=8, run=run_id(CONFIG), step=3, killed=True))
    with pytest.raises(OutOfMemory, match="kernel"):
        train(tmp_path)


def leaks(steps: int, grown: int) -> Attempt:
    growth = Growth(steps=steps, evaluations=3, grown_bytes=grown, at_evaluations_bytes=0, steady=True)
    return Attempt(what="a run", micro_batch_size=8, run=run_id(CONFIG), step=steps + 1, killed=False, growth=growth)


def test_a_leak_is_named_after_the_second_death_at_the_same_place(tmp_path: Path) -> None:
    bury(tmp_path, leaks(100, 2**28))
    assert train(tmp_path).result is not None
    second = tmp_path / "second"
    bury(second, leaks(100, 2**28), leaks(110, 2**28))
    with pytest.raises(TaskError, match=r"2\.33 MiB a step"):
        train(second)
    (second / DEATHS).unlink()
    assert train(second).result is not None
    apart = tmp_path / "apart"
    bury(apart, leaks(100, 2**28), leaks(1000, 2**32))
    assert train(apart).result is not None


def test_a_note_stands_while_it_is_tried_and_no_longer(tmp_path: Path) -> None:
    seen = list[dict[str, Any]]()

    class Looking(Wall):
        def before_update(self, model: nn.Module) -> None:
            seen.append(json.loads((tmp_path / "attempt.json").read_text()))

    with Store(tmp_path, ABOUT) as store:
        runner = Runner(
            workload=Workload(Looking()),
            store=store,
            progress=Silent(),
            deadline=Deadline.after(60.0),
            at_deadline="end",
        )
        runner.make(CONFIG, "because")
    assert {note["run"] for note in seen} == {run_id(CONFIG)}
    assert not (tmp_path / "attempt.json").exists()


def test_what_raises_is_no_death(tmp_path: Path) -> None:
    with Store(tmp_path, ABOUT) as store:
        for error in (KeyboardInterrupt, SystemExit, ValueError):
            with pytest.raises(error), Trials(store, CPU)(STEP, 8):
                raise error
    with Store(tmp_path, ABOUT) as store:
        assert store.attempts.deaths == ()


def hang_elsewhere(parent: int) -> None:
    if os.getpid() != parent:
        signal.pause()


def test_a_copy_that_is_slow_is_no_death() -> None:
    """It is done here then, where deadlines and the watchdog are."""
    parent, done = os.getpid(), False
    with first_in_a_copy(longest_s=0.2):
        hang_elsewhere(parent)
        done = True
    assert done


def test_a_copy_that_is_killed_is_a_death() -> None:
    with pytest.raises(CopyDied), first_in_a_copy():
        killed()


def test_an_attempt_that_a_signal_interrupts_as_it_begins_is_no_death(tmp_path: Path) -> None:
    with Store(tmp_path, ABOUT) as store:
        begin = store.attempts.begin

        def interrupted(attempt: Attempt) -> Attempt:
            begin(attempt)
            raise KeyboardInterrupt

        store.attempts.begin = interrupted
        with pytest.raises(KeyboardInterrupt), Trials(store, CPU).of("the short run"):
            pass
    assert not (tmp_path / "attempt.json").exists()


def test_runs_of_what_is_measured_are_announced_by_themselves(tmp_path: Path) -> None:
    def now() -> str:
        return json.loads((tmp_path / "attempt.json").read_text())["what"]

    with Store(tmp_path, ABOUT) as store, Trials(store, CPU).of("a study"):
        with Trials(store, CPU).of_run("r1", CONFIG):
            assert now() == "a run"
        assert now() == "a study"


def test_what_a_copy_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="both"), first_in_a_copy():
        raise ValueError("both")
