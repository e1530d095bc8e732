"""What a program must know of a task is read off the task as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from batchscope.store.records import TaskProgram
from batchscope.tasks.loading import as_loaded, load_task
from batchscope.tasks.members import MEMBERS
from batchscope.tasks.program import program_of
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

OWN = """
import enum
from pathlib import Path
from torch import nn, randn
from torch.nn import functional as F
from torch.optim import SGD

class Kind(enum.Enum):
    SMALL = 1
    LARGE = 2

class Own:
    def __init__(self, size: int = 3, kind: Kind = Kind.SMALL, path: Path = Path("x"), sizes: list[int] = (),
                 name: str = "it's"):
        self.loader_options = {"num_workers": 0, "pin_memory": False}
    def model(self):
        return nn.Linear(3, 1)
    def train_data(self):
        return [(randn(3), randn(1)) for _ in range(40)]
    def loss(self, model, batch):
        return F.mse_loss(model(batch[0]), batch[1]), "more"
    def optimizer(self, model, lr):
        return SGD(model.parameters(), lr=lr)
"""


def looked_at(spec: str, *settings: str) -> TaskProgram:
    loaded = load_task(spec, settings)
    return program_of(loaded, Workload(loaded.task), seed=3, largest_micro_batch=8)


def made(**members: Any) -> TaskProgram:
    x = torch.arange(1, 301).float()[:, None]
    parts: dict[str, Any] = {
        "model": lambda: nn.Linear(1, 1),
        "train": TensorDataset(x, x),
        "loss": lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
        "optimizer": lambda params, lr: torch.optim.SGD(params, lr=lr),
    }
    loaded = as_loaded(task(**(parts | {"name": "made"} | members)))
    return program_of(loaded, Workload(loaded.task), seed=0, largest_micro_batch=16)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("own_program.py").write_text(OWN, encoding="utf-8")
    return "own_program.py:Own"


def test_a_task_in_a_file(own: str) -> None:
    found = looked_at(own, "size=4", "kind=LARGE", "path=data/x.npz", "sizes=1,2", "name=it's")
    assert found.spec == own
    assert found.arguments == {
        "size": "4",
        "kind": "Kind.LARGE",
        "path": 'Path("data/x.npz")',
        "sizes": "[1, 2]",
        "name": '"it\'s"',
    }
    assert found.imports == ("from own_program import Kind", "from pathlib import Path")
    assert (found.optimizer_takes_model, found.loss_at, found.loading) == (True, "[0]", "examples")
    assert (found.members, found.loader_options) == (("loader_options",), {})
    assert (found.held_back, found.seed, found.device, found.tokens_per_example) == (4, 3, "cpu", None)


def test_settings_that_were_not_given_are_left_to_the_factory(own: str) -> None:
    assert looked_at(own).arguments == {}


def test_a_built_in_task() -> None:
    found = looked_at("digits", "optimizer=adamw")
    assert (found.spec, found.arguments, found.loading) == ("digits", {"optimizer": '"adamw"'}, "tensors")
    assert (found.loss_at, found.optimizer_takes_model, found.held_back) == ("", False, 0)


def test_a_task_made_in_python() -> None:
    def loss(model: nn.Module, batch: Any) -> Any:
        return {"loss": F.mse_loss(model(batch[0]), batch[1]), "more": 1}

    found = made(loss=loss, ema_decay=0.9, precision="bfloat16", before_update=lambda model: None)
    assert (found.spec, found.loss_at, found.ema_decay, found.precision) == ("", '["loss"]', 0.9, "bfloat16")
    assert set(found.members) == {"before_update", "precision", "ema_decay"}
    assert set(found.members) < {member.name for member in MEMBERS}


def test_tokens_are_the_mean_weight_of_an_example() -> None:
    """Of the numbers 1 to 270 (the others are held back for evaluation) the mean is about 150."""
    found = made(loss_weight=lambda batch: batch[0].sum())
    assert found.tokens_per_example == pytest.approx(150.5, rel=0.1)


def test_the_callers_random_state_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    made(loss_weight=lambda batch: 1.0)
    assert torch.equal(before, torch.get_rng_state())
