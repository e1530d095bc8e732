"""The runner: what it leaves on the disk however a run ends, and where it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from batchscope.errors import OutOfMemory
from batchscope.store.records import Row, RunConfig, RunStatus, Target
from batchscope.store.runs import Store, run_id
from batchscope.tasks.workload import Workload
from batchscope.testing import without_clock
from batchscope.training.limits import CutOff, Deadline
from batchscope.training.progress import Silent
from batchscope.training.runner import Runner
from batchscope.training.stopping import StepLimitRule
from batchscope.training.weights import load_weights, weights_file

CONFIG = RunConfig(
    task="valley",
    batch_size=4,
    micro_batch_size=4,
    lr=0.05,
    max_steps=40,
    target=Target(metric="val_loss", value=0.0, mode="min"),
)


class Valley:
    """Loss ½ w², which full gradient steps shrink by (1 - lr)² each; a step may be made to fail."""

    def __init__(self) -> None:
        self.at_step: Callable[[int], None] = lambda step: None
        self.steps = 0

    def model(self) -> nn.Module:
        model = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(model.weight, 2.0)
        return model

    def train_data(self) -> TensorDataset:
        return TensorDataset(torch.ones(16, 1, dtype=torch.float64))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        self.steps += 1
        self.at_step(self.steps)
        return 0.5 * model(batch[0]).square().mean()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return {"val_loss": 0.5 * float(next(model.parameters()).detach().square().sum())}


class Bench:
    """A runner over a store, its task and the time on its clock."""

    def __init__(self, root: Path) -> None:
        self.store, self.task, self.now = Store(root, {}), Valley(), 0.0

    def runner(self, at_deadline: Literal["end", "cut"] = "end", **progress: Any) -> Runner:
        deadline = Deadline(100.0, clock=lambda: self.now)
        watcher = progress.get("progress", Silent())
        return Runner(
            workload=Workload(self.task),
            store=self.store,
            progress=watcher,
            deadline=deadline,
            at_deadline=at_deadline,
        )

    def late_from(self, step: int) -> None:
        """The deadline passes in that step."""

        def look(now: int) -> None:
            if now >= step:
                self.now = 100.0

        self.task.at_step = look


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.store.close()


def test_a_run_that_the_clock_ends_is_a_result_or_is_left_unfinished(bench: Bench) -> None:
    bench.late_from(10)
    ended = bench.runner("end").make(CONFIG, "")
    assert ended.result is not None
    assert (ended.result.status, ended.result.steps) == (RunStatus.OUT_OF_TIME, 10)
    bench.now, bench.task.steps = 0.0, 0
    other = RunConfig(**{**vars(CONFIG), "lr": 0.1})
    with pytest.raises(CutOff):
        bench.runner("cut").make(other, "")
    assert bench.store.finished(other) is None
    assert bench.task.steps == 10
    bench.now, bench.task.at_step = 0.0, lambda step: None
    whole = bench.runner("cut").make(other, "")
    assert whole.result is not None
    assert whole.result.status is RunStatus.OUT_OF_STEPS
    assert (bench.store.folder(whole.id) / "rows.interrupted-1.jsonl").exists()


def test_a_run_that_had_too_little_time_is_made_anew_and_its_first_result_kept(bench: Bench) -> None:
    bench.late_from(10)
    bench.runner().make(CONFIG, "")
    bench.now, bench.task.at_step = 0.0, lambda step: None
    run = bench.runner().make(CONFIG, "")
    assert run.result is not None
    assert run.result.status is RunStatus.OUT_OF_STEPS
    assert (bench.store.folder(run.id) / "result.interrupted-1.json").exists()


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), torch.OutOfMemoryError("CUDA oom")])
def test_whatever_raises_leaves_the_run_unfinished_and_its_rows_readable(bench: Bench, error: BaseException) -> None:
    def fail(step: int) -> None:
        if step == 10:
            raise error

    bench.task.at_step = fail
    kinds = (OutOfMemory,) if isinstance(error, torch.OutOfMemoryError) else (Exception, KeyboardInterrupt)
    with pytest.raises(kinds):
        bench.runner().make(CONFIG, "")
    assert bench.store.finished(CONFIG) is None
    (unfinished,) = bench.store.runs()
    assert [row["step"] for row in unfinished.rows] == list(range(10))
    bench.task.at_step = lambda step: None
    assert bench.runner().make(CONFIG, "").result is not None


def test_a_paused_run_goes_on_from_memory_and_another_runner_makes_it_again(bench: Bench) -> None:
    runner = bench.runner()
    paused = runner.make(CONFIG, "", pauses=[StepLimitRule(steps=20)])
    assert paused.result is not None
    assert (paused.result.status, paused.result.steps) == (RunStatus.PAUSED, 20)
    assert bench.task.steps == 20
    whole = runner.make(CONFIG, "")
    assert bench.task.steps == 40, "it went on"
    assert whole.result is not None
    assert whole.result.status is RunStatus.OUT_OF_STEPS
    bench.store.reopen(CONFIG)
    again = bench.runner().make(CONFIG, "")
    assert bench.task.steps == 80, "it was made from the start"
    assert without_clock(again.rows) == without_clock(whole.rows)


def test_kept_weights_are_on_the_disk_before_the_result_and_can_be_made_again(bench: Bench) -> None:
    runner, seen = bench.runner(), list[bool]()

    def at_end(model: nn.Module, result: Any) -> None:
        folder = bench.store.folder(run_id(CONFIG))
        seen.append(weights_file(folder, "last").exists() and not (folder / "result.json").exists())

    run = runner.make(CONFIG, "", keep=(0, 2, "last"), at_end=at_end)
    assert seen == [True]
    folder = bench.store.folder(run.id)
    assert sorted(path.name for path in folder.glob("weights-*")) == [
        "weights-epoch-0.pt",
        "weights-epoch-2.pt",
        "weights-last.pt",
    ]
    weight = load_weights(weights_file(folder, 2))["weight"].item()
    assert weight == pytest.approx(2 * (1 - 0.05) ** 8)
    again = runner.train_again(run, (2,), steps=40)
    assert torch.equal(again[2]["weight"], load_weights(weights_file(folder, 2))["weight"])
    assert bench.store.finished(CONFIG) == run
    bench.now = 100.0
    with pytest.raises(CutOff):
        runner.train_again(run, (2,), steps=40, deadline=runner.deadline)


def test_a_run_made_again_ends_at_a_step_that_it_is_not_evaluated_at(bench: Bench) -> None:
    runner = bench.runner()
    run = runner.make(CONFIG, "")
    steps = next(s for s in range(20, 40) if s not in {row["step"] for row in run.rows})
    weight = runner.train_again(run, ("last",), steps=steps)["last"]["weight"].item()
    assert weight == pytest.approx(2 * (1 - 0.05) ** steps)


def test_progress_hears_of_the_run_and_its_rows(bench: Bench) -> None:
    heard: list[Any] = []

    class Listening(Silent):
        def run_started(self, config: RunConfig, why: str, left: str, expected_steps: float | None = None) -> None:
            heard.append((config, why, left, expected_steps))

        def step(self, step: int) -> None:
            heard.append(f"step {step}")

        def row(self, row: Row) -> None:
            heard.append(row["step"])

    rules = [StepLimitRule(steps=3)]
    bench.runner(progress=Listening()).make(CONFIG, "a look", "much left", rules=rules, expected_steps=3.0)
    assert heard == [(CONFIG, "a look", "much left", 3.0), 0, "step 1", 1, "step 2", 2, "step 3", 3]
