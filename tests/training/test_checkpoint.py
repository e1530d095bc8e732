"""Checkpoints: another process goes on to the same numbers, and what is wrong with one costs no run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from batchscope.probes.noise_scale import probes_of
from batchscope.store.records import Row, RunConfig, RunStatus, Target
from batchscope.store.runs import Store, StoredRun
from batchscope.tasks.collation import Collation
from batchscope.tasks.workload import Workload
from batchscope.testing import without_clock
from batchscope.training.checkpoint import FILE, Checkpoints
from batchscope.training.limits import Deadline
from batchscope.training.loop import Training
from batchscope.training.progress import Silent
from batchscope.training.runner import Runner
from batchscope.training.stopping import StepLimitRule

EXAMPLES = 50
CONFIG = RunConfig(
    task="noisy",
    batch_size=8,
    micro_batch_size=4,
    grad_accum_steps=2,
    lr=0.05,
    max_steps=60,
    target=Target(metric="val_loss", value=0.0, mode="min"),
    noise_scale_groups=2,
)


class Loaded(Dataset[Any]):
    """Examples that are computed, so that a loader makes the batches; remembers which were."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.loaded = x, y, list[int]()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.loaded.append(index)
        return self.x[index] + 0.1 * torch.randn(self.x.shape[1]), self.y[index]


class Noisy:
    """Dropout, batch normalisation, a buffer in no state_dict, and draws in the data set: all that a stop may lose."""

    def __init__(self, optimizer: str = "sgd", *, in_memory: bool = True, after: Callable[[int], None] | None = None):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(EXAMPLES, 6, generator=generator)
        self.y = (self.x[:, 0] > 0).long()
        self.data: Dataset[Any] = TensorDataset(self.x, self.y) if in_memory else Loaded(self.x, self.y)
        self.kind, self.after, self.steps = optimizer, after, 0
        self.loader_options = None if in_memory else {"num_workers": 0}

    def model(self) -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
        model.register_buffer("seen", torch.zeros(()), persistent=False)
        return model

    def train_data(self) -> Dataset[Any]:
        return self.data

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        self.steps += 1
        if self.after is not None:
            self.after(self.steps)
        seen: Any = model.seen
        seen += 1
        return F.cross_entropy(model(batch[0]), batch[1]) * (1 + 0.001 * seen)

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        if self.kind == "adamw":
            return torch.optim.AdamW(params, lr=lr)
        return torch.optim.SGD(params, lr=lr, momentum=0.9)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return {"val_loss": float(F.cross_entropy(model(self.x), self.y))}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "out", {}) as made:
        yield made


def runner_of(store: Store, task: Noisy, **checkpoints: Any) -> Runner:
    kept = Checkpoints(runs=store.root / "runs", **checkpoints)
    deadline = Deadline(100.0, clock=lambda: 0.0)
    return Runner(
        workload=Workload(task), store=store, progress=Silent(), deadline=deadline, at_deadline="end", checkpoints=kept
    )


def weights_of(task: Noisy, config: RunConfig, rows: list[Row]) -> dict[str, Tensor]:
    training = Training(Workload(task), config, probes=probes_of(config), on_row=rows.append)
    training.advance()
    return training.model.state_dict()


def go_on(store: Store, task: Noisy, stored: StoredRun, config: RunConfig = CONFIG) -> tuple[StoredRun, dict[str, Any]]:
    """What another runner, which has nothing in memory, makes of a stored run."""
    last: dict[str, Any] = {}
    run = runner_of(store, task).make(
        config, "", stored=stored, at_end=lambda model, result: last.update(model.state_dict())
    )
    return run, last


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("at", [9, 33])
def test_a_run_that_goes_on_comes_to_the_same_to_the_last_bit(
    store: Store, optimizer: str, in_memory: bool, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Collation, "look_through", lambda self, example_s: None)  # loads as many as time allows
    rows: list[Row] = []
    whole = weights_of(Noisy(optimizer, in_memory=in_memory), CONFIG, rows)
    first = runner_of(store, Noisy(optimizer, in_memory=in_memory))
    paused = first.make(CONFIG, "", rules=[StepLimitRule(steps=at)])
    assert paused.result is not None
    assert paused.result.status is RunStatus.PAUSED
    task = Noisy(optimizer, in_memory=in_memory)
    run, last = go_on(store, task, paused)
    assert run.result is not None
    assert run.id == paused.id
    assert run.result.status is RunStatus.OUT_OF_STEPS
    parts = sum(row["groups"] - 2 for row in run.rows if row["kind"] == "noise" and row["step"] >= at)
    assert task.steps == 2 * (CONFIG.max_steps - paused.result.steps) + parts, "steps were made again"
    assert without_clock(run.rows) == without_clock(rows)
    assert all(torch.equal(last[name], value) for name, value in whole.items())
    if isinstance(task.data, Loaded):
        probed = 17  # to find out how long an example takes
        assert len(task.data.loaded) == probed + 8 * (CONFIG.max_steps - paused.result.steps)


def test_a_run_that_reached_a_target_goes_on_to_a_harder_one(store: Store) -> None:
    easy = replace(CONFIG, target=Target(metric="val_loss", value=0.5, mode="min"))
    reached = runner_of(store, Noisy()).make(easy, "")
    assert reached.result is not None
    assert reached.result.status is RunStatus.REACHED
    harder = replace(CONFIG, target=Target(metric="val_loss", value=0.2, mode="min"))
    rows: list[Row] = []
    weights_of(Noisy(), harder, rows)
    run, _ = go_on(store, Noisy(), reached, harder)
    assert without_clock(run.rows) == without_clock(rows)
    assert run.config == harder
    (on_disk,) = store.runs()
    assert (on_disk.id, on_disk.config, on_disk.result) == (reached.id, harder, run.result)


@pytest.mark.parametrize("damage", ["gone", "garbage", "of other rows", "of another model"])
def test_without_a_usable_checkpoint_the_run_is_made_again_from_its_seed(store: Store, damage: str) -> None:
    rows: list[Row] = []
    weights_of(Noisy(), CONFIG, rows)
    paused = runner_of(store, Noisy()).make(CONFIG, "", rules=[StepLimitRule(steps=20)])
    path = store.folder(paused.id) / FILE
    if damage == "gone":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"not a checkpoint")
    else:
        held = torch.load(path, weights_only=True)
        if damage == "of other rows":
            held["rows_sha256"] = "0" * 64
        else:
            held["state"]["model"].pop("0.weight")
        torch.save(held, path)
    task = Noisy()
    run, _ = go_on(store, task, paused)
    assert without_clock(run.rows) == without_clock(rows)
    assert task.steps >= 2 * CONFIG.max_steps


def test_a_disk_that_refuses_costs_the_checkpoint_and_one_note(store: Store) -> None:
    said: list[str] = []
    runner = runner_of(store, Noisy(), say=said.append)
    for lr in (0.05, 0.06):
        run = runner.make(replace(CONFIG, lr=lr, max_steps=5), "")
        (store.folder(run.id) / FILE).unlink()
        (store.folder(run.id) / FILE).mkdir()  # nothing can be put in the place of a folder
        again = runner.make(replace(CONFIG, lr=lr, max_steps=8), "", stored=run)
        assert again.result is not None
        assert again.result.steps == 8
        assert not [path for path in store.folder(run.id).iterdir() if path.name.startswith(".")]
    (note,) = said
    assert "checkpoint" in note


def test_the_oldest_checkpoints_go_and_that_is_said_once(store: Store) -> None:
    said: list[str] = []
    short = replace(CONFIG, max_steps=3)
    size = (store.folder(runner_of(store, Noisy()).make(short, "").id) / FILE).stat().st_size
    runner = runner_of(store, Noisy(), say=said.append, most_bytes=int(2.5 * size))
    for lr in (0.06, 0.07, 0.08, 0.09):
        runner.make(replace(short, lr=lr), "")
    kept = [run.config.lr for run in store.runs() if (store.folder(run.id) / FILE).exists()]
    assert sorted(kept) == [0.08, 0.09]
    assert len(said) == 1


def test_a_state_beyond_the_limit_is_not_written_and_none_where_nobody_wants_them(store: Store) -> None:
    said: list[str] = []
    large = runner_of(store, Noisy(), say=said.append, most_bytes=100).make(replace(CONFIG, max_steps=3), "")
    unwanted = runner_of(store, Noisy(), keep=False).make(replace(CONFIG, lr=0.06, max_steps=3), "")
    assert not any((store.folder(run.id) / FILE).exists() for run in (large, unwanted))
    assert len(said) == 1


def test_no_checkpoint_of_a_run_that_no_question_goes_on_from(store: Store) -> None:
    runner = runner_of(store, Noisy())
    diverged = runner.make(replace(CONFIG, lr=1e30), "")
    assert diverged.result is not None
    assert diverged.result.status is RunStatus.DIVERGED
    decayed = runner.make(replace(CONFIG, schedule="linear", max_steps=10), "")
    short = runner.make(replace(CONFIG, schedule="linear", max_steps=12), "", rules=[StepLimitRule(steps=5)])
    kept = [(store.folder(run.id) / FILE).exists() for run in (diverged, decayed, short)]
    assert kept == [False, False, True]


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_a_run_that_is_killed_while_it_goes_on_has_its_result_back(store: Store, with_checkpoint: bool) -> None:
    """Whether it went on from its checkpoint or was made again: rows and result are those of before."""
    rows: list[Row] = []
    weights_of(Noisy(), CONFIG, rows)
    paused = runner_of(store, Noisy()).make(CONFIG, "", rules=[StepLimitRule(steps=20)])
    if not with_checkpoint:
        (store.folder(paused.id) / FILE).unlink()

    def stop(step: int) -> None:
        if step == (25 if with_checkpoint else 15):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go_on(store, Noisy(after=stop), paused)
    (left,) = store.runs()
    assert left.result is None
    back = store.of_course(CONFIG)
    assert back is not None
    assert (back.rows, back.result) == (paused.rows, paused.result)
    run, _ = go_on(store, Noisy(), back)
    assert without_clock(run.rows) == without_clock(rows)
