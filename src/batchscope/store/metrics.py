"""Metrics by their exact names: in which direction one is better, and what it cannot be. Numbers only.

A direction is known of the names below and of no other, alone or after `val_`, `train_`, `ema_`, ... (`val/accuracy`
counts as `val_accuracy`). Nothing is guessed from a part of a name: a "score" may be one or the other way round.
"""

from __future__ import annotations

from typing import Literal

from .ranges import (
    ANY,
    AT_MOST_ONE,
    AVERAGED,
    ERRORS,
    LOSSES,
    PARTS,
    PERCENT,
    PERPLEXITIES,
    SCORES,
    SHARE,
    Part,
    Range,
    candidates_of,
    stem_of,
    words_of,
)

__all__ = [
    "Mode",
    "averaged_name",
    "is_averaged",
    "is_loss",
    "known_mode",
    "limits_of",
    "name_of_own",
    "part_of",
]

Mode = Literal["min", "max"]

_ACCURACIES = frozenset(name for name in SCORES if name.startswith(("acc", "top"))) | {"balanced_accuracy"}
_AREAS = frozenset({"auc", "auroc", "roc_auc"})


def known_mode(metric: str) -> Mode | None:
    """Direction in which a metric is better, by its exact name; `None`: not known.

    >>> known_mode("val_accuracy"), known_mode("val/loss"), known_mode("ema_val_rmse"), known_mode("quality_score")
    ('max', 'min', 'min', None)
    """
    name = stem_of(metric)
    if name in LOSSES | ERRORS | PERPLEXITIES:
        return "min"
    return "max" if name in SCORES | AT_MOST_ONE else None


def is_loss(metric: str) -> bool:
    """Whether a metric is a loss, by its exact name.

    >>> is_loss("val_loss"), is_loss("val_nll"), is_loss("val_rmse"), is_loss("lossless_ratio")
    (True, True, False, False)
    """
    return stem_of(metric) in LOSSES


def is_averaged(metric: str) -> bool:
    """Whether a metric is of averaged weights, by the beginning of its name: `ema_val_loss`, `val_ema_loss`."""
    return AVERAGED in words_of(metric)[:2]


def averaged_name(metric: str) -> str:
    """Name of a metric of the averaged weights: a test metric remains one.

    >>> averaged_name("val_loss"), averaged_name("test_loss")
    ('ema_val_loss', 'test_ema_loss')
    """
    return f"test_ema_{metric.removeprefix('test_')}" if metric.startswith("test_") else f"ema_{metric}"


def name_of_own(metric: str) -> str | None:
    """Name of the metric that one of the averaged weights is of; `None`: it is of none.

    >>> name_of_own("ema_val_loss"), name_of_own("test_ema_loss"), name_of_own("val_loss")
    ('val_loss', 'test_loss', None)
    """
    own = metric.replace("ema_", "", 1)
    return own if own != metric and averaged_name(own) == metric else None


def part_of(metric: str) -> Part:
    """Part of the data that a metric is measured on, by the beginning of its name.

    >>> part_of("val_loss"), part_of("ema_dev_f1"), part_of("train_loss"), part_of("loss")
    ('validation', 'validation', 'training', '')
    """
    words = [word for word in words_of(metric) if word != AVERAGED]
    return PARTS.get(words[0], "") if len(words) > 1 else ""


def limits_of(metric: str, value: float, outputs: int | None = None) -> Range:
    """Range that a metric cannot leave, by its exact name and by its value with fresh weights.

    A loss, which may be that of a density, has no bound; a score in percent has 100. What a name can be is `ranges`'
    to say.

    Args:
        metric: its name.
        value: with fresh weights; one outside shows that the range is none.
        outputs: of the model's last layer, as for `is_share`.

    Example:
        >>> limits_of("val_ppl", 90.0).low, limits_of("val_mae", 2.0).low, limits_of("val_loss", 2.0).low
        (1.0, 0.0, None)
        >>> limits_of("val_accuracy", 0.1, 10).high, limits_of("val_accuracy", 0.1).high, limits_of("r2", -3.0).high
        (1.0, 100.0, 1.0)
    """
    ranges = candidates_of(metric, promised=True)
    if ranges == (SHARE, PERCENT) and not is_share(metric, value, outputs):
        ranges = (PERCENT,)
    return next((each for each in ranges if each.holds(value)), ANY)


def is_share(metric: str, value: float, outputs: int | None) -> bool:
    """Whether a score is a share of 1 and no percentage, by its name and by its value with fresh weights.

    By chance an accuracy is about 1 / outputs as a share and 100 / outputs in percent; what lies on the side of the
    share of the geometric mean of the two is one. An area under the ROC curve is 0.5 or 50 by chance. Other scores may
    be far below chance, and are told apart only where the outputs are few.

    Args:
        metric: the score.
        value: with fresh weights.
        outputs: of the model's last layer; `None`: not known, and only areas are told apart.

    Example:
        >>> is_share("val_accuracy", 0.1, 10), is_share("val_accuracy", 0.1, 1000), is_share("val_loss", 0.1, 10)
        (True, False, False)
    """
    name = stem_of(metric)
    if name not in SCORES or not 0.0 < value <= 1.0:
        return False
    if name in _AREAS or outputs is None:
        return name in _AREAS
    return value <= 10.0 / outputs if name in _ACCURACIES else outputs <= 10
