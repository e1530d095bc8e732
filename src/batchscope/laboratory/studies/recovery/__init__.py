"""A large batch, switched early and late to a small one or a higher learning rate: does it recover? Shen (A3).

For each seed the large batch is trained at the lower learning rate, and its weights are kept after two epochs and at
the end. From both, runs as long as the first go on: at the small batch, and at the large batch with the higher learning
rate; from the end also unchanged. The small batch from scratch is what they are compared with. Each of these runs
begins with a fresh optimizer (without momentum that makes no difference) and with the order of the examples from its
start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....store.records import RunStatus
from ...published import SHEN_SETTINGS
from ...records import Length, NamedStudy, StudyQuestion
from .conclusions import SOURCE, conclude
from .plan import arms, branches_of, plan_of
from .sections import sections

if TYPE_CHECKING:
    from ...engine import Laboratory

__all__ = ["STUDY"]


def measure_all(laboratory: Laboratory) -> None:
    """Seed by seed: the large batch, the small one, and what goes on from the large one's weights."""
    large, small = laboratory.arms[:2]
    plan = plan_of(laboratory.question)
    for seed in laboratory.question.seeds:
        first = laboratory.run(large, seed, keep=(plan.early, "last"))
        laboratory.run(small, seed)
        if first is None or first.result is None or first.result.status is RunStatus.DIVERGED:
            continue
        starts = {
            plan.early: laboratory.starting_from(laboratory.weights(first, plan.early)),
            plan.late: laboratory.starting_from(laboratory.weights(first, "last")),
        }
        for after, arm in branches_of(laboratory.question):
            laboratory.run(arm, seed, workload=starts[after])


STUDY = NamedStudy(
    name="recovery",
    summary="a large batch switched to a small one, or to ten times the learning rate, early and late: does it "
    "recover?",
    source=SOURCE,
    question=StudyQuestion(batch_sizes=(64, 1024), lrs=(0.01,), length=Length(unit="epochs", amount=30)),
    quick={"batch_sizes": (128, 512), "seeds": (0, 1), "length": Length(unit="epochs", amount=1.5)},
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
