"""The outlook of a study on its budget: said early with numbers, whole seeds, and nothing asked for is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscope.laboratory.outlook import Outlook, Standing
from batchscope.laboratory.pace import RunTime
from batchscope.laboratory.records import Arm, Length
from batchscope.store.records import RunConfig, RunResult, RunStatus, Target
from batchscope.store.runs import StoredRun

ARMS = [Arm(batch_size=size, lr=lr, length=Length(unit="epochs", amount=1)) for size in (8, 64) for lr in (0.1, 1.0)]


def took(seconds: float) -> RunTime:
    return RunTime(batch_size=8, steps=10, evaluations=2, training_s=seconds / 2, seconds=seconds)


def outlook(*, drops_seeds: bool) -> Outlook:
    return Outlook(lambda arm: 1.0, ARMS, (0, 1, 2), budget_s=60.0, drops_seeds=drops_seeds)


def test_a_budget_that_will_not_do_is_said_once_after_three_runs() -> None:
    found = outlook(drops_seeds=True)
    said = [found.made(arm, took(6.0), 60.0 - 6.0 * (i + 1)) for i, arm in enumerate(ARMS)]
    assert [text is None for text in said] == [True, True, False, True]
    assert said[2] is not None
    assert "about 10 of 12 runs fit into it" in said[2]
    assert "2 of 3 will be whole" in said[2]
    assert "--budget 80s would do" in said[2]
    assert found.needed_s == pytest.approx(48.0)


def test_a_budget_that_will_do_is_not_spoken_of() -> None:
    found = outlook(drops_seeds=True)
    assert not [said for i, arm in enumerate(ARMS) if (said := found.made(arm, took(2.0), 60.0 - 2.0 * i))]


def test_a_seed_that_does_not_fit_is_not_begun_unless_it_was_asked_for_or_begun_before() -> None:
    for drops, expected in ((True, False), (False, True)):
        found = outlook(drops_seeds=drops)
        assert found.begins(0, 60.0)
        for arm in ARMS:
            found.made(arm, took(6.0), 30.0)
        assert found.begins(1, 24.0)
        assert found.begins(2, 23.0) is expected
        assert found.begins(0, 1.0)
        assert found.begins(17, 1.0), "no seed of the question: an order of the data"
    found.read(ARMS[0], 2)
    assert found.begins(2, 1.0)


TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset


class Task:
    def model(self):
        return nn.Linear(2, 1)

    def train_data(self):
        x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        return TensorDataset(x, x[:, :1])

    def loss(self, model, batch):
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)

    def evaluate(self, model):
        x = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
        return {"val_loss": float(nn.functional.mse_loss(model(x), x[:, :1]))}


def task():
    return Task()
"""


def test_a_study_that_is_cut_off_ends_with_three_and_says_what_is_missing(cli, tmp_path: Path) -> None:
    del tmp_path
    Path("small.py").write_text(TASK, encoding="utf-8")
    command = "study small.py:task --batch-sizes 1,2 --lrs 0.01,0.1 --seeds 3 --epochs 4000 --out out --json"
    ended = cli(f"{command} --budget 3s")
    assert ended.status == 3, ended.err
    statement = ended.answer["findings"][0]["statement"]
    assert "of 12 runs were made before the budget was used up" in statement
    assert Path("out/report.html").exists()


def finished(lr: float, accuracy: float, status: RunStatus = RunStatus.OUT_OF_STEPS) -> StoredRun:
    config = RunConfig(task="t", batch_size=8, micro_batch_size=8, lr=lr, max_steps=9)
    best = {"val_accuracy": accuracy}
    result = RunResult(
        status=status,
        message="",
        steps=9,
        examples=72,
        device_seconds=1.0,
        steps_to_target=None,
        last=best,
        best=best,
        best_step=9,
        first={},
    )
    return StoredRun(id=f"{lr}", config=config, rows=(), result=result)


def test_the_best_run_so_far_has_not_diverged() -> None:
    standing = Standing(Target.parse("val_accuracy>=2"))
    assert standing.progress(3) == "0 of 3 runs done"
    assert not standing.add(finished(10.0, 0.99, RunStatus.DIVERGED))
    assert standing.add(finished(0.1, 0.8)) == "val_accuracy 0.8 at batch size 8, learning rate 0.1"
    assert standing.add(finished(0.2, 0.7)) == "val_accuracy 0.8 at batch size 8, learning rate 0.1"
    assert standing.progress(3) == "3 runs done"
