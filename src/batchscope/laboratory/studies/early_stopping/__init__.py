"""Long runs at one learning rate, and stopping rules replayed on them: what stopping saves, and what it loses.

Every batch size is trained well past the minimum of its validation loss, with the weights of the best epoch kept. Rules
(patience; GL, PQ and UP of Prechelt 1998) are then replayed on the curves, offline. With `--until-stopped --patience
100 --epochs 10000` the runs end as Chang and Pathak's did, and rules are replayed on what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ....store.records import RunStatus
from ...published import CHANG_SETTINGS
from ...records import Length, NamedStudy, StudyQuestion
from .conclusions import SOURCE, conclude
from .sections import sections

if TYPE_CHECKING:
    from ...engine import Laboratory

__all__ = ["STUDY"]


def measure_all(laboratory: Laboratory) -> None:
    """The long runs; then the best weights of each are put into a model again and evaluated."""
    kept: dict[str, Mapping[str, float]] = dict(laboratory.read_note("restored") or {})
    for run in laboratory.run_all(keep=("best",)):
        if run.id in kept or run.result is None or run.result.status is RunStatus.DIVERGED:
            continue
        if laboratory.late:
            laboratory.cut_off = True
            return
        model = laboratory.model(laboratory.weights(run, "best"))
        kept[run.id] = laboratory.workload.evaluate(model)
        laboratory.note("restored", kept)


STUDY = NamedStudy(
    name="early_stopping",
    summary="long runs at one learning rate: the minimum by batch size, and when each stopping rule would have ended "
    "them",
    source=SOURCE,
    question=StudyQuestion(batch_sizes=(32, 64, 128, 256), lrs=(0.01,), length=Length(unit="epochs", amount=600)),
    quick={
        "batch_sizes": (64, 256),
        "lrs": (0.1,),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=30),
    },
    settings={"model": "mlp", "hidden": 64, "depth": 3, "optimizer": "sgd", "momentum": 0.9},
    array_settings={**CHANG_SETTINGS, "evaluate_at_most": 10_000},
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
