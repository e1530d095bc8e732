"""A large batch gets as many updates as a small one, by more epochs (Hoffer et al. 2017; Shen 2018).

The smallest batch is trained for so many epochs. Every larger one is trained as long, and again (`trained longer`) for
as many epochs more as its batch is larger, so that the steps are equal; at most 64 times as many. Read off the longer
runs: the epoch at which they first come to where the smallest batch ended, in quality and in distance from the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ...fits import intervals
from ...fits.curves import first_passage
from ...report.blocks import Block, Column, Figure, Section, Table, Text
from ...store.records import Estimate
from ...wording import number, plural, with_interval
from ..conclusions import paired_difference, runs_of
from ..demands import needs_length_in, needs_one_rate, needs_several_sizes
from ..page.figures.branch_curves import Branch, Up, branch_curves, metrics_up, shades
from ..published import SHEN, SHEN_SETTINGS, Value, conclusion, is_above, published_section
from ..readings import DISTANCE, EndMetric, arm_of, end_metric_of, over_seeds, readings, with_distance
from ..records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion, SummaryRow

if TYPE_CHECKING:
    from ...store.runs import StoredRun
    from ..engine import Laboratory

__all__ = ["STUDY"]

_SOURCE = "Hoffer et al. 2017, regime adaptation; Shen 2018, distance from the initial weights"
_LONGER = "trained longer"
_MOST_TIMES = 64.0
"""No batch gets more than so many times the epochs."""
_AS_FAR = 0.9
"""From this share of the smallest batch's distance on, another counts as as far; fixed beforehand."""
_NOTE = (
    "As good and as far: the first epoch at which a run is where the same seed's run of the smallest batch ended, up "
    f"to the margin of the metric, and at {_AS_FAR:g} times its distance."
)


class _Passage(NamedTuple):
    """When runs first come to a value."""

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
        """The same in a table whose head says that it is an epoch."""
        if not self.seeds:
            return f"not within {number(self.within)}" if self.of else ""
        some = "" if self.seeds == self.of else f" in {self.seeds} of {plural(self.of, 'seed')}"
        return f"{with_interval(self.epochs)}{some}"


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """Every batch size for the asked epochs, and the larger ones for more."""
    needs_several_sizes("train_longer", question)
    needs_one_rate("train_longer", question)
    needs_length_in("train_longer", question, "epochs", "gives large batches more epochs than the smallest")
    (lr,) = question.lrs
    sizes, schedule = sorted(question.batch_sizes), question.schedule
    short = [Arm(batch_size=size, lr=lr, length=question.length, schedule=schedule) for size in sizes]
    longer = [
        replace(
            arm, variant=_LONGER, length=Length(unit="epochs", amount=question.length.amount * _times(arm, sizes[0]))
        )
        for arm in short[1:]
    ]
    return (*short, *longer)


def _times(arm: Arm | SummaryRow, smallest: int) -> float:
    return min(_MOST_TIMES, arm.batch_size / smallest)


def measure_all(laboratory: Laboratory) -> None:
    """Every run, with its distance from the initial weights."""
    from ...probes.distance import DistanceFromInit

    laboratory.run_all(observers=lambda arm, task: [DistanceFromInit()])


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Whether more epochs carry the largest batch as far, and make it as good."""
    small, longer = _smallest(study), _longer(study)
    if small is None or not longer:
        return ()
    return _quality(study, runs, small, longer[-1]), _far(study, runs, small, longer[-1])


def _quality(study: Study, runs: Sequence[StoredRun], small: SummaryRow, large: SummaryRow) -> Finding:
    outcome = end_metric_of(study)
    name = f"final_{outcome.name}"
    change = paired_difference(study, name, small, large)
    short = arm_of(study, large.batch_size, large.lr)
    before = with_interval(paired_difference(study, name, small, short)) if short else "not measured"
    return conclusion(
        "a large batch is as good as a small one if it is trained for as many updates",
        outcome.as_good(change, small.estimates[name].value),
        f"from batch size {small.batch_size:,} to {large.batch_size:,}, {outcome.name} changes by "
        f"{with_interval(change)} after {_told(study, large)}, by {before} after as many epochs; it is as good "
        f"{_as_good(study, runs, large, small)}",
        source="Hoffer et al. 2017; differences seed by seed, 90 % t interval; as good is worse by at most "
        f"{outcome.margin}; first passage, interpolated in log steps",
        effect=change,
        runs=_ids(study, small, large),
    )


def _far(study: Study, runs: Sequence[StoredRun], small: SummaryRow, large: SummaryRow) -> Finding:
    ratio = _distance_ratio(study, runs, large, small)
    short = arm_of(study, large.batch_size, large.lr)
    as_long = f" ({with_interval(_distance_ratio(study, runs, short, small))} after as many epochs)" if short else ""
    return conclusion(
        "more epochs carry a large batch as far from its initial weights as a small one",
        is_above(ratio, _AS_FAR),
        f"after {_told(study, large)}, batch size {large.batch_size:,} has gone {with_interval(ratio)} times the "
        f"distance of {small.batch_size:,}{as_long}; it is as far {_as_far(study, runs, large, small)}",
        source="Shen 2018, distance from the initial weights; geometric mean over the seeds, 90 % t interval; "
        f"as far is {_AS_FAR:g} times and more",
        effect=ratio,
        runs=_ids(study, small, large),
    )


def _smallest(study: Study) -> SummaryRow | None:
    found = arm_of(study, min(study.question.batch_sizes), study.question.lrs[0])
    return None if found is None or found.diverged else found


def _longer(study: Study) -> list[SummaryRow]:
    found = (s for s in study.summary if s.variant == _LONGER and not s.diverged)
    return sorted(found, key=lambda s: s.batch_size)


def _told(study: Study, large: SummaryRow) -> str:
    """How long a longer run is."""
    smallest = min(study.question.batch_sizes)
    cut = large.batch_size / smallest > _MOST_TIMES
    steps = f"the most, {_MOST_TIMES:g} times as many" if cut else "as many steps"
    return f"{number(large.estimates['epochs'].value)} epochs ({steps})"


def _ends(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, name: str) -> tuple[Estimate, dict[int, float]]:
    def read(run: StoredRun) -> float | None:
        course = readings(study, run, name)
        return course[-1].value if course else None

    return over_seeds(study, runs, arm, read)


def _distance_ratio(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, small: SummaryRow) -> Estimate:
    (_, above), (_, below) = (_ends(study, runs, a, DISTANCE) for a in (arm, small))
    return intervals.geometric_ratio(intervals.matched(above, below))


def _as_good(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, small: SummaryRow) -> _Passage:
    """When runs first are where the smallest batch ended, up to the margin."""
    outcome = end_metric_of(study)
    sign = -1.0 if outcome.larger_is_better else 1.0
    _, ends = _ends(study, runs, small, outcome.name)
    targets = {seed: value + sign * outcome.margin_at(value) for seed, value in ends.items()}
    return _passage(study, runs, arm, outcome.name, targets, rising=outcome.larger_is_better)


def _as_far(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, small: SummaryRow) -> _Passage:
    """When runs first are as far as counts."""
    _, ends = _ends(study, runs, small, DISTANCE)
    targets = {seed: _AS_FAR * value for seed, value in ends.items()}
    return _passage(study, runs, arm, DISTANCE, targets, rising=True)


def _passage(
    study: Study, runs: Sequence[StoredRun], arm: SummaryRow, name: str, targets: Mapping[int, float], *, rising: bool
) -> _Passage:
    """When each seed's run first comes to its target."""
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


def _ids(study: Study, *arms: SummaryRow) -> tuple[str, ...]:
    return tuple(row.run for arm in arms for row in runs_of(study, arm))


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """Published numbers, the courses against epochs and steps, and when each comes to where the smallest ended."""
    small, outcome = _smallest(study), end_metric_of(study)
    found = [published_section(study, runs, SHEN, _values(study, runs), *_of_hoffer(study))]
    if (figure := _figure(study, runs, outcome)) is not None:
        more = () if small is None else (Text((_NOTE,), tone="note"), _table(study, runs, small, outcome))
        found.append(Section("longer", "The same updates by more epochs", (figure, *more)))
    return found


def _values(study: Study, runs: Sequence[StoredRun]) -> list[Value]:
    large = max(study.question.batch_sizes)
    arms_ = (
        ("smallest batch", "about 6 at the best solutions", _smallest(study)),
        ("largest batch, as many epochs", "short of it", arm_of(study, large, study.question.lrs[0])),
        (
            "largest batch, trained longer",
            "reaches it (in words)",
            arm_of(study, large, study.question.lrs[0], _LONGER),
        ),
    )
    return [
        Value(
            what=f"distance from the start: {what} ({arm.batch_size:,})",
            published=told,
            ours=_ends(study, runs, arm, DISTANCE)[0],
        )
        for what, told, arm in arms_
        if arm is not None
    ]


def _of_hoffer(study: Study) -> tuple[Block, ...]:
    outcome, large, lr = end_metric_of(study), max(study.question.batch_sizes), study.question.lrs[0]
    name = f"final_{outcome.name}"
    rows = [
        (what, told, "not run" if arm is None else f"{with_interval(arm.estimates.get(name))} ({arm.batch_size:,})")
        for what, told, arm in (
            ("small batch", "0.928 (128)", _smallest(study)),
            ("large batch, as many epochs", "0.861 (4,096)", arm_of(study, large, lr)),
            ("large batch, as many updates", "0.931 (4,096)", arm_of(study, large, lr, _LONGER)),
        )
    ]
    columns = (Column(outcome.name), Column("Hoffer et al. 2017", numeric=True), Column("here", numeric=True))
    said = (
        "What differs from Hoffer et al. 2017: there, validation accuracy of a ResNet44 on CIFAR-10, with momentum and "
        "a rate that falls in phases; its large batch also had a rate larger by the square root, and batch "
        "normalisation over parts of the batch. Here rate, schedule and model are the same for every batch size."
    )
    return Table(columns, tuple(rows)), Text((said,), tone="note")


def _figure(study: Study, runs: Sequence[StoredRun], outcome: EndMetric) -> Figure | None:
    arms_ = sorted((s for s in study.summary if not s.diverged), key=lambda s: (s.batch_size, s.variant))
    colours = dict(zip(sorted(study.question.batch_sizes), shades(len(study.question.batch_sizes)), strict=True))
    branches = [
        Branch(
            label=f"batch size {arm.batch_size:,}{', trained longer' if arm.variant else ''}",
            course=course,
            colour=colours[arm.batch_size],
            dash="dash" if arm.variant else "solid",
        )
        for arm in arms_
        if (course := with_distance(study, runs, arm)) is not None
    ]
    if not branches:
        return None
    up = metrics_up(study, outcome, [branch.course for branch in branches])
    if any(DISTANCE in branch.course.mean for branch in branches):
        up = (*up[:1], Up(label="distance", metric=DISTANCE, rising=True), *up[1:])
    return branch_curves(
        "longer",
        branches,
        across=("epoch", "step", "second"),
        up=up,
        examples=study.examples,
        caption=_said(study, runs, outcome),
        logarithmic=True,
    )


def _said(study: Study, runs: Sequence[StoredRun], outcome: EndMetric) -> str:
    small, longer = _smallest(study), _longer(study)
    if small is None or not longer:
        return "Runs are not finished, or diverged: nothing can be compared yet."
    large = longer[-1]
    ends = [
        f"{number(a.estimates[f'final_{outcome.name}'].value)} and {number(_ends(study, runs, a, DISTANCE)[0].value)}"
        for a in (small, large)
    ]
    return (
        f"At the end, {outcome.name} and distance are {ends[0]} at batch size {small.batch_size:,}, {ends[1]} at "
        f"{large.batch_size:,}, trained longer. Against steps, curves of equal updates end at one place if updates "
        "decide. A distance that is a straight line here grows as the logarithm of the time (Hoffer et al. 2017)."
    )


def _table(study: Study, runs: Sequence[StoredRun], small: SummaryRow, outcome: EndMetric) -> Table:
    rows: list[tuple[str, ...]] = []
    for arm in sorted(study.summary, key=lambda s: (s.batch_size, s.variant)):
        if arm.diverged:
            rows.append((_label(arm), "", "", f"{arm.diverged} of {arm.runs} diverged", "", "", ""))
            continue
        reached = ("", "")
        if arm.batch_size != small.batch_size:
            reached = _as_good(study, runs, arm, small).cell, _as_far(study, runs, arm, small).cell
        epochs, steps = (number(arm.estimates[name].value) for name in ("epochs", "steps"))
        ends = [with_interval(_ends(study, runs, arm, name)[0]) for name in (outcome.name, DISTANCE)]
        rows.append((_label(arm), epochs, steps, *ends, *reached))
    heads = ("epochs", "steps", outcome.name, "distance", "as good at epoch", "as far at epoch")
    return Table((Column("batch size"), *(Column(head, numeric=True) for head in heads)), tuple(rows))


def _label(arm: SummaryRow) -> str:
    return f"{arm.batch_size:,}{', longer' if arm.variant else ''}"


STUDY = NamedStudy(
    name="train_longer",
    summary="more epochs for a large batch, until it has as many updates as a small one",
    source=_SOURCE,
    question=StudyQuestion(batch_sizes=(64, 1024), lrs=(0.01,), length=Length(unit="epochs", amount=30)),
    quick={"batch_sizes": (64, 256), "seeds": (0, 1), "length": Length(unit="epochs", amount=0.5)},
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
