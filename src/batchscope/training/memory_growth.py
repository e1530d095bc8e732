"""Growth of a process's memory while it trains a run, from which a leak in the user's code is told."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..store.attempts import Growth
from ..wording import bytes_

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from ..store.records import Row

__all__ = ["LEAST_LEAK_BYTES", "MemoryGrowth", "growth_in_words", "is_leak"]

LEAST_LEAK_BYTES = 32 * 2**20
"""Growth below it is no leak that anybody need hear of."""
_EVERY_S, _WRITTEN_EVERY_S, _WRITTEN_EVERY_BYTES = 0.02, 0.05, 16 * 2**20
_MOST_SAMPLES = 256
_FEWEST_SAMPLES = 5
_WARM = 0.1
"""Share of the samples at the beginning that do not count: libraries are loaded, caches filled."""
_PARTS, _LEAST_PART = 4, 0.1
"""Steady growth has at least this share of the whole in each of four parts of the run."""
_AT_EVALUATIONS = 0.5
"""Share of the growth over evaluations from which it counts as theirs."""


class MemoryGrowth:
    """Observer of a run that reads the memory of the process, and writes down how it grew.

    Args:
        taken_bytes: what the process has taken now.
        write: receives the step and the growth so far: twenty times a second, and whenever memory has grown by 16 MiB.
        clock: seconds since some moment.

    Cost: at most fifty readings a second, and one an evaluation.
    """

    def __init__(
        self,
        taken_bytes: Callable[[], int],
        write: Callable[[int, Growth], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.write = write
        self._taken, self._clock = taken_bytes, clock
        self._read_s = self._written_s = float("-inf")
        self._written_bytes = 0
        self._stride, self._skipped = 1, 0
        self._samples: list[tuple[int, int]] = []
        self._last, self._first_step, self._step = 0, 0, 0
        self._at_evaluations: list[int] = []

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Start from the memory that is taken before the first step."""
        del model, optimizer
        self._last = self._taken()

    def after_update(self, step: int) -> None:
        """Read the memory, unless that was a moment ago."""
        self._step = step
        self._first_step = self._first_step or step
        if (now := self._clock()) - self._read_s < _EVERY_S:
            return
        self._read_s = now
        self._take(step, self._taken())
        large = abs(self._last - self._written_bytes) >= _WRITTEN_EVERY_BYTES
        if large or now - self._written_s >= _WRITTEN_EVERY_S:
            self._written_s, self._written_bytes = now, self._last
            self.write(step, self.growth)

    def at_evaluation(self, step: int) -> Row | None:
        """Read the memory, and what the evaluation added."""
        before = self._last
        self._take(step, self._taken())
        if step:
            self._at_evaluations.append(self._last - before)
        self._read_s = float("-inf")
        return None

    @property
    def growth(self) -> Growth:
        """The growth so far."""
        grown = self._samples[-1][1] - self._samples[0][1] if self._samples else 0
        theirs = sum(self._at_evaluations)
        of_evaluations = grown > 0 and theirs >= _AT_EVALUATIONS * grown
        levels = _sums(self._at_evaluations) if of_evaluations else [taken for _, taken in self._samples]
        return Growth(
            steps=self._step - self._first_step,
            evaluations=len(self._at_evaluations),
            grown_bytes=grown,
            at_evaluations_bytes=theirs,
            steady=_steady(levels),
        )

    def _take(self, step: int, taken: int) -> None:
        self._last = taken
        self._skipped += 1
        if self._skipped < self._stride and self._samples:
            self._samples[-1] = (step, taken)
            return
        self._skipped = 0
        self._samples.append((step, taken))
        if len(self._samples) > _MOST_SAMPLES:
            self._samples = [*self._samples[:-1:2], self._samples[-1]]
            self._stride *= 2


def is_leak(growth: Growth | None) -> bool:
    """Whether memory grew without end: by much, and from the beginning to the end."""
    return growth is not None and growth.steady and growth.grown_bytes >= LEAST_LEAK_BYTES


def growth_in_words(growth: Growth) -> str:
    """Growth by step or by evaluation, with what is measured.

    >>> growth_in_words(Growth(steps=100, evaluations=4, grown_bytes=2**28, at_evaluations_bytes=0, steady=True))
    'memory grew by 2.56 MiB a step (256 MiB over 100 steps)'
    """
    whole = bytes_(growth.grown_bytes)
    if growth.evaluations and growth.at_evaluations_bytes >= _AT_EVALUATIONS * growth.grown_bytes:
        each = bytes_(growth.at_evaluations_bytes / growth.evaluations)
        return f"memory grew by {each} an evaluation ({whole} over {growth.evaluations} evaluations)"
    each = bytes_(growth.grown_bytes / max(1, growth.steps))
    return f"memory grew by {each} a step ({whole} over {growth.steps} steps)"


def _steady(levels: Sequence[int]) -> bool:
    """Whether levels rise in each part of their time."""
    levels = levels[int(_WARM * len(levels)) :]
    if len(levels) < _FEWEST_SAMPLES:
        return False
    marks = [levels[round(part * (len(levels) - 1) / _PARTS)] for part in range(_PARTS + 1)]
    whole = marks[-1] - marks[0]
    return whole > 0 and all(later - before >= _LEAST_PART * whole for before, later in itertools.pairwise(marks))


def _sums(parts: Sequence[int]) -> list[int]:
    total, sums = 0, list[int]()
    for part in parts:
        total += part
        sums.append(total)
    return sums
