"""The arms of plain SGD and Adam, and which of them are compared. Numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...conclusions import best_rates, how_tuned
from ...readings import arm_of
from ...records import Arm, Study, StudyQuestion, SummaryRow
from ...travel import Quantity

__all__ = ["ADAM", "LARGER", "NAMES", "SGD", "Pair", "arms", "pairs_of"]

SGD, ADAM = "sgd", "adam"
NAMES = {SGD: "SGD", ADAM: "Adam"}
_FACTOR = 0.1
"""Adam's learning rate for a learning rate of SGD."""
_PUBLISHED = {SGD: 0.01, ADAM: 0.001}
"""Shen's learning rate for SGD; for Adam torch's default."""
LARGER: tuple[tuple[str, Quantity, str], ...] = (
    ("Adam goes farther from the initial weights than SGD", "distance", "the distance at the end"),
    ("Adam ends with larger weights than SGD", "norm", "the norm at the end"),
)


class Pair(NamedTuple):
    """The same batch size with both optimizers."""

    how: str
    sgd: SummaryRow
    adam: SummaryRow


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """Every batch size at every learning rate, with either optimizer at learning rates of its own."""
    return tuple(
        Arm(
            batch_size=size,
            lr=lr if variant == SGD else _adams(lr),
            length=question.length,
            **question.course,
            variant=variant,
        )
        for size in question.batch_sizes
        for variant in (SGD, ADAM)
        for lr in question.lrs
    )


def _adams(lr: float) -> float:
    """Adam's learning rate, as the user would write it."""
    return float(f"{_FACTOR * lr:.12g}")


def pairs_of(study: Study) -> list[Pair]:
    """The pairs at each batch size, in which no run diverged: at the best and at the usual learning rates."""
    found: list[Pair] = []
    for size in sorted(study.question.batch_sizes):
        best = {v: next((a for a in best_rates(study, v) if a.batch_size == size), None) for v in NAMES}
        usual = {v: arm_of(study, size, lr, v) for v, lr in _PUBLISHED.items()}
        for how, own in (
            (how_tuned(study, *NAMES), best),
            ("at Shen's learning rate and at torch's default", usual),
        ):
            sgd, adam = own[SGD], own[ADAM]
            if sgd is None or adam is None or sgd.diverged or adam.diverged:
                continue
            if (sgd.key, adam.key) not in [(pair.sgd.key, pair.adam.key) for pair in found]:
                found.append(Pair(how, sgd, adam))
    return found
