"""Demands of a named study on its question, each with the one message that says what to give instead."""

from __future__ import annotations

from typing import Literal

from ..errors import UsageError
from ..wording import joined
from .records import StudyQuestion

__all__ = ["needs_constant_lr", "needs_length_in", "needs_one_rate", "needs_several_sizes"]


def needs_several_sizes(name: str, question: StudyQuestion, example: str = "64,1024") -> None:
    """Refuse a question with a single batch size.

    Raises:
        UsageError: there is one.
    """
    if len(question.batch_sizes) < 2:
        raise UsageError(
            f"{name} compares batch sizes, and --batch-sizes has only {max(question.batch_sizes)}; give at least two, "
            f"for example --batch-sizes {example}"
        )


def needs_one_rate(name: str, question: StudyQuestion) -> None:
    """Refuse a question with several learning rates.

    Raises:
        UsageError: there are several.
    """
    if len(question.lrs) > 1:
        raise UsageError(
            f"{name} compares batch sizes at one learning rate, and --lrs has {len(question.lrs)}; give one, for "
            f"example --lrs {question.lrs[0]:g}, or see the study learning_rate_compensation"
        )


def needs_length_in(name: str, question: StudyQuestion, unit: Literal["epochs", "steps"], why: str) -> None:
    """Refuse a question whose length is in another unit.

    Raises:
        UsageError: it is in another.
    """
    if question.length.unit != unit:
        raise UsageError(f"{name} {why}, and a run lasts {question.length}; give --{unit}")


def needs_constant_lr(name: str, question: StudyQuestion, why: str) -> None:
    """Refuse a question with a schedule or a warm-up.

    Raises:
        UsageError: it has one.
    """
    if question.schedule == "task":
        raise UsageError(
            f"{name} {why}, and the task's own schedule changes the learning rate in them; take the member schedule "
            "out of the task"
        )
    given = {"--schedule": None if question.schedule == "constant" else question.schedule, "--warmup": question.warmup}
    asked = {option: value for option, value in given.items() if value is not None}
    if asked:
        words, changes = " ".join(f"{o} {v}" for o, v in asked.items()), "changes" if len(asked) == 1 else "change"
        raise UsageError(f"{name} {why}, and {words} {changes} the learning rate in them; leave {joined([*asked])} out")
