"""Long runs at one rate, and stopping rules replayed on them: what stopping saves, and what it loses.

Every batch size is trained well past the minimum of its validation loss, with the weights of the best epoch kept. Rules
(patience; GL, PQ and UP of Prechelt 1998) are then replayed on the curves, offline. With `--until-stopped --patience
100 --epochs 10000` the runs end as Chang and Pathak's did, and rules are replayed on what there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ....fits.early_stopping import Rule
from ....report.blocks import Block, Column, Section, Table, Text
from ....store.records import RunStatus
from ....wording import count, number, percent, plural, sentence, times, with_interval
from ...conclusions import paired_difference, runs_of
from ...published import CHANG, CHANG_SETTINGS, Value, conclusion, is_above, published_section
from ...records import Finding, Length, NamedStudy, Study, StudyQuestion, SummaryRow
from .figures import minimum_row, stop_figures, trade_off
from .replay import (
    Curve,
    Replayed,
    by_rule,
    curves_of,
    last,
    least_training_loss,
    on_test_part,
    oracle,
    replayed,
    worse_by,
)

if TYPE_CHECKING:
    from ....store.runs import StoredRun
    from ...engine import Laboratory

__all__ = ["STUDY"]

_SOURCE = "Chang and Pathak 2020, figure 5 (B1); Prechelt 1998"
_OF_CHANG = {32: ("0.344", "158 (recalled)"), 256: ("0.395", "958 (recalled)")}
"""Least validation loss, and its epoch, by batch size; one run each."""
_SETUP = replace(
    CHANG,
    more=(
        *CHANG.more,
        "their rate, 0.01, is inferred, and the epochs of their minima are recalled, not read again",
    ),
)
_PATIENCES = (3.0, 10.0, 30.0, 100.0)
"""In epochs; 100 is the published one."""
_USUAL = 10.0
"""The patience that conclusions are drawn by, where the runs are longer."""
_CRITERIA = (
    *(Rule(kind="GL", amount=a) for a in (1, 3, 5)),
    *(Rule(kind="PQ", amount=a) for a in (0.5, 1, 3)),
    *(Rule(kind="UP", amount=s) for s in (2, 4, 8)),
)
"""From the fastest to the slowest of Prechelt's exemplars."""
_DRAWN = (Rule(kind="GL", amount=5), Rule(kind="PQ", amount=1), Rule(kind="UP", amount=4))
_MARGIN = 0.05
"""The share of a test metric that stopping may lose; fixed here, whatever the data."""


def measure_all(laboratory: Laboratory) -> None:
    """The long runs; then the best weights of each are put into a model again and evaluated."""
    kept: dict[str, Mapping[str, float]] = dict(laboratory.read_note("restored") or {})
    for run in laboratory.run_all(keep=("best",)):
        if run.id in kept or run.result is None or run.result.status is RunStatus.DIVERGED:
            continue
        if laboratory.late:
            laboratory.cut_off = True
            return
        model = laboratory.model(laboratory.weights(run, "best"))
        kept[run.id] = laboratory.workload.evaluate(model)
        laboratory.note("restored", kept)


# --- what the runs say ----------------------------------------------------------------------------------------------


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Chang and Pathak's conclusion on minima, and the advice to stop early, each with its numbers."""
    curves = curves_of(study, runs, study.question.lrs[0])
    return (*_minima(study), *_stopping(study, curves), *_slower(study, curves), *_restored(study, runs))


def _minima(study: Study) -> Iterator[Finding]:
    arms = _arms(study)
    if len(arms) < 2:
        return
    small, large = arms[0], arms[-1]
    sizes = f"from batch size {small.batch_size:,} to {large.batch_size:,} at rate {number(small.lr)}"
    ids = [row.run for arm in (small, large) for row in runs_of(study, arm)]
    worse = "lower" if study.larger_is_better else "higher"
    late = [arm.batch_size for arm in (small, large) if _still_improving(arm)]
    ends = " and ".join(map(count, late))
    cut = f"; at batch size {ends} it still improved at the end, so longer runs have to decide" if late else ""
    for said, name, rises in (
        (f"at equal settings a larger batch ends at a {worse} best {study.metric}", f"best_{study.metric}", worse),
        ("a larger batch takes more epochs to its best", "best_epoch", "higher"),
    ):
        change = paired_difference(study, name, small, large)
        above = is_above(change)
        yield conclusion(
            said,
            None if above is None or late else above == (rises == "higher"),
            f"{sizes}, {name} changes by {with_interval(change)}{cut}",
            source=f"{_SOURCE}; differences seed by seed, 90 % t interval",
            effect=change,
            runs=ids,
        )


def _stopping(study: Study, curves: Sequence[Curve]) -> Iterator[Finding]:
    """What stopping loses against the best epoch of the whole run, and what not stopping loses."""
    test = on_test_part(study, curves)
    if test is None:
        return
    rule = _usual(study)
    found = replayed(study, curves, by_rule(rule))
    if found is not None and found.excess is not None:
        above = is_above(found.excess, _MARGIN)
        yield conclusion(
            "training may stop once the validation metric no longer improves",
            None if above is None else not above,
            f"with {rule} epochs, weights of the best epoch so far have a {test} that is worse than at the best epoch "
            f"of the whole run by {with_interval(found.excess, _share)}, after {percent(found.spent.value)} of its "
            f"epochs; {percent(_MARGIN)} is allowed",
            source="SabrePC on early stopping; Prechelt 1998; replayed on the stored curves, means over batch sizes, "
            "90 % t interval over the seeds",
            effect=found.excess,
            runs=_ids(curves),
        )
    for said, what, picker in (
        ("the weights of the best validation epoch are to be taken, not the last", "at the last epoch", last),
        (
            "who tunes for the training data does badly on the test part",
            "at the least training loss",
            least_training_loss,
        ),
    ):
        lost = worse_by(study, curves, picker, oracle)
        if lost.value is not None:
            yield conclusion(
                said,
                is_above(lost),
                f"{what} {test} is worse than at the best epoch by {with_interval(lost, _share)}",
                source="SabrePC and others; means over batch sizes, 90 % t interval over the seeds",
                effect=lost,
                runs=_ids(curves),
            )


def _slower(study: Study, curves: Sequence[Curve]) -> Iterator[Finding]:
    """Prechelt's conclusion, between the fastest and the slowest of his criteria here."""
    ends = _ends(study, curves)
    if ends is None:
        return
    (fast, soon), (slow, late) = ends
    gained = worse_by(study, curves, by_rule(fast), by_rule(slow))
    if gained.value is None or not soon.stop_epoch.value or not late.stop_epoch.value:
        return
    ratio = late.stop_epoch.value / soon.stop_epoch.value
    yield conclusion(
        "slower stopping criteria generalise a little better, at several times the training time",
        is_above(gained),
        f"{fast} stops after {number(soon.stop_epoch.value)} epochs and {slow} takes {times(ratio)} as long; the "
        f"{on_test_part(study, curves)} of the former is worse by {with_interval(gained, _share)}",
        source="Prechelt 1998 (about 4 % better, about 4 times as long); 90 % t interval over the seeds",
        effect=gained,
        runs=_ids(curves),
    )


def _restored(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    """Whether the kept weights are those of the best epoch."""
    kept: Mapping[str, Mapping[str, float]] = study.measurements.get("restored", {})
    rows = {row.run: row.values for row in study.rows}
    apart = [
        abs(value - best)
        for run in runs
        for name, value in kept.get(run.id, {}).items()
        if (best := rows[run.id].get(f"best_{name}")) is not None
    ]
    if apart:
        yield Finding(
            statement=f"weights restored from the best epoch of {plural(len(kept), 'run')} evaluate as they did in the "
            f"run; the largest difference in any metric is {number(max(apart))}",
            tag="measured",
            source="the state that was kept at the best validation epoch, put into a fresh model",
            runs=tuple(run.id for run in runs if run.id in kept),
        )


# --- what the page shows --------------------------------------------------------------------------------------------


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """Published minima beside ours, where rules stop, what they cost, and minima by batch size."""
    curves, arms = curves_of(study, runs, study.question.lrs[0]), _arms(study)
    found = [published_section(study, runs, _SETUP, _values(arms, study), *_of_prechelt(study, curves))]
    if curves:
        first = [curve for curve in curves if curve.seed == curves[0].seed]
        drawn = [_usual(study), *_DRAWN]
        found.append(Section("stops", "Where each rule stops", stop_figures(study, first, drawn)))
        found.append(Section("rules", "What each rule costs and loses", _rules(study, curves)))
    if len(arms) > 1:
        found.append(Section("minimum", f"The best {study.metric} by batch size", (minimum_row(study, arms),)))
    return found


def _values(arms: Sequence[SummaryRow], study: Study) -> list[Value]:
    own = {arm.batch_size: arm for arm in arms}
    values: list[Value] = []
    for size, (least, epoch) in _OF_CHANG.items():
        if size in own and study.metric == "val_loss":
            found = own[size].estimates
            values += [
                Value(what=f"batch size {size}: least validation loss", published=least, ours=found["best_val_loss"]),
                Value(what=f"batch size {size}: epochs to it", published=epoch, ours=found["best_epoch"]),
            ]
    if len(values) == 2 * len(_OF_CHANG):
        small, large = (own[size] for size in _OF_CHANG)
        change = paired_difference(study, "best_val_loss", small, large)
        values.append(Value(what="difference of the least validation losses", published="0.051", ours=change))
    return values


def _of_prechelt(study: Study, curves: Sequence[Curve]) -> tuple[Block, ...]:
    ends = _ends(study, curves)
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
        ("test error that the fastest has more", "about 4 %", with_interval(gained, _share)),
    )
    said = (
        "What differs from Prechelt 1998: there 12 problems and 24 small networks trained by RPROP, 1,296 runs, "
        "criteria averaged by class; here one task, and the two ends of the nine criteria that are replayed."
    )
    return Table(columns, rows), Text((said,), tone="note")


def _rules(study: Study, curves: Sequence[Curve]) -> tuple[Block, ...]:
    rules = [*_patience_rules(study), *_CRITERIA]
    found = {rule: o for rule in rules if (o := replayed(study, curves, by_rule(rule))) is not None}
    ends = {
        "best epoch of the run": replayed(study, curves, oracle),
        "last epoch": replayed(study, curves, last),
        "least training loss": replayed(study, curves, least_training_loss),
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
        *([with_interval(o.excess, _share)] if o.excess else []),
    )


def _note(
    study: Study, curves: Sequence[Curve], rules: Sequence[Rule], found: Mapping[Rule, Replayed], test: str | None
) -> str:
    said = [
        "every value is a mean over the batch sizes, then over the seeds, the last column with a 90 % interval over "
        f"the seeds; in brackets is the share of the long run; weights are those of the best {study.metric} up to the "
        "stop",
        "GL stops when the validation loss is so many per cent above its least, PQ when that exceeds so many times the "
        "training progress over 5 epochs, UP after so many strips of 5 epochs that each end higher (Prechelt 1998)",
    ]
    if missing := [str(rule) for rule in rules if rule not in found]:
        said.append(f"{', '.join(missing)} cannot be replayed here: they take a validation loss above 0")
    if test is None:
        said.append("the task reports no such metric on a test part, so what is lost there is not known")
    spacing = curves[0].epochs[-1] / max(1, len(curves[0].epochs) - 1)
    if not 0.8 < spacing < 1.25:
        said.append(f"epochs of a rule are evaluations, which come every {number(spacing)} epochs")
    if study.question.length.unit == "until-stopped":
        said.append("the runs were ended by patience themselves, so no rule sees further than that")
    return " ".join(map(sentence, said))


# --- arms and rules -------------------------------------------------------------------------------------------------


def _arms(study: Study) -> list[SummaryRow]:
    """The batch sizes at the first rate that was asked for."""
    lr = study.question.lrs[0]
    return sorted((s for s in study.summary if s.lr == lr and not s.diverged), key=lambda s: s.batch_size)


def _still_improving(arm: SummaryRow) -> bool:
    best, end = arm.estimates["best_epoch"].value, arm.estimates["epochs"].value
    return best is not None and end is not None and best > 0.95 * end


def _patience_rules(study: Study) -> list[Rule]:
    length = study.question.length
    most = length.patience if length.unit == "until-stopped" else length.amount if length.unit == "epochs" else None
    amounts = [p for p in _PATIENCES if most is None or p <= most] or [max(1.0, (most or 2.0) // 2)]
    return [Rule(kind="patience", amount=amount) for amount in amounts]


def _usual(study: Study) -> Rule:
    rules = _patience_rules(study)
    return next((rule for rule in rules if rule.amount == _USUAL), rules[-1])


def _ends(study: Study, curves: Sequence[Curve]) -> tuple[tuple[Rule, Replayed], tuple[Rule, Replayed]] | None:
    """The fastest and the slowest of Prechelt's criteria, of those that stop in every run if there are two."""
    found = [(rule, o) for rule in _CRITERIA if (o := replayed(study, curves, by_rule(rule))) is not None]
    if not found or on_test_part(study, curves) is None:
        return None
    always = [(rule, o) for rule, o in found if not o.never]
    ordered = sorted(always if len(always) > 1 else found, key=lambda pair: pair[1].stop_epoch.value or 0.0)
    return ordered[0], ordered[-1]


def _share(value: float) -> str:
    """A share in per cent with its sign."""
    return f"{number(float(f'{100 * value:.2g}'))} %"


def _ids(curves: Sequence[Curve]) -> tuple[str, ...]:
    return tuple(curve.run for curve in curves)


STUDY = NamedStudy(
    name="early_stopping",
    summary="long runs at one rate: the minimum by batch size, and when each stopping rule would have ended them",
    source=_SOURCE,
    question=StudyQuestion(batch_sizes=(32, 64, 128, 256), lrs=(0.01,), length=Length(unit="epochs", amount=600)),
    quick={
        "batch_sizes": (64, 256),
        "lrs": (0.1,),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=30),
    },
    settings={"model": "mlp", "hidden": 64, "depth": 3, "optimizer": "sgd", "momentum": 0.9},
    array_settings={**CHANG_SETTINGS, "evaluate_at_most": 10_000},
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
