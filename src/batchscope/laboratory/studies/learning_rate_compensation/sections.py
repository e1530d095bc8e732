"""The page's part of the study of learning rates: published values beside ours, and what is won back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Block, Column, Section, Table, Text
from ....wording import number, sentence, with_interval
from ...conclusions import best_rates, paired_difference
from ...published import CHANG, SHEN, Value, differences, published_section, rate_and_size
from ...records import Study, SummaryRow
from .cells import cells_of, difference_at_one_lr, ends_at_one_lr, named_arm, won_back
from .figures import curves_by_rate, own_rates_figure, scaling_figure
from .scaling import scaling_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["sections"]

_OF_SHEN = {
    "test_accuracy": ("test accuracy at the end", "0.979", "0.952", "0.978"),
    "test_loss": ("test loss at the end", "0.065", "0.17", "0.067"),
    "train_accuracy_eval": ("training accuracy at the end", "0.999", "0.954", "0.995"),
    "train_loss_eval": ("training loss at the end", "0.01", "0.16", "0.02"),
}
"""Batch size 64 at 0.01, 1024 at 0.01 and 1024 at 0.1; read off figures, to about 0.002 and 0.005."""


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """The published values, what is won back, every learning rate, and the best learning rates."""
    found = [published_section(study, runs, SHEN, _values_of_shen(study), *_of_chang(study, runs))]
    won = [*_won_back_table(study)]
    if (figure := own_rates_figure(study, difference_at_one_lr(study))) is not None:
        won.append(figure)
    scaling, curves = scaling_of(study), curves_by_rate(study, runs)
    if won:
        found.append(Section("compensation", "What a higher learning rate wins back", tuple(won)))
    if scaling is not None:
        found.append(Section("scaling", "Best learning rate against batch size", (scaling_figure(study, scaling),)))
    if curves is not None:
        found.append(Section("every-rate", f"{study.metric} at every learning rate", (curves,)))
    return found


def _values_of_shen(study: Study) -> list[Value]:
    cells = cells_of(study)
    if cells is None:
        return []
    published = (rate_and_size(64, 0.01), rate_and_size(1024, 0.01), rate_and_size(1024, 0.1))
    values = [
        Value(
            what=f"{what}: {rate_and_size(arm.batch_size, arm.lr)}",
            published=value if rate_and_size(arm.batch_size, arm.lr) == of else f"{value} ({of})",
            ours=with_interval(arm.estimates.get(f"final_{name}")),
        )
        for name, (what, *numbers) in _OF_SHEN.items()
        for arm, value, of in zip(cells, numbers, published, strict=True)
    ]
    share = won_back(study, "final_test_accuracy", cells.raised, cells)
    return [
        *values,
        Value(
            what="share of the test accuracy that ten times the learning rate wins back", published="0.96", ours=share
        ),
    ]


def _of_chang(study: Study, runs: Sequence[StoredRun]) -> tuple[Block, ...]:
    own, one = best_rates(study, ""), ends_at_one_lr(study)
    if len(own) < 2:
        return ()
    name = f"best_{study.metric}"
    rows = [
        ("smallest batch, at its best learning rate", "0.343 (32)", _cell(own[0], name)),
        ("largest batch, at its best learning rate", "0.352 (256)", _cell(own[-1], name)),
        ("their difference", "0.009", with_interval(paired_difference(study, name, own[0], own[-1]))),
    ]
    if one is not None:
        rows += [
            ("smallest batch, at one learning rate", "0.344 (32, probably at 0.01)", _cell(one[0], name)),
            ("largest batch, at one learning rate", "0.395 (256, probably at 0.01)", _cell(one[1], name)),
            ("their difference", "0.051", with_interval(difference_at_one_lr(study))),
        ]
    columns = (Column(f"best {study.metric}"), Column(CHANG.who, numeric=True), Column("here", numeric=True))
    phrase = " ".join(sentence(text) for text in differences(study, runs, CHANG))
    return Table(columns, tuple(rows)), Text((f"What differs from {CHANG.who}: {phrase}",), tone="note")


def _cell(arm: SummaryRow, name: str) -> str:
    return f"{with_interval(arm.estimates.get(name))} ({arm.batch_size:,} at {number(arm.lr)})"


def _won_back_table(study: Study) -> tuple[Block, ...]:
    """Every metric's share, at ten times the learning rate and at the largest batch's best."""
    cells = cells_of(study)
    if cells is None:
        return ()
    keys = {cells.raised.key, cells.large.key}
    best = [arm for arm in best_rates(study, "")[-1:] if arm.key[1] == cells.large.batch_size and arm.key not in keys]
    raised = (cells.raised, *best)
    rows: list[tuple[str, ...]] = []
    for name in (n for n in cells.small.estimates if n.startswith("final_") and not n.endswith(("_gap", "_ratio"))):
        values = [with_interval(arm.estimates.get(name)) for arm in (cells.small, cells.large)]
        for arm in raised:
            share = won_back(study, name, arm, cells)
            values += [with_interval(arm.estimates.get(name)), with_interval(share)]
        rows.append((name.removeprefix("final_"), *values))
    heads = [_short(cells.small), _short(cells.large)]
    for arm in raised:
        heads += [_short(arm), "won back"]
    table = Table((Column("at the end"), *(Column(head, numeric=True) for head in heads)), tuple(rows))
    note = (
        f"Columns are batch size at learning rate. Won back is the share of the change from {named_arm(cells.small)} "
        f"to {named_arm(cells.large)} that the higher learning rate takes away again: 1 is all of it, above 1 is more "
        "than was lost."
    )
    return table, Text((note,), tone="note")


def _short(arm: SummaryRow) -> str:
    return f"{arm.batch_size:,} at {number(arm.lr)}"
