"""Every batch size for equally many epochs: how fast the loss falls, and what stands at the end."""

from __future__ import annotations

from dataclasses import replace

from .....fits import intervals
from .....report.blocks import Block, Figure, Row, Section
from .....store.records import Estimate
from .....wording import count, joined, metric_in_words, number, sentence
from ....page.figures.against_size import against_size
from ....page.figures.branch_curves import Branch, Up, branch_curves
from ...comparisons import gap_range, last, score_change
from ...convergence import epochs_to_common_loss
from ...records import Claims
from ...results import Setting, TaskResults
from ..drawing import course_at, over_seeds, shade_of, two_series, with_shared_axis
from ..themes import THEMES
from ..wording import changed, no_runs, note, theme_section, times_as

_TEXTBOOKS = (
    "On the speed of learning the texts contradict each other: small batches are said to converge faster because "
    "they update more often, and slower because they are noisy; large ones to speed convergence up, and to slow it "
    "down. At equally many epochs a large batch makes fewer updates, which is why the same learning rate for all is a "
    "hard comparison: it is made here once so, as in the published experiments, and once with each batch size at its "
    "own best learning rate."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """Curves, and what stands at their end by batch size."""
    curves = _curves(e)
    ends = [figure for figure in (_score(e), _gap(e)) if figure is not None]
    drawn: list[Block] = [curves if curves is not None else no_runs("the training loss")]
    drawn += [Row(tuple(ends))] if ends else []
    drawn += [] if _gap(e) is not None or not ends else [note("The task does not report what a gap needs.")]
    return theme_section(claims, THEMES[2], _TEXTBOOKS, [_speed(e)], drawn)


def _curves(e: TaskResults) -> Figure | None:
    """One curve a batch size; the switches choose the learning rate, the loss, and what it is drawn against."""
    shades = shade_of(e.plan.batch_sizes)
    losses = dict.fromkeys((e.train_loss, e.loss or e.metric.metric))
    branches: list[Branch] = []
    for size, colour in shades.items():
        one, best = course_at(e, e.at_one_rate(size)), course_at(e, e.at_best(size))
        if (measured := one or best) is None:
            continue
        means = {
            f"{name} {how}": c.mean[name]
            for how, c in (("one", one), ("best", best))
            if c
            for name in losses
            if name in c.mean
        }
        branches.append(Branch(label=f"batch size {count(size)}", course=replace(measured, mean=means), colour=colour))
    if not branches:
        return None
    ups = [
        Up(label=f"{metric_in_words(name)}, {words}", metric=f"{name} {how}") for name in losses for how, words in _HOW
    ]
    figure = branch_curves(
        "loss-curves",
        branches,
        across=("epoch", "step"),
        up=[up for up in ups if any(up.metric in b.course.mean for b in branches)],
        examples=e.study.examples,
        caption=_conclude(e),
    )
    for name in losses:
        figure = with_shared_axis(figure, [f"{metric_in_words(name)}, {words}" for _, words in _HOW])
    return figure


_HOW = (("one", "one for all"), ("best", "best of each"))
"""Of learning rates, in the words of the switch."""


def _conclude(e: TaskResults) -> str:
    rates = [
        f"{number(arm.lr)} at batch size {count(b)}" for b in e.plan.batch_sizes if (arm := e.at_best(b)) is not None
    ]
    return (
        f"Mean over the seeds. The one learning rate for all is {number(e.one_rate)}, the best of batch size "
        f"{count(e.plan.smallest)}; the best of each are {', '.join(rates)}. {_ends(e)} Against steps instead "
        "of epochs, a large batch's shorter curve shows how much each of its updates does."
    )


def _ends(e: TaskResults) -> str:
    """The training loss at the end, smallest and largest batch, at one learning rate and at best."""
    name = f"final_{e.train_loss}"
    phrases: list[str] = []
    for words, arm_of in (("at one learning rate", e.at_one_rate), ("at the best learning rates", e.at_best)):
        small, large = (over_seeds(e, arm_of(b), name).value for b in e.ends)
        if small is not None and large is not None:
            phrases.append(f"{number(small)} against {number(large)} {words}")
    if not phrases:
        return ""
    return (
        f"At the end the training loss of batch sizes {count(e.ends[0])} and {count(e.ends[1])} is {joined(phrases)}."
    )


def _speed(e: TaskResults) -> str:
    """Epochs to a common loss, largest against smallest batch, at one learning rate and at best."""
    phrases: list[str] = []
    for words, arms in (
        ("at one learning rate", map(e.at_one_rate, e.ends)),
        ("with each at its best learning rate", map(e.at_best, e.ends)),
    ):
        effect, _ = epochs_to_common_loss(e, *arms)
        detail = times_as(effect, "more", "fewer", "as many")
        phrases += [f"{words} {detail}"] if detail else []
    if not phrases:
        return ""
    head = f"Epochs to the same training loss at batch size {count(e.ends[1])}, over those at {count(e.ends[0])}"
    return f"{head}: {'; '.join(phrases)}."


def _score(e: TaskResults) -> Figure | None:
    metric = e.score.metric
    series = two_series(e, lambda arm: over_seeds(e, arm, f"final_{metric}"))
    if not any(one.values for one in series):
        return None
    caption = f"At the end, batch size {count(e.ends[1])}, against {count(e.ends[0])}, is {_against(e)}."
    return against_size(
        "final-score", f"{metric_in_words(metric)} at the end", series, caption=caption, scale="spread", height=300
    )


def _against(e: TaskResults) -> str:
    phrases: list[str] = []
    for words, arm_of in (("at one learning rate", e.at_one_rate), ("with each at its best", e.at_best)):
        small, large = map(arm_of, e.ends)
        phrases.append(f"{changed(score_change(e, small, large, 'final'))} {words}")
    return ", and ".join(phrases)


def _gap(e: TaskResults) -> Figure | None:
    def gap(arm: Setting | None) -> Estimate:
        found = [e.gap_at(last(e.course(row))) for row in e.rows(arm) if row.status != "diverged"]
        return intervals.mean([g for g in found if g is not None], within=gap_range(e))

    series = two_series(e, gap)
    ends = [(series[i].values.get(e.ends[0]), series[i].values.get(e.ends[1])) for i in (0, 1)]
    details = [
        f"{words} from {number(a.value)} at batch size {count(e.ends[0])} to {number(b.value)} at {count(e.ends[1])}"
        for words, (a, b) in zip(("at one learning rate it goes", "at the best learning rates"), ends, strict=True)
        if a is not None and b is not None
    ]
    if not details:
        return None
    what = (
        f"training minus {metric_in_words(e.score.metric)}"
        if e.gap
        else f"{metric_in_words(e.loss or '')} minus training loss"
    )
    caption = (
        f"{sentence('; '.join(details))} A small gap with a bad training loss is underfitting, no good generalisation."
    )
    return against_size("gap", what, series, caption=caption, scale="spread", height=300)
