"""Per-example norms beside those of Opacus, an implementation of its own."""

from __future__ import annotations

import copy
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.live.sources.per_example import PerExampleSource
from batchscope.live.window import Window

pytest.importorskip("opacus", reason="needs opacus: pip install 'batchscope[integrations]'")

from opacus.grad_sample import GradSampleModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:opacus"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:opacus"),
]


class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(9, 6), nn.LayerNorm(6)
        self.conv, self.scale, self.head = nn.Conv1d(6, 4, 3, padding=1), nn.RMSNorm(4), nn.Linear(4, 9)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.words(ids)).mT
        return self.head(self.scale(F.gelu(self.conv(x)).mT)).mean(1)


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 4, 2, stride=2), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(32, 9))


def images() -> nn.Module:
    first = (nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.GroupNorm(1, 4), nn.ReLU())
    return nn.Sequential(*first, nn.Conv2d(4, 8, 3, stride=2, dilation=2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 9))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "vectors": (lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 9)), lambda: torch.randn(7, 5)),
    "images": (images, lambda: torch.randn(7, 2, 8, 8)),
    "volumes": (volumes, lambda: torch.randn(7, 1, 4, 4, 4)),
    "sequences": (Sequences, lambda: torch.randint(9, (7, 10))),
}


@pytest.mark.parametrize("case", CASES)
def test_same_statistic_as_per_sample_gradients_of_opacus(case: str) -> None:
    torch.manual_seed(0)
    make, draw = CASES[case]
    model, x, y = make(), draw(), torch.randint(9, (7,))
    theirs: Any = GradSampleModule(copy.deepcopy(model), loss_reduction="mean")
    F.cross_entropy(theirs(x), y).backward()
    each = torch.cat([p.grad_sample.flatten(1) for p in theirs.parameters()], dim=1).double()

    source = PerExampleSource()
    source.attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
    F.cross_entropy(model(x), y).backward()
    row = source.take(Window(step=0, examples_before=0, batch_size=7))
    assert row is not None
    assert source.left_out == {}
    assert row["mean_square_norm"] == pytest.approx(float(each.square().sum(1).mean()), rel=1e-5)
    assert row["square_norm_of_mean"] == pytest.approx(float(each.mean(0).square().sum()), rel=1e-5)


@pytest.mark.parametrize("way", ["Opacus, per-sample gradients", "Opacus, ghost norms"])
def test_benchmark_times_the_same_two_norms_in_both(way: str) -> None:
    """It compares them before it times anything, and raises where they differ."""
    script = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "live" / "overhead.py"))
    for case in script["CASES"]:
        cost = script["by_opacus"](case, script["opacus_ways"]()[way], seconds=0.0, block=0.0)
        assert cost.pairs == 3
