"""How far the weights went, against epoch, step and layer, and whether they only turned: figures of their travel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from ....fits.curves import value_at
from ....report.blocks import Figure, Json, Key, Option, Switch
from ....report.charts import PointMark, category_axis, finite, layout, safe
from ....report.charts import points as markers
from ....wording import count, joined, number, percent, with_interval
from ...courses import Course
from ...page.figures.branch_curves import Branch, Up, branch_curves, shades
from ...page.figures.whole_axis import whole_axis
from ...records import Study, SummaryRow
from ...travel import Quantity, groups_of, metric_name, travelled, with_travel

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = [
    "Traveller",
    "by_epoch_figure",
    "by_layer_figure",
    "by_step_figure",
    "norm_figure",
    "travellers",
    "turned_figure",
]

Dash = Literal["solid", "dash", "dot"]

_DASHES: tuple[Dash, ...] = ("solid", "dash", "dot")
_MARKS: tuple[PointMark, ...] = ("disc", "open", "arrow")
_MOST_LAYERS = 8
"""Layers that get a position of a switch; the figure by layer has all."""
_TITLE = "distance from the initial weights, mean over the seeds"
_QUANTITIES: tuple[Quantity, ...] = ("distance", "norm", "norm_change", "angle_degrees", "turned_degrees")


class Traveller(NamedTuple):
    """An arm with its course, and how it is drawn."""

    arm: SummaryRow
    label: str
    course: Course
    """As long as all of its seeds went on."""
    ends: Mapping[Quantity, float]
    """Means over the seeds, each at its own last evaluation."""
    colour: str
    """Of its batch size."""
    dash: Dash
    """Of its learning rate."""
    mark: PointMark

    @property
    def branch(self) -> Branch:
        """The arm as a curve."""
        return Branch(label=self.label, course=self.course, colour=self.colour, dash=self.dash)


def travellers(study: Study, runs: Sequence[StoredRun]) -> tuple[Traveller, ...]:
    """Arms of the unchanged task without a diverged run, at up to three learning rates: ends and middle of the grid."""
    arms = sorted((s for s in study.summary if not s.diverged), key=lambda s: (s.lr, s.batch_size))
    rates = _chosen(sorted({s.lr for s in arms}))
    sizes = sorted({s.batch_size for s in arms})
    colours = dict(zip(sizes, shades(len(sizes)), strict=True))
    groups = groups_of(runs)
    found: list[Traveller] = []
    for arm in (s for s in arms if s.lr in rates):
        course, at = with_travel(study, runs, arm, groups, _QUANTITIES), rates.index(arm.lr)
        if course is not None and metric_name("distance") in course.mean:
            label = f"batch size {count(arm.batch_size)}, learning rate {number(arm.lr)}"
            ends: dict[Quantity, float] = {}
            for quantity in _QUANTITIES:
                mean = travelled(study, runs, arm, quantity=quantity)[0].value
                ends |= {} if mean is None else {quantity: mean}
            found.append(Traveller(arm, label, course, ends, colours[arm.batch_size], _DASHES[at], _MARKS[at]))
    return tuple(found)


def _chosen(rates: Sequence[float]) -> list[float]:
    most = len(_DASHES)
    return list(rates) if len(rates) <= most else [rates[0], rates[len(rates) // 2], rates[-1]]


def by_epoch_figure(
    study: Study, runs: Sequence[StoredRun], drawn: Sequence[Traveller], name: str = "distance-by-epoch"
) -> Figure:
    """The distance from the initial weights against epoch: all parameters, weights and biases apart, by layer."""
    groups = groups_of(runs)
    layers = [group for group in groups if group.is_layer]
    shown = [group for group in groups if not group.is_layer] + (layers if len(layers) <= _MOST_LAYERS else [])
    figure = branch_curves(
        name,
        [one.branch for one in drawn],
        across=("epoch",),
        up=[Up(label=group.label, metric=metric_name("distance", group), rising=True) for group in shown],
        examples=study.examples,
        caption=" ".join(_ends(drawn)),
    )
    return replace(figure, title=_TITLE)


def _ends(drawn: Sequence[Traveller]) -> Iterator[str]:
    """Distance of the largest batch against the smallest, learning rate by learning rate, in words."""
    for lr in sorted({one.arm.lr for one in drawn}):
        own = [one for one in drawn if one.arm.lr == lr]
        first, last = own[0], own[-1]
        ends = [one.ends["distance"] for one in (first, last)]
        if first is last or not ends[0]:
            yield f"At {first.label}, the weights end {number(ends[0])} from where they began."
        else:
            yield (
                f"At learning rate {number(lr)} the weights end {number(ends[0])} from where they began with batch "
                f"size {count(first.arm.batch_size)}, and {number(ends[1])} with {count(last.arm.batch_size)}, "
                f"{percent(ends[1] / ends[0])} of that."
            )


def by_step_figure(study: Study, drawn: Sequence[Traveller], name: str = "distance-by-step") -> Figure:
    """Distance against the logarithm of the step, where batch sizes are compared after as many updates."""
    figure = branch_curves(
        name,
        [one.branch for one in drawn],
        across=("step", "epoch"),
        up=[Up(label="all parameters", metric=metric_name("distance"), rising=True)],
        examples=study.examples,
        caption=_at_equal_steps(drawn),
        logarithmic=True,
    )
    return replace(figure, title=_TITLE)


def _at_equal_steps(drawn: Sequence[Traveller]) -> str:
    until = min(one.course.steps[-1] for one in drawn)
    if not until:
        return "The runs of one arm have no step in common at which they were evaluated, but the start."
    phrases: list[str] = []
    for lr in sorted({one.arm.lr for one in drawn}):
        own = [one for one in drawn if one.arm.lr == lr]
        values = [value_at(one.course.steps, one.course.mean[metric_name("distance")], until) for one in own]
        parts = [f"{number(v)} with batch size {count(o.arm.batch_size)}" for o, v in zip(own, values, strict=True)]
        phrases.append(f"at learning rate {number(lr)}, {joined(parts)}")
    return (
        f"After {count(until)} steps, the most that every batch size made, the distance is, {'; '.join(phrases)}. A "
        "course that is straight here grows as the logarithm of the step (Hoffer et al. 2017)."
    )


def by_layer_figure(
    study: Study, runs: Sequence[StoredRun], drawn: Sequence[Traveller], name: str = "distance-by-layer"
) -> Figure | None:
    """The distance at the end, layer by layer; `None` for a model of one layer."""
    layers = [group for group in groups_of(runs) if group.is_layer]
    if not layers:
        return None
    labels = [safe(group.path[-1]) for group in layers]
    ends = [[travelled(study, runs, one.arm, group=group)[0] for group in layers] for one in drawn]
    starts = [travelled(study, runs, drawn[0].arm, group=g, quantity="initial_norm")[0].value for g in layers]
    plain = [[e.value for e in row] for row in ends]
    relative = [
        [v / start if v is not None and start else None for v, start in zip(row, starts, strict=True)] for row in plain
    ]
    traces: list[Json] = []
    for i, (one, row) in enumerate(zip(drawn, ends, strict=True)):
        texts = [
            f"{safe(one.label)}<br>layer {label}: {with_interval(e)}" for label, e in zip(labels, row, strict=True)
        ]
        marks = markers([0.0] * len(labels), plain[i], texts, mark=one.mark, colour=one.colour)
        course = {"mode": "lines+markers", "line": {"color": one.colour, "width": 1.5, "dash": one.dash}}
        traces.append({**marks, **course, "x": labels, "legendgroup": f"layers-{i}"})
    switch = Switch(
        "y",
        "distance",
        tuple(
            Option(label, tuple(tuple(finite(row)) for row in values), {"yaxis": whole_axis(values)})
            for label, values in (("in weight units", plain), ("÷ initial norm of the layer", relative))
        ),
    )
    keys = tuple(Key(_key(one.dash), one.colour, one.label, f"layers-{i}") for i, one in enumerate(drawn))
    frame = layout(category_axis("layer"), whole_axis(plain), height=340)
    title = "distance from the initial weights at the end, mean over the seeds"
    return Figure(name, title, tuple(traces), frame, _of_layers(drawn, plain, labels), keys, (switch,))


def _of_layers(drawn: Sequence[Traveller], ends: Sequence[Sequence[float | None]], labels: Sequence[str]) -> str:
    phrases: list[str] = []
    for lr in sorted({one.arm.lr for one in drawn}):
        own = [row for one, row in zip(drawn, ends, strict=True) if one.arm.lr == lr]
        shares = [last / first for first, last in zip(own[0], own[-1], strict=True) if first and last is not None]
        if len(own) > 1 and shares:
            phrases.append(f"at learning rate {number(lr)} between {percent(min(shares))} and {percent(max(shares))}")
    if not phrases:
        return f"The layers are {joined(labels)}, in the order of the model."
    return (
        "The largest batch gets, layer by layer, this share of the smallest's distance: "
        f"{'; '.join(phrases)}. A layer that starts at a larger norm has more to move, which the other position takes "
        "out."
    )


def norm_figure(study: Study, drawn: Sequence[Traveller], name: str = "norm-by-epoch") -> Figure:
    """The norm over the initial norm, and the norm itself."""
    changes = [one.ends["norm_change"] for one in drawn if "norm_change" in one.ends]
    phrase = f"At the end the norm of all parameters has changed by {_range(100.0 * c for c in changes)} %."
    figure = branch_curves(
        name,
        [one.branch for one in drawn],
        across=("epoch",),
        up=[
            Up(label="its change as a share", metric=metric_name("norm_change"), rising=True),
            Up(label="norm", metric=metric_name("norm"), rising=True),
        ],
        examples=study.examples,
        caption=phrase if changes else "The initial weights are zero: there is no change as a share of them.",
        height=320,
    )
    return replace(figure, title="norm of all parameters")


def turned_figure(study: Study, drawn: Sequence[Traveller], name: str = "angles-by-epoch") -> Figure:
    """How far the weights turned, and which way they went."""
    turned, across = (
        [one.ends[quantity] for one in drawn if quantity in one.ends]
        for quantity in ("turned_degrees", "angle_degrees")
    )
    phrase = (
        f"The weights end {_range(turned)}° from their initial direction, and their way makes an angle of "
        f"{_range(across)}° with it: 90° is across, along the sphere of the initial radius; less leads outwards, more "
        "towards the origin."
    )
    figure = branch_curves(
        name,
        [one.branch for one in drawn],
        across=("epoch",),
        up=[
            Up(label="the weights", metric=metric_name("turned_degrees"), rising=True),
            Up(label="their way", metric=metric_name("angle_degrees"), rising=True),
        ],
        examples=study.examples,
        caption=phrase if turned and across else "The initial weights are zero: they have no direction.",
        height=320,
    )
    return replace(figure, title="angle with the initial weights, degrees")


def _range(values: Iterable[float]) -> str:
    measured = sorted(values) or [math.nan]
    ends = list(dict.fromkeys(number(v) for v in (measured[0], measured[-1])))
    return " to ".join(ends)


def _key(dash: Dash) -> Literal["line", "dash", "dot"]:
    return "line" if dash == "solid" else dash
