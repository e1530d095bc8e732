"""Sharpness that a study noted of its runs, by run and over the seeds: two boxes, the Hessian's eigenvalue, its trace.

Every run has three notes: `sharpness-keskar-RUN` and `sharpness-relative-RUN` with a list of `BoxSharpness`, and
`sharpness-curvature-RUN` with a `Curvature`; or each is `not_applicable`. Numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ....fits import intervals
from ....store.not_applicable import not_applicable
from ....store.ranges import NOT_NEGATIVE
from ....store.records import Estimate
from ....wording import number
from ...conclusions import best_rates, runs_of
from ...readings import arm_of
from ...records import Study, SummaryRow, note_name
from ...summary import evaluations

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = [
    "BOXES",
    "EIGENVALUE",
    "EPS",
    "KESKAR",
    "MEASURES",
    "RELATIVE",
    "TRACE",
    "Measure",
    "SizePair",
    "gradient_norms",
    "late_change",
    "measurement_name",
    "of_seeds",
    "ratio_of",
    "reasons",
    "size_pairs",
    "starts_of",
    "value_of_run",
]

SharpnessKind = Literal["keskar", "relative", "curvature"]
_NOTES = "sharpness"

EPS: Mapping[Literal["keskar", "relative"], tuple[float, ...]] = {
    "keskar": (5e-4, 1e-3, 1e-2),
    "relative": (1e-2, 5e-2),
}
"""Half-widths of the boxes: Keskar's two and Chang's; of the relative box, such as raise the loss by about as much."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of a run."""

    name: str
    """In sentences."""
    kind: SharpnessKind
    eps: float | None = None
    member: str = ""
    """Of the curvature."""

    @property
    def label(self) -> str:
        """The name in figures and tables, with the sign of the quantity where it has one."""
        return self.name if self.kind == "curvature" else f"φ, {self.name}"


def _box(kind: Literal["keskar", "relative"], eps: float) -> Measure:
    box = {"keskar": "box of Keskar", "relative": "relative box"}[kind]
    return Measure(name=f"{box}, ε = {number(eps)}", kind=kind, eps=eps)


BOXES = tuple(_box(kind, eps) for kind, widths in EPS.items() for eps in widths)
KESKAR, RELATIVE = _box("keskar", 1e-3), _box("relative", 1e-2)
"""Those that conclusions are drawn from."""
EIGENVALUE = Measure(name="largest Hessian eigenvalue", kind="curvature", member="sharpness")
TRACE = Measure(name="trace of the Hessian", kind="curvature", member="trace")
MEASURES = (*BOXES, EIGENVALUE, TRACE)


def measurement_name(kind: SharpnessKind, run: str) -> str:
    """Name of a run's measurement."""
    return note_name(_NOTES, f"{kind}-{run}")


def value_of_run(study: Study, run: str, measure: Measure) -> float | None:
    """A number of a run; `None` where it was not measured."""
    stored = study.measurements.get(measurement_name(measure.kind, run))
    if stored is None or not_applicable(stored) is not None:
        return None
    if measure.kind == "curvature":
        return stored[measure.member]["value"]
    return next((box["value"] for box in stored["boxes"] if box["eps"] == measure.eps), None)


def starts_of(study: Study, run: str, measure: Measure) -> list[tuple[str, float]]:
    """Where each search of a box began, and the φ that it found."""
    stored = study.measurements.get(measurement_name(measure.kind, run))
    if stored is None or not_applicable(stored) is not None or measure.eps is None:
        return []
    starts: list[Mapping[str, Any]] = [s for b in stored["boxes"] if b["eps"] == measure.eps for s in b["starts"]]
    return [(start["start"], start["value"]) for start in starts]


def of_seeds(study: Study, arm: SummaryRow, measure: Measure) -> dict[int, float]:
    """A number of every run of an arm, by seed; without those that diverged or were not measured."""
    found = {row.seed: value_of_run(study, row.run, measure) for row in runs_of(study, arm) if row.status != "diverged"}
    return {seed: value for seed, value in found.items() if value is not None}


def mean_of_box(study: Study, arm: SummaryRow, measure: Measure) -> Estimate:
    """Mean of a box sharpness over the seeds; it is never below zero, since the box holds the weights themselves."""
    return intervals.mean(of_seeds(study, arm, measure).values(), within=NOT_NEGATIVE)


def reasons(study: Study) -> list[str]:
    """Why something was not measured, each once."""
    found = (not_applicable(stored) for stored in study.read_note(_NOTES).values())
    return list(dict.fromkeys(why for why in found if why is not None))


@dataclass(frozen=True, kw_only=True)
class SizePair:
    """The smallest and the largest batch."""

    how: str
    small: SummaryRow
    large: SummaryRow


def size_pairs(study: Study) -> list[SizePair]:
    """Pairs at each learning rate of both, and each at its best; where that is one of the former, it says so."""
    sizes = (min(study.question.batch_sizes), max(study.question.batch_sizes))
    best = {a.batch_size: a for a in best_rates(study, "")}
    own = [best[size] for size in sizes if size in best]
    found: list[SizePair] = []
    for lr in sorted(study.question.lrs):
        pair = [arm for size in sizes if (arm := arm_of(study, size, lr)) is not None and not arm.diverged]
        if len(pair) == len(sizes):
            both = len(study.question.lrs) > 1 and [a.key for a in pair] == [a.key for a in own]
            also = ", the best of both" if both else ""
            found.append(SizePair(how=f"at learning rate {number(lr)}{also}", small=pair[0], large=pair[1]))
    if len(own) == len(sizes) and own[0].lr != own[1].lr:
        rates = f"{number(own[0].lr)} and {number(own[1].lr)}"
        found.append(SizePair(how=f"each at its best learning rate, {rates}", small=own[0], large=own[1]))
    return found


def ratio_of(study: Study, comparison: SizePair, measure: Measure) -> Estimate:
    """Ratio of a measure over the seeds, largest batch over smallest."""
    small, large = (of_seeds(study, arm, measure) for arm in (comparison.small, comparison.large))
    return intervals.geometric_ratio(intervals.matched(large, small))


def gradient_norms(study: Study, arm: SummaryRow) -> list[float]:
    """Norms of the full gradient where the Hessian was taken: not small where the weights are no stationary point."""
    stored = (study.measurements.get(measurement_name("curvature", row.run)) for row in runs_of(study, arm))
    return [one["gradient_norm"] for one in stored if one is not None and "gradient_norm" in one]


def late_change(study: Study, run: StoredRun) -> float | None:
    """Relative change of the training loss in evaluation mode over the last tenth of a run."""
    course = [
        (e.epoch, loss)
        for e in evaluations(run, study.examples_of(run))
        if (loss := e.metrics.get("train_loss_eval")) is not None and math.isfinite(loss)
    ]
    if len(course) < 2:
        return None
    end, last = course[-1]
    before = [loss for epoch, loss in course[:-1] if epoch <= 0.9 * end + 1e-9]
    return last / before[-1] - 1.0 if before and before[-1] else None
