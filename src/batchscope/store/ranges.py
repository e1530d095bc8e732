"""Ranges of what is measured: where a quantity can lie at all, by its exact name and by the values that were seen.

A name alone promises nothing: an accuracy may be in percent, a loss may be a log-likelihood and fall below zero. So a
range is only taken where the name is known and no value that was seen contradicts it. Numbers only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["ANY", "CORRELATION", "ERRORS", "NOT_NEGATIVE", "PERCENT", "SCORES", "SHARE", "Range", "range_of"]


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

_BEGINNINGS, _ENDING = (("final_", "best_"), ("val_", "test_", "train_")), "_eval"

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

_SHARES = SCORES | {"error_rate"}
_NOT_NEGATIVE = ERRORS | {
    "distance_from_init", "epoch", "epoch_time_s", "epochs", "loss", "loss_ratio", "peak_memory_bytes", "perplexity",
    "roughness", "step", "step_time_s", "steps", "time_s",
}  # fmt: skip


def range_of(name: str, seen: Iterable[float]) -> Range:
    """The range of a metric, or of another value of a study's rows.

    Args:
        name: `accuracy`, `val_accuracy`, `final_val_accuracy`, `best_train_loss_eval`, `step_time_s`, ...
        seen: every value of that name that was measured.

    Returns:
        Shares lie in [0, 1], or in percent in [0, 100]; losses, errors, times, counts and distances lie above 0.
        No bound where the name is not known, or a value lies outside.

    Example:
        >>> range_of("final_val_accuracy", [0.9, 0.97]) == SHARE, range_of("test_accuracy", [91.0, 97.5]) == PERCENT
        (True, True)
        >>> range_of("val_loss", [0.2, 1.3]) == NOT_NEGATIVE, range_of("val_loss", [-3.1, 1.3]) == ANY
        (True, True)
        >>> range_of("val_logprob", [0.2, 0.3]) == ANY
        True
    """
    stem = name
    for beginnings in _BEGINNINGS:
        stem = next((stem.removeprefix(each) for each in beginnings if stem.startswith(each)), stem)
    stem, values = stem.removesuffix(_ENDING), list(seen)
    known = (SHARE, PERCENT) if stem in _SHARES else (NOT_NEGATIVE,) if stem in _NOT_NEGATIVE else ()
    return next((each for each in known if all(map(each.holds, values))), ANY)
