"""The monitor's account of its own time, with a clock that the tests move."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from batchscope import NoiseMonitor
from batchscope.live.overhead import Overhead

from .trainings import cut, examples, mean_loss, mlp, rows


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def windows(
    overhead: Overhead, clock: Clock, *, count: int, own: float, plain: float = 1e-5, hidden: float = 0.0
) -> list[bool]:
    """Which windows of a second each were measured; `hidden` is what a measured one takes outside the hooks."""
    measured: list[bool] = []
    for _ in range(count):
        measured.append(overhead.may_measure())
        clock.now += 1.0 + hidden * measured[-1]
        with overhead.own():
            clock.now += own if measured[-1] else plain
        overhead.window_ended(measured=measured[-1])
    return measured


@pytest.mark.parametrize(("share", "own"), [(0.01, 0.3), (0.01, 3.0), (0.05, 0.3), (0.01, 0.004)])
def test_it_stays_below_its_share_and_uses_it(share: float, own: float) -> None:
    clock = Clock()
    overhead = Overhead(share, clock=clock)
    measured = windows(overhead, clock, count=4000, own=own)
    assert measured[:2] == [True, True]
    assert overhead.ratio <= share
    most = min(4000.0, share * 4000 / own)
    assert 0.9 * most - 2 <= sum(measured) <= 1.1 * most + 2


def test_the_ratio_is_that_of_the_clock() -> None:
    clock = Clock()
    overhead = Overhead(1.0, clock=clock)
    assert overhead.ratio == 0
    windows(overhead, clock, count=101, own=0.25)
    assert overhead.ratio == pytest.approx(101 * 0.25 / (100 * 1.25))


def test_measured_windows_that_take_longer_than_the_hooks_say() -> None:
    """Work that an accelerator does later: known from the comparison with other windows."""
    clock = Clock()
    overhead = Overhead(0.01, clock=clock, compare=True)
    measured = windows(overhead, clock, count=4000, own=0.01, hidden=0.5)
    assert sum(measured) * 0.51 / 4000 <= 0.0125
    assert sum(measured) > 50


def test_a_pause_is_no_training_time() -> None:
    clock = Clock()
    overhead = Overhead(0.01, clock=clock)
    windows(overhead, clock, count=500, own=0.5)
    clock.now += 10_000
    assert sum(windows(overhead, clock, count=20, own=0.5)) <= 1
    assert overhead.ratio <= 0.01


def test_time_in_nested_calls_counts_once() -> None:
    clock = Clock()
    overhead = Overhead(1.0, clock=clock)
    overhead.window_ended(measured=False)
    clock.now = 1.0
    with overhead.own(), overhead.own():
        clock.now = 1.5
    clock.now = 2.0
    overhead.window_ended(measured=True)
    assert overhead.ratio == pytest.approx(0.25)


def test_a_monitor_thins_itself_out() -> None:
    """A training in which each micro-batch takes a second, and the monitor's clock ticks whenever it is asked."""
    clock = Clock()

    def ticking() -> float:
        clock.now += 0.01
        return clock.now

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with NoiseMonitor(model, optimizer, batch_size=12, share=0.02, clock=ticking) as monitor:
        hooked = 0
        for _ in range(150):
            hooked += bool(model[0].weight._backward_hooks)  # pyright: ignore
            for part in cut(examples(12), [4, 4, 4]):
                clock.now += 1.0
                (mean_loss(model, part) / 3).backward()
            optimizer.step()
            optimizer.zero_grad()
        reading = monitor.read()
    assert hooked == len(rows(monitor)) < 40
    assert reading.gradient_noise_scale.n == hooked > 4
    assert 0.005 < reading.overhead <= 0.02


def test_an_unmeasured_step_leaves_nothing_in_the_model() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = NoiseMonitor(model, optimizer, batch_size=12, share=1e-9)
    for _ in range(3):
        for part in cut(examples(12), [4, 4, 4]):
            (mean_loss(model, part) / 3).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not any(p._backward_hooks for p in model.parameters())  # pyright: ignore
    assert not any(m._forward_pre_hooks for m in model.modules() if isinstance(m, nn.Module))  # pyright: ignore
    monitor.close()
