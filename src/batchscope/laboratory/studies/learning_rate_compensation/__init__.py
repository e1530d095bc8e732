"""What a higher learning rate wins back of what a large batch loses, on a grid of both (Shen A2; Chang, Pathak).

The best learning rate of a batch size is that with the best mean over the seeds of the metric that choices are made by.
The share won back is (large batch at ten times the learning rate - large batch) / (small batch - large batch), both at
the smallest learning rate where nothing is said, means over seeds divided by each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ....fits import intervals
from ....report.blocks import Block, Column, Section, Table, Text
from ....store.records import Estimate
from ....wording import joined, number, sentence, with_interval
from ...conclusions import best_rates, paired_difference, runs_of
from ...demands import needs_several_sizes
from ...published import (
    CHANG,
    SHEN,
    SHEN_SETTINGS,
    Value,
    conclusion,
    differences,
    is_above,
    published_section,
    rate_and_size,
)
from ...readings import arm_of, end_metric_of
from ...records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion, SummaryRow, grid
from .figures import curves_by_rate, own_rates_figure, scaling_figure
from .scaling import scaling_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["STUDY"]

_SOURCE = "Shen 2018, figures with the tenfold learning rate (A2); Chang and Pathak 2020, figure 23 (B7)"
_SMALL = 64
"""The published small batch, where it was asked for; else the smallest."""
_TENFOLD = 10.0
_WON_BACK = 0.8
"""From this share on, what was lost counts as won back; Shen's figures give 0.96."""
_MOST = 0.5
"""Below this share of the difference at one learning rate, most of it is gone; Chang and Pathak's numbers give 0.18."""
_OF_SHEN = {
    "test_accuracy": ("test accuracy at the end", "0.979", "0.952", "0.978"),
    "test_loss": ("test loss at the end", "0.065", "0.17", "0.067"),
    "train_accuracy_eval": ("training accuracy at the end", "0.999", "0.954", "0.995"),
    "train_loss_eval": ("training loss at the end", "0.01", "0.16", "0.02"),
}
"""Batch size 64 at 0.01, 1024 at 0.01 and 1024 at 0.1; read off figures, to about 0.002 and 0.005."""


class _Cells(NamedTuple):
    """The three arms of Shen's comparison."""

    small: SummaryRow
    large: SummaryRow
    raised: SummaryRow


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """The grid, and the largest batch at ten times the smallest learning rate."""
    needs_several_sizes("learning_rate_compensation", question)
    cells = tuple(grid(question, examples))
    large, lr = max(question.batch_sizes), _tenfold(question)
    if any(cell.batch_size == large and cell.lr == lr for cell in cells):
        return cells
    return (*cells, Arm(batch_size=large, lr=lr, length=question.length, schedule=question.schedule))


def _tenfold(question: StudyQuestion) -> float:
    """Ten times the smallest learning rate, as the user would write it."""
    return float(f"{_TENFOLD * min(question.lrs):.12g}")


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Shen's conclusion, and those of Chang and Pathak."""
    return (*_of_shen(study), *_scaling(study), *_remaining(study))


def _of_shen(study: Study) -> Iterator[Finding]:
    cells, outcome = _cells(study), end_metric_of(study)
    if cells is None:
        return
    lost = paired_difference(study, f"final_{outcome.name}", cells.small, cells.large)
    share = _won_back(study, f"final_{outcome.name}", cells.raised, cells)
    sign = 1.0 if outcome.larger_is_better else -1.0
    worse = is_above(_times(lost, -sign))
    changes = (
        f"from {_named(cells.small)} to {_named(cells.large)}, {outcome.name} at the end changes by "
        f"{with_interval(lost)}"
    )
    if cells.raised.diverged:
        holds = False
        by = (
            f"{changes}; at learning rate {number(cells.raised.lr)} {cells.raised.diverged} of {cells.raised.runs} "
            "runs diverged"
        )
    elif worse:
        holds = is_above(share, _WON_BACK)
        by = f"{changes}, and learning rate {number(cells.raised.lr)} wins back {with_interval(share)} of it"
    else:
        holds, by = None, f"{changes}, no clear loss that could be won back"
    yield conclusion(
        "ten times the learning rate wins back the accuracy that a large batch loses at the same learning rate",
        holds,
        by,
        source="Shen 2018, figures with the tenfold learning rate (A2); 90 % interval of Fieller over the seeds for "
        f"the share won back; {_WON_BACK:g} and more counts as won back",
        effect=share,
        runs=_ids(study, *cells),
    )


def _scaling(study: Study) -> Iterator[Finding]:
    scaling = scaling_of(study)
    if scaling is None:
        return
    chosen = joined([f"{number(a.lr)} at batch size {a.batch_size:,}" for a in best_rates(study, "")])
    bound = "; learning rates at an end of the grid are bounds only" if scaling.at_least or scaling.at_most else ""
    exponent = f"the exponent over the seeds is {with_interval(scaling.exponent)}{bound}"
    how = "slope of logarithms, each seed with its own best learning rates, 90 % t interval"
    for statement, holds, by, rule in (
        (
            "a small batch does best with a small learning rate, a large one with a large",
            scaling.rises,
            chosen,
            "above 0",
        ),
        (
            "the best learning rate grows in proportion to the batch size",
            scaling.linear,
            exponent,
            "above 0.75, halfway",
        ),
    ):
        yield conclusion(
            statement,
            holds,
            f"{by}; {exponent}" if by is chosen else by,
            source=f"Chang and Pathak 2020, closing rules; {how}; so if {rule}",
            effect=scaling.exponent,
        )


def _remaining(study: Study) -> Iterator[Finding]:
    """What is left of the difference between the ends of the batch sizes, each at its best learning rate."""
    own = best_rates(study, "")
    if len(own) < 2:
        return
    small, large, name = own[0], own[-1], f"best_{study.metric}"
    left = paired_difference(study, name, small, large)
    sign = -1.0 if study.larger_is_better else 1.0
    sizes = f"from batch size {small.batch_size:,} to {large.batch_size:,}, each at its best learning rate"
    yield conclusion(
        "with learning rates of their own, a slight difference between small and large batches is left",
        is_above(_times(left, sign)),
        f"{sizes}, the best {study.metric} changes by {with_interval(left)}",
        source="Chang and Pathak 2020 (0.343 and 0.352); differences seed by seed, 90 % t interval",
        effect=left,
        runs=_ids(study, small, large),
    )
    share = _left_share(study)
    if share is not None:
        yield conclusion(
            "most of the difference at one learning rate goes away with learning rates of their own",
            None if (above := is_above(share, _MOST)) is None else not above,
            f"at learning rate {number(min(study.question.lrs))} for both, the best {study.metric} changes by "
            f"{with_interval(_at_one_rate(study))}; with their own learning rates {with_interval(share)} times as much "
            "is left",
            source="Chang and Pathak 2020 (0.395 against 0.344 at one learning rate); 90 % interval of Fieller over "
            f"the seeds; most is gone if less than {_MOST:g} is left",
            effect=share,
        )


def _cells(study: Study) -> _Cells | None:
    sizes, low = study.question.batch_sizes, min(study.question.lrs)
    small = _SMALL if _SMALL in sizes and max(sizes) > _SMALL else min(sizes)
    found = (
        arm_of(study, small, low),
        arm_of(study, max(sizes), low),
        arm_of(study, max(sizes), _tenfold(study.question)),
    )
    present = [arm for arm in found if arm is not None]
    return _Cells(*present) if len(present) == len(found) else None


def _won_back(study: Study, name: str, raised: SummaryRow, cells: _Cells) -> Estimate:
    """`(raised - large) / (small - large)`, means over the seeds that all three have."""
    rows = _by_seed(study, name, cells.small, cells.large, raised)
    return intervals.ratio_of_paired_means((r - b, a - b) for a, b, r in rows)


def _by_seed(study: Study, name: str, *arms: SummaryRow) -> list[list[float]]:
    """A value of each arm, for each seed that has all of them."""
    columns = [{r.seed: r.values.get(name) for r in runs_of(study, arm)} for arm in arms]
    rows = [[column.get(seed) for column in columns] for seed in study.question.seeds]
    measured = [[value for value in row if value is not None] for row in rows]
    return [row for row in measured if len(row) == len(arms)]


def _at_one_rate(study: Study) -> Estimate | None:
    ends = _ends_at_one_rate(study)
    return None if ends is None else paired_difference(study, f"best_{study.metric}", *ends)


def _ends_at_one_rate(study: Study) -> tuple[SummaryRow, SummaryRow] | None:
    low = min(study.question.lrs)
    small, large = (
        arm_of(study, size, low) for size in (min(study.question.batch_sizes), max(study.question.batch_sizes))
    )
    return None if small is None or large is None or small.diverged or large.diverged else (small, large)


def _left_share(study: Study) -> Estimate | None:
    """The difference with learning rates of their own over that at one learning rate, means over the seeds."""
    own, one = best_rates(study, ""), _ends_at_one_rate(study)
    if one is None or len(own) < 2:
        return None
    rows = _by_seed(study, f"best_{study.metric}", own[0], own[-1], *one)
    return intervals.ratio_of_paired_means((row[1] - row[0], row[3] - row[2]) for row in rows)


def _times(change: Estimate, sign: float) -> Estimate:
    if sign > 0:
        return change
    value, low, high = (None if v is None else -v for v in (change.value, change.high, change.low))
    return replace(change, value=value, low=low, high=high)


def _named(arm: SummaryRow) -> str:
    return f"batch size {arm.batch_size:,} at learning rate {number(arm.lr)}"


def _ids(study: Study, *arms: SummaryRow) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.run for arm in arms for row in runs_of(study, arm)))


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """The published values, what is won back, every learning rate, and the best learning rates."""
    found = [published_section(study, runs, SHEN, _values_of_shen(study), *_of_chang(study, runs))]
    won = [*_won_back_table(study)]
    if (figure := own_rates_figure(study, _at_one_rate(study))) is not None:
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
    cells = _cells(study)
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
    share = _won_back(study, "final_test_accuracy", cells.raised, cells)
    return [
        *values,
        Value(
            what="share of the test accuracy that ten times the learning rate wins back", published="0.96", ours=share
        ),
    ]


def _of_chang(study: Study, runs: Sequence[StoredRun]) -> tuple[Block, ...]:
    own, one = best_rates(study, ""), _ends_at_one_rate(study)
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
            ("their difference", "0.051", with_interval(_at_one_rate(study))),
        ]
    columns = (Column(f"best {study.metric}"), Column(CHANG.who, numeric=True), Column("here", numeric=True))
    phrase = " ".join(sentence(text) for text in differences(study, runs, CHANG))
    return Table(columns, tuple(rows)), Text((f"What differs from {CHANG.who}: {phrase}",), tone="note")


def _cell(arm: SummaryRow, name: str) -> str:
    return f"{with_interval(arm.estimates.get(name))} ({arm.batch_size:,} at {number(arm.lr)})"


def _won_back_table(study: Study) -> tuple[Block, ...]:
    """Every metric's share, at ten times the learning rate and at the largest batch's best."""
    cells = _cells(study)
    if cells is None:
        return ()
    keys = {cells.raised.key, cells.large.key}
    best = [arm for arm in best_rates(study, "")[-1:] if arm.key[1] == cells.large.batch_size and arm.key not in keys]
    raised = (cells.raised, *best)
    rows: list[tuple[str, ...]] = []
    for name in (n for n in cells.small.estimates if n.startswith("final_") and not n.endswith(("_gap", "_ratio"))):
        values = [with_interval(arm.estimates.get(name)) for arm in (cells.small, cells.large)]
        for arm in raised:
            share = _won_back(study, name, arm, cells)
            values += [with_interval(arm.estimates.get(name)), with_interval(share)]
        rows.append((name.removeprefix("final_"), *values))
    heads = [_short(cells.small), _short(cells.large)]
    for arm in raised:
        heads += [_short(arm), "won back"]
    table = Table((Column("at the end"), *(Column(head, numeric=True) for head in heads)), tuple(rows))
    note = (
        f"Columns are batch size at learning rate. Won back is the share of the change from {_named(cells.small)} to "
        f"{_named(cells.large)} that the higher learning rate takes away again: 1 is all of it, above 1 is more than "
        "was lost."
    )
    return table, Text((note,), tone="note")


def _short(arm: SummaryRow) -> str:
    return f"{arm.batch_size:,} at {number(arm.lr)}"


STUDY = NamedStudy(
    name="learning_rate_compensation",
    summary="a grid of batch sizes and learning rates: what a higher learning rate wins back of what a large batch "
    "loses",
    source=_SOURCE,
    question=StudyQuestion(
        batch_sizes=(32, 64, 128, 256, 1024),
        lrs=(0.01, 0.02, 0.04, 0.08, 0.16),
        length=Length(unit="epochs", amount=30),
    ),
    quick={
        "batch_sizes": (64, 512),
        "lrs": (0.01, 0.04),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=0.5),
    },
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    conclude=conclude,
    sections=sections,
)
