"""The page of the study `batch_norm`: what was published beside what is measured here, then one part a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Block, Column, Figure, Row, Section, Table, Text
from ....store.not_applicable import not_applicable
from ....store.records import Estimate
from ....wording import count, number, sentence, with_interval
from ...conclusions import paired_difference
from ...published import SHEN_SETTINGS, Setup, Value, published_section
from ...records import Study, SummaryRow
from .effects import (
    AFTER,
    BEFORE,
    NONE,
    NORMALISED,
    epochs_to_common_loss,
    focus,
    ghost_variant,
    higher,
    middle_pair,
    pairs,
    size_mean,
    sizes_of,
    tolerances,
)
from .figures import best_figure, curves_figure, drift_figure, order_figure, rates_row, robustness_row, shift_figure
from .readings import disturbed_metric, final_drift

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["IOFFE", "SETTINGS", "sections"]

SETTINGS = {**SHEN_SETTINGS, "hidden": 100, "depth": 3}
"""Of the built-in tasks: three hidden layers of 100 units, as in the MNIST experiment of Ioffe and Szegedy."""

IOFFE = Setup(
    who="Ioffe and Szegedy 2015",
    data="ImageNet",
    examples=1_281_167,
    length="up to 31 million steps of 32 examples",
    seeds=1,
    settings={},
    more=(
        "their network is an Inception with ReLU; their perceptron of three hidden layers of 100 units, which is the "
        "default here, has sigmoids and is trained on MNIST in 50,000 steps of 60 examples",
        "numbers of Hoffer et al. are of a ResNet-44 on CIFAR-10, those of Wu and He of a ResNet-50 on ImageNet, and "
        "Santurkar et al. measured a VGG on CIFAR-10",
    ),
)


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """All sections, or the published values and the reason where normalisation cannot be configured."""
    if (reason := not_applicable(study.measurements.get(NORMALISED))) is not None:
        why = Text(
            (f"Batch normalisation cannot be configured in this model: {reason}. The task was trained as it came.",)
        )
        return (published_section(study, runs, IOFFE, _values(study, runs), why),)
    return (
        published_section(study, runs, IOFFE, _values(study, runs)),
        Section("normalisation", "What batch normalisation changes", _changes(study, runs)),
        Section("tolerance", "Which learning rates work", _tolerance(study, runs)),
        Section(
            "orders", "Order of the training data", _drawn([order_figure(study)], "No runs in several orders yet.")
        ),
        Section("robustness", "Disturbed inputs", _robustness(study)),
        Section("shift", "Internal covariate shift", _shift(study, runs)),
        Section("definition", "The definition, and a batch of one example", _definition(study)),
    )


def _values(study: Study, runs: Sequence[StoredRun]) -> list[Value]:
    """Published numbers beside ours, one row each."""
    pair, small, ghost = middle_pair(study), pairs(study)[:1], ghost_variant(study)
    fewer = epochs_to_common_loss(study, runs, pair) if pair else None
    tolerated = tolerances(study, runs, focus(study))
    measured = NONE in tolerated and BEFORE in tolerated
    ghosts = pairs(study, ghost, BEFORE)[-1:] if ghost else []
    score = disturbed_metric(study)[0]
    smallest = f"Wu and He 2018: smallest batch ({score} here), "
    largest = f"Hoffer et al. 2017: largest batch ({score} here), "
    found = [
        (
            f"steps to one loss, without over with it, batch size {count(focus(study))}",
            "14.8 (31.0 over 2.1 million)",
            fewer.ratio if fewer else None,
        ),
        (
            "highest learning rate that works, with over without it",
            "30 (at least)",
            higher(tolerated[NONE], tolerated[BEFORE]) if measured else None,
        ),
        (f"{smallest}with it", "34.7 % error, 2 images", _best(small[0].with_, score) if small else None),
        (f"{smallest}without", "24.1 % error (group norm)", _best(small[0].without, score) if small else None),
        (f"{largest}whole", "89.3 %, 4,096 images", _best(ghosts[0].without, score) if ghosts else None),
        (f"{largest}ghosts", "90.5 %, 128 in a ghost", _best(ghosts[0].with_, score) if ghosts else None),
    ]
    values = [Value(what=what, published=published, ours=ours or "not measured") for what, published, ours in found]
    on = "on and off" if pair else "as the task came"
    return [*values, Value(what="Chang and Pathak 2020: in the runs about batch size", published="off", ours=on)]


def _best(arm: SummaryRow, name: str) -> Estimate | None:
    return arm.estimates.get(f"best_{name}")


def _drawn(blocks: Sequence[Figure | Row | Table | None], otherwise: str) -> tuple[Block, ...]:
    found = tuple(block for block in blocks if block is not None)
    return found or (Text((otherwise,), tone="note"),)


def _changes(study: Study, runs: Sequence[StoredRun]) -> tuple[Block, ...]:
    text = Text(
        (
            f"“{NONE}” has none, “{BEFORE}” has it in front of every hidden activation function, “{AFTER}” after it, "
            "and “ghost norm” takes the statistics of so many examples each. The own layers of the model begin at the "
            "same weights in all of them. What the model had of batch normalisation by itself is taken out first.",
        )
    )
    return (
        text,
        *_drawn([best_figure(study), _quality(study), curves_figure(study, runs), _speed(study, runs)], "Nothing yet."),
    )


def _quality(study: Study) -> Table | None:
    """Best values and gaps, without and before, by batch size."""
    best = f"best_{study.metric}"
    gaps = {"best_accuracy_gap": "accuracy gap", "best_loss_ratio": "loss ratio"}
    measured = [n for n in gaps if any(paired_difference(study, n, *pair).value is not None for pair in pairs(study))][
        :1
    ]
    names = (
        "batch size",
        f"best {study.metric} without",
        "with",
        "change",
        *(f"change of {gaps[n]}" for n in measured),
    )
    rows = tuple(
        (
            count(pair.without.batch_size),
            *(number(arm.estimates[best].value) for arm in pair),
            *(with_interval(paired_difference(study, name, *pair)) for name in (best, *measured)),
        )
        for pair in pairs(study)
    )
    return Table(tuple(Column(name, numeric=True) for name in names), rows) if rows else None


def _speed(study: Study, runs: Sequence[StoredRun]) -> Table | None:
    """Epochs to one training loss, without and before, by batch size."""
    names = ("batch size", "learning rate without", "with", "training loss", "epochs without", "with", "ratio")
    rows: list[tuple[str, ...]] = []
    for pair in pairs(study):
        found = epochs_to_common_loss(study, runs, pair)
        details = [with_interval(e) for e in (found.without, found.with_, found.ratio)] if found else ["", "", ""]
        loss = number(found.loss) if found else "none in common"
        rows.append(
            (count(pair.without.batch_size), number(pair.without.lr), number(pair.with_.lr), loss, *details),
        )
    return Table(tuple(Column(name, numeric=True) for name in names), tuple(rows)) if rows else None


def _tolerance(study: Study, runs: Sequence[StoredRun]) -> tuple[Block, ...]:
    note = Text(
        (
            "A learning rate works where the metric gains, from the start to its best epoch, at least 90 % of what it "
            "gains at the best learning rate of any variant, seed by seed. The range is measured on straight lines "
            "between the learning rates of the grid, in factors of ten. Where the first or the last of them works, it "
            "is a bound.",
        ),
        tone="note",
    )
    row = rates_row(study, runs)
    if row is None:
        return (
            Text(("With one learning rate only, no range can be measured; give several with --lrs.",), tone="note"),
        )
    rows: list[tuple[str, ...]] = []
    for size in sizes_of(study):
        for variant, found in tolerances(study, runs, size).items():
            limit = "none" if found.limit is None else number(found.limit)
            rows.append(
                (
                    count(size),
                    variant,
                    f"{'at least ' if found.at_top or found.at_bottom else ''}{with_interval(found.width)}",
                    f"{limit}{', the end of the grid' if found.at_top else ''}",
                )
            )
    columns = (Column("batch size", numeric=True), Column("variant"), Column("range in decades", numeric=True))
    table = Table((*columns, Column("highest learning rate that works", numeric=True)), tuple(rows))
    return (row, *([table] if rows else []), note)


def _robustness(study: Study) -> tuple[Block, ...]:
    reasons = _reasons(study, "robustness")
    if reasons:
        return (Text((sentence(f"Inputs cannot be disturbed here: {reasons[0]}"),)),)
    note = Text(
        (
            "The inputs that the evaluation gives the model are disturbed, at the weights of the best epoch. A "
            "standard deviation is that of all input numbers together; an outlier lies five of them from the mean, on "
            "either side. All models receive the same disturbance.",
        ),
        tone="note",
    )
    return (*_drawn([robustness_row(study)], "Nothing was measured."), note)


def _reasons(study: Study, kind: str) -> list[str]:
    return [why for found in study.read_note(kind).values() if (why := not_applicable(found)) is not None]


def _shift(study: Study, runs: Sequence[StoredRun]) -> tuple[Block, ...]:
    reasons = [
        *_reasons(study, "shift"),
        *(
            why
            for run in runs
            for r in run.rows
            if r.get("kind") == "activations" and (why := not_applicable(r)) is not None
        ),
    ]
    note = Text(
        (
            "Drift: the root mean square, over a layer's units, of how far the mean of what it receives has moved "
            "since the start, on 256 fixed examples in training mode, in the standard deviations that there were at "
            "the start. Change of a gradient: of a layer's weights, when the layers below make their step and it does "
            "not, on the same batch (Santurkar et al. 2018, definition 2.1); layers that normalisation brings along "
            "are left out of the mean. The step is a first one of the optimizer, without momentum from before.",
            *(sentence(f"Not everything could be measured: {reason}") for reason in dict.fromkeys(reasons)),
        ),
        tone="note",
    )
    figures = [drift_figure(study, runs), _layers(study, runs), shift_figure(study)]
    return (*_drawn(figures, "Nothing was measured."), note)


def _layers(study: Study, runs: Sequence[StoredRun]) -> Table | None:
    """The drift of each layer at the end, at the middle batch size."""
    pair = middle_pair(study)
    if pair is None:
        return None
    without, with_ = (final_drift(study, runs, arm) for arm in pair)
    rows = tuple(
        (layer, with_interval(size_mean(by_seed)), with_interval(size_mean(with_.get(layer, {}))))
        for layer, by_seed in without.items()
    )
    names = (f"layer, batch size {count(focus(study))}", "drift at the end without", "with")
    return Table(tuple(Column(name, numeric=i > 0) for i, name in enumerate(names)), rows) if rows else None


def _definition(study: Study) -> tuple[Block, ...]:
    stored, refused = study.measurements.get("definition"), study.measurements.get("refused")
    blocks: list[Block] = []
    if stored:
        names = ("layer", "mode", "channels", "left out", "largest mean", "largest standard deviation minus 1")
        rows = tuple(
            (
                r["layer"],
                r["mode"],
                count(r["channels"]),
                count(r["flat"]),
                number(r["mean"]),
                number(r["deviation"]),
            )
            for r in sorted(stored["layers"], key=lambda r: r["mode"], reverse=True)
        )
        blocks.append(Table(tuple(Column(n, numeric=i > 1) for i, n in enumerate(names)), rows))
        blocks.append(
            Text(
                (
                    "Of a trained model, in front of scale and shift, over one batch: the distance of the worst "
                    "channel's mean from 0 and of its standard deviation from 1. In training mode the statistics are "
                    "the batch's own, in evaluation mode running ones. Channels that hardly vary in the batch are left "
                    "out.",
                ),
                tone="note",
            )
        )
    if refused is not None:
        blocks.append(Text(tuple(_one_example_words(refused))))
    return tuple(blocks) or (Text(("Nothing was measured.",), tone="note"),)


def _one_example_words(refused: dict[str, str]) -> list[str]:
    if not refused:
        return [
            "A training step on a batch of one example can be made in every variant: a channel has several numbers in "
            "one example. What comes of it stands among the findings."
        ]
    return [sentence(f"A training step on one example, {variant}: {reason}") for variant, reason in refused.items()]
