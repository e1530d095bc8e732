"""The page's part of the study of longer training: published numbers beside ours, courses, and passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Block, Column, Figure, Section, Table, Text
from ....wording import number, with_interval
from ...page.figures.branch_curves import Branch, Up, branch_curves, metrics_up, shades
from ...published import SHEN, Value, published_section
from ...readings import DISTANCE, EndMetric, arm_of, end_metric_of, with_distance
from ...records import Study, SummaryRow
from .passages import AS_FAR, LONGER, as_far_passage, as_good_passage, ends_of, longer_arms, smallest_arm

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["sections"]

_NOTE = (
    "As good and as far: the first epoch at which a run is where the same seed's run of the smallest batch ended, up "
    f"to the margin of the metric, and at {AS_FAR:g} times its distance."
)


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """Published numbers, the courses against epochs and steps, and when each comes to where the smallest ended."""
    small, outcome = smallest_arm(study), end_metric_of(study)
    found = [published_section(study, runs, SHEN, _values(study, runs), *_of_hoffer(study))]
    if (figure := _figure(study, runs, outcome)) is not None:
        more = () if small is None else (Text((_NOTE,), tone="note"), _table(study, runs, small, outcome))
        found.append(Section("longer", "The same updates by more epochs", (figure, *more)))
    return found


def _values(study: Study, runs: Sequence[StoredRun]) -> list[Value]:
    large = max(study.question.batch_sizes)
    arms_ = (
        ("smallest batch", "about 6 at the best solutions", smallest_arm(study)),
        ("largest batch, as many epochs", "short of it", arm_of(study, large, study.question.lrs[0])),
        (
            "largest batch, trained longer",
            "reaches it (in words)",
            arm_of(study, large, study.question.lrs[0], LONGER),
        ),
    )
    return [
        Value(
            what=f"distance from the start: {what} ({arm.batch_size:,})",
            published=published,
            ours=ends_of(study, runs, arm, DISTANCE)[0],
        )
        for what, published, arm in arms_
        if arm is not None
    ]


def _of_hoffer(study: Study) -> tuple[Block, ...]:
    outcome, large, lr = end_metric_of(study), max(study.question.batch_sizes), study.question.lrs[0]
    name = f"final_{outcome.name}"
    rows = [
        (what, detail, "not run" if arm is None else f"{with_interval(arm.estimates.get(name))} ({arm.batch_size:,})")
        for what, detail, arm in (
            ("small batch", "0.928 (128)", smallest_arm(study)),
            ("large batch, as many epochs", "0.861 (4,096)", arm_of(study, large, lr)),
            ("large batch, as many updates", "0.931 (4,096)", arm_of(study, large, lr, LONGER)),
        )
    ]
    columns = (Column(outcome.name), Column("Hoffer et al. 2017", numeric=True), Column("here", numeric=True))
    phrase = (
        "What differs from Hoffer et al. 2017: there, validation accuracy of a ResNet44 on CIFAR-10, with momentum and "
        "a learning rate that falls in phases; its large batch also had a learning rate larger by the square root, and "
        "batch normalisation over parts of the batch. Here learning rate, schedule and model are the same for every "
        "batch size."
    )
    return Table(columns, tuple(rows)), Text((phrase,), tone="note")


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
        caption=_caption(study, runs, outcome),
        logarithmic=True,
    )


def _caption(study: Study, runs: Sequence[StoredRun], outcome: EndMetric) -> str:
    small, longer = smallest_arm(study), longer_arms(study)
    if small is None or not longer:
        return "Runs are not finished, or diverged: nothing can be compared yet."
    large = longer[-1]
    ends = [
        f"{number(a.estimates[f'final_{outcome.name}'].value)} and {number(ends_of(study, runs, a, DISTANCE)[0].value)}"
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
            reached = as_good_passage(study, runs, arm, small).cell, as_far_passage(study, runs, arm, small).cell
        epochs, steps = (number(arm.estimates[name].value) for name in ("epochs", "steps"))
        ends = [with_interval(ends_of(study, runs, arm, name)[0]) for name in (outcome.name, DISTANCE)]
        rows.append((_label(arm), epochs, steps, *ends, *reached))
    heads = ("epochs", "steps", outcome.name, "distance", "as good at epoch", "as far at epoch")
    return Table((Column("batch size"), *(Column(head, numeric=True) for head in heads)), tuple(rows))


def _label(arm: SummaryRow) -> str:
    return f"{arm.batch_size:,}{', longer' if arm.variant else ''}"
