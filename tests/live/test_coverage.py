"""Truth of the whole: bias and interval coverage of readings, in real training loops whose noise is known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from batchscope.fits.noise_scale import Readings
from batchscope.live.monitor import NoiseMonitor
from batchscope.live.sources import CANDIDATES
from batchscope.testing.known_noise import KNOWN, Known, Read, read_by_command, read_by_monitor

PARTS = {"micro-batches": 2, "split": 1, "per-example": 1}
"""Sources that give a number in one process, and the backward passes of a step with them."""
SOURCES = [candidate.name for candidate in CANDIDATES if candidate.name in PARTS]


def clip(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"before_step": clip},
    "gradient scaler": {"scale": 1024.0},
    "layers": {"layers": True},
}


def in_standard_errors(found: list[Read], key: str, at: int) -> float:
    differences = [getattr(read, key) - read.truth[at] for read in found]
    return float(np.mean(differences) / (np.std(differences, ddof=1) / math.sqrt(len(differences))))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("source", SOURCES)
def test_signal_and_noise_are_unbiased_on_fixed_weights(source: str, setting: str) -> None:
    """Against the closed form in float64; every fresh seed has weights of its own."""
    known = Known(kind="regression", lr=0.0, steps=15)
    parts = PARTS[source]
    found = [read_by_monitor(known, seed=s, source=source, parts=parts, **SETTINGS[setting]) for s in range(8)]
    assert abs(in_standard_errors(found, "signal", 0)) < 3
    assert abs(in_standard_errors(found, "noise", 1)) < 3
    assert all(read.gradient_noise_scale.n >= known.steps - 3 for read in found)


@pytest.mark.parametrize("weighted", [False, True], ids=["examples", "tokens"])
def test_micro_batches_of_unequal_size_are_unbiased(weighted: bool) -> None:
    """Windows of 4 and 12 examples, and of as many with 1 to 4 terms each, against per-example gradients."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    model = nn.Linear(5, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(weights)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    population = torch.randn(4000, 5, generator=generator, dtype=torch.float64)
    terms = torch.randint(1, 5, (4000,), generator=generator).double() if weighted else torch.ones(4000).double()
    target = torch.randn(4000, 1, generator=generator, dtype=torch.float64)

    def gradients(index: Tensor) -> Tensor:
        return (population[index] @ weights.T - target[index]) * population[index]

    everything = gradients(torch.arange(4000))
    mean = (terms[:, None] * everything).sum(0) / terms.sum()
    trace = float((terms.square()[:, None] * (everything - mean).square()).sum() / 4000 / terms.mean() ** 2)
    with NoiseMonitor(model, optimizer, batch_size=16, clock=lambda: 0.0) as monitor:
        for _ in range(900):
            index = torch.randint(4000, (16,), generator=generator)
            whole = terms[index].sum()
            for part in (index[:4], index[4:]):
                monitor.micro_batch(examples=len(part), weight=float(terms[part].sum()))
                loss = 0.5 * (model(population[part]) - target[part]).square().squeeze(-1)
                ((terms[part] * loss).sum() / whole).backward()
            optimizer.step()
            optimizer.zero_grad()
        readings = Readings.of(monitor.state_dict()["rows"])
    for values, exact in ((readings.square, float(mean.square().sum())), (readings.trace, trace)):
        error = float(values.std()) / math.sqrt(readings.n)
        slack = 0.05 * abs(exact) if weighted else 0.0  # of a ratio, up to 1 ÷ the examples of a group
        assert abs(float(values.mean()) - exact) < 3 * error + slack


def covered(read: Callable[[int], Read], seeds: int) -> float:
    return sum(read(seed).covered for seed in range(seeds)) / seeds


@pytest.mark.parametrize("source", SOURCES)
def test_intervals_of_some_readings_cover(source: str) -> None:
    """The short form: 20 seeds, of which a coverage of 0.90 leaves out 6 once in 100 times; the long form is slow."""
    known = KNOWN["regression, fast"]
    assert covered(lambda seed: read_by_monitor(known, seed=seed, source=source, parts=PARTS[source]), 20) >= 0.7


def test_intervals_of_some_commands_cover() -> None:
    assert covered(lambda seed: read_by_command(KNOWN["regression, fast"], seed=seed), 15) >= 0.66


_SEEDS = {"split": 60}
"""A split step is dear; `benchmarks/live/coverage.py` has 200 seeds of each."""
_LEAST_COVERED = {"split": 0.8, "per-example": 0.8}
"""Per-example norms cover 83 % on three of the trainings: signal and noise of a row come from the same examples."""


_APPLIES = [(n, s) for n, k in KNOWN.items() for s in SOURCES if (k.kind, s) != ("quadratic", "per-example")]
"""The quadratic has no layer whose per-example norms there is a rule for."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "source"), _APPLIES)
def test_intervals_of_readings_cover(name: str, source: str) -> None:
    seeds = _SEEDS.get(source, 200)
    found = [read_by_monitor(KNOWN[name], seed=s, source=source, parts=PARTS[source]) for s in range(seeds)]
    assert _LEAST_COVERED.get(source, 0.85) <= sum(read.covered for read in found) / seeds <= 0.97
    assert abs(in_standard_errors(found, "signal", 0)) < 3
    assert abs(in_standard_errors(found, "noise", 1)) < 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["regression, slow", "regression, fast"])
def test_intervals_of_the_command_cover(name: str) -> None:
    assert 0.85 <= covered(lambda seed: read_by_command(KNOWN[name], seed=seed), 200) <= 0.95
