"""A sequence of trials read off the runs of a grid, and its choice against the grid's best. Numbers only.

A trial is a training from scratch at a constant learning rate, so the first E epochs of the run with that batch size,
learning rate and seed are a trial of E epochs, to within a step: it is read off that run's course, and its time with
it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ....fits.curves import first_passage
from ....store.records import RunStatus
from ...records import Study, StudyQuestion, StudyRow, SummaryRow
from ...summary import evaluations
from .sequence import Advice, Followed, Next, TrialTraining, follow

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = [
    "WAYS",
    "Compared",
    "Ways",
    "advice_for",
    "best_row",
    "cells_of",
    "compared",
    "grid_best",
    "grid_rows",
    "scaled_rate",
    "trial_of",
    "ways_of",
]

_TIMES = 32
"""The most epochs are so many times the first."""

Ways = Mapping[str, Mapping[int, Followed]]
"""By how the learning rate was set, and by seed."""


def advice_for(question: StudyQuestion, *, larger_is_better: bool = False) -> Advice:
    """The advice for the batch sizes and the length of a question: the first trial has a 32nd of its epochs.

    Raises:
        UsageError: there is one batch size only.
    """
    most = question.length.amount
    return Advice(
        batch_sizes=tuple(sorted(question.batch_sizes)),
        first_epochs=min(most, max(1.0, float(most // _TIMES))),
        most_epochs=most,
        larger_is_better=larger_is_better,
    )


def _one_rate(question: StudyQuestion, batch_size: int) -> float:
    return question.lrs[0]


def scaled_rate(question: StudyQuestion, batch_size: int) -> float:
    """The first learning rate, in proportion to the batch size."""
    return float(f"{question.lrs[0] * batch_size / min(question.batch_sizes):.12g}")


WAYS: Mapping[str, Callable[[StudyQuestion, int], float]] = {
    "one learning rate": _one_rate,
    "the learning rate in proportion to the batch": scaled_rate,
}
"""The learning rate of a trial by its batch size; the advice says nothing of it."""


def trial_of(run: StoredRun, asked: Next, metric: str, advice: Advice, examples: int) -> TrialTraining:
    """The run as it is after so many epochs.

    Args:
        run: at least as long, of the batch size that is asked for.
        asked: the trial.
        metric: whose best value up to there counts.
        advice: which says what is better.
        examples: in the run's training set.
    """
    course = evaluations(run, examples)
    end = min(range(len(course)), key=lambda i: abs(course[i].epoch - asked.epochs))
    values = [v for e in course[: end + 1] if (v := e.metrics.get(metric)) is not None]
    diverged = run.result is not None and run.result.status is RunStatus.DIVERGED and end == len(course) - 1
    best = max if advice.larger_is_better else min
    return TrialTraining(
        batch_size=asked.batch_size,
        epochs=asked.epochs,
        value=None if diverged or not values else best(values),
        seconds=course[end].seconds,
    )


def ways_of(study: Study, runs: Sequence[StoredRun]) -> Ways:
    """Every sequence again, from the stored runs."""
    question = study.question
    advice = advice_for(question, larger_is_better=study.larger_is_better)
    found = {run.id: run for run in runs}
    there = {(row.batch_size, row.lr, row.seed): found[row.run] for row in study.rows if row.run in found}

    def followed(seed: int, rate: Callable[[StudyQuestion, int], float]) -> Followed:
        def made(asked: Next) -> TrialTraining | None:
            run = there.get((asked.batch_size, rate(question, asked.batch_size), seed))
            return None if run is None else trial_of(run, asked, study.metric, advice, study.examples_of(run))

        return follow(advice, made)

    return {way: {seed: followed(seed, rate) for seed in question.seeds} for way, rate in WAYS.items()}


class Compared(NamedTuple):
    """One seed's choice against the grid's best arm, of the same seed."""

    worse: float
    """In the metric, as a share of the grid's."""
    cost: float
    """Training time of all trials over that of all the grid's runs."""
    slower: float | None
    """Training time to the worse of both values, the choice's over the grid's."""


def compared(study: Study, runs: Sequence[StoredRun], best: SummaryRow, way: str, ways: Ways) -> list[Compared]:
    """Every seed that came to a choice, and has its whole grid."""
    found: list[Compared] = []
    stored = {run.id: run for run in runs}
    sign = -1.0 if study.larger_is_better else 1.0
    for seed, followed in ways[way].items():
        cells = [row for row in grid_rows(study) if row.seed == seed]
        own = next((row for row in cells if (row.batch_size, row.lr) == (best.batch_size, best.lr)), None)
        chosen = followed.choice.trial if followed.choice else None
        reference = own.values.get(f"best_{study.metric}") if own else None
        if chosen is None or chosen.value is None or own is None or not reference or len(cells) < cells_of(study):
            continue
        lr = WAYS[way](study.question, chosen.batch_size)
        row = next(r for r in study.rows if (r.batch_size, r.lr, r.seed) == (chosen.batch_size, lr, seed))
        common = max(sign * chosen.value, sign * reference)
        times = [_time_to(study, stored[r.run], sign * common) for r in (row, own)]
        found.append(
            Compared(
                worse=sign * (chosen.value - reference) / abs(reference),
                cost=followed.seconds / sum(cell.values.get("train_time_s") or 0.0 for cell in cells),
                slower=times[0] / times[1] if times[0] is not None and times[1] else None,
            )
        )
    return found


def _time_to(study: Study, run: StoredRun, value: float) -> float | None:
    """Measured seconds of training steps to the first passage of a value."""
    course = [e for e in evaluations(run, study.examples_of(run)) if study.metric in e.metrics]
    steps, values = [float(e.step) for e in course], [e.metrics[study.metric] for e in course]
    rising = study.larger_is_better
    return first_passage(steps, values, value, rising=rising, clock=[e.seconds for e in course])


def cells_of(study: Study) -> int:
    """Runs of the grid for each seed."""
    return len(study.question.batch_sizes) * len(study.question.lrs)


def _in_grid(study: Study, batch_size: int, lr: float) -> bool:
    return batch_size in study.question.batch_sizes and lr in study.question.lrs


def grid_rows(study: Study) -> list[StudyRow]:
    """The runs that the question asks for, without those at a scaled learning rate of their own."""
    return [row for row in study.rows if _in_grid(study, row.batch_size, row.lr)]


def grid_best(study: Study, lr: float | None = None) -> SummaryRow | None:
    """The grid's arm with the best mean over the seeds that have the whole grid, of all learning rates or of one.

    An arm of which a run diverged is not chosen.
    """
    sign, name = -1.0 if study.larger_is_better else 1.0, f"best_{study.metric}"
    rows = grid_rows(study)
    made = Counter(row.seed for row in rows)
    whole = {seed for seed, count in made.items() if count == cells_of(study)}
    means: list[tuple[float, int]] = []
    for i, arm in enumerate(study.summary):
        own = [row.values.get(name) for row in rows if row.seed in whole and (row.batch_size, row.lr) == arm.key[1:]]
        values = [value for value in own if value is not None]
        if values and len(values) == len(whole) and lr in (None, arm.lr):
            means.append((sign * math.fsum(values) / len(values), i))
    return study.summary[min(means)[1]] if means else None


def best_row(study: Study, rows: Sequence[StudyRow]) -> StudyRow | None:
    """The run with the best value."""
    sign, name = -1.0 if study.larger_is_better else 1.0, f"best_{study.metric}"
    measured = [(sign * v, i) for i, row in enumerate(rows) if (v := row.values.get(name)) is not None]
    return rows[min(measured)[1]] if measured else None
