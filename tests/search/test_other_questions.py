"""Several questions of one folder: what earlier ones trained is not trained again, and each keeps its own answer."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from batchscope.store.records import RunStatus
from batchscope.store.runs import read_runs

from .folders import Cli, curves_of, files_of, without_clock

NOISY = '''
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
import measure

class Noisy:
    """A line through noise, whose loss has a floor near 0.5; counts the batches it trains on."""
    trained = 0
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        scales = torch.tensor([1.0, 0.5, 0.25, 0.15])
        self.x = torch.randn(1000, 4, generator=generator) * scales
        self.y = (self.x / scales).sum(1, keepdim=True) + 0.7 * torch.randn(1000, 1, generator=generator)
    def model(self):
        return nn.Linear(4, 1)
    def train_data(self):
        return TensorDataset(self.x[:800], self.y[:800])
    def loss(self, model, batch):
        Noisy.trained += torch.is_grad_enabled()
        return F.mse_loss(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model):
        return measure.metrics(model, self.x[800:], self.y[800:])
'''
MEASURE = """
from torch.nn import functional as F

def metrics(model, x, y):
    loss = F.mse_loss(model(x), y)
    return {"val_loss": loss, "val_score": 1 - loss / y.var()}
"""
FIND = "find noisy.py:Noisy --hardware machine.json --trainings 0.2 --json"
TRIED = 40
"""At most so many batches are trained on to try a task, before its first run."""


@pytest.fixture(autouse=True)
def noisy(cli: Cli, profile: Path) -> None:
    """The task and what it imports, in the folder of the commands, imported anew."""
    Path("noisy.py").write_text(NOISY, encoding="utf-8")
    Path("measure.py").write_text(MEASURE, encoding="utf-8")
    for name in ("noisy", "measure"):
        sys.modules.pop(name, None)


def ask(cli: Cli, words: str, out: str = "out") -> tuple[Any, int]:
    """The plan, and how many batches were trained on for it."""
    ended = cli(f"{FIND} {words} --out {out}")
    assert ended.status in (0, 3), ended.err
    return ended.answer, sys.modules["noisy"].Noisy.trained


@pytest.mark.slow
def test_an_easier_target_is_answered_from_the_runs_that_missed_a_harder_one(cli: Cli) -> None:
    missed, trained = ask(cli, "--target val_loss<=0.45")
    assert (missed["status"], missed["recipe"]) == ("target-not-reached", None)
    assert trained > 10 * TRIED
    before = files_of("out")
    found, trained = ask(cli, "--target val_loss<=0.8")
    assert (found["status"], trained < TRIED) == ("ok", True)
    after = files_of("out")
    assert {path: after[path] for path in before} == before
    assert found["verified"]["metric"] <= 0.8
    assert any("earlier questions" in note for note in found["notes"])
    assert json.loads(Path("out/plan.json").read_text(encoding="utf-8")) == found
    assert json.loads(Path("out/plans/1.json").read_text(encoding="utf-8")) == missed
    again, trained = ask(cli, "--target val_loss<=0.45")
    assert (again, trained < TRIED) == (missed, True)
    assert json.loads(Path("out/plans/2.json").read_text(encoding="utf-8")) == found
    assert [path.name for path in Path("out/plans").iterdir()] == ["2.json"]


def test_a_harder_target_goes_on_from_kept_weights_to_what_a_fresh_folder_finds(cli: Cli) -> None:
    ask(cli, "--target val_loss<=0.8")
    (reached,) = [run for run in read_runs("out") if run.result and run.result.status is RunStatus.REACHED]
    assert reached.result is not None
    shutil.copytree("out", "forgot")
    for path in Path("forgot").glob("runs/*/checkpoint.pt"):
        path.unlink()
    kept, trained = ask(cli, "--target val_loss<=0.5")
    forgot, again = ask(cli, "--target val_loss<=0.5", "forgot")
    assert kept["status"] == "ok"
    assert without_clock(kept) == without_clock(forgot)
    assert curves_of("out") == curves_of("forgot")
    went_on = [run for run in read_runs("out") if (Path("out/runs") / run.id / "result.interrupted-1.json").exists()]
    assert went_on
    assert trained < again
    assert json.loads(Path("out/questions/2/timing.json").read_text())["spent_s"] > 0


@pytest.mark.parametrize(
    ("words", "other"),
    [
        ("--target val_loss<=0.6", "--target val_score>=0.85"),
        ("--target val_loss<=0.6", "--target val_loss<=0.6 --objective examples"),
        ("--target val_loss<=0.6", "--target val_loss<=0.6 --target val_loss<=0.9 --budget 20m"),
        ("--target val_loss<=0.6", "--target val_loss<=0.6 --max-batch-size 700"),
        ("--within 2epochs", "--within 3epochs"),
        ("--within 3epochs", "--within 2epochs"),
        ("--target val_loss<=0.6 --search grid", "--target val_loss<=0.8 --search grid"),
        ("", "--target val_loss<=0.9"),
    ],
)
def test_another_question_trains_less_than_on_a_folder_of_its_own(cli: Cli, words: str, other: str) -> None:
    first, _ = ask(cli, words)
    second, trained = ask(cli, other)
    assert second["status"] == "ok"
    _, alone = ask(cli, other, "alone")
    assert trained < alone
    again, none = ask(cli, words)
    assert (without_clock(again), none < TRIED) == (without_clock(first), True)
    again, none = ask(cli, other)
    assert (without_clock(again), none < TRIED) == (without_clock(second), True)


@pytest.mark.parametrize("words", ["--current batch_size=16,lr=0.02", "--max-batch-size 64", "--schedule linear"])
def test_other_options_are_questions_of_the_same_folder(cli: Cli, words: str) -> None:
    first, _ = ask(cli, "--target val_loss<=0.6")
    second, _ = ask(cli, f"--target val_loss<=0.6 {words}")
    assert second["recipe"]
    before = files_of("out")
    assert without_clock(ask(cli, "--target val_loss<=0.6")[0]) == without_clock(first)
    assert without_clock(ask(cli, f"--target val_loss<=0.6 {words}")[0]) == without_clock(second)
    assert files_of("out") == before
    assert cli("report out").status == 0
    assert cli("runs out").status == 0


def test_another_question_that_was_killed_goes_on_to_the_same_answer(cli: Cli) -> None:
    ask(cli, "--target val_loss<=1.2")
    shutil.copytree("out", "whole")
    whole, _ = ask(cli, "--target val_loss<=0.5", "whole")
    assert curves_of("whole") != curves_of("out"), "nothing had to be trained"
    words = [*FIND.split(), "--target", "val_loss<=0.5", "--out", "out"]
    before = files_of("out")
    with subprocess.Popen([sys.executable, "-m", "batchscope", *words], stdout=-3, stderr=-3) as process:
        limit = time.monotonic() + 100
        while process.poll() is None and not set(files_of("out")) - set(before):
            assert time.monotonic() < limit
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    found, _ = ask(cli, "--target val_loss<=0.5")
    assert without_clock(found) == without_clock(whole)
    assert curves_of("out") == curves_of("whole")


def test_another_seed_or_task_is_refused_in_words_and_the_file_that_changed_named(cli: Cli) -> None:
    ask(cli, "--target val_loss<=1.2")
    other = cli(f"{FIND} --target val_loss<=1.2 --seed 1 --out out")
    assert (other.status, "its seed was 0, now 1" in other.err) == (2, True)
    Path("measure.py").write_text(MEASURE + "# changed\n", encoding="utf-8")
    changed = cli(f"{FIND} --target val_loss<=0.6 --out out")
    assert (changed.status, "its file measure.py has changed since" in changed.err) == (2, True)
    assert "{" not in changed.err


def test_the_default_folder_has_a_number_only_for_another_task_or_seed(cli: Cli) -> None:
    for words in ("--target val_loss<=1.2", "--target val_loss<=1.1", "--target val_loss<=1.2 --seed 1"):
        assert cli(f"{FIND} {words}").status == 0
    assert sorted(path.name for path in Path("batchscope-runs").iterdir()) == ["noisy-Noisy", "noisy-Noisy-2"]


def test_no_checkpoints_where_nobody_wants_them(cli: Cli) -> None:
    ask(cli, "--target val_loss<=1.2 --no-keep-checkpoints")
    assert not list(Path("out").glob("runs/*/checkpoint.pt"))
    ask(cli, "--target val_loss<=0.8 --keep-checkpoints")
    assert list(Path("out").glob("runs/*/checkpoint.pt")) or len(read_runs("out")) > 0
