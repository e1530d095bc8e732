"""Passages of a longer training to where the smallest batch ended, in quality and in distance. Numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ....fits import intervals
from ....fits.curves import first_passage
from ....store.records import Estimate
from ....wording import number, plural, with_interval
from ...conclusions import runs_of
from ...readings import DISTANCE, arm_of, end_metric_of, over_seeds, readings
from ...records import Study, SummaryRow
from ...summary import range_in

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = [
    "AS_FAR",
    "LONGER",
    "MOST_TIMES",
    "as_far_passage",
    "as_good_passage",
    "distance_ratio",
    "ends_of",
    "longer_arms",
    "smallest_arm",
]

LONGER = "trained longer"
MOST_TIMES = 64.0
"""No batch gets more than so many times the epochs."""
AS_FAR = 0.9
"""From this share of the smallest batch's distance on, another counts as as far; fixed beforehand."""


class _Passage(NamedTuple):
    """First passage of runs to a value."""

    epochs: Estimate
    """Over the seeds that come there."""
    seeds: int
    """How many come there."""
    of: int
    within: float
    """Epochs that were trained."""

    def __str__(self) -> str:
        if not self.of:
            return "not measured"
        return f"at epoch {self.cell}" if self.seeds else f"{self.cell} epochs"

    @property
    def cell(self) -> str:
        """The passage in a table whose head says that it is an epoch."""
        if not self.seeds:
            return f"not within {number(self.within)}" if self.of else ""
        some = "" if self.seeds == self.of else f" in {self.seeds} of {plural(self.of, 'seed')}"
        return f"{with_interval(self.epochs)}{some}"


def smallest_arm(study: Study) -> SummaryRow | None:
    """The smallest batch; `None` where it is missing or a run of it diverged."""
    found = arm_of(study, min(study.question.batch_sizes), study.question.lrs[0])
    return None if found is None or found.diverged else found


def longer_arms(study: Study) -> list[SummaryRow]:
    """The arms that were trained longer and did not diverge, the smallest batch first."""
    found = (s for s in study.summary if s.variant == LONGER and not s.diverged)
    return sorted(found, key=lambda s: s.batch_size)


def ends_of(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, name: str) -> tuple[Estimate, dict[int, float]]:
    """A metric or the distance at the end of an arm's runs: its mean with an interval, and by seed."""

    def read(run: StoredRun) -> float | None:
        course = readings(study, run, name)
        return course[-1].value if course else None

    return over_seeds(study, runs, arm, read, within=range_in(study.rows, f"final_{name}"))


def distance_ratio(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, small: SummaryRow) -> Estimate:
    """Ratio of the distances at the end, arm over smallest batch: geometric mean over the seeds."""
    (_, above), (_, below) = (ends_of(study, runs, a, DISTANCE) for a in (arm, small))
    return intervals.geometric_ratio(intervals.matched(above, below))


def as_good_passage(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, small: SummaryRow) -> _Passage:
    """First passage to where the smallest batch ended, up to the margin."""
    outcome = end_metric_of(study)
    sign = -1.0 if outcome.larger_is_better else 1.0
    _, ends = ends_of(study, runs, small, outcome.name)
    targets = {seed: value + sign * outcome.margin_at(value) for seed, value in ends.items()}
    return _passage(study, runs, arm, outcome.name, targets, rising=outcome.larger_is_better)


def as_far_passage(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, small: SummaryRow) -> _Passage:
    """First passage to the distance that counts as as far."""
    _, ends = ends_of(study, runs, small, DISTANCE)
    targets = {seed: AS_FAR * value for seed, value in ends.items()}
    return _passage(study, runs, arm, DISTANCE, targets, rising=True)


def _passage(
    study: Study, runs: Sequence[StoredRun], arm: SummaryRow, name: str, targets: Mapping[int, float], *, rising: bool
) -> _Passage:
    """First passages of each seed's run to its target."""
    by_id = {run.id: run for run in runs}
    found: list[float | None] = []
    for row in runs_of(study, arm):
        if row.seed in targets and row.run in by_id and row.status != "diverged":
            course = readings(study, by_id[row.run], name)
            epochs, values = [r.epoch for r in course], [r.value for r in course]
            found.append(first_passage(epochs, values, targets[row.seed], rising=rising))
    reached = [epoch for epoch in found if epoch is not None]
    within = arm.estimates["epochs"].value or 0.0
    return _Passage(intervals.geometric_mean(reached, "epochs"), len(reached), len(found), within)
