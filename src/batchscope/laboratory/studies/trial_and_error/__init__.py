"""The advice to begin with few epochs and a small batch and to raise both, followed as it stands, against a grid.

The sequence of trials (`sequence`) is gone through once for each seed: at one learning rate, and with the learning rate
in proportion to the batch size. Trials are read off longer runs (`comparison`); what the advice never asks for is not
counted as its cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ....errors import UsageError
from ....fits import intervals
from ....report.blocks import Column, Section, Table, Text
from ....store.ranges import ANY, NOT_NEGATIVE
from ....store.records import Estimate
from ....wording import count, duration, number, percent, plural, with_interval
from ...demands import needs_constant_lr
from ...published import SHEN_SETTINGS, conclusion, is_above
from ...records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion, SummaryRow, grid
from .comparison import (
    WAYS,
    Compared,
    Ways,
    advice_for,
    best_row,
    cells_of,
    compared,
    grid_best,
    grid_rows,
    scaled_rate,
    trial_of,
    ways_of,
)
from .figures import trial_path
from .sequence import Choice, Followed, Next, TrialTraining, follow, what_next

if TYPE_CHECKING:
    from ....store.runs import StoredRun
    from ...engine import Laboratory

__all__ = ["STUDY"]

_SOURCE = 'SabrePC, "Epochs, Batch Size, Iterations - How they are Important"'
_MARGIN = 0.05
"""What a choice may be worse by than the grid's best, as a share; fixed here, whatever the data."""
_SLOWER = 0.1
"""What it may take longer to a common value, as a share."""


# --- runs -----------------------------------------------------------------------------------------------------------


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """The grid, and at most one more run for each larger batch, at the learning rate in proportion."""
    _check(question)
    cells = tuple(grid(question, examples))
    there = {cell.key for cell in cells}
    scaled = [_arm(question, size, scaled_rate(question, size)) for size in sorted(question.batch_sizes)]
    return (*cells, *(arm for arm in scaled if arm.key not in there))


def _check(question: StudyQuestion) -> None:
    if question.length.unit != "epochs":
        raise UsageError(
            f"trial_and_error raises the number of epochs, and a run that lasts {question.length} has none; give "
            f"--epochs, for example --epochs {STUDY.question.length.amount:g}"
        )
    needs_constant_lr("trial_and_error", question, "reads short trials off longer runs")
    advice_for(question)


def _arm(question: StudyQuestion, batch_size: int, lr: float) -> Arm:
    return Arm(batch_size=batch_size, lr=lr, length=question.length)


def measure_all(laboratory: Laboratory) -> None:
    """The grid; then what the advice asks for beyond it."""
    question, target = laboratory.question, laboratory.target
    laboratory.run_all(grid(question, laboratory.examples))
    advice = advice_for(question, larger_is_better=target.mode == "max")
    for seed in question.seeds:
        for rate in WAYS.values():

            def made(
                asked: Next, seed: int = seed, rate: Callable[[StudyQuestion, int], float] = rate
            ) -> TrialTraining | None:
                run = laboratory.run(_arm(question, asked.batch_size, rate(question, asked.batch_size)), seed)
                return None if run is None else trial_of(run, asked, target.metric, advice, laboratory.examples_of(run))

            follow(advice, made)


# --- what they say --------------------------------------------------------------------------------------------------


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """The choice against the grid's best, in quality, in what it cost to find, and in time to a common value."""
    best = grid_best(study)
    if best is None:
        return ()
    ways = ways_of(study, runs)
    return tuple(
        finding for way in ways for finding in _found(study, best, way, compared(study, runs, best, way, ways))
    )


def _found(study: Study, best: SummaryRow, way: str, seeds: Sequence[Compared]) -> Iterator[Finding]:
    if not seeds:
        return
    worse, cost, slower = (_mean(read, seeds) for read in (_worse, _cost, _slower))
    good = _at_most(worse, _MARGIN)
    against = (
        f"with {way}, {study.metric} of the choice is worse by {with_interval(worse, _share)} than that of the grid's "
        f"best, batch size {count(best.batch_size)} at learning rate {number(best.lr)} ({_share(_MARGIN)} is allowed)"
    )
    for statement, holds, by, effect, rule in (
        (
            "good values can be found by trial and error",
            _both(good, _at_most(cost, 1.0)),
            f"all trials together take {with_interval(cost)} times the training time of the grid",
            worse,
            "in less time than the grid",
        ),
        (
            "few epochs and a small batch, raised step by step, lead to a balance of time and quality",
            _both(good, _at_most(slower, 1.0 + _SLOWER)),
            f"to a value that both reach it takes {with_interval(slower)} times as long",
            slower,
            f"no slower by more than {_share(_SLOWER)}",
        ),
    ):
        yield conclusion(
            statement,
            holds,
            f"{against}; {by}",
            source=f"{_SOURCE}; so if no worse by more than the margin and {rule}; seed by seed, 90 % t interval",
            effect=effect,
            runs=[row.run for row in study.rows],
        )


def _worse(seeds: Sequence[Compared]) -> list[float]:
    return [one.worse for one in seeds]


def _cost(seeds: Sequence[Compared]) -> list[float]:
    return [one.cost for one in seeds]


def _slower(seeds: Sequence[Compared]) -> list[float]:
    return [one.slower for one in seeds if one.slower is not None]


def _mean(read: Callable[[Sequence[Compared]], list[float]], seeds: Sequence[Compared]) -> Estimate:
    """Mean over the seeds; ratios of times are never below zero."""
    return intervals.mean(read(seeds), within=ANY if read is _worse else NOT_NEGATIVE)


def _at_most(estimate: Estimate, bound: float) -> bool | None:
    above = is_above(estimate, bound)
    return None if above is None else not above


def _both(first: bool | None, second: bool | None) -> bool | None:
    if first is False or second is False:
        return False
    return True if first and second else None


# --- what the page shows --------------------------------------------------------------------------------------------


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """What the text says beside what came out, the trials of the first seed, and the choices of all."""
    best, ways = grid_best(study), ways_of(study, runs)
    found = [_published(study, runs, best, ways)]
    seed = study.question.seeds[0]
    first = {way: own[seed] for way, own in ways.items() if own[seed].trials}
    if first:
        cells = [row for row in grid_rows(study) if row.seed == seed]
        logs = [block for way, followed in first.items() for block in _log(study, way, followed)]
        found.append(Section("trials", "The trials", (trial_path(study, first, cells, seed), *logs)))
    found.append(Section("choices", "What each seed comes to", (_choices(study, ways),)))
    return found


def _published(study: Study, runs: Sequence[StoredRun], best: SummaryRow | None, ways: Ways) -> Section:
    columns = (Column("quantity"), Column("SabrePC", numeric=True), *(Column(way, numeric=True) for way in ways))
    found = {way: compared(study, runs, best, way, ways) if best else [] for way in ways}
    lr = study.question.lrs[0]
    same = grid_best(study, lr)
    at_one_rate = {way: compared(study, runs, same, way, ways) if same else [] for way in ways}
    rows = tuple(
        (
            what,
            "no number",
            *(with_interval(_mean(read, of[way]), format) for way in ways),
        )
        for what, of, read, format in (
            (f"{study.metric} worse than the grid's best by", found, _worse, _share),
            (f"and than its best at learning rate {number(lr)} by", at_one_rate, _worse, _share),
            ("time of all trials over that of the grid", found, _cost, number),
            ("time to a common value over that of the grid's best", found, _slower, number),
        )
    )
    advice = advice_for(study.question, larger_is_better=study.larger_is_better)
    phrase = (
        "The text gives advice without data, model or numbers. Here it is one fixed rule: it begins with "
        f"{number(advice.first_epochs)} epochs at batch size {count(advice.batch_sizes[0])}; epochs are doubled, up to "
        f"{number(advice.most_epochs)}, while that betters {study.metric} by more than {percent(advice.gain)}; then "
        f"the batch grows while the value is no worse by more than {percent(advice.margin)} and at least "
        f"{percent(advice.saving)} of the time is saved, with more epochs where they still save time. The advice says "
        f"nothing of learning rates: all trials have learning rate {number(study.question.lrs[0])}, or one in "
        f"proportion to the batch. The grid is {plural(cells_of(study), 'run')} of {study.question.length} for each "
        "seed."
    )
    return Section("published", "The advice beside this task", (Table(columns, rows), Text((phrase,), tone="note")))


def _log(study: Study, way: str, followed: Followed) -> tuple[Text, Table]:
    """Log of the trials, a line each: why it was made, and what came out; then the choice."""
    advice = advice_for(study.question, larger_is_better=study.larger_is_better)
    asked = (what_next((), advice), *followed.decisions)
    columns = ("why", "batch size", "learning rate", "epochs", study.metric, "trained for")
    rows = [
        _line(study, way, f"{i}. {decision.reason}", trial)
        for i, (decision, trial) in enumerate(zip(asked, followed.trials, strict=False), 1)
    ]
    end = asked[-1]
    if isinstance(end, Choice):
        rows.append(_line(study, way, f"choice: {end.reason}", end.trial))
    table = Table(
        tuple(Column(name, numeric=name != "why") for name in columns),
        tuple(rows),
        emphasised=len(rows) - 1 if isinstance(end, Choice) else None,
    )
    return Text((f"Trials with {way}, seed {study.question.seeds[0]}:",)), table


def _line(study: Study, way: str, why: str, trial: TrialTraining | None) -> tuple[str, ...]:
    if trial is None:
        return (why, "", "", "", "", "")
    rate = WAYS[way](study.question, trial.batch_size)
    value = "diverged" if trial.value is None else number(trial.value)
    return (why, count(trial.batch_size), number(rate), number(trial.epochs), value, duration(trial.seconds))


def _choices(study: Study, ways: Ways) -> Table:
    heads = ("learning rate", "seed", "trials", "all of them took", "batch size", "epochs", study.metric, "trained for")
    rows: list[tuple[str, ...]] = []
    for way, own in ways.items():
        for seed, followed in own.items():
            chosen = followed.choice.trial if followed.choice else None
            found = (
                (count(chosen.batch_size), number(chosen.epochs), number(chosen.value), duration(chosen.seconds))
                if chosen
                else ("none", "", "", "")
            )
            rows.append((way, str(seed), count(len(followed.trials)), duration(followed.seconds), *found))
    for seed in study.question.seeds:
        cells = [row for row in grid_rows(study) if row.seed == seed]
        spent = sum(row.values.get("train_time_s") or 0.0 for row in cells)
        best = best_row(study, cells)
        if best is not None:
            details = (count(best.batch_size), number(best.epochs), number(best.values.get(f"best_{study.metric}")))
            seconds = duration(best.values.get("train_time_s"))
            rows.append(
                (
                    f"grid, best learning rate {number(best.lr)}",
                    str(seed),
                    count(len(cells)),
                    duration(spent),
                    *details,
                    seconds,
                )
            )
    return Table(tuple(Column(head, numeric=head != "learning rate") for head in heads), tuple(rows))


def _share(value: float) -> str:
    """A share in per cent with its sign."""
    return f"{number(float(f'{100 * value:.2g}'))} %"


STUDY = NamedStudy(
    name="trial_and_error",
    summary="few epochs and a small batch, both raised by trial and error, against a grid",
    source=_SOURCE,
    question=StudyQuestion(
        batch_sizes=(8, 32, 128),
        lrs=(0.05, 0.2),
        length=Length(unit="epochs", amount=64),
    ),
    quick={
        "batch_sizes": (32, 128),
        "lrs": (0.1, 0.4),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=8),
    },
    settings={**SHEN_SETTINGS, "hidden": 256},
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
