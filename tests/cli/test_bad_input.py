"""What people get wrong, through the command as they type it: one clear message with the numbers, exit status 2."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .sound import SOUND, refused

Cli = Callable[..., Any]


def test_the_sound_task_is_answered(search: Callable[..., Any]) -> None:
    ended = search()
    assert ended.status == 0, ended.err
    assert "\nTrain with batch size " in ended.out


# --- naming the task ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("find digts", r"there is no task 'digts'; did you mean 'digits'\?"),
        ("find mine", r"there is no task 'mine'; did you mean 'mine.py'\?"),
        ("find mien.py:Sound", r"there is no file mien.py; did you mean 'mine.py'\?"),
        ("find mine.py:Sond", r"mine.py has no 'Sond'; did you mean 'Sound'\?"),
        ("find mine.py", r"mine.py does not say which factory to call: write mine.py:Sound"),
        ("find no_such_package.tasks:task", r"there is no module 'no_such_package' to import"),
        ("find mine.py:nn", r"nn in mine.py is module, which cannot be called"),
        ("find mine.py:Sound --set widht=5", r"no setting 'widht'; did you mean 'width'\?.*its settings are width"),
        ("find mine.py:Sound --set width=wide", r"--set width=wide must be a whole number"),
        ("find mine.py:Sound --set width", r"--set width is not KEY=VALUE"),
        ("find digits --set optimizer=adm", r"must be one of sgd, adamw; did you mean 'adamw'\?"),
        ("find arrays", r"arrays needs --set path=VALUE"),
        ("find arrays --set path=nowhere.npz", r"nowhere.npz"),
        ("find text --set path=nowhere.txt", r"nowhere.txt"),
        ("bench digts", r"did you mean 'digits'\?"),
        ("noise mine.py:Sond", r"did you mean 'Sound'\?"),
    ],
)
def test_a_task_that_is_not_there(cli: Cli, command: str, message: str) -> None:
    Path("mine.py").write_text(SOUND, encoding="utf-8")
    refused(cli(command), message)
    assert not Path("batchscope-runs").exists()


def test_a_factory_that_raises(search: Callable[..., Any]) -> None:
    member = "def __init__(self):\n    raise OSError('the share /data is not mounted')"
    ended = search(member)
    refused(ended, r"Mine\(\) in mine.py raised OSError: the share /data is not mounted \(mine.py, line \d+: raise")
    assert "(--debug shows where)" in ended.err
    debugged = search(member, "--debug")
    assert debugged.status == 2
    assert "Traceback (most recent call last)" in debugged.err
    assert "OSError: the share /data is not mounted" in debugged.err


# --- what the task does -------------------------------------------------------------------------------------------

DATA = "def train_data(self):\n    return "
LOSS = "def loss(self, model, batch):\n    return "
MODEL = "def model(self):\n    return "
EVALUATE = "def evaluate(self, model):\n    return "
MEAN = "F.cross_entropy(model(batch[0]), batch[1])"


@pytest.mark.parametrize(
    ("member", "message"),
    [
        pytest.param(
            f"{DATA}TensorDataset(self.x[:0], self.y[:0])", r"train_data\(\) has 0 examples; at least 2", id="empty"
        ),
        pytest.param(
            f"{DATA}TensorDataset(self.x[:1], self.y[:1])", r"train_data\(\) has 1 example; at least 2", id="one"
        ),
        pytest.param(
            f"{DATA}Stream()",
            r"is a stream \(Stream\) that ended after 0 examples",
            id="stream",
        ),
        pytest.param(
            LOSS + MEAN[:-1] + ", reduction='sum')",
            r"the loss of 16 examples is (\S+), of the same examples twice (\S+), .* grows with the batch as a sum",
            id="sum",
        ),
        pytest.param(LOSS + MEAN[:-1] + ", reduction='none')", r"shape \(16,\), not a scalar", id="no scalar"),
        pytest.param(f"{LOSS}{MEAN} / 0 * 0", r"the loss is NaN before training", id="NaN at the start"),
        pytest.param(
            f"{LOSS}{MEAN}.detach()", r"the loss \(\S+\) does not depend on the model's parameters", id="detached"
        ),
        pytest.param(f"{LOSS}0 * {MEAN}", r"does not depend on the model's parameters: all 2 parameter", id="zero"),
        pytest.param(f"{MODEL}nn.Flatten()", r"no trainable parameters \(0 parameter tensors\)", id="no parameters"),
        pytest.param(
            f"{MODEL}nn.Linear(4, 3).requires_grad_(False)",
            r"no trainable parameters \(2 parameter tensors, all with requires_grad=False\)",
            id="frozen",
        ),
        pytest.param(
            f"{DATA}TensorDataset(self.x, self.y + 1)",
            r"out of range: .*runs from 1 to 3; the model's last layer has 3 outputs \(0 to 2\)",
            id="labels",
        ),
        pytest.param(
            f"{DATA}TensorDataset(self.x.log(), self.y)",
            r"the loss is NaN before training.*training data \(shape \(120, 4\)\) holds (\d+) NaN in (\d+) of 120",
            id="NaN in the inputs",
        ),
        pytest.param(
            "def optimizer(self, params, lr):\n    return torch.optim.SGD(params, lr=0.1)",
            r"the optimizer ignores lr: asked for 0.001 its learning rate is 0.1, asked for 0.0005 it is 0.1",
            id="lr ignored",
        ),
        pytest.param(
            f"{EVALUATE}None", r"evaluate\(\) returned None; it must return a dict of numbers", id="no metrics"
        ),
        pytest.param(
            f"{EVALUATE}{{'val_loss': 'low'}}", r"returned 'low' for 'val_loss', which is not a number", id="text"
        ),
        pytest.param(f"{EVALUATE}{{'accuracy': 0.5}}", r"'?val_loss'?.*accuracy", id="no such metric"),
        pytest.param(
            f"{EVALUATE}self.missing", r"evaluate\(model\) raised AttributeError: .*mine.py, line", id="raises"
        ),
    ],
)
def test_a_task_that_breaks_a_rule(search: Callable[..., Any], member: str, message: str) -> None:
    refused(search(member), message)
    assert not list(Path("out").glob("runs/*"))


def test_the_message_lists_the_metrics_there_are(search: Callable[..., Any]) -> None:
    refused(search(target="f1>=0.9"), r"f1.*val_loss, accuracy|f1.*accuracy, val_loss")
    refused(search(target="acuracy>=0.9"), r"did you mean 'accuracy'\?")


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (
            f"{LOSS.replace('return', 'self.check()')}\n    return {MEAN}",
            r"loss\(model, batch\) raised ValueError: record 17 is broken \(mine.py, line \d+: raise ValueError",
        ),
        (
            f"{EVALUATE}self.check() or super().evaluate(model)",
            r"evaluate\(model\) raised ValueError: record 17 is broken \(mine.py, line \d+: raise ValueError",
        ),
        (
            f"{DATA}list(zip(self.x, self.y))\n"
            "def collate(self, items):\n    self.check()\n    return [torch.stack(part) for part in zip(*items)]",
            r"raised ValueError: record 17 is broken \(mine.py, line \d+: raise ValueError",
        ),
    ],
    ids=["loss", "evaluate", "collate"],
)
def test_a_task_that_fails_in_the_middle(search: Callable[..., Any], member: str, message: str) -> None:
    """It fails once a first run is finished; that run is kept."""
    check = (
        "\ndef check(self):\n    from pathlib import Path\n"
        "    if list(Path('out').glob('runs/*/result.json')):\n        raise ValueError('record 17 is broken')"
    )
    refused(search(member + check, target="val_loss<=0.4", trainings=20), message)
    runs = [path.parent for path in Path("out").glob("runs/*/config.json")]
    assert sorted((run / "result.json").exists() for run in runs) == [False, True]


# --- what is asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--target better", r"target 'better'"),
        ("--target val_loss<=small", r"'val_loss<=small'"),
        ("--target val_loss<=nan", r"'val_loss<=nan'"),
        ("--target <=0.1", r"'<=0.1'"),
        ("--target test_loss<=0.1", r"test_loss.*never used for a choice|test_loss.*reported only"),
        ("--budget soon", r"--budget 'soon' is not a length of time above zero; write for example 90s"),
        ("--budget 0", r"--budget '0' is not a length of time above zero"),
        ("--budget=-5m", r"--budget '-5m' is not a length of time above zero"),
        ("--budget -5s", r"--budget '-5s' is not a length of time above zero"),
        ("--within 200", r"--within 200 has no unit; did you mean 200s, 200epochs or 200steps\?"),
        ("--within 3 epochs", r"'epochs'.* Write --within 3epochs$"),
        ("--within -5m", r"--within '-5m' is not a length of training above zero"),
        ("--memory-limit -8GiB", r"--memory-limit '-8GiB' is not an amount of memory above zero"),
        ("--memory-limit lots", r"--memory-limit 'lots' is not an amount of memory"),
        ("--memory-limit 8", r"--memory-limit '8' is 8 bytes; so little needs a unit: write 8GiB or 8MiB"),
        ("--current batch_size=32", r"the current recipe 'batch_size=32' lacks lr"),
        ("--current batch_size=32,lr=fast", r"makes no sense: lr is fast; it must be a number above 0"),
        ("--current batch_size=0,lr=0.1", r"batch_size is 0; it must be at least 1"),
        ("--current batch_size=5000,lr=0.1", r"batch size 5000 is larger than the training set of 1437"),
        ("--max-batch-size 0", r"--max-batch-size is 0; it must be at least 1"),
        ("--trainings 0", r"--trainings is 0; it must be a number above 0"),
        ("--evaluation-share 0", r"--evaluation-share is 0%; it must be above 0 and at most 100%"),
        ("--evaluation-share 200%", r"--evaluation-share is 200%; it must be above 0 and at most 100%"),
        ("--evaluation-share a-tenth", r"--evaluation-share 'a-tenth' is not a share; write for example 10% or 0.1"),
        ("--device abacus", r"device 'abacus' cannot be used here"),
    ],
)
def test_a_question_that_makes_no_sense(cli: Cli, words: str, message: str) -> None:
    refused(cli(f"find digits {words}"), message)


def test_a_negative_length_of_a_study(cli: Cli) -> None:
    refused(cli("study digits --batch-sizes 8 --lrs 1 --time -5m"), r"--time '-5m' is not a length of time above zero")


def test_a_target_already_met(search: Callable[..., Any]) -> None:
    refused(search(target="val_loss<=50"), r"val_loss.*50.*(already|before)")
    refused(search(target="accuracy>=0"), r"accuracy.*(already|before)")


def test_a_target_never_met(search: Callable[..., Any]) -> None:
    """No error: a plan without a recipe, exit status 3, and how close it came."""
    ended = search("", "--json", "--budget", "3s", target="val_loss<=0.001")
    assert (ended.status, ended.answer["status"], ended.answer["recipe"]) == (3, "target-not-reached", None)
    kept = json.loads(Path("out/plan.json").read_text(encoding="utf-8"))
    assert kept == ended.answer
    closest = min(
        json.loads(p.read_text(encoding="utf-8"))["best"]["val_loss"] for p in Path("out").glob("runs/*/result.json")
    )
    assert f"the closest was val_loss {closest:.4g} with batch size" in kept["message"]


def test_no_time_at_all(search: Callable[..., Any]) -> None:
    ended = search("", "--json", "--budget", "0.01s", target="val_loss<=0.001")
    assert (ended.status, ended.answer["status"], ended.answer["recipe"]) == (3, "insufficient-data", None)
    assert ended.answer["target"]["metric"] == "val_loss"
    assert ended.answer["message"].startswith("the budget of 10 ms ended before anything was trained: ")
    assert re.search(r"loading the task took [\d.]+ m?s\b.* --budget \d+s or more$", ended.answer["message"])
