"""How far weights travel from where they began, by batch size, learning rate, layer (Shen A6; Chang and Pathak B6).

The distance is Euclidean, between the weights at an evaluation and those before the first step. An arm is a batch size
at a learning rate; arms are compared seed by seed, as a seed draws the same initial weights for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ....report.blocks import Figure, Row, Section, Text
from ....wording import count, number, with_interval
from ...conclusions import best_arm, runs_of
from ...demands import needs_several_sizes
from ...page.figures.branch_curves import shades
from ...page.figures.run_scatter import Choice, RunGroup, run_scatter
from ...published import SHEN, SHEN_SETTINGS, Value, published_section
from ...readings import arm_of
from ...records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion, StudyRow, SummaryRow, grid
from ...travel import Moment, Quantity, metric_name, travelled, with_travel
from .conclusions import SOURCE, travel_findings
from .figures import Traveller, by_epoch_figure, by_layer_figure, by_step_figure, norm_figure, travellers, turned_figure
from .update_figures import update_figures
from .weight_figures import weight_figures, weight_table

if TYPE_CHECKING:
    from ....store.runs import StoredRun
    from ...engine import Keep, Laboratory

__all__ = ["STUDY"]

_MEASURED_PER_EPOCH = 25
"""Updates whose size is measured: each costs up to half a training step of 64 examples."""
_WEIGHTS = "weights"
_NEAR = 0.5
_MORE = "the published distance is one curve, whose batch size is not stated; that its axis is the distance is inferred"


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """Every batch size at every learning rate."""
    needs_several_sizes("distance", question)
    return grid(question, examples)


def measure_all(laboratory: Laboratory) -> None:
    """The grid, watched; and the weights of the first seed before and after it, counted."""
    from ....probes.distance import DistanceFromInit
    from ....probes.update_size import UpdateSize

    kept: list[tuple[Arm, StoredRun]] = []
    for seed in laboratory.question.seeds:
        for arm in laboratory.arms:
            keep = _kept(laboratory, arm, seed)
            every = max(1, laboratory.examples // (arm.batch_size * _MEASURED_PER_EPOCH))
            how = {"examples": laboratory.examples, "batch_size": arm.batch_size, "every": every}
            run = laboratory.run(arm, seed, observers=[DistanceFromInit(), UpdateSize(**how)], keep=keep)
            if run is not None and keep:
                kept.append((arm, run))
    _count_weights(laboratory, sorted(kept, key=lambda pair: (pair[0].lr, pair[0].batch_size)))


def _kept(laboratory: Laboratory, arm: Arm, seed: int) -> Sequence[Keep]:
    """The last weights of the smallest and the largest batch, and the first of one of them, which are those of all."""
    sizes, lrs = laboratory.question.batch_sizes, laboratory.question.lrs
    if seed != laboratory.question.seeds[0] or arm.batch_size not in (min(sizes), max(sizes)):
        return ()
    ends = {lrs[0], min(lrs), max(lrs)}
    return (0, "last") if arm.lr == lrs[0] else ("last",) if arm.lr in ends else ()


def _count_weights(laboratory: Laboratory, kept: Sequence[tuple[Arm, StoredRun]]) -> None:
    from ....probes.base import trainable
    from .measure import histograms_of

    whole = [(arm, run) for arm, run in kept if run.result and run.result.status.value != "diverged"]
    first = next((run for arm, run in whole if arm.lr == laboratory.question.lrs[0]), None)
    if first is None or laboratory.read_note(_WEIGHTS) is not None:
        return
    if laboratory.late:
        laboratory.cut_off = True
        return
    before = laboratory.weights(first, 0)
    states = [before, *(laboratory.weights(run, "last") for _, run in whole)]
    names = list(trainable(laboratory.model(before)))
    moments: list[dict[str, Any]] = [{"run": first.id, "lr": None, "batch_size": None}]
    moments += [{"run": run.id, "lr": arm.lr, "batch_size": arm.batch_size} for arm, run in whole]
    laboratory.note(_WEIGHTS, {"moments": moments, "parameters": histograms_of(states, names)})


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Shen's conclusions, each with its numbers."""
    return travel_findings(study, runs)


# --- the page -------------------------------------------------------------------------------------------------------


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """The published values, the distance, where the best lie, the weights themselves, and the updates."""
    drawn = travellers(study, runs)
    found = [published_section(study, runs, replace(SHEN, more=(*SHEN.more, _MORE)), _values(study, runs))]
    if not drawn:
        phrase = "No run was followed to its end without diverging, or its weights left the range of numbers."
        return [*found, Section("distance", "Distance from the initial weights", (Text((phrase,)),))]
    layers = by_layer_figure(study, runs, drawn)
    one = Text(("The model has one layer: there is nothing to tell apart by layer.",), tone="note")
    for name, title, blocks in (
        ("distance", "Distance from the initial weights", (by_epoch_figure(study, runs, drawn),)),
        ("equal-steps", "Distance after equally many steps", (by_step_figure(study, drawn),)),
        ("layers", "The same in every layer?", (layers or one,)),
        ("sphere", "Norm and direction", (Row((norm_figure(study, drawn), turned_figure(study, drawn))),)),
        ("best-solutions", "Where the best solutions lie", (_where(study, runs, drawn),)),
    ):
        found.append(Section(name, title, blocks))
    found += _weights(study)
    if (updates := update_figures(study, runs)) is not None:
        found.append(Section("updates", "One update, and an epoch of them", (updates,)))
    return found


def _values(study: Study, runs: Sequence[StoredRun]) -> list[Value]:
    lr, best = study.question.lrs[0], best_arm(study)
    values: list[Value] = []
    for size in sorted(study.question.batch_sizes):
        arm = arm_of(study, size, lr)
        if arm is not None and not arm.diverged:
            values.append(
                Value(
                    what=f"distance after the first epoch → at the end, batch size {count(size)}, learning rate "
                    f"{number(lr)}",
                    published="2.3 → 6.7",
                    ours=f"{_after(study, runs, arm, 1.0)} → {with_interval(travelled(study, runs, arm)[0])}",
                )
            )
    if best is not None:
        there = with_interval(travelled(study, runs, best, moment="best")[0])
        what = (
            f"distance of the best solutions (here: batch size {count(best.batch_size)}, learning rate "
            f"{number(best.lr)})"
        )
        values.append(Value(what=what, published="about 6", ours=there))
    smallest = arm_of(study, min(study.question.batch_sizes), lr)
    if smallest is not None and not smallest.diverged:
        values.append(
            Value(
                what="norm at the start → after 3 epochs, smallest batch (published: Chang and Pathak 2020)",
                published="27.434 → 27.487",
                ours=f"{_after(study, runs, smallest, 0.0, 'norm')} → {_after(study, runs, smallest, 3.0, 'norm')}",
            )
        )
    return values


def _after(
    study: Study, runs: Sequence[StoredRun], arm: SummaryRow, epochs: float, quantity: Quantity = "distance"
) -> str:
    """A quantity at the evaluation nearest to so many epochs, within half an epoch; a norm to five digits."""
    course = with_travel(study, runs, arm, quantities=(quantity,))
    values = course.mean.get(metric_name(quantity), ()) if course else ()
    if course is None or not values:
        return "not measured"
    at = min(range(len(values)), key=lambda i: abs(course.epochs[i] - epochs))
    if abs(course.epochs[at] - epochs) > _NEAR:
        return "not reached"
    return f"{values[at]:.5g}" if quantity == "norm" else number(values[at])


def _where(study: Study, runs: Sequence[StoredRun], drawn: Sequence[Traveller]) -> Row:
    """Every run's distance against how good it is."""
    return Row((_scatter(study, runs, drawn, "best"), _scatter(study, runs, drawn, "end")))


def _scatter(study: Study, runs: Sequence[StoredRun], drawn: Sequence[Traveller], moment: Moment) -> Figure:
    kind = "best" if moment == "best" else "final"
    rows = [runs_of(study, one.arm) for one in drawn]
    far = [travelled(study, runs, one.arm, moment=moment)[1] for one in drawn]
    names = {name for own in rows for row in own for name in row.values}
    metrics = [study.metric, *(n for n in ("test_accuracy", "test_loss") if f"{kind}_{n}" in names)]
    groups = [
        RunGroup(label=one.label, colour=one.colour, mark=one.mark, runs=tuple(f"seed {row.seed}" for row in own))
        for one, own in zip(drawn, rows, strict=True)
    ]
    across = tuple(tuple(values.get(row.seed) for row in own) for own, values in zip(rows, far, strict=True))
    up = [
        Choice(label=name, values=tuple(tuple(row.values.get(f"{kind}_{name}") for row in own) for own in rows))
        for name in metrics
    ]
    when = "at the best epoch of each" if moment == "best" else "at the end of each"
    return run_scatter(
        f"runs-{moment}",
        when,
        groups,
        across=Choice(label="distance from the initial weights", values=across),
        up=up,
        caption=_best_runs(study, rows, far, f"{kind}_{study.metric}", when),
    )


def _best_runs(
    study: Study,
    rows: Sequence[Sequence[StudyRow]],
    far: Sequence[Mapping[int, float]],
    name: str,
    when: str,
) -> str:
    """Where the best third of the runs lies, and where the worst."""
    sign = -1.0 if study.larger_is_better else 1.0
    pairs = sorted(
        (sign * score, values[row.seed])
        for own, values in zip(rows, far, strict=True)
        for row in own
        if row.seed in values and (score := row.values.get(name)) is not None
    )
    third = len(pairs) // 3
    if not third:
        return f"One point a run, {when}; too few of them to tell the best from the others."
    best, worst = (sorted(d for _, d in part) for part in (pairs[:third], pairs[-third:]))
    return (
        f"One point a run, {when}. The best third of them by {study.metric} lies {number(best[0])} to "
        f"{number(best[-1])} from the initial weights, the worst third {number(worst[0])} to {number(worst[-1])}."
    )


def _weights(study: Study) -> list[Section]:
    """The histograms, and the widths of all parameters."""
    stored = study.measurements.get(_WEIGHTS)
    if stored is None:
        return []
    moments = [_moment(moment) for moment in stored["moments"]]
    matrices = [p for p in stored["parameters"] if not p["name"].rpartition(".")[2].startswith("bias")]
    colours = shades(2) if len({m["batch_size"] for m in stored["moments"]} - {None}) > 1 else shades(1)
    figures = weight_figures(matrices, moments, colours)
    note = Text(
        (
            "Of the first seed, whose initial weights are the same for every batch size and learning rate. Bins are "
            "those of the largest weight at any of these moments; a weight of exactly zero is in none, as initial "
            "biases often are. The table has the root mean square of each parameter about its mean, and in brackets "
            "its largest magnitude, before training and after it with a batch size at a learning rate.",
        ),
        tone="note",
    )
    table = weight_table(stored["parameters"], moments)
    return [Section("weights", "The weights before and after training", (*([figures] if figures else []), note, table))]


def _moment(moment: Mapping[str, Any]) -> dict[str, str]:
    """Names of a moment in figures and tables."""
    if moment["lr"] is None:
        return {"label": "before training", "short": "before training", "head": "before training", "rate": ""}
    size, rate = count(moment["batch_size"]), number(moment["lr"])
    return {
        "label": f"batch size {size}, learning rate {rate}",
        "short": f"after, batch size {size}",
        "head": f"{size} at {rate}",
        "rate": rate,
    }


STUDY = NamedStudy(
    name="distance",
    summary="how far the weights travel from where they began, by batch size, learning rate and layer",
    source=f"{SOURCE}; Chang and Pathak 2020, sizes of updates (B6)",
    question=StudyQuestion(batch_sizes=(64, 256, 1024), lrs=(0.01, 0.1), length=Length(unit="epochs", amount=30)),
    quick={"seeds": (0, 1), "batch_sizes": (256, 1024), "length": Length(unit="epochs", amount=1.2)},
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
