"""How long to train: runs past their validation minimum, where early stopping ends them, and equally many steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from .....fits import intervals
from .....report.blocks import Block, Figure, Json, Key, Section
from .....report.charts import points
from .....store.records import Estimate
from .....wording import count, joined, metric_in_words, number, percent, sentence
from ....courses import Course
from ....page.figures.against_size import Series, against_size
from ....page.figures.branch_curves import Branch, Up, branch_curves
from ....summary import Evaluation
from ...lengths import patience_of, stopped
from ...plan import FIXED, LONG
from ...records import Claims
from ...results import Setting, TaskResults
from ..drawing import by_size, course_at, over_seeds, shade_of
from ..themes import THEMES
from ..wording import no_runs, theme_section

_TEXTBOOKS = (
    "Too few epochs are said to underfit and too many to overfit, so that training should stop where the validation "
    "loss is lowest; and too many iterations “may never converge”. Some runs here went on several times as long as "
    "the others, to see what lies past the minimum, and some batch sizes were given equally many updates instead of "
    "epochs."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """Long runs, and equal steps against equal epochs."""
    long, fixed = _long(e), _fixed(e)
    drawn: list[Block] = [
        long if long is not None else no_runs("training past the validation minimum"),
        fixed if fixed is not None else no_runs("equally many steps"),
    ]
    return theme_section(claims, THEMES[3], _TEXTBOOKS, [_spared(e)], drawn)


def _arms(e: TaskResults) -> list[Setting]:
    return [e.at_one_rate(size, LONG) for size in dict.fromkeys(e.plan.long_sizes)]


def _courses(e: TaskResults, arm: Setting) -> list[Sequence[Evaluation]]:
    return [e.course(row) for row in e.rows(arm) if row.status != "diverged"]


def _loss(e: TaskResults) -> str:
    return e.loss or e.metric.metric


def _long(e: TaskResults) -> Figure | None:
    """Validation and training loss of both batch sizes, with the minimum and the stop of each, mean over the seeds."""
    found = [(arm, course) for arm in _arms(e) if (course := course_at(e, arm)) is not None]
    if not found:
        return None
    shades = shade_of([arm.batch_size for arm, _ in found])
    branches: list[Branch] = []
    for arm, course in found:
        for part, name, dash in (("validation", _loss(e), "solid"), ("training", e.train_loss, "dot")):
            means = {"loss": course.mean[name]}
            label = f"batch size {count(arm.batch_size)}, {part}"
            own = replace(course, mean=means)
            branches.append(
                Branch(label=label, course=own, colour=shades[arm.batch_size], dash="dot" if dash == "dot" else "solid")
            )
    figure = branch_curves(
        "long-runs",
        branches,
        across=("epoch",),
        up=[Up(label="loss", metric="loss")],
        examples=e.study.examples,
        caption=sentence("; ".join(_stops(e, arm) for arm, _ in found)),
        logarithmic=True,
    )
    marks = [mark for arm, course in found for mark in _marks(e, arm, course, shades[arm.batch_size])]
    keys = (Key("disc", "var(--text)", "minimum validation loss"), Key("arrow", "var(--text)", "early stopping ends"))
    title = (
        f"loss of runs of {number(e.plan.long_epochs)} epochs at learning rate {number(e.one_rate)}, mean over the "
        "seeds"
    )
    return replace(figure, title=title, data=(*figure.data, *marks), keys=(*figure.keys, *keys))


def _moments(e: TaskResults, arm: Setting) -> tuple[float, float]:
    """Mean epoch of the minimum validation loss, and of the end by early stopping."""
    courses = _courses(e, arm)
    best = fmean(min(course, key=lambda x: x.metrics[_loss(e)]).epoch for course in courses)
    ends = fmean(stopped(course, e.metric.metric, e.metric.sign, patience_of(e))[0].epoch for course in courses)
    return best, ends


def _marks(e: TaskResults, arm: Setting, course: Course, colour: str) -> list[Json]:
    best, ends = _moments(e, arm)
    name = f"batch size {count(arm.batch_size)}"
    drawn: list[Json] = []
    for epoch, mark, words in ((best, "disc", "minimum validation loss"), (ends, "arrow", "early stopping ends")):
        i = min(range(len(course.epochs)), key=lambda i: abs(course.epochs[i] - epoch))
        hover = [f"{name}<br>{words} at epoch {number(epoch)}"]
        drawn.append(
            points(
                [epoch], [course.mean[_loss(e)][i]], hover, mark="disc" if mark == "disc" else "arrow", colour=colour
            )
        )
    return drawn


def _stops(e: TaskResults, arm: Setting) -> str:
    best, ends = _moments(e, arm)
    return (
        f"batch size {count(arm.batch_size)} has its minimum {metric_in_words(_loss(e))} at epoch {number(best)}, "
        f"early stopping with a patience of {number(patience_of(e))} epochs ends it at {number(ends)}, and at the "
        f"end the loss lies {_above(_rise(e, arm))}"
    )


def _above(rise: Estimate) -> str:
    if rise.value is None:
        return "where it cannot be compared"
    return f"{percent(rise.value - 1)} above its minimum" if rise.value > 1.0005 else "at its minimum"


def _rise(e: TaskResults, arm: Setting) -> Estimate:
    """The loss at the end over the minimum."""
    name = _loss(e)
    pairs = [(course[-1].metrics[name], min(x.metrics[name] for x in course)) for course in _courses(e, arm)]
    return intervals.geometric_ratio(pairs)


def _spared(e: TaskResults) -> str:
    """How much of the long runs early stopping would have made."""
    details: list[str] = []
    for arm in _arms(e):
        if _courses(e, arm):
            _, ends = _moments(e, arm)
            share = ends / e.plan.long_epochs
            made = "all of them" if share > 0.995 else f"{percent(share)} of them"
            details.append(f"{made} at batch size {count(arm.batch_size)}")
    if not details:
        return ""
    return (
        f"Of the {number(e.plan.long_epochs)} epochs of a long run, early stopping would have made {joined(details)}."
    )


def _fixed(e: TaskResults) -> Figure | None:
    """The training loss at the end, at equally many epochs and at equally many steps."""
    name, sizes = f"final_{e.train_loss}", e.plan.batch_sizes
    epochs = by_size(sizes, lambda b: over_seeds(e, e.at_one_rate(b), name))
    steps = by_size(sizes, lambda b: over_seeds(e, e.at_one_rate(b, FIXED), name))
    if not steps or not epochs:
        return None
    updates = next(row.steps for row in e.rows(e.at_one_rate(min(steps), FIXED)))
    ends = [(found[min(found)].value, found[max(found)].value) for found in (epochs, steps)]
    details = [f"from {number(a)} to {number(b)}" for a, b in ends]
    caption = (
        f"From batch size {count(sizes[0])} to {count(sizes[-1])}, at learning rate {number(e.one_rate)}, the training "
        f"loss at the end goes {details[0]} at {number(e.plan.epochs)} epochs each, and {details[1]} at "
        f"{count(updates)} updates each: what a large batch lacks at equal epochs are updates, as far as the second "
        "curve does not rise."
    )
    series = (
        Series(label=f"{number(e.plan.epochs)} epochs each", colour="var(--series-0)", values=epochs),
        Series(
            label=f"{count(updates)} updates each", colour="var(--series-2)", values=steps, mark="open", dash="dash"
        ),
    )
    return against_size("equal-steps", "training loss at the end", series, caption=caption, scale="log")
