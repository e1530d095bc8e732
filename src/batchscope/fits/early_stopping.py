"""Early stopping by a curve that is there already: patience, and the three classes of Prechelt (1998).

"Early Stopping - But When?" in Neural Networks: Tricks of the Trade, Springer LNCS 1524 (1998), defines, with `E_va`
the validation error and `E_tr` the training error of an epoch:

- `E_opt(t)`, the smallest validation error up to epoch t, and the generalization loss
  `GL(t) = 100 (E_va(t) / E_opt(t) - 1)`. `GL_α` stops after the first epoch with `GL(t) > α`;
- a strip, k epochs that end at a multiple of k, and the training progress over it,
  `P_k(t) = 1000 (mean of E_tr over the strip / smallest E_tr in it - 1)`. `PQ_α` stops after the first end of a strip
  with `GL(t) / P_k(t) > α`: the loss counts for little as long as training makes progress;
- `UP_s` stops after the end of a strip at which `E_va` is above its value one strip before, for the s-th time in a row.

Every criterion hands over the weights of the epoch of `E_opt`, not those at which it stops. The paper has k = 5, adds
that training ends when `P_k(t) < 0.1` or after 3,000 epochs, and finds slower criteria about 4 % better at about four
times the training time. Here a criterion that never stops lasts as long as the curve.

A curve is a sequence of values after 0, 1, 2, ... epochs, the first before any training. `GL` needs errors above 0: a
validation loss, or a share of errors, but no accuracy. No criterion is valid while a decaying learning rate is still
large: a rise before the decay is no overfitting. Numbers only, no torch. Cost: a pass over the curve.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["STRIP", "Rule", "generalization_loss", "stop_index", "training_progress"]

STRIP = 5
"""Epochs in a strip."""

_CLASSES = {"patience": "patience {:g}", "GL": "GL_{:g}", "PQ": "PQ_{:g}", "UP": "UP_{:g}"}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Early stopping criterion with its number.

    >>> str(Rule(kind="PQ", amount=0.5)), str(Rule(kind="patience", amount=10))
    ('PQ_0.5', 'patience 10')
    """

    kind: Literal["patience", "GL", "PQ", "UP"]
    amount: float
    """Epochs without a better value; `α` in per cent of loss (or per cent over per mille of progress); `s` strips."""

    def __str__(self) -> str:
        return _CLASSES[self.kind].format(self.amount)


def generalization_loss(validation: Sequence[float]) -> list[float]:
    """Generalisation loss `GL(t)`: per cent by which the validation error is above its minimum so far.

    >>> [round(loss, 6) for loss in generalization_loss([2.0, 1.0, 1.05, 0.8, 1.0])]
    [0.0, 0.0, 5.0, 0.0, 25.0]

    Raises:
        ValueError: an error is not above 0.
    """
    if any(not value > 0 for value in validation):
        raise ValueError("the generalization loss is a share of the smallest error, which must be above 0")
    minimum = itertools.accumulate(validation, min)
    return [100.0 * (value / best - 1.0) for value, best in zip(validation, minimum, strict=True)]


def training_progress(training: Sequence[float | None], at: int, strip: int = STRIP) -> float:
    """Training progress `P_k(t)`: per mille by which a strip's mean training error is above the minimum in it.

    It is large while the training error falls fast, or jumps, and goes to 0 as training comes to rest.

    Args:
        training: training error of each epoch, the first, before any training, not used.
        at: index of the strip's last epoch.
        strip: k.

    Example:
        The mean of 1.5, 1.25 and 1 is 1.25, a quarter above the minimum.

        >>> training_progress([None, 1.5, 1.25, 1.0], 3, strip=3)
        250.0
        >>> training_progress([None, 1.0, 1.0, 1.0], 3, strip=3)
        0.0

    Raises:
        ValueError: an error in the strip is missing, or below 0.
    """
    errors = training[at - strip + 1 : at + 1]
    known = [value for value in errors if value is not None and value >= 0]
    if len(known) < strip:
        raise ValueError("the training progress is a share of the training error, which must be known and not below 0")
    if min(known) == 0:
        return math.inf if max(known) > 0 else 0.0
    return 1000.0 * (math.fsum(known) / (strip * min(known)) - 1.0)


def stop_index(
    rule: Rule, validation: Sequence[float], training: Sequence[float | None] = (), *, strip: int = STRIP
) -> int | None:
    """Index of the value of a curve after which a rule stops; `None`: it never does.

    Args:
        rule: the criterion.
        validation: validation errors, one an epoch, the first before any training.
        training: training errors of the same epochs, for `PQ`.
        strip: k, for `PQ` and `UP`.

    Example:
        The smallest error, 1.0, is at epoch 2; 1.04 is 4 % above it, 1.10 is 10 %.

        >>> curve = [2.0, 1.2, 1.0, 1.04, 1.03, 1.02, 1.10]
        >>> [stop_index(Rule(kind="GL", amount=a), curve) for a in (3, 5, 10.5)]
        [3, 6, None]
        >>> [stop_index(Rule(kind="patience", amount=p), curve) for p in (1, 4, 5)]
        [3, 6, None]

        With strips of 2 epochs the ends are at 2, 4 and 6: 1.0, 1.03 and 1.10, which rise twice.

        >>> [stop_index(Rule(kind="UP", amount=s), curve, strip=2) for s in (1, 2, 3)]
        [4, 6, None]

        At epoch 4 `GL` is 3, and `P_2` is 1000 (0.45 / 0.4 - 1) = 125; at epoch 6 they are 10 and 0, a quotient beyond
        any bound.

        >>> training = [None, 1.0, 0.8, 0.5, 0.4, 0.3, 0.3]
        >>> [stop_index(Rule(kind="PQ", amount=a), curve, training, strip=2) for a in (0.02, 0.03)]
        [4, 6]

    Raises:
        ValueError: `GL` and `PQ` on errors that are not above 0, `PQ` without training errors.
    """
    if rule.kind == "patience":
        return _first(_waited(validation), rule.amount)
    if rule.kind == "GL":
        return next((t for t, loss in enumerate(generalization_loss(validation)) if loss > rule.amount), None)
    ends = range(strip, len(validation), strip)
    if rule.kind == "UP":
        risen = [0]
        for t in ends:
            risen.append(risen[-1] + 1 if validation[t] > validation[t - strip] else 0)
        found = _first(risen, rule.amount)
        return None if found is None else found * strip
    losses = generalization_loss(validation)
    return next((t for t in ends if _quotient(losses[t], training_progress(training, t, strip)) > rule.amount), None)


def _waited(validation: Sequence[float]) -> list[int]:
    """Epochs since the minimum of the errors so far."""
    best = 0
    waited: list[int] = []
    for t, value in enumerate(validation):
        best = t if value < validation[best] else best
        waited.append(t - best)
    return waited


def _first(counts: Sequence[int], amount: float) -> int | None:
    return next((i for i, n in enumerate(counts) if n >= amount), None)


def _quotient(loss: float, progress: float) -> float:
    """Quotient of loss and progress: 0 where there is no loss, beyond any bound where there is loss and no progress."""
    if not loss > 0:
        return 0.0
    return loss / progress if progress > 0 else math.inf
