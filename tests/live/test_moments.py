"""Adam's moments as a hint at the noise scale: right where gradients do not move, and tagged as biased."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from batchscope import NoiseMonitor
from batchscope.fits.noise_scale import Readings
from batchscope.live.sources.moments import MomentSource
from batchscope.live.window import Window
from batchscope.store.records import Row

BATCH = 16
SIGNAL, NOISE = 0.3, 40.0
"""|G|² and tr(Σ) of the gradients that are drawn."""


class Constant(nn.Module):
    """Parameters whose gradient is drawn: `G` plus noise of a batch, whatever their values."""

    def __init__(self, size: int = 400) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.zeros(size // 2)), nn.Parameter(torch.zeros(size // 2))

    def draw(self) -> None:
        for parameter in self.parameters():
            size = 2 * parameter.numel()
            noise = torch.randn_like(parameter) * math.sqrt(NOISE / BATCH / size)
            parameter.grad = noise + math.sqrt(SIGNAL / size)


def stands_still() -> float:
    """Clock by which nothing costs anything, so that every window is measured."""
    return 0.0


def window(**facts: Any) -> Window:
    return Window(**{"step": 0, "examples_before": 0, "batch_size": BATCH, **facts})


def train(model: Constant, optimizer: Optimizer, steps: int) -> None:
    for _ in range(steps):
        model.draw()
        optimizer.step()


def take(model: nn.Module, optimizer: Optimizer, **options: Any) -> tuple[MomentSource, Row | None]:
    source = MomentSource(**options)
    source.attach(model, optimizer)
    return source, source.take(window())


@pytest.mark.parametrize(
    ("kind", "betas", "steps"),
    [
        (torch.optim.Adam, (0.9, 0.999), 30),
        (torch.optim.AdamW, (0.8, 0.9), 12),
        (torch.optim.NAdam, (0.9, 0.99), 3),
        (torch.optim.RAdam, (0.9, 0.99), 2),
    ],
)
def test_gradients_that_do_not_move(kind: Any, betas: tuple[float, float], steps: int) -> None:
    torch.manual_seed(0)
    found: list[Row] = []
    for _ in range(40):
        model = Constant()
        optimizer = kind(model.parameters(), lr=1e-3, betas=betas)
        train(model, optimizer, steps)
        _, row = take(model, optimizer)
        assert row is not None
        found.append(row)
    readings = Readings.of(found)
    for values, truth in ((readings.trace, NOISE), (readings.square, SIGNAL)):
        assert abs(values.mean() - truth) < 3 * values.std() / math.sqrt(len(found))
    assert all(row["biased"] for row in found)


def test_layers_add_up() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
    _, row = take(model, optimizer, layers=True)
    assert row is not None
    assert row["layers"].keys() == {"0", "1"}
    for place, key in enumerate(("mean_square_norm", "square_norm_of_mean")):
        assert math.isclose(sum(pair[place] for pair in row["layers"].values()), row[key])


def test_optimizer_without_moments_says_so() -> None:
    model = Constant()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer, 3)
    source, row = take(model, optimizer)
    assert row is None
    assert source.reason == "SGD keeps no exp_avg and exp_avg_sq of whole parameters"
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.0, 0.99))
    train(model, optimizer, 3)
    source, row = take(model, optimizer)
    assert row is None
    assert "the betas are (0, 0.99)" in source.reason


def test_first_step_tells_nothing() -> None:
    model = Constant()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 1)
    source, row = take(model, optimizer)
    assert row is None
    assert "one step" in source.reason
    train(model, optimizer, 1)
    assert source.take(window()) is not None


def test_moments_that_are_not_finite_give_no_row() -> None:
    model = Constant()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 2)
    model.first.grad = torch.full_like(model.first, math.nan)
    optimizer.step()
    source, row = take(model, optimizer)
    assert row is None
    assert source.reason == "a moment of the optimizer is not finite"


def test_monitor_gives_a_hint_without_an_interval() -> None:
    torch.manual_seed(0)
    model = Constant()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with NoiseMonitor(model, optimizer, batch_size=BATCH, source="moments", layers=True, clock=stands_still) as monitor:
        train(model, optimizer, 30)
        reading = monitor.read()
    scale = reading.gradient_noise_scale
    assert scale.value is not None
    assert 0.5 < scale.value / (NOISE / SIGNAL) < 2
    for each in (scale, reading.signal, reading.noise, *reading.layers.values()):
        assert (each.low, each.high) == (None, None)
    assert "biased" in reading.source
    assert any("biased" in note for note in reading.notes)


def test_monitor_measures_per_example_norms_and_names_what_they_cover() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.PReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with NoiseMonitor(model, optimizer, batch_size=32, clock=stands_still) as monitor:
        for _ in range(12):
            optimizer.zero_grad()
            model(torch.randn(32, 4)).square().mean().backward()
            optimizer.step()
        reading = monitor.read()
    assert reading.source == "per-example norms (98 % of the parameters)"
    assert reading.notes == ("per-example norms leave out 1.weight (there is no rule for PReLU)",)
    assert reading.passed_over.keys() >= {"micro-batches"}
    assert reading.gradient_noise_scale.low is not None
    assert reading.reason == ""
