"""Estimate and target: a number with its 90 % interval, and the value of a metric at which training is done."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, replace
from typing import Literal

from ...errors import TargetError
from ..metrics import known_mode

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

    @classmethod
    def missing(cls, method: str = "not measured", *, n: int = 0, unit: str = "") -> Estimate:
        """Estimate without a value and without an interval; `method` says why."""
        return cls(value=None, low=None, high=None, n=n, unit=unit, method=method)


_TARGET = re.compile(r"\s*([A-Za-z_][\w./-]*)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Metric of `evaluate` by which runs are judged, and its direction.

    >>> str(Metric(name="val_rmse", mode="min"))
    'val_rmse:min'
    """

    name: str
    mode: Literal["min", "max"]

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Read `NAME:min` or `NAME:max`, or `NAME` alone where its direction is known (`store.metrics`).

        Raises:
            TargetError: the direction is neither or not known, or the metric is one of `test_*`.

        >>> Metric.parse("depth:max"), Metric.parse("val_rmse").mode
        (Metric(name='depth', mode='max'), 'min')
        """
        name, colon, mode = (part.strip() for part in text.rpartition(":"))
        if not colon:
            name, mode = mode, known_mode(mode)
        if not name:
            raise TargetError(f"metric {text!r} has no name; write for example 'val_loss', or 'depth:max'")
        if name.startswith("test_"):
            raise TargetError(
                f"metric {text!r} is a test metric; test metrics are reported only: choose one on validation data"
            )
        if mode is None:
            raise TargetError(
                f"it is not known whether {name} is better when larger or when smaller; write {name}:max or {name}:min"
            )
        if mode not in ("min", "max"):
            raise TargetError(f"metric {text!r} ends with {mode!r}; write {name}:min or {name}:max")
        return cls(name=name, mode=mode)

    @property
    def endless(self) -> Target:
        """Target on it that no run reaches, for runs of a given length."""
        never = sys.float_info.max
        return Target(metric=self.name, value=-never if self.mode == "min" else never, mode=self.mode)

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

    @property
    def in_known_direction(self) -> Target:
        """It, turned into the direction in which its metric is better where that is known by its name.

        >>> str(Target.parse("val_loss>=0.1").in_known_direction), str(Target.parse("depth>=2").in_known_direction)
        ('val_loss<=0.1', 'depth>=2')
        """
        return replace(self, mode=known_mode(self.metric) or self.mode)

    def met_by(self, value: float) -> bool:
        """Whether a metric's value is at the target or beyond."""
        return value <= self.value if self.mode == "min" else value >= self.value

    def __str__(self) -> str:
        times = f" ({self.confirm} evaluations in a row)" if self.confirm > 1 else ""
        return f"{self.metric}{'<=' if self.mode == 'min' else '>='}{self.value:.6g}{times}"


TARGET_OF_TABLE = Target(metric="target_reached", value=1.0, mode="max")
"""Stands for whatever the runs of a table were after, where that was not named."""
