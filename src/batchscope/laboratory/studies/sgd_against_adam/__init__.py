"""Plain SGD against Adam at the same batch size: distance from the start, norm, and test accuracy (Shen A7).

Both optimizers are made here, whatever the task came with: SGD without momentum, and Adam with torch's default betas,
neither with weight decay. The learning rates that are asked for are SGD's; Adam's are a tenth of them, which puts
torch's default of 0.001 beside Shen's 0.01 for SGD. What learning rate and batch size Shen took for Adam is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...published import SHEN_SETTINGS
from ...records import Arm, Length, NamedStudy, StudyQuestion
from .conclusions import SOURCE, conclude
from .pairs import ADAM, SGD, arms
from .sections import sections

if TYPE_CHECKING:
    from ....tasks.workload import Workload
    from ...engine import Laboratory

__all__ = ["STUDY"]


def measure_all(laboratory: Laboratory) -> None:
    """Both optimizers' grids, with the distance from the initial weights."""
    from ....probes.distance import DistanceFromInit
    from .measure import make_adam, make_sgd

    tasks = {SGD: laboratory.changed(optimizer=make_sgd), ADAM: laboratory.changed(optimizer=make_adam)}

    def workload(arm: Arm, seed: int) -> Workload:
        return tasks[arm.variant]

    laboratory.run_all(workload=workload, observers=lambda arm, task: [DistanceFromInit()])


STUDY = NamedStudy(
    name="sgd_against_adam",
    summary="plain SGD against Adam at the same batch size: distance, norm of the weights, test accuracy",
    source=SOURCE,
    question=StudyQuestion(batch_sizes=(64,), lrs=(0.003, 0.01, 0.03, 0.1), length=Length(unit="epochs", amount=30)),
    quick={"batch_sizes": (256,), "lrs": (0.01, 0.1), "seeds": (0, 1), "length": Length(unit="epochs", amount=1)},
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
