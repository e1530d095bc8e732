"""A large batch gets as many updates as a small one, by more epochs (Hoffer et al. 2017; Shen 2018).

The smallest batch is trained for so many epochs. Every larger one is trained as long, and again (`trained longer`) for
as many epochs more as its batch is larger, so that the steps are equal; at most 64 times as many. Read off the longer
runs: the epoch at which they first come to where the smallest batch ended, in quality and in distance from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...demands import needs_length_in, needs_one_rate, needs_several_sizes
from ...published import SHEN_SETTINGS
from ...records import Arm, Length, NamedStudy, StudyQuestion, SummaryRow
from .conclusions import SOURCE, conclude
from .passages import LONGER, MOST_TIMES
from .sections import sections

if TYPE_CHECKING:
    from ...engine import Laboratory

__all__ = ["STUDY"]


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """Every batch size for the asked epochs, and the larger ones for more."""
    needs_several_sizes("train_longer", question)
    needs_one_rate("train_longer", question)
    needs_length_in("train_longer", question, "epochs", "gives large batches more epochs than the smallest")
    (lr,) = question.lrs
    sizes = sorted(question.batch_sizes)
    short = [Arm(batch_size=size, lr=lr, length=question.length, **question.course) for size in sizes]
    longer = [
        replace(
            arm, variant=LONGER, length=Length(unit="epochs", amount=question.length.amount * _times(arm, sizes[0]))
        )
        for arm in short[1:]
    ]
    return (*short, *longer)


def _times(arm: Arm | SummaryRow, smallest: int) -> float:
    return min(MOST_TIMES, arm.batch_size / smallest)


def measure_all(laboratory: Laboratory) -> None:
    """Every run, with its distance from the initial weights."""
    from ....probes.distance import DistanceFromInit

    laboratory.run_all(observers=lambda arm, task: [DistanceFromInit()])


STUDY = NamedStudy(
    name="train_longer",
    summary="more epochs for a large batch, until it has as many updates as a small one",
    source=SOURCE,
    question=StudyQuestion(batch_sizes=(64, 1024), lrs=(0.01,), length=Length(unit="epochs", amount=30)),
    quick={"batch_sizes": (64, 256), "seeds": (0, 1), "length": Length(unit="epochs", amount=0.5)},
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
