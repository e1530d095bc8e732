"""Estimate and target: a number with its 90 % interval, and the value of a metric at which training is done."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from ...errors import TargetError

__all__ = [
    "Estimate",
    "Metric",
    "Target",
]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Number with its 90 % interval, of the kind that `method` names; an open end is `None`."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """How many independent readings stand behind it."""
    unit: str
    method: str


_TARGET = re.compile(r"\s*([A-Za-z_][\w./-]*)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Metric of `evaluate` by which runs are judged, and its direction.

    >>> str(Metric(name="val_rmse", mode="min"))
    'val_rmse:min'
    """

    name: str
    mode: Literal["min", "max"]

    def __str__(self) -> str:
        return f"{self.name}:{self.mode}"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Metric of `evaluate` and the value at which training is done.

    >>> Target.parse("val_loss<=0.12")
    Target(metric='val_loss', value=0.12, mode='min', confirm=1)
    """

    metric: str
    value: float
    mode: Literal["min", "max"]
    confirm: int = 1
    """Evaluations in a row that have to be at the value or beyond; the target is reached at the first of them."""

    @property
    def judged_by(self) -> Metric:
        """Its metric, with the direction in which it is better."""
        return Metric(name=self.metric, mode=self.mode)

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `METRIC<=VALUE` or `METRIC>=VALUE`.

        Raises:
            TargetError: the text is neither, or the metric is one of `test_*`, which are reported only.
        """
        match = _TARGET.fullmatch(text)
        if not match:
            raise TargetError(
                f"target {text!r} is not METRIC<=NUMBER or METRIC>=NUMBER; write for example 'val_loss<=0.12'"
            )
        metric, comparison, number = match.groups()
        value = float(number)
        if not math.isfinite(value):
            raise TargetError(f"target {text!r} asks for {number}, which is not a finite number")
        if metric.startswith("test_"):
            raise TargetError(
                f"target {text!r} uses a test metric; test metrics are reported only: choose one on validation data"
            )
        return cls(metric=metric, value=value, mode="min" if comparison.startswith("<") else "max")

    def met_by(self, value: float) -> bool:
        """Whether a metric's value is at the target or beyond."""
        return value <= self.value if self.mode == "min" else value >= self.value

    def __str__(self) -> str:
        times = f" ({self.confirm} evaluations in a row)" if self.confirm > 1 else ""
        return f"{self.metric}{'<=' if self.mode == 'min' else '>='}{self.value:.6g}{times}"
