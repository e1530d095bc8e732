"""How long a training may be before anything is known of it, and the longest step that a bench for it need run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["TrainingGuess"]

_SHORT_S = 0.125
"""A step that takes no longer is worth running whatever a training takes."""
_SHARE_OF_TRAINING = 1 / 64
"""Of a training, that the longest step may take: the bench makes about eight of them, an eighth of a training."""


@dataclass(frozen=True, kw_only=True)
class TrainingGuess:
    """How long a training may be, before anything is known of it: a bench that serves it need not take longer.

    Attributes:
        batch_size: examples of a step.
        steps: of it.
    """

    batch_size: int
    steps: float

    def longest_step_s(self, seconds: Mapping[int, float]) -> float:
        """Seconds of the longest step that is worth running.

        Args:
            seconds: of steps, by their size. The smallest that is no smaller than the training's counts; while there
                is none, the largest, in proportion.

        >>> guess = TrainingGuess(batch_size=128, steps=100.0)
        >>> guess.longest_step_s({16: 0.001}), guess.longest_step_s({16: 0.1, 256: 0.64, 512: 2.0})
        (0.125, 1.0)
        """
        size = min((size for size in seconds if size >= self.batch_size), default=max(seconds))
        step_s = seconds[size] * max(1.0, self.batch_size / size)
        return max(_SHORT_S, _SHARE_OF_TRAINING * self.steps * step_s)
