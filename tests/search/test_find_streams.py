"""Searches on streams, on a sampler's order, on compiled models, and on models that begin at weights of a file."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import torch

from .folders import Cli, answer, configs_of

STREAM = '''
import itertools
import torch
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

class Stream(IterableDataset):
    """Examples without end, each from its number."""
    def __init__(self, end=None):
        self.end = end
    def __iter__(self):
        for number in itertools.islice(itertools.count(), self.end):
            x = torch.randn(4, generator=torch.Generator().manual_seed(number))
            yield x, x[:1] * 2 - x[1:2]

class Task:
    def __init__(self, end):
        self.data = Stream(end)
        self.x = torch.randn(200, 4, generator=torch.Generator().manual_seed(10**6))
    def model(self):
        return nn.Linear(4, 1)
    def train_data(self):
        return self.data
    def loss(self, model, batch):
        return nn.functional.mse_loss(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model):
        return {"val_loss": nn.functional.mse_loss(model(self.x), self.x[:, :1] * 2 - self.x[:, 1:2])}

def task(end: int | None = None):
    return Task(end)
'''
FIND = "find stream.py --max-batch-size 64 --target val_loss<=0.05 --budget 60s"


@pytest.fixture(autouse=True)
def stream_file(cli: Cli) -> None:
    del cli  # in its folder
    Path("stream.py").write_text(STREAM, encoding="utf-8")


def test_a_search_on_a_stream_counts_in_steps_and_examples(cli: Cli) -> None:
    ended = cli(f"{FIND} --out out")
    assert ended.status == 0, ended.err
    plan = json.loads(Path("out/plan.json").read_text(encoding="utf-8"))
    recipe = plan["recipe"]
    assert recipe["batch_size"] <= 64
    assert recipe["steps"] > 0
    assert (recipe["steps_per_epoch"], recipe["epochs"], recipe["early_stop"]["best_epoch"]) == (None, None, None)
    assert plan["predicted"]["examples_to_target"]["value"] > 0
    assert any("train_data() is a stream: there are no epochs" in note for note in plan["notes"])
    page = Path("out/report.html").read_text(encoding="utf-8")
    body = page[page.index("<body") : page.index("</body>")].replace("there are no epochs", "")
    assert " epoch" not in ended.out.replace("there are no epochs", "")
    assert " epochs" not in body
    assert "an epoch" not in body
    again = answer(cli, f"{FIND} --out out")
    assert again["recipe"] == recipe


def test_lengths_in_epochs_are_refused_with_what_to_write(cli: Cli) -> None:
    ended = cli("find stream.py --within 5epochs --out out")
    assert ended.status == 2
    assert "--within 5 epochs counts in epochs, and train_data() is a stream, which has none; write" in ended.err
    assert not list(Path("out").glob("runs/*"))


@pytest.mark.parametrize(
    "command",
    [
        "study stream.py --batch-sizes 8 --lrs 0.1 --epochs 2",
        "claims stream.py --budget 20s",
        "claims stream.py --epochs 2",
    ],
)
def test_studies_and_claims_refuse_a_stream_in_one_sentence(cli: Cli, command: str) -> None:
    ended = cli(f"{command} --out out")
    assert ended.status == 2
    assert "train_data() is a stream, and this command counts in epochs" in ended.err
    assert len(ended.err.strip().splitlines()[-1:]) == 1


def test_a_stream_that_ends_before_a_run_does_ends_the_search_with_one_message(cli: Cli) -> None:
    ended = cli(f"{FIND} --current batch_size=64,lr=0.001 --set end=4200 --out out")
    assert ended.status == 2
    assert "it ended after 4200 examples" in ended.err
    assert "let the stream begin again at its end" in ended.err


def test_bench_and_noise_take_a_stream(cli: Cli) -> None:
    assert cli("bench stream.py --max-batch-size 16 --budget 1s").status == 0
    assert cli("noise stream.py --lr 0.05 --batch-size 8 --steps 12").status == 0


# --- a sampler ----------------------------------------------------------------------------------------------------

SAMPLER = """
import torch
from stream import Task as Streaming
from torch.utils.data import TensorDataset, WeightedRandomSampler

class Task(Streaming):
    def train_data(self):
        x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
        return TensorDataset(x, x[:, :1] * 2 - x[:, 1:2])
    def sampler(self, seed):
        return WeightedRandomSampler([1.0] * 100 + [2.0] * 200, 900, generator=torch.Generator().manual_seed(seed))

def task():
    return Task(None)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("profile")
def test_steps_per_epoch_follow_from_the_length_of_the_sampler(cli: Cli) -> None:
    Path("sampled.py").write_text(SAMPLER, encoding="utf-8")
    plan = answer(cli, "find sampled.py --hardware machine.json --max-batch-size 64 --target val_loss<=0.05 --out out")
    recipe = plan["recipe"]
    assert plan["status"] == "ok"
    assert recipe["steps_per_epoch"] == pytest.approx(900 / recipe["batch_size"], abs=1.0)
    assert any("an epoch is the 900 that it yields of 300" in note for note in plan["notes"])


def test_a_study_counts_the_epochs_of_the_sampler(cli: Cli) -> None:
    Path("sampled.py").write_text(SAMPLER, encoding="utf-8")
    ended = cli("study sampled.py --batch-sizes 9,30 --lrs 0.05 --seeds 1 --epochs 2 --json --out out")
    assert [(row["steps"], row["epochs"]) for row in ended.answer["rows"]] == [(200, 2.0), (60, 2.0)]


# --- compiled models, and weights that a model begins with --------------------------------------------------------

COMPILED = """
import torch
from torch import nn
from stream import Task as Streaming
from sampled import Task as Sampled

class Task(Sampled):
    ema_decay = 0.5
    def model(self):
        return torch.compile(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), backend="aot_eager")

def task():
    return Task(None)
"""


@pytest.mark.slow
def test_a_compiled_model_is_searched_kept_and_gone_on_with(cli: Cli) -> None:
    Path("sampled.py").write_text(SAMPLER, encoding="utf-8")
    Path("compiled.py").write_text(COMPILED, encoding="utf-8")
    plan = answer(
        cli,
        "find compiled.py --max-batch-size 64 --target val_loss<=1 --trainings 2 --budget 60s",
        *("--keep-model", "m.pt", "--out", "out"),
    )
    assert plan["status"] == "ok"
    made = torch.compile(
        torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)), backend="eager"
    )
    made.load_state_dict(torch.load("m.pt"))


PRETRAINED = """
from pathlib import Path
import torch
from stream import Task as Streaming

class Task(Streaming):
    def __init__(self, weights):
        super().__init__(None)
        self.weights = weights
    def model(self):
        model = super().model()
        model.load_state_dict(torch.load(self.weights))
        return model

def task(weights: Path):
    return Task(weights)
"""


@pytest.mark.usefixtures("profile")
def test_weights_of_a_file_begin_every_run_and_are_part_of_the_task(cli: Cli) -> None:
    Path("pretrained.py").write_text(PRETRAINED, encoding="utf-8")
    torch.save(torch.nn.Linear(4, 1).state_dict(), "w.pt")
    command = "find pretrained.py --set weights=w.pt --hardware machine.json --target val_loss<=0.05 --out out"
    plan = answer(cli, command)
    assert plan["status"] == "ok"
    firsts = {
        json.loads(path.read_text(encoding="utf-8").splitlines()[0])["metrics"]["val_loss"]
        for path in Path("out").glob("runs/*/rows.jsonl")
    }
    assert len(configs_of("out")) > 1
    assert len(firsts) == 1
    torch.save(torch.nn.Linear(4, 1).state_dict(), "w.pt")
    assert cli(command).status == 2
    assert multiprocessing.active_children() == []
