"""Records of what is measured before training: device, memory and time of a step, learning rate range, clock."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .schema import SCHEMA

__all__ = [
    "Bench",
    "Environment",
    "HardwareProfile",
    "MemorySplit",
    "RateRange",
    "Reading",
    "Timing",
]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Reading of one micro-batch size on one device: the time of a step and the memory it needs."""

    micro_batch_size: int
    step_time_s: float | None
    """A whole step as the training loop has it: computing (by `step_time_method`) and waiting for its batch."""
    step_time_mad_s: float | None = None
    """Median absolute deviation of the computing."""
    step_time_median_s: float | None = None
    step_time_low_s: float | None = None
    """20th percentile of the computing; with `step_time_median_s`, whichever of the two is the step time."""
    step_time_method: str = ""
    """How the computing follows from the timed steps: their median, or on a busy machine their 20th percentile."""
    steps_timed: int = 0
    compute_time_s: float | None = None
    """A step whose batch is there; `None` where it was not timed apart."""
    loading_time_s: float | None = None
    """A batch of this size at the loader's pace when nothing is computed; 0 where it is too little to count."""
    gradient_time_s: float | None = None
    """The forward and backward part alone: what one more accumulation step costs."""
    num_threads: int | None = None
    """Threads of torch that computing was timed with, the faster of one and all; `None`: not on a CPU, or unknown."""
    peak_memory_bytes: int | None = None
    memory_method: str = ""


@dataclass(frozen=True, kw_only=True)
class MemorySplit:
    """Bytes of one training step, by what they hold."""

    weights: int
    gradients: int
    optimizer_state: int
    activations_per_example: float
    optimizer_step_extra: int
    other: int = 0


@dataclass(frozen=True, kw_only=True)
class HardwareProfile:
    """Device as a search sees it: step time and peak memory against micro-batch size, and the memory it has."""

    name: str
    step_time_s: tuple[tuple[int, float], ...]
    peak_memory_bytes: tuple[tuple[int, float], ...] = ()
    capacity_bytes: int | None = None
    loading_time_s: tuple[tuple[int, float], ...] = ()
    """Loading a batch; `step_time_s` is the whole step, waiting for its batch included."""
    num_threads: tuple[tuple[int, int], ...] = ()
    """Threads of torch to take a step of each size with, on a CPU; empty: not on one, or unknown."""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measurements of the hardware before training: memory and step time, and how far they reach."""

    profile: HardwareProfile
    readings: tuple[Reading, ...]
    split: MemorySplit | None
    largest_micro_batch_size: int
    largest_verified: bool
    """Whether one real step was run at that size."""
    smallest_micro_batch_size: int = 1
    limit_bytes: int | None = None
    memory_bound: bool = False
    """Whether memory, rather than the data set or `--max-batch-size`, sets the largest size."""
    device_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    disturbance: str = ""
    """One of the notes: that the machine was busy while steps were timed, and what was done; empty: it was quiet."""
    loader_workers: int = 0
    """Processes that load batches while others are computed with; 0: a step waits for its batch."""
    loader_options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of a `DataLoader` that loads at that pace."""
    in_training: tuple[tuple[int, float], ...] = ()
    """Batch sizes, and the time of a step in a training over the measured one, by the clocks of runs; empty: none."""
    in_memory: bool = False
    """Whether batches are cut from tensors in memory, instead of collating one example after another."""
    cut_short: bool = False
    """Whether the budget of the command left out larger sizes, or further rounds."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Machine and versions with which a measurement was made."""

    batchscope: str
    python: str
    torch: str | None
    numpy: str
    platform: str
    device: str
    device_name: str
    cpu_count: int
    threads: int


_CEILING_ABOVE_BEST = 12.0
_LEAST_LR = 1e-30
"""As the inverse of the largest learning rate: between them, and no further, learning rates are looked at."""
_LEAST_FACTOR, _MOST_FACTOR = 1.001, 1e6
"""Of what a range test can be unsure by; with more, or with less, no search would come to an end."""


@dataclass(frozen=True, kw_only=True)
class RateRange:
    """Range test of the learning rate, which was doubled every step until training broke or the loss fell no longer.

    Raises:
        ValueError: numbers that no test gives.
    """

    batch_size: int
    ceiling_lr: float
    """Learning rate at which the loss left its range, or the last one tried."""
    broke: bool
    normalised: bool
    """Whether the size of an update is independent of the gradient's, as with Adam."""
    lrs: tuple[float, ...]
    losses: tuple[float | None, ...]
    steps: int
    expected_lr: float | None = None
    """The best learning rate at this batch size, as the test and the optimizer's class have it; `None`: a twelfth of
    the ceiling."""
    expected_factor: float = 4.0
    """One standard deviation of its logarithm, as a factor."""
    tested_batch_size: int | None = None
    """Batch size of the test's steps, ceiling and losses, which is larger than a small one; `None`: the same."""
    cut_short: bool = False
    """Whether the budget of the command ended it."""

    def __post_init__(self) -> None:
        tested = self.tested_batch_size
        if self.batch_size < 1 or self.steps < 0 or (tested is not None and tested < 1):
            raise ValueError(f"batch sizes {self.batch_size} and {tested}, and {self.steps} steps, cannot be")
        for name, lr in (("ceiling_lr", self.ceiling_lr), ("expected_lr", self.expected_lr)):
            if lr is not None and not _LEAST_LR <= lr <= 1 / _LEAST_LR:
                raise ValueError(f"{name} is {lr:.3g}, not from {_LEAST_LR:g} to {1 / _LEAST_LR:g}")
        if not _LEAST_FACTOR <= self.expected_factor <= _MOST_FACTOR:
            least, most = _LEAST_FACTOR, _MOST_FACTOR
            raise ValueError(f"expected_factor is {self.expected_factor:.6g}, not from {least:g} to {most:g}")
        if len(self.lrs) != len(self.losses) or any(a >= b for a, b in itertools.pairwise((0.0, *self.lrs))):
            raise ValueError(f"lrs are not {len(self.losses)} positive numbers, each larger than the one before")

    @property
    def examples(self) -> int:
        """Training examples that the test saw."""
        return self.steps * (self.tested_batch_size or self.batch_size)

    @property
    def best_lr(self) -> float:
        """The best learning rate as it is expected before any run."""
        return self.expected_lr or self.ceiling_lr / _CEILING_ABOVE_BEST

    @property
    def highest_lr(self) -> float:
        """The highest learning rate that is worth a run: above it training breaks, or is expected to gain nothing."""
        return _CEILING_ABOVE_BEST * self.best_lr

    @property
    def pilot_lr(self) -> float:
        """Learning rate at which a first run will train: the expected best one, to three digits."""
        return float(f"{self.best_lr:.3g}")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Times that a search measured on this machine; kept, so that a resumed search decides as before."""

    evaluation_s: float
    budget_s: float
    """The first one, however long the search goes on later."""
    step_s: float
    """One training step at a typical batch size on this machine, which may not be the one that the answer is for."""
    step_batch_size: int = 128
    """That batch size."""
    spent_s: float = 0.0
    given_s: float = 0.0
    """The largest budget within which the search has come to an end."""
