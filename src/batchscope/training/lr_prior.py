"""Where the best learning rate of an optimizer is expected before anything is measured, from its class and defaults.

The update of an optimizer that normalises the gradient is known without it: Adam's moves every weight by about the
learning rate. Its best learning rate therefore lies within a power of ten or so of what people use, whatever the loss.
That of SGD has the unit of weight² ÷ loss, and is only known to be smaller with momentum, which makes the same update
`1 / (1 - momentum)` times as large.

A factor that the task puts on the learning rate (its groups' learning rate ÷ the one it was given) is part of the
task: the expected learning rate is divided by it, by the geometric mean over all weights where groups differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..fits.steps_to_target import slope_of
from .prepare import PRIOR_CRITICAL_BATCH_SIZE

__all__ = ["LrPrior", "has_normalisation", "lr_ratio", "normalises", "prior_of"]


@dataclass(frozen=True, kw_only=True)
class LrPrior:
    """Log-normal prior of the best learning rate that the task can be given.

    Attributes:
        lr: its median; of a kind of optimizer, that at batch size 32.
        factor: one standard deviation of its logarithm, as a factor.
        normalised: whether the optimizer's class is one that normalises the gradient.
        hides_the_edge: whether training may go on beyond the edge of stability without the loss telling, so that a
            range test ends too high, and never too low.
    """

    lr: float
    factor: float
    normalised: bool
    hides_the_edge: bool = False


_BATCH_SIZE = 32
_NORMALISATION = re.compile(r"(?i)norm([123]d)?$")
_ADAM = LrPrior(lr=5e-3, factor=5.0, normalised=True)
_PLAIN = LrPrior(lr=0.3, factor=30.0, normalised=False)
_WITH_LAYERS = LrPrior(lr=0.3, factor=5.0, normalised=False, hides_the_edge=True)
"""Of plain SGD on a model with normalisation layers: their weights have no scale, and grow with the steps."""
_UNKNOWN = LrPrior(lr=1e-3, factor=10.0, normalised=True)
_KINDS: Mapping[str, LrPrior] = {
    "lion": LrPrior(lr=5e-4, factor=5.0, normalised=True),
    "adafactor": LrPrior(lr=1e-2, factor=8.0, normalised=True),
    "adagrad": LrPrior(lr=2e-2, factor=5.0, normalised=True),
    "adadelta": LrPrior(lr=1.0, factor=8.0, normalised=True),
    "adam": _ADAM,
    "rmsprop": LrPrior(lr=2e-3, factor=5.0, normalised=True),
    "rprop": LrPrior(lr=1e-2, factor=10.0, normalised=True),
    "muon": LrPrior(lr=1e-2, factor=8.0, normalised=True),
    "sgd": _PLAIN,
}
"""By what the name of the optimizer's class, or of one that it is derived from, contains; the first that fits."""


def prior_of(
    optimizer: Optimizer,
    lr: float,
    *,
    batch_size: int,
    normalised: bool,
    groups: Sequence[Mapping[str, Any]] | None = None,
    layers_normalise: bool = False,
) -> LrPrior:
    """The prior for an optimizer that the task made for a learning rate.

    Args:
        optimizer: as the task made it.
        lr: that it was made for.
        batch_size: examples in a step. Where the gradient is normalised, the best learning rate grows with the square
            root of the batch size up to about the critical one, `(1 + B_c/B)^(-1/2)` (Malladi et al. 2022).
        normalised: whether a first update was measured not to depend on the size of the gradient, which counts where
            the class is not known.
        groups: its parameter groups that follow the learning rate; `None`: all. One with a learning rate of its own
            says nothing of the others'.
        layers_normalise: whether the model has normalisation layers.
    """
    found = _kind_of(optimizer) or (_UNKNOWN if normalised else _PLAIN)
    if layers_normalise and not (found.normalised or normalised):
        found = _WITH_LAYERS
    moving = [group for group in (optimizer.param_groups if groups is None else groups) if group["lr"] > 0.0]
    shares = [(sum(p.numel() for p in group["params"]), _log_factor(group, lr, found)) for group in moving]
    weights = max(1, sum(weight for weight, _ in shares))
    factor = math.exp(sum(weight * log for weight, log in shares) / weights)
    if found.normalised:
        factor *= math.sqrt(_bend(batch_size) / _bend(_BATCH_SIZE))
    return replace(found, lr=found.lr / factor, normalised=found.normalised or normalised)


def lr_ratio(batch_size: int, other: int, *, normalised: bool) -> tuple[float, float]:
    """Best learning rate at another batch size ÷ that at a first one, and the factor within which it is known."""
    slope, spread = slope_of(normalised)
    octaves = math.log(_bend(batch_size) / _bend(other))
    return math.exp(slope * octaves), math.exp(abs(spread * octaves))


def has_normalisation(model: nn.Module) -> bool:
    """Whether a model has normalisation layers, by the ends of their classes' names, which other libraries keep to."""
    return any(_NORMALISATION.search(type(module).__name__) is not None for module in model.modules())


def _bend(batch_size: int) -> float:
    return 1.0 + PRIOR_CRITICAL_BATCH_SIZE / batch_size


def normalises(optimizer: Optimizer) -> bool | None:
    """Whether an optimizer of torch's own normalises the gradient; `None`: it is of another's class."""
    found = _kind_of(optimizer) if type(optimizer).__module__.startswith("torch.optim.") else None
    return None if found is None else found.normalised


def _kind_of(optimizer: Optimizer) -> LrPrior | None:
    names = [kind.__name__.lower() for kind in type(optimizer).__mro__]
    return next((_KINDS[word] for name in names for word in _KINDS if word in name), None)


def _log_factor(group: Mapping[str, Any], lr: float, kind: LrPrior) -> float:
    """Logarithm of how much larger a group's updates are than those of the plain optimizer at the learning rate."""
    momentum = 0.0 if kind.normalised else min(float(group.get("momentum", 0.0)), 0.999)
    return math.log(float(group["lr"]) / lr) - math.log1p(-momentum)
