"""The model without batch normalisation, and with it before and after the activation."""

from __future__ import annotations

from typing import NamedTuple

from .....fits import intervals
from .....report.blocks import Block, Figure, Json, Key, Section
from .....report.charts import category_axis, finite, layout, points, with_errors
from .....store.not_applicable import not_applicable
from .....store.records import Estimate
from .....wording import count, joined, metric_in_words, number, with_interval
from ....page.figures.branch_curves import Branch, Dash, Up, branch_curves
from ...convergence import epochs_to_common_loss
from ...plan import NORM, NormPlace, norm_variant, robustness_note
from ...records import Claims
from ...results import TaskResults
from ..drawing import course_at, extent, over_seeds
from ..themes import THEMES
from ..wording import no_runs, note, theme_section, times_as

_TEXTBOOKS = (
    "Batch normalisation subtracts the batch's mean from the activations and divides by its standard deviation. It is "
    "said to speed convergence up, to improve generalisation, to make training less sensitive to the order of the data "
    "and models more robust to disturbed inputs, and to soften the effect of the batch size."
)


class Normalised(NamedTuple):
    """How a model is normalised."""

    variant: str
    words: str
    where: NormPlace
    colour: str


_KINDS = (
    Normalised("", "without", "none", "var(--series-0)"),
    Normalised(norm_variant("before"), "before the activation", "before", "var(--series-1)"),
    Normalised(norm_variant("after"), "after the activation", "after", "var(--series-2)"),
)
_DASHES: tuple[Dash, ...] = ("solid", "dot")
_DISTURBANCES = ("noise", "shift", "outliers")


def build(claims: Claims, e: TaskResults) -> Section:
    """Curves with and without, and what disturbances cost."""
    reason = not_applicable(e.read_note(NORM))
    if reason is not None:
        drawn: list[Block] = [note(f"No figure of batch normalisation: {reason}.")]
        return theme_section(claims, THEMES[7], _TEXTBOOKS, [], drawn)
    curves, disturbed = _curves(e), _disturbed(e)
    drawn = [
        curves if curves is not None else no_runs("training with batch normalisation"),
        disturbed if disturbed is not None else note(f"No figure of disturbed inputs: {_why_not(e)}."),
    ]
    return theme_section(claims, THEMES[7], _TEXTBOOKS, [_sooner(e)], drawn)


def _curves(e: TaskResults) -> Figure | None:
    """Each configuration at its best learning rate: colour says how it is normalised, the line which batch size."""
    if not e.arms(_KINDS[1].variant):
        return None
    names = dict.fromkeys((e.train_loss, e.loss or e.metric.metric))
    branches: list[Branch] = []
    for kind in _KINDS:
        for size, dash in zip(dict.fromkeys(e.plan.norm_sizes), _DASHES, strict=False):
            arm = e.at_best(size, kind.variant or e.without)
            course = course_at(e, arm)
            if course is not None and arm is not None:
                label = f"{kind.words}, batch size {count(size)} at learning rate {number(arm.lr)}"
                branches.append(Branch(label=label, course=course, colour=kind.colour, dash=dash))
    if not branches:
        return None
    return branch_curves(
        "norm-curves",
        branches,
        across=("epoch", "step"),
        up=[Up(label=metric_in_words(name), metric=name) for name in names],
        examples=e.study.examples,
        caption=_ends(e),
    )


def _ends(e: TaskResults) -> str:
    """The training loss at the end of each."""
    phrases: list[str] = []
    for size in dict.fromkeys(e.plan.norm_sizes):
        measured = [
            (k.words, over_seeds(e, e.at_best(size, k.variant or e.without), f"final_{e.train_loss}").value)
            for k in _KINDS
        ]
        detail = joined([f"{number(value)} {words}" for words, value in measured if value is not None])
        phrases += [f"at batch size {count(size)} {detail}"] if detail else []
    return f"Each at its best learning rate, mean over the seeds. The training loss ends at: {'; '.join(phrases)}."


def _sooner(e: TaskResults) -> str:
    details: list[str] = []
    for size in dict.fromkeys(e.plan.norm_sizes):
        effect, _ = epochs_to_common_loss(e, e.at_best(size, e.without), e.at_best(size, _KINDS[1].variant))
        words = times_as(effect, "more", "fewer", "as many")
        details += [f"at batch size {count(size)} {words}"] if words else []
    return (
        f"Epochs to the same training loss, with it over without, each at its best learning rate: {'; '.join(details)}."
        if details
        else ""
    )


# --- disturbed inputs -------------------------------------------------------------------------------------------------


def _costs(e: TaskResults, kind: Normalised) -> dict[str, list[float]]:
    """What the strongest disturbance of each sort costs in the score, one number a seed."""
    found: dict[str, list[float]] = {}
    for seed in e.plan.seeds:
        stored = e.read_note(robustness_note(kind.where, seed))
        if stored is None or not_applicable(stored["found"]) is not None:
            continue
        plain_value = stored["found"][0]["metrics"][e.score.metric]
        for sort in _DISTURBANCES:
            strongest = [r["metrics"][e.score.metric] for r in stored["found"] if r["kind"] == sort]
            if strongest:
                found.setdefault(sort, []).append(e.score.sign * (plain_value - strongest[-1]))
    return found


def _disturbed(e: TaskResults) -> Figure | None:
    traces: list[Json] = []
    keys: list[Key] = []
    details: list[str] = []
    ends: list[float | None] = [0.0]
    for i, kind in enumerate(_KINDS[:2]):
        within = e.range_of(e.score.metric).of_differences
        costs = {sort: intervals.mean(values, within=within) for sort, values in _costs(e, kind).items()}
        if not costs:
            continue
        words = "with it" if i else "without"
        traces.append({**_bars(costs, words, kind.colour), "legendgroup": f"disturbed-{i}"})
        keys.append(Key("disc", kind.colour, f"{words} batch normalisation" if not i else "with it", f"disturbed-{i}"))
        ends += [v for cost in costs.values() for v in (cost.value, cost.low, cost.high)]
        details.append(f"{words} {joined([f'{number(cost.value)} by {sort}' for sort, cost in costs.items()])}")
    if not details:
        return None
    frame = {**layout(category_axis(), extent(ends), height=300), "scattermode": "group", "scattergap": 0.7}
    caption = (
        f"What the strongest disturbance of each sort costs in {metric_in_words(e.score.metric)}, at batch size "
        f"{count(e.plan.middle)} and the best learning rate: {'; '.join(details)}. Bars are 90 % t intervals over the "
        "seeds."
    )
    return Figure("disturbed", f"loss of {metric_in_words(e.score.metric)}", tuple(traces), frame, caption, tuple(keys))


def _bars(costs: dict[str, Estimate], words: str, colour: str) -> Json:
    values = [cost.value or 0.0 for cost in costs.values()]
    hover = [f"{sort}, {words}<br>{with_interval(cost)}" for sort, cost in costs.items()]
    marks = points([0.0] * len(values), values, hover, colour=colour)
    below = [v - c.low if c.low is not None else 0.0 for v, c in zip(values, costs.values(), strict=True)]
    above = [c.high - v if c.high is not None else 0.0 for v, c in zip(values, costs.values(), strict=True)]
    return {**with_errors(marks, below, above), "x": list(costs), "y": finite(values), "offsetgroup": words}


def _why_not(e: TaskResults) -> str:
    stored = (e.read_note(robustness_note(_KINDS[0].where, seed)) for seed in e.plan.seeds)
    found = next((n["found"] for n in stored if n is not None), None)
    return not_applicable(found) or "they were not measured before the budget was used up"
