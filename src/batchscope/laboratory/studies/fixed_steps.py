"""Every batch size the same number of updates, instead of the same number of examples (Shen 2018).

How far the weights travel from where they began, and how good they are, at equally many steps; and, read off the same
runs, at equally many examples: as many as the smallest batch has seen at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...fits import intervals
from ...fits.curves import value_at
from ...report.blocks import Column, Figure, Row, Section, Table, Text
from ...report.charts import CURRENT, LINE
from ...store.ranges import Range
from ...store.records import Estimate
from ...wording import count, number, with_interval
from ..conclusions import best_arm, runs_of
from ..demands import needs_length_in, needs_one_rate, needs_several_sizes
from ..page.figures.against_size import Series, against_size
from ..page.figures.branch_curves import Branch, Dash, Up, branch_curves, metrics_up, shades
from ..published import SHEN, SHEN_SETTINGS, Value, conclusion, published_section
from ..readings import DISTANCE, EndMetric, end_metric_of, over_seeds, readings, with_distance
from ..records import Finding, Length, NamedStudy, Study, StudyQuestion, SummaryRow, grid
from ..summary import range_in

if TYPE_CHECKING:
    from ...store.runs import StoredRun
    from ..engine import Laboratory
    from ..records import Arm

__all__ = ["STUDY"]

_SOURCE = "Shen 2018, distance from the initial weights at a fixed number of steps"
_STEPS = 1770
"""As many as 30 epochs of 60,000 examples give batch size 1024."""
_EQUAL = 1.25
"""Two distances count as equal where the ratio's interval lies between 1 / 1.25 and 1.25; fixed beforehand."""


_DASHES: tuple[Dash, ...] = ("solid", "dash", "dot")
"""So that curves which lie on one another are all seen."""


class _Read(NamedTuple):
    """A quantity of one arm, by seed, with its mean."""

    mean: Estimate
    by_seed: dict[int, float]


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """Every batch size, as many steps."""
    needs_several_sizes("fixed_steps", question)
    needs_one_rate("fixed_steps", question)
    needs_length_in("fixed_steps", question, "steps", "gives every batch size the same number of steps")
    return grid(question, examples)


def measure_all(laboratory: Laboratory) -> None:
    """Every run, with its distance from the initial weights."""
    from ...probes.distance import DistanceFromInit

    laboratory.run_all(observers=lambda arm, task: [DistanceFromInit()])


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Whether distance and quality are the same at equally many steps."""
    arms = _arms(study)
    if len(arms) < 2:
        return ()
    return _distance(study, runs, arms[0], arms[-1]), _quality(study, runs, arms[0], arms[-1])


def _distance(study: Study, runs: Sequence[StoredRun], small: SummaryRow, large: SummaryRow) -> Finding:
    steps = _ratio(*(_at_steps(study, runs, arm, DISTANCE) for arm in (large, small)))
    examples = _ratio(_at_examples(study, runs, large, DISTANCE), _at_steps(study, runs, small, DISTANCE))
    return conclusion(
        "at equally many updates, how far the weights travel is limited whatever the batch size",
        _is_one(steps),
        f"after {study.question.length} at learning rate {number(small.lr)}, batch size {large.batch_size:,} is "
        f"{with_interval(steps)} times as far from its initial weights as {small.batch_size:,}; after equally many "
        f"examples, {with_interval(examples)} times",
        source=f"{_SOURCE}; geometric mean over the seeds, 90 % t interval; the same if it lies within "
        f"{1 / _EQUAL:g} to {_EQUAL:g}, another if outside",
        effect=steps,
        runs=_ids(study, small, large),
    )


def _quality(study: Study, runs: Sequence[StoredRun], small: SummaryRow, large: SummaryRow) -> Finding:
    outcome = end_metric_of(study)
    start = _at_steps(study, runs, small, outcome.name)
    within = _range(study, outcome.name)
    steps = _change(start, _at_steps(study, runs, large, outcome.name), within)
    examples = _change(start, _at_examples(study, runs, large, outcome.name), within)
    return conclusion(
        "what a large batch lacks is updates: with as many, it is as good as a small one",
        outcome.as_good(steps, start.mean.value),
        f"from batch size {small.batch_size:,} to {large.batch_size:,} at learning rate {number(small.lr)}, "
        f"{outcome.name} changes by {with_interval(steps)} after {study.question.length}, by {with_interval(examples)} "
        "after equally many examples",
        source=f"Shen 2018; Hoffer et al. 2017; differences seed by seed, 90 % t interval; as good is worse by at most "
        f"{outcome.margin}",
        effect=steps,
        runs=_ids(study, small, large),
    )


def _arms(study: Study) -> list[SummaryRow]:
    return sorted((s for s in study.summary if not s.diverged), key=lambda s: s.batch_size)


def _at_steps(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, name: str) -> _Read:
    """Value at the end, where all have made as many steps."""

    def read(run: StoredRun) -> float | None:
        course = readings(study, run, name)
        return course[-1].value if course else None

    return _Read(*over_seeds(study, runs, arm, read, within=_range(study, name)))


def _at_examples(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, name: str) -> _Read:
    """Value when the arm has seen as many examples as the smallest batch has at its end."""
    steps = _examples(study) / arm.batch_size

    def read(run: StoredRun) -> float | None:
        course = readings(study, run, name)
        return value_at([r.step for r in course], [r.value for r in course], steps)

    return _Read(*over_seeds(study, runs, arm, read, within=_range(study, name)))


def _range(study: Study, name: str) -> Range:
    return range_in(study.rows, f"final_{name}")


def _examples(study: Study) -> float:
    """Examples that the smallest batch has seen at its end."""
    return study.question.length.amount * _arms(study)[0].batch_size


def _ratio(above: _Read, below: _Read) -> Estimate:
    return intervals.geometric_ratio(intervals.matched(above.by_seed, below.by_seed))


def _change(before: _Read, after: _Read, within: Range) -> Estimate:
    return intervals.paired_difference(intervals.matched(after.by_seed, before.by_seed), within=within)


def _is_one(ratio: Estimate) -> bool | None:
    """Whether a ratio counts as 1.

    >>> def e(low, high): return Estimate(value=1.0, low=low, high=high, n=3, unit="times", method="")
    >>> _is_one(e(0.9, 1.1)), _is_one(e(1.3, 1.5)), _is_one(e(0.5, 1.1)), _is_one(e(None, None))
    (True, False, None, None)
    """
    if ratio.low is None or ratio.high is None:
        return None
    if ratio.low >= 1 / _EQUAL and ratio.high <= _EQUAL:
        return True
    return False if ratio.low > _EQUAL or ratio.high < 1 / _EQUAL else None


def _ids(study: Study, *arms: SummaryRow) -> tuple[str, ...]:
    return tuple(row.run for arm in arms for row in runs_of(study, arm))


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """Published numbers, the two ways to be equal against batch size, and the courses."""
    arms, outcome = _arms(study), end_metric_of(study)
    found = [published_section(study, runs, SHEN, _values(study, runs, arms))]
    if arms:
        row = Row((_against(study, runs, arms, DISTANCE), _against(study, runs, arms, outcome.name)))
        found.append(
            Section("equal", "Equally many steps, and equally many examples", (row, _table(study, runs, arms)))
        )
    if (figure := _courses(study, runs, arms, outcome)) is not None:
        lost = [f"{s.batch_size:,}" for s in study.summary if s.diverged]
        note = (
            [Text((f"At batch size {', '.join(lost)} a run diverged; it is left out.",), tone="note")] if lost else []
        )
        found.append(Section("courses", "The course of each batch size", (figure, *note)))
    return found


def _values(study: Study, runs: Sequence[StoredRun], arms: Sequence[SummaryRow]) -> list[Value]:
    published = {1024: "short of 6 after 30 epochs"}
    values = [
        Value(
            what=f"distance from the start, batch size {arm.batch_size:,}",
            published=published.get(arm.batch_size, "no number"),
            ours=_at_steps(study, runs, arm, DISTANCE).mean,
        )
        for arm in arms
    ]
    best = best_arm(study)
    if best is not None:
        at = _at_steps(study, runs, best, DISTANCE).mean
        values.append(Value(what="distance of the best solution", published="about 6", ours=at))
    if len(arms) > 1:
        ratio = _ratio(_at_steps(study, runs, arms[-1], DISTANCE), _at_steps(study, runs, arms[0], DISTANCE))
        values.append(Value(what="of the largest batch over the smallest", published="the same (in words)", ours=ratio))
    return values


def _against(study: Study, runs: Sequence[StoredRun], arms: Sequence[SummaryRow], name: str) -> Figure:
    steps = {arm.batch_size: _at_steps(study, runs, arm, name).mean for arm in arms}
    examples = {arm.batch_size: _at_examples(study, runs, arm, name).mean for arm in arms}
    seen = count(_examples(study))
    series = (
        Series(label=f"after {study.question.length}", colour=LINE, values=steps),
        Series(label=f"after {seen} examples", colour=CURRENT, values=examples, mark="open", dash="dash"),
    )
    first, last = arms[0].batch_size, arms[-1].batch_size
    what = "The distance" if name == DISTANCE else f"The {name}"
    phrase = (
        f"{what} is {with_interval(steps[first])} at batch size {first:,} and {with_interval(steps[last])} at {last:,} "
        f"after {study.question.length}; {with_interval(examples[last])} at {last:,} after {seen} examples."
    )
    title = "distance from the initial weights" if name == DISTANCE else name
    return against_size(
        f"equal-{'distance' if name == DISTANCE else 'outcome'}",
        title,
        series,
        caption=phrase,
        scale="from zero" if name == DISTANCE else "spread",
    )


def _table(study: Study, runs: Sequence[StoredRun], arms: Sequence[SummaryRow]) -> Table:
    outcome = end_metric_of(study)
    rows: list[tuple[str, ...]] = []
    for arm in arms:
        for how, read, seen in (
            ("steps", _at_steps, study.question.length.amount * arm.batch_size),
            ("examples", _at_examples, _examples(study)),
        ):
            found = [with_interval(read(study, runs, arm, name).mean) for name in (DISTANCE, outcome.name)]
            at = (count(seen / arm.batch_size), number(seen / study.examples))
            rows.append((f"{arm.batch_size:,}, equal {how}", *at, *found))
    heads = ("steps", "epochs", "distance", outcome.name)
    return Table((Column("batch size"), *(Column(head, numeric=True) for head in heads)), tuple(rows))


def _courses(study: Study, runs: Sequence[StoredRun], arms: Sequence[SummaryRow], outcome: EndMetric) -> Figure | None:
    found = [(arm, course) for arm in arms if (course := with_distance(study, runs, arm)) is not None]
    if not found:
        return None
    branches = [
        Branch(label=f"batch size {arm.batch_size:,}", course=course, colour=colour, dash=_DASHES[i % len(_DASHES)])
        for i, ((arm, course), colour) in enumerate(zip(found, shades(len(found)), strict=True))
    ]
    up = metrics_up(study, outcome, [course for _, course in found])
    if any(DISTANCE in course.mean for _, course in found):
        up = (Up(label="distance", metric=DISTANCE, rising=True), *up)
    ends = [course.mean[DISTANCE][-1] for _, course in found if DISTANCE in course.mean]
    between = f"At the end, distances are {number(min(ends))} to {number(max(ends))}. " if ends else ""
    caption = (
        f"{between}Against steps, curves that lie on one another mean that the number of updates decides and the batch "
        "size does not; against examples, that the number of examples does."
    )
    return branch_curves(
        "courses", branches, across=("step", "example"), up=up, examples=study.examples, caption=caption
    )


STUDY = NamedStudy(
    name="fixed_steps",
    summary="every batch size the same number of updates: how far the weights travel, and how good they are",
    source=_SOURCE,
    question=StudyQuestion(batch_sizes=(64, 256, 1024), lrs=(0.01,), length=Length(unit="steps", amount=_STEPS)),
    quick={"batch_sizes": (32, 256), "seeds": (0, 1), "length": Length(unit="steps", amount=6)},
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
