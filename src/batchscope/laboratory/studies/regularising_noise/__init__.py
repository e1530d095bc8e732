"""Little data, a model that overfits, each batch size at its best learning rate: is the noise of small ones of use?

A few hundred training examples, drawn anew for each seed, the same ones for every batch size. Batch sizes are compared
at their best epochs, and where their training losses are equal: there, more or fewer updates explain nothing any more,
and what is left of a difference in validation loss is one of generalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ....errors import UsageError
from ....fits import intervals
from ....report.blocks import Block, Column, Section, Table, Text
from ....store.not_applicable import not_applicable
from ....store.records import Estimate
from ....wording import count, number, with_interval
from ...conclusions import paired_difference, runs_of
from ...published import CHANG, SHEN_SETTINGS, Value, conclusion, is_above, published_section
from ...records import TRAIN_PART, Arm, Finding, Length, NamedStudy, Study, StudyQuestion, SummaryRow
from ...summary import Evaluation, evaluation_at, evaluations, range_in
from .equal_training_loss import TRAINING_LOSS, common_level
from .figures import Courses, at_equal_loss, best_by_size

if TYPE_CHECKING:
    from ....store.runs import StoredRun
    from ....tasks.workload import Workload
    from ...engine import Laboratory

__all__ = ["STUDY"]

_SOURCE = "Chang and Pathak 2020, with adjusted learning rates (B7); Keskar et al. 2017 on noise"
_FEW = 300
"""Training examples."""
_SETUP = replace(
    CHANG,
    more=(
        *CHANG.more,
        f"here the model sees {_FEW} training examples at most, so that it overfits; there it saw all of them",
    ),
)


# --- runs -----------------------------------------------------------------------------------------------------------


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """The grid, on few examples: a length in epochs is of these."""
    few = min(_FEW, examples)
    if len(question.batch_sizes) < 2:
        raise UsageError(
            f"regularising_noise compares batch sizes, and --batch-sizes has only {max(question.batch_sizes)}; "
            "give at least two, for example --batch-sizes 8,128"
        )
    if (largest := max(question.batch_sizes)) > few:
        raise UsageError(
            f"regularising_noise trains on {few} examples, fewer than a batch of {largest}; "
            f"give --batch-sizes of at most {few}"
        )
    variant = f"{few} examples" if few < examples else ""
    return tuple(
        Arm(
            batch_size=size,
            lr=lr,
            length=_of_few(question.length, few, size),
            variant=variant,
            **question.course,
        )
        for size in question.batch_sizes
        for lr in question.lrs
    )


def _of_few(length: Length, few: int, batch_size: int) -> Length:
    """Epochs of the few examples as steps, which mean the same whatever the training set."""
    steps = length.steps(few, batch_size)
    return Length(unit="steps", amount=steps) if length.unit == "epochs" and steps else length


def measure_all(laboratory: Laboratory) -> None:
    """The grid; each seed draws its own few examples."""
    from ....tasks.variants import with_few_examples

    if laboratory.examples <= _FEW:
        laboratory.run_all()
        return
    tasks: dict[int, Workload] = {}

    def task(arm: Arm, seed: int) -> Workload:
        if seed not in tasks:
            tasks[seed] = laboratory.changed(**with_few_examples(laboratory.workload, _FEW, seed))
        return tasks[seed]

    laboratory.run_all(workload=task)


# --- what they say --------------------------------------------------------------------------------------------------


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """What tuning leaves, and what is left at equal training loss."""
    best = _best(study)
    if len(best) < 2:
        return ()
    return (*_after_tuning(study, best), *_at_equal_loss(study, runs, best))


def _after_tuning(study: Study, best: Sequence[SummaryRow]) -> Iterator[Finding]:
    small, large = best[0], best[-1]
    sign = -1.0 if study.larger_is_better else 1.0
    change = paired_difference(study, f"best_{study.metric}", small, large)
    yield conclusion(
        "a gap between small and large batches remains after each has the learning rate that is best for it",
        is_above(_turned(change, sign)),
        f"{_versus(small, large)}, the best {study.metric} changes by {with_interval(change)}",
        source="Chang and Pathak 2020: 0.343 and 0.352, a remaining 0.009; differences seed by seed, 90 % t interval",
        effect=change,
        runs=_ids(study, small, large),
    )
    rise = _paired(study, small, large, lambda row: _rise(row, study.metric, sign))
    if rise.value is not None:
        yield conclusion(
            "small batches overfit less: past its best epoch the validation metric loses less",
            is_above(rise),
            f"{_versus(small, large)}, what {study.metric} loses from its best epoch to the last changes by "
            f"{with_interval(rise)}",
            source="'Batch Size vs. Batch Count' and others; differences seed by seed, 90 % t interval",
            effect=rise,
            runs=_ids(study, small, large),
        )


def _at_equal_loss(study: Study, runs: Sequence[StoredRun], best: Sequence[SummaryRow]) -> Iterator[Finding]:
    courses = _courses(study, runs, best)
    level = common_level([course for own in courses.values() for course in own.values()])
    if level is None or study.metric == TRAINING_LOSS:
        return
    small, large = best[0], best[-1]
    sign = -1.0 if study.larger_is_better else 1.0
    for statement, name, read, turn in (
        (
            "small batches generalise better, by their noise and not by their number of updates",
            study.metric,
            lambda there: there.metrics.get(study.metric),
            sign,
        ),
        (
            "the gap between training and test accuracy is smaller for small batches",
            "training minus test accuracy",
            _accuracy_gap,
            1.0,
        ),
    ):
        change = _paired_at(courses[small.key], courses[large.key], level, read)
        if change.value is None:
            continue
        yield conclusion(
            statement,
            is_above(_turned(change, turn)),
            f"{_versus(small, large)}, where both have a training loss of {number(level)}, {name} changes by "
            f"{with_interval(change)}",
            source="Keskar et al. 2017 and others; interpolated at the first passage of the lowest training loss that "
            "all runs reach, differences seed by seed, 90 % t interval",
            effect=change,
            runs=_ids(study, small, large),
        )


def _rise(values: Mapping[str, float | None], metric: str, sign: float) -> float | None:
    best, final = values.get(f"best_{metric}"), values.get(f"final_{metric}")
    return None if best is None or final is None else sign * (final - best)


def _accuracy_gap(there: Evaluation) -> float | None:
    training, test = there.metrics.get("train_accuracy_eval"), there.metrics.get("test_accuracy")
    return None if training is None or test is None else training - test


def _paired(
    study: Study, small: SummaryRow, large: SummaryRow, read: Callable[[Mapping[str, float | None]], float | None]
) -> Estimate:
    first, second = ({r.seed: read(r.values) for r in runs_of(study, arm)} for arm in (small, large))
    return _difference(first, second)


def _paired_at(
    small: Mapping[int, Sequence[Evaluation]],
    large: Mapping[int, Sequence[Evaluation]],
    level: float,
    read: Callable[[Evaluation], float | None],
) -> Estimate:
    def values(courses: Mapping[int, Sequence[Evaluation]]) -> dict[int, float | None]:
        there = {seed: evaluation_at(course, TRAINING_LOSS, level) for seed, course in courses.items()}
        return {seed: None if at is None else read(at) for seed, at in there.items()}

    return _difference(values(small), values(large))


def _difference(first: Mapping[int, float | None], second: Mapping[int, float | None]) -> Estimate:
    pairs = [(a, b) for seed, a in first.items() if a is not None and (b := second.get(seed)) is not None]
    return intervals.paired_difference((b, a) for a, b in pairs)


# --- what the page shows --------------------------------------------------------------------------------------------


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """The published remaining gap, ours, and the comparison at equal training loss."""
    best = _best(study)
    found = [published_section(study, runs, _SETUP, _values(study, best))]
    if len(best) < 2:
        return found
    courses, examples = _courses(study, runs, best), study.examples_of(runs[0])
    found.append(Section("equal-loss", "At equal training loss", _equal_loss(study, best, courses, examples)))
    found.append(Section("remaining", "What tuning leaves", (best_by_size(study, best),)))
    return found


def _values(study: Study, best: Sequence[SummaryRow]) -> list[Value]:
    if len(best) < 2:
        return []
    small, large = best[0], best[-1]
    name = f"best_{study.metric}"
    return [
        Value(
            what=f"best {study.metric}, smallest batch (32; here {small.batch_size:,})",
            published="0.343",
            ours=small.estimates[name],
        ),
        Value(
            what=f"best {study.metric}, largest batch (256; here {large.batch_size:,})",
            published="0.352",
            ours=large.estimates[name],
        ),
        Value(what="difference that remains", published="0.009", ours=paired_difference(study, name, small, large)),
    ]


def _equal_loss(study: Study, best: Sequence[SummaryRow], courses: Courses, examples: int) -> tuple[Block, ...]:
    level = common_level([course for own in courses.values() for course in own.values()])
    if level is None:
        why = not_applicable(study.measurements.get(TRAIN_PART)) or "no run has a training loss above 0"
        return (Text((f"Batch sizes cannot be compared at equal training loss: {why}.",)),)
    tests = sorted({name for own in courses.values() for c in own.values() for name in c[0].metrics if "test_" in name})
    heads = ("batch size", "learning rate", "epochs to it", "steps", study.metric, *tests, "accuracy gap")
    rows = tuple(_row(study, arm, list(courses[arm.key].values()), level, tests) for arm in best)
    table = Table(tuple(Column(head, numeric=True) for head in heads), rows)
    phrase = (
        f"At the first passage of a training loss of {number(level)}, the lowest that all these runs reach, "
        "interpolated between evaluations; each batch size at its best learning rate, means with 90 % t intervals over "
        f"the seeds. A run has {count(examples)} training examples, drawn anew for each seed and the same for every "
        "batch size."
    )
    return at_equal_loss(study, courses, level), table, Text((phrase,), tone="note")


def _row(
    study: Study, arm: SummaryRow, courses: Sequence[Sequence[Evaluation]], level: float, tests: Sequence[str]
) -> tuple[str, ...]:
    there = [at for course in courses if (at := evaluation_at(course, TRAINING_LOSS, level)) is not None]
    gaps = [gap for at in there if (gap := _accuracy_gap(at)) is not None]
    watched, *tested = [
        intervals.mean((e.metrics[m] for e in there if m in e.metrics), within=range_in(study.rows, f"final_{m}"))
        for m in (study.metric, *tests)
    ]
    return (
        count(arm.batch_size),
        number(arm.lr),
        number(intervals.mean([at.epoch for at in there]).value),
        number(intervals.mean([float(at.step) for at in there]).value),
        with_interval(watched),
        *(number(estimate.value) for estimate in tested),
        with_interval(intervals.mean(gaps, within=range_in(study.rows, "final_accuracy_gap"))),
    )


# --- arms -----------------------------------------------------------------------------------------------------------


def _best(study: Study) -> list[SummaryRow]:
    """Arms of each batch size at its best learning rate."""
    return sorted((s for s in study.summary if s.best_lr), key=lambda s: s.batch_size)


def _courses(study: Study, runs: Sequence[StoredRun], arms: Sequence[SummaryRow]) -> Courses:
    """Courses by arm and seed."""
    found = {run.id: run for run in runs}
    return {
        arm.key: {
            row.seed: evaluations(found[row.run], study.examples_of(found[row.run])) for row in runs_of(study, arm)
        }
        for arm in arms
    }


def _turned(change: Estimate, sign: float) -> Estimate:
    """The change as a loss: above 0 is worse."""
    if sign > 0:
        return change
    value, low, high = (None if v is None else -v for v in (change.value, change.high, change.low))
    return replace(change, value=value, low=low, high=high)


def _versus(small: SummaryRow, large: SummaryRow) -> str:
    ends = [f"{count(arm.batch_size)} at learning rate {number(arm.lr)}" for arm in (small, large)]
    return f"from batch size {ends[0]} to {ends[1]}"


def _ids(study: Study, *arms: SummaryRow) -> tuple[str, ...]:
    return tuple(row.run for arm in arms for row in runs_of(study, arm))


STUDY = NamedStudy(
    name="regularising_noise",
    summary="little data, every batch size at its own best learning rate: what is left, also at equal training loss",
    source=_SOURCE,
    question=StudyQuestion(
        batch_sizes=(8, 32, 128),
        lrs=(0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
        length=Length(unit="epochs", amount=100),
    ),
    quick={
        "batch_sizes": (16, 128),
        "lrs": (0.1, 0.5),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=10),
    },
    settings={**SHEN_SETTINGS, "hidden": 256},
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 2_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
