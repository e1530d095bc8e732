"""One run of a user's script in its own trainer, by the wall clock; nothing of batchscope is imported.

    python benchmarks/trainers/own.py plain_gpt --target "val_loss<=2" --batch-size 16 --lr 0.003 --seed 1

A script has `train(batch_size, lr, seed, steps, every, watch)` and tells `watch` when its training begins, when it
validates and what came out; it stops when `watch` says so. What is not given is the script's own default. One JSON
object is printed: `seconds_to_target`, the wall time of training from its first step, validations apart; `step_s`, the
median over the stretches between two validations; the curve of the validations. Between two of them the metric is taken
as straight in the logarithm of the step, and the clock in the step, as `benchmarks/real/loop.py` does.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE / "scripts"), str(HERE.parent / "real")]

from loop import first_at_target, parse_target  # noqa: E402

__all__ = ["Watch", "main", "run"]


class Watch:
    """The clock of a training, and its validations.

    Args:
        target: the value to reach.
        rising: whether the metric must rise to it.
        max_seconds: of training, when it is given up.
        clock: seconds; another one in tests.
    """

    def __init__(
        self, target: float, *, rising: bool, max_seconds: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._target, self._rising, self._max, self._clock = target, rising, max_seconds, clock
        self._began = self._paused_at = 0.0
        self._paused = 0.0
        self.steps: list[int] = []
        self.values: list[float] = []
        self.seconds: list[float] = []
        self._validating = False

    def begins(self) -> None:
        """The first step is about to be made."""
        self._began = self._clock()

    def validates(self) -> None:
        """A validation begins: the clock stands still until it has ended."""
        self._paused_at, self._validating = self._clock(), True

    def validated(self, step: int, value: float) -> bool:
        """What a validation after so many steps came to.

        Returns:
            Whether the training is to stop: at the target, out of time, or diverged.
        """
        if not self._validating:
            raise RuntimeError("the script said what its validation came to, not when it began")
        self._validating = False
        now = self._clock()
        self.steps.append(step)
        self.values.append(value)
        self.seconds.append(self._paused_at - self._began - self._paused)
        self._paused += now - self._paused_at
        reached = value >= self._target if self._rising else value <= self._target
        return reached or self.seconds[-1] > self._max or not math.isfinite(value)

    def found(self) -> dict[str, Any]:
        """Steps and seconds to the target (none, where it was not reached), seconds a step, and the curve."""
        steps, seconds = [0, *self.steps], [0.0, *self.seconds]
        reached = first_at_target(self.steps, self.values, self._target, rising=self._rising)
        each = [(b - a) / (t - s) for (a, b), (s, t) in zip(*map(itertools.pairwise, (seconds, steps)), strict=True)]
        return {
            "steps_to_target": reached,
            "seconds_to_target": None if reached is None else _between(steps, seconds, reached),
            "step_s": statistics.median(each) if each else None,
            "steps": self.steps,
            "values": [value if math.isfinite(value) else None for value in self.values],
            "seconds": self.seconds,
            "validating_s": self._paused,
        }


def _between(steps: Sequence[float], seconds: Sequence[float], step: float) -> float:
    for (a, b), (s, t) in zip(itertools.pairwise(steps), itertools.pairwise(seconds), strict=True):
        if step <= b:
            return s + (t - s) * (step - a) / (b - a)
    raise ValueError(f"step {step} lies behind the last validation, at {steps[-1]}")


def run(script: str, target: str, *, max_seconds: float, **settings: Any) -> dict[str, Any]:
    """Train once as the script does, with these of its settings."""
    _, value, rising = parse_target(target)
    watch = Watch(value, rising=rising, max_seconds=max_seconds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(script).train(watch=watch, **settings)
    return watch.found()


def main(words: Sequence[str] | None = None) -> None:
    """Train what the command line asks for, and print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", help="of scripts/")
    parser.add_argument("--target", required=True, help='"val_loss<=0.3" or "val_accuracy>=0.9"')
    parser.add_argument("--max-seconds", type=float, default=120.0, help="of training, validations apart")
    for name, kind in (("batch-size", int), ("lr", float), ("seed", int), ("steps", int), ("every", int)):
        parser.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help="default: the script's own")
    asked = vars(parser.parse_args(words))
    script, target = asked.pop("script"), asked.pop("target")
    print(json.dumps(run(script, target, **asked), allow_nan=False))


if __name__ == "__main__":
    main()
