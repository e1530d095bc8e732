"""The members: one declaration for the protocol, `batchscope.task` and the messages; and what may stand in each."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from functools import partial, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import batchscope
from batchscope.errors import TaskError
from batchscope.tasks.loading import as_loaded, load_task
from batchscope.tasks.members import MEMBERS, checked_factor, loss_in, wants_model
from batchscope.tasks.preflight.check import check
from batchscope.tasks.protocol import Task
from batchscope.tasks.workload import Workload

from .preflight.parts import Parts, mean_loss


def test_task_takes_every_member() -> None:
    parameters = inspect.signature(batchscope.task).parameters
    arguments = {name: each for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD}
    assert set(arguments) == {member.argument or member.name for member in MEMBERS} | {"val"}
    required = {name for name, parameter in arguments.items() if parameter.default is parameter.empty}
    assert required == {member.argument or member.name for member in MEMBERS if member.required}


def test_the_protocol_tells_of_every_member() -> None:
    documented = (Task.__doc__ or "") + "".join(vars(Task))
    assert not [m.name for m in MEMBERS if m.name != "name" and m.name not in documented]


def test_lines_are_python() -> None:
    for member in MEMBERS:
        compile(f"class A:\n    {member.line}", member.name, "exec", dont_inherit=True)
    assert {m.name: m.line for m in MEMBERS}["optimizer"] == "def optimizer(self, params, lr) -> Optimizer: ..."


class OfModel:
    def __init__(self, model: nn.Module, lr: float) -> None: ...

    def bound(self, model: nn.Module, lr: float) -> None: ...

    def of_params(self, params: Any, lr: float) -> None: ...

    @staticmethod
    def static(model: nn.Module, lr: float) -> None: ...

    def __call__(self, model: nn.Module, lr: float, weight_decay: float = 0.0) -> None: ...


def of_model(model: nn.Module, lr: float, weight_decay: float = 0.0) -> None: ...


def of_net(net: nn.Module, lr: float) -> None: ...


@wraps(of_model)
def wrapped(*args: Any, **kwargs: Any) -> None: ...


MADE = OfModel(nn.Linear(1, 1), 0.1)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (of_model, True),
        (MADE.bound, True),
        (OfModel.static, True),
        (MADE, True),
        (OfModel, True),
        (wrapped, True),
        (partial(of_model, weight_decay=0.1), True),
        (lambda model, lr: None, True),
        (of_net, False),
        (MADE.of_params, False),
        (torch.optim.SGD, False),
        (partial(torch.optim.AdamW, weight_decay=0.1), False),
        (lambda params, lr: None, False),
        (lambda lr, model: None, False),
        (lambda *args: None, False),
        (lambda: None, False),
    ],
)
def test_only_a_first_argument_called_model_is_handed_the_model(make: Any, expected: bool) -> None:
    assert wants_model(make) is expected


def test_every_kind_of_optimizer_trains() -> None:
    class Attribute(Parts):
        optimizer = torch.optim.SGD  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    class Partial(Parts):
        optimizer = partial(torch.optim.AdamW, weight_decay=0.1)  # pyright: ignore[reportAssignmentType]

    class Method(Parts):
        def optimizer(self, model: nn.Module, lr: float) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return torch.optim.SGD([{"params": model.get_parameter("weight")}, {"params": [model.bias]}], lr=lr)

    for kind in (Attribute, Partial, Method):
        assert check(Workload(kind())).notes == ()


class Pair(NamedTuple):
    logits: torch.Tensor
    loss: torch.Tensor


LOSS, LOGITS = torch.tensor(0.5), torch.zeros(4, 3)


@pytest.mark.parametrize(
    "returned",
    [
        LOSS,
        {"loss": LOSS, "logits": LOGITS},
        OrderedDict(loss=LOSS, logits=LOGITS),
        (LOSS, LOGITS),
        [LOSS, LOGITS],
        Pair(LOGITS, LOSS),
        SimpleNamespace(logits=LOGITS, loss=LOSS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_loss_is_found_in_what_models_return(returned: Any) -> None:
    assert loss_in(returned) is LOSS


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"logits": LOGITS}, r"returned a dict with logits; the scalar to train on must stand in it as 'loss'"),
        ({}, r"returned a dict with nothing; "),
        ((LOGITS, LOSS), r"returned a tuple whose first member is of shape \(4, 3\); .* return loss, or \(loss, outp"),
        ([0.5], r"returned a list whose first member is a float; the scalar to train on must come first"),
    ],
)
def test_where_there_is_no_loss_the_message_says_where_it_belongs(returned: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check(Workload(Parts(compute_loss=lambda model, batch: returned)))


def test_a_loss_beside_other_things_trains_as_the_loss_alone() -> None:
    def losses(compute: Any) -> float:
        return check(Workload(Parts(compute_loss=compute))).loss

    alone = losses(mean_loss)
    assert losses(lambda model, batch: {"loss": mean_loss(model, batch), "logits": model(batch[0])}) == alone
    assert losses(lambda model, batch: (mean_loss(model, batch), model(batch[0]))) == alone


@pytest.mark.parametrize("factor", [float("nan"), -0.1, float("inf")])
def test_factors_that_are_none(factor: float) -> None:
    with pytest.raises(TaskError, match=r"schedule\(0.25\) returned .*a finite number of at least 0"):
        checked_factor(factor, 0.25)


class Sound(Parts):
    name = "sound"


def misspelt(name: str, value: Any) -> Parts:
    made = Sound()
    vars(made)[name] = value
    return made


def clip(model: nn.Module) -> None: ...


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("befor_update", clip, "before_update"),
        ("collate_fn", list, "collate"),
        ("loss_weights", len, "loss_weight"),
        ("schedul", abs, "schedule"),
        ("lr_scheduler", abs, "schedule"),
        ("batchsize", len, "batch_size"),
        ("precison", "bfloat16", "precision"),
        ("ema_decays", 0.99, "ema_decay"),
        ("loader_option", {"num_workers": 2}, "loader_options"),
        ("num_workers", 2, "loader_options"),
        ("samplers", list, "sampler"),
    ],
)
def test_a_misspelt_member_is_noticed_and_the_suggestion_is_right(name: str, value: Any, meant: str) -> None:
    with pytest.raises(TaskError) as caught:
        as_loaded(misspelt(name, value))
    assert f"the member {name!r}, which batchscope does not know; did you mean {meant!r} (" in str(caught.value)
    assert as_loaded(misspelt(meant, value)).name == "sound"
    assert as_loaded(misspelt(f"_{name}", value)).name == "sound"


@pytest.mark.parametrize(
    ("name", "value"),
    [("samples", 100), ("precision_of", 3), ("train", [1]), ("batch", clip), ("hidden", 3), ("evaluation", clip)],
)
def test_members_of_the_users_own_are_left_alone(name: str, value: Any) -> None:
    """Values where a method is meant, words that are not near, and a near one beside the member itself (evaluate)."""
    assert as_loaded(misspelt(name, value)).name == "sound"


FILE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

class Line:
    def model(self):
        return nn.Linear(3, 1)
    def train_data(self):
        return TensorDataset(torch.zeros(8, 3), torch.zeros(8, 1))
    def loss(self, model, batch):
        return nn.functional.mse_loss(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def {name}(self, model):
        return {{"val_loss": 1.0}}

def task():
    return Line()
"""


def test_a_misspelt_method_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "misspelt_line.py").write_text(FILE.format(name="evaluation"), encoding="utf-8")
    with pytest.raises(TaskError, match=r"task\(\) in misspelt_line.py returned .*'evaluation'.*'evaluate' \(def eval"):
        load_task(str(tmp_path / "misspelt_line.py"))
    (tmp_path / "spelt_line.py").write_text(FILE.format(name="evaluate"), encoding="utf-8")
    assert load_task(str(tmp_path / "spelt_line.py")).name == "spelt_line"


@pytest.mark.parametrize("own", ["step", "train_step", "training_step", "configure_optimizers"])
def test_an_update_of_its_own_is_refused_in_one_sentence_that_says_what_to_do(own: str, tmp_path: Path) -> None:
    path = tmp_path / f"own_{own}.py"
    path.write_text(FILE.format(name=own), encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        load_task(str(path))
    message = str(caught.value)
    assert f"type Line: it has an update of its own ({own}), and" in message
    assert "loss(model, batch) and one optimizer(params, lr)" in message
    assert "parameter group" in message
    assert "Optimizer whose step() steps several" in message


def test_a_lightning_module_is_told_the_same_though_it_lacks_members(tmp_path: Path) -> None:
    text = "class Net:\n    def training_step(self, batch, i): ...\n    def configure_optimizers(self): ...\n"
    (tmp_path / "net_of_lightning.py").write_text(f"{text}\ndef task():\n    return Net()\n", encoding="utf-8")
    with pytest.raises(
        TaskError, match=r"type Net: it has an update of its own \(training_step, configure_optimizers\)"
    ):
        load_task(str(tmp_path / "net_of_lightning.py"))
    with pytest.raises(
        TaskError, match=r"the task 'sound', an object of type Sound: it has an update of its own \(step"
    ):
        as_loaded(misspelt("step", clip))
