"""The page's part of the early-stopping study: where rules stop, what they cost, minima by batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ....fits.early_stopping import Rule
from ....report.blocks import Block, Column, Section, Table, Text
from ....wording import number, percent, sentence, times, with_interval
from ...conclusions import paired_difference
from ...published import CHANG, Value, published_section
from ...records import Study, SummaryRow
from .figures import minimum_row, stop_figures, trade_off
from .replay import (
    Curve,
    Replayed,
    by_rule,
    curves_of,
    last,
    minimum_training_loss,
    on_test_part,
    oracle,
    replayed,
    worse_by,
)
from .rules import CRITERIA, arms_at_first_lr, extreme_criteria, patience_rules, percent_change, usual_rule

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["sections"]

_OF_CHANG = {32: ("0.344", "158 (recalled)"), 256: ("0.395", "958 (recalled)")}
"""Minimum validation loss, and its epoch, by batch size; one run each."""
_SETUP = replace(
    CHANG,
    more=(
        *CHANG.more,
        "their learning rate, 0.01, is inferred, and the epochs of their minima are recalled, not read again",
    ),
)
_DRAWN = (Rule(kind="GL", amount=5), Rule(kind="PQ", amount=1), Rule(kind="UP", amount=4))


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """Published minima beside ours, where rules stop, what they cost, and minima by batch size."""
    curves, arms = curves_of(study, runs, study.question.lrs[0]), arms_at_first_lr(study)
    found = [published_section(study, runs, _SETUP, _values(arms, study), *_of_prechelt(study, curves))]
    if curves:
        first = [curve for curve in curves if curve.seed == curves[0].seed]
        drawn = [usual_rule(study), *_DRAWN]
        found.append(Section("stops", "Where each rule stops", stop_figures(study, first, drawn)))
        found.append(Section("rules", "What each rule costs and loses", _rules(study, curves)))
    if len(arms) > 1:
        found.append(Section("minimum", f"The best {study.metric} by batch size", (minimum_row(study, arms),)))
    return found


def _values(arms: Sequence[SummaryRow], study: Study) -> list[Value]:
    own = {arm.batch_size: arm for arm in arms}
    values: list[Value] = []
    for size, (minimum, epoch) in _OF_CHANG.items():
        if size in own and study.metric == "val_loss":
            found = own[size].estimates
            values += [
                Value(
                    what=f"batch size {size}: minimum validation loss", published=minimum, ours=found["best_val_loss"]
                ),
                Value(what=f"batch size {size}: epochs to it", published=epoch, ours=found["best_epoch"]),
            ]
    if len(values) == 2 * len(_OF_CHANG):
        small, large = (own[size] for size in _OF_CHANG)
        change = paired_difference(study, "best_val_loss", small, large)
        values.append(Value(what="difference of the minimum validation losses", published="0.051", ours=change))
    return values


def _of_prechelt(study: Study, curves: Sequence[Curve]) -> tuple[Block, ...]:
    ends = extreme_criteria(study, curves)
    if ends is None:
        return ()
    (fast, soon), (slow, late) = ends
    gained = worse_by(study, curves, by_rule(fast), by_rule(slow))
    time = (
        times(late.stop_epoch.value / soon.stop_epoch.value) if soon.stop_epoch.value and late.stop_epoch.value else ""
    )
    columns = (Column(f"{slow} against {fast}"), Column("Prechelt 1998", numeric=True), Column("here", numeric=True))
    rows = (
        ("training time, slowest against fastest criterion", "about 4 times", time),
        ("test error that the fastest has more", "about 4 %", with_interval(gained, percent_change)),
    )
    phrase = (
        "What differs from Prechelt 1998: there 12 problems and 24 small networks trained by RPROP, 1,296 runs, "
        "criteria averaged by class; here one task, and the two ends of the nine criteria that are replayed."
    )
    return Table(columns, rows), Text((phrase,), tone="note")


def _rules(study: Study, curves: Sequence[Curve]) -> tuple[Block, ...]:
    rules = [*patience_rules(study), *CRITERIA]
    found = {rule: o for rule in rules if (o := replayed(study, curves, by_rule(rule))) is not None}
    ends = {
        "best epoch of the run": replayed(study, curves, oracle),
        "last epoch": replayed(study, curves, last),
        "minimum training loss": replayed(study, curves, minimum_training_loss),
    }
    test, end = on_test_part(study, curves), ends["last epoch"]
    if end is None:
        return (Text(("No seed has a run at every batch size yet.",)),)
    heads = ("rule", "stops at epoch", "never stops", "best so far at", study.metric, *end.tests)
    columns = tuple(Column(head, numeric=head != "rule") for head in (*heads, *(["worse than best"] if test else [])))
    whole = [(name, o) for name, o in ends.items() if o is not None]
    table = Table(
        columns,
        tuple(_row(name, o, ruled=False) for name, o in whole)
        + tuple(_row(str(rule), o, ruled=True) for rule, o in found.items()),
        emphasised=0,
    )
    figure = [trade_off(study, found, end, test)] if test and found else []
    return (*figure, table, Text((_note(study, curves, rules, found, test),), tone="note"))


def _row(name: str, o: Replayed, *, ruled: bool) -> tuple[str, ...]:
    return (
        name,
        f"{number(o.stop_epoch.value)} ({percent(o.spent.value)})",
        f"{o.never} of {o.runs}" if ruled else "",
        number(o.chosen_epoch.value),
        number(o.watched.value),
        *(number(o.tests[test].value) for test in o.tests),
        *([with_interval(o.excess, percent_change)] if o.excess else []),
    )


def _note(
    study: Study, curves: Sequence[Curve], rules: Sequence[Rule], found: Mapping[Rule, Replayed], test: str | None
) -> str:
    phrases = [
        "every value is a mean over the batch sizes, then over the seeds, the last column with a 90 % t interval over "
        f"the seeds; in brackets is the share of the long run; weights are those of the best {study.metric} up to the "
        "stop",
        "GL stops when the validation loss is so many per cent above its minimum, PQ when that exceeds so many times "
        "the training progress over 5 epochs, UP after so many strips of 5 epochs that each end higher (Prechelt 1998)",
    ]
    if missing := [str(rule) for rule in rules if rule not in found]:
        phrases.append(f"{', '.join(missing)} cannot be replayed here: they take a validation loss above 0")
    if test is None:
        phrases.append("the task reports no such metric on a test part, so what is lost there is not known")
    spacing = curves[0].epochs[-1] / max(1, len(curves[0].epochs) - 1)
    if not 0.8 < spacing < 1.25:
        phrases.append(f"epochs of a rule are evaluations, which come every {number(spacing)} epochs")
    if study.question.length.unit == "until-stopped":
        phrases.append("the runs were ended by patience themselves, so no rule sees further than that")
    return " ".join(map(sentence, phrases))
