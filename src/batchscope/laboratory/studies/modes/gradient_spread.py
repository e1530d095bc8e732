"""Measured spread of batch gradients about the full gradient, by moment of a study. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ....store.codec import decode
from ....store.not_applicable import not_applicable
from ....store.records import Estimate
from ...records import Study, note_name

__all__ = ["MOMENTS", "Spread", "less", "measurement_name", "refusal_of", "spread_of"]

MOMENTS: Mapping[str, str] = {"start": "at the start", "end": "where a mini-batch run ended"}
"""When gradients are measured, and how that is said."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Spread of the gradient of a batch of one size, drawn at random."""

    variance: Estimate
    """Mean squared distance from the gradient over the sample."""
    noise: Estimate
    """Its root over the norm of that gradient: above 1, one step says little of the way down."""


def measurement_name(moment: str) -> str:
    """Name of the measurement at a moment."""
    return note_name("gradients", moment)


def refusal_of(study: Study) -> str | None:
    """Why the spread is not measured on this task, if so."""
    found = (not_applicable(study.measurements.get(measurement_name(moment))) for moment in MOMENTS)
    return next((why for why in found if why is not None), None)


def spread_of(study: Study, moment: str) -> dict[int, Spread]:
    """Spread by batch size; empty where it was not measured."""
    stored: Mapping[str, Any] = study.measurements.get(measurement_name(moment)) or {}
    return {record["batch_size"]: _spread(record) for record in stored.get("records", ())}


def _spread(record: Mapping[str, Any]) -> Spread:
    variance, norm = decode(Estimate, record["variance"]), record["full_norm"]
    ends = (variance.value, variance.low, variance.high)
    value, low, high = (None if v is None or not norm else math.sqrt(max(0.0, v)) / norm for v in ends)
    return Spread(variance=variance, noise=replace(variance, value=value, low=low, high=high, unit="times"))


def less(one: Estimate, other: Estimate) -> bool | None:
    """Whether the whole interval of one lies below the other's; `None` where they meet or are not known.

    >>> def e(low, high): return Estimate(value=low, low=low, high=high, n=9, unit="", method="")
    >>> less(e(1.0, 2.0), e(3.0, 4.0)), less(e(3.0, 4.0), e(1.0, 2.0)), less(e(1.0, 3.0), e(2.0, 4.0))
    (True, False, None)
    """
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None
    if one.high < other.low:
        return True
    return False if one.low > other.high else None
