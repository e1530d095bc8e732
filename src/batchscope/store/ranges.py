"""Ranges of what is measured: where a quantity can lie at all, by its exact name and by the values that were seen.

A name alone promises nothing: an accuracy may be in percent, a loss may be a log-likelihood and fall below zero. So a
range is only taken where the name is known and no value that was seen contradicts it. `_KINDS` is the one table of what
a name can be, and `stem_of` the one rule for what counts as a known name. Numbers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

__all__ = [
    "ANY",
    "AT_MOST_ONE",
    "AVERAGED",
    "CORRELATION",
    "ERRORS",
    "LOSSES",
    "NOT_NEGATIVE",
    "PARTS",
    "PERCENT",
    "PERPLEXITIES",
    "SCORES",
    "SHARE",
    "Part",
    "Range",
    "candidates_of",
    "range_of",
    "stem_of",
    "words_of",
]

Part = Literal["validation", "training", "test", ""]
"""Of the data, by the beginning of a metric's name; empty: it does not say."""


class Range(NamedTuple):
    """Smallest and largest value that a quantity can have; `None`: no bound."""

    low: float | None = None
    high: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value lies inside, its ends included."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def clipped(self, value: float) -> float:
        """A value, or the end of the range that it lies beyond.

        >>> SHARE.clipped(1.2), SHARE.clipped(0.4), ANY.clipped(-3.0)
        (1.0, 0.4, -3.0)
        """
        above = value if self.low is None else max(self.low, value)
        return above if self.high is None else min(self.high, above)

    @property
    def of_differences(self) -> Range:
        """The range of a difference of two values.

        >>> SHARE.of_differences, NOT_NEGATIVE.of_differences
        (Range(low=-1.0, high=1.0), Range(low=None, high=None))
        """
        if self.low is None or self.high is None:
            return ANY
        return Range(self.low - self.high, self.high - self.low)


ANY = Range()
NOT_NEGATIVE = Range(low=0.0)
SHARE = Range(low=0.0, high=1.0)
PERCENT = Range(low=0.0, high=100.0)
CORRELATION = Range(low=-1.0, high=1.0)

PARTS: Mapping[str, Part] = {
    "val": "validation", "valid": "validation", "validation": "validation", "eval": "validation", "dev": "validation",
    "train": "training", "training": "training", "test": "test",
}  # fmt: skip
AVERAGED = "ema"
"""Before or after the part: a metric of averaged weights."""
_BEGINNINGS, _ENDING = frozenset({*PARTS, AVERAGED, "final", "best"}), "eval"
"""Words around a known name that leave it known: parts, averaged weights, and those of a study's rows."""

SCORES = frozenset({
    "acc", "accuracy", "auc", "auprc", "auroc", "average_precision", "balanced_accuracy", "bleu", "dice", "exact_match",
    "f1", "f1_macro", "f1_micro", "f1_score", "iou", "macro_f1", "map", "mean_iou", "micro_f1", "miou", "pr_auc",
    "precision", "recall", "roc_auc", "rouge", "rouge1", "rouge2", "rougel", "top1", "top1_acc", "top1_accuracy",
    "top5", "top5_acc", "top5_accuracy",
})  # fmt: skip
"""Metrics that are better when larger, and lie in [0, 1], or in percent in [0, 100]."""
ERRORS = frozenset({
    "bce", "bits_per_byte", "bits_per_character", "bpb", "bpc", "brier", "ce", "cer", "cross_entropy", "error",
    "error_rate", "log_loss", "mae", "mape", "mse", "msle", "rmse", "rmsle", "top1_error", "top5_error", "wer",
})  # fmt: skip
"""Metrics that are better when smaller, and never negative."""

LOSSES = frozenset({"bce", "ce", "cross_entropy", "log_loss", "loss", "nll"})
PERPLEXITIES = frozenset({"perplexity", "ppl"})
AT_MOST_ONE = frozenset({"kappa", "mcc", "r2", "r2_score", "ssim"})
"""Metrics that are better when larger, and 1 at most."""
_DENSITIES = LOSSES - ERRORS
"""Losses that may be those of a density, so that values above 0 do not promise that none is below."""
_QUANTITIES = frozenset({
    "distance_from_init", "epoch", "epoch_time_s", "epochs", "loss_ratio", "peak_memory_bytes", "roughness", "step",
    "step_time_s", "steps", "time_s",
})  # fmt: skip


class _Kind(NamedTuple):
    """What all metrics of some names can be: the first of the ranges that holds the values."""

    names: frozenset[str]
    ranges: tuple[Range, ...]
    promised: bool = True
    """Whether a value that is still to come cannot leave it either."""


_KINDS = (
    _Kind(SCORES | {"error_rate"}, (SHARE, PERCENT)),
    _Kind(AT_MOST_ONE, (Range(high=1.0),)),
    _Kind(PERPLEXITIES, (Range(low=1.0),)),
    _Kind(ERRORS | _QUANTITIES, (NOT_NEGATIVE,)),
    _Kind(_DENSITIES, (NOT_NEGATIVE,), promised=False),
)


def words_of(name: str) -> list[str]:
    """Words of a metric's name, in small letters.

    >>> words_of("val/Top1-acc")
    ['val', 'top1', 'acc']
    """
    return name.lower().replace("/", "_").replace("-", "_").replace(".", "_").split("_")


def stem_of(name: str) -> str:
    """Name without what says on which part of the data, of which weights and when in a run it was measured.

    >>> stem_of("ema_val_accuracy"), stem_of("dev/f1"), stem_of("best_train_loss_eval"), stem_of("val")
    ('accuracy', 'f1', 'loss', 'val')
    """
    words = words_of(name)
    while len(words) > 1 and words[0] in _BEGINNINGS:
        words = words[1:]
    return "_".join(words[:-1] if len(words) > 1 and words[-1] == _ENDING else words)


def candidates_of(name: str, *, promised: bool = False) -> tuple[Range, ...]:
    """Ranges of what a name can stand for, the likeliest first; none where the name is not known.

    Args:
        name: of a metric, or of another value of a study's rows.
        promised: only those that hold values that are still to come.
    """
    stem = stem_of(name)
    return next((kind.ranges for kind in _KINDS if stem in kind.names and (kind.promised or not promised)), ())


def range_of(name: str, seen: Iterable[float]) -> Range:
    """The range of a metric, or of another value of a study's rows.

    Args:
        name: `accuracy`, `val_accuracy`, `final_val_accuracy`, `best_train_loss_eval`, `step_time_s`, ...
        seen: every value of that name that was measured.

    Returns:
        Shares lie in [0, 1], or in percent in [0, 100]; losses, errors, times, counts and distances lie above 0,
        perplexities above 1, and a coefficient of determination below 1. No bound where the name is not known, or a
        value lies outside.

    Example:
        >>> range_of("final_val_accuracy", [0.9, 0.97]) == SHARE, range_of("test_accuracy", [91.0, 97.5]) == PERCENT
        (True, True)
        >>> range_of("val_loss", [0.2, 1.3]) == NOT_NEGATIVE, range_of("val_loss", [-3.1, 1.3]) == ANY
        (True, True)
        >>> range_of("val_logprob", [0.2, 0.3]) == ANY, range_of("dev/f1", [0.2, 0.3]) == SHARE
        (True, True)
    """
    values = list(seen)
    return next((each for each in candidates_of(name) if all(map(each.holds, values))), ANY)
