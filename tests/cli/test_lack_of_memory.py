"""A task that needs more memory than there is ends in one message that says where, and in no traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .sound import SOUND, refused

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bound is that of Linux")

TASK = f"""{SOUND}

def use_up(way):
    import numpy as np
    if way == "torch":
        return torch.ones(10**12)
    if way == "numpy":
        return np.ones(10**12)
    held = []
    while True:
        held.append([0] * 10**7)

class Large(Sound):
    def __init__(self, place="", way="torch"):
        super().__init__()
        self.place, self.way = place, way
        if place == "factory":
            use_up(way)

    def at(self, place):
        if self.place == place:
            use_up(self.way)

    def model(self):
        self.at("model")
        return super().model()

    def train_data(self):
        self.at("data")
        return super().train_data()

    def loss(self, model, batch):
        self.at("loss")
        return super().loss(model, batch)

    def optimizer(self, params, lr):
        self.at("optimizer")
        return super().optimizer(params, lr)

    def evaluate(self, model):
        self.at("evaluation")
        return super().evaluate(model)
"""


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """Half a gibibyte more than this process has, so that no test takes the machine's."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    lines = Path("/proc/self/status").read_text().splitlines()
    taken = next(int(line.split()[1]) for line in lines if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (taken * 1024 + 2**29, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.parametrize(
    ("place", "way", "said"),
    [
        ("factory", "numpy", r"Large\(\) in large\.py needs more memory than is free.*asked for.*mmap_mode"),
        ("data", "list", r"train_data\(\) needs more memory than is free.*are free.*mmap_mode"),
        ("model", "torch", r"model\(\) needs more memory than is free.*asked for.*smaller model"),
        ("optimizer", "numpy", r"optimizer\(params, lr\) needs more memory.*smaller model"),
        ("loss", "list", r"loss\(model, batch\) needs more memory.*smaller model"),
        ("evaluation", "torch", r"evaluate\(model\) needs more memory.*evaluate in smaller parts"),
    ],
)
def test_where_memory_runs_out(cli: Any, profile: Path, place: str, way: str, said: str) -> None:
    Path("large.py").write_text(TASK, encoding="utf-8")
    refused(cli("find large.py:Large --hardware", profile, *f"--set place={place} --set way={way}".split()), said)


@pytest.mark.parametrize("command", ["bench", "noise", "claims", "study"])
def test_every_command_that_measures(cli: Any, command: str) -> None:
    Path("large.py").write_text(TASK, encoding="utf-8")
    options = {"study": "--batch-sizes 8 --lrs 0.1"}.get(command, "")
    ended = cli(f"{command} large.py:Large --set place=model {options} --json")
    assert ended.status == 2
    assert ended.answer["error"] == "OutOfMemory"
    assert "model() needs more memory" in ended.answer["message"]


def test_a_built_in_network_that_is_too_large_and_the_advice_followed(cli: Any, profile: Path) -> None:
    refused(cli("find digits --set hidden=1e9 --dry-run --hardware", profile), r"model\(\) needs more memory.*smaller")
    assert cli("find digits --set hidden=64 --dry-run --hardware", profile).status == 0
