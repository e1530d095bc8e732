"""Several batch sizes at one learning rate and equally many epochs: Shen's first experiment (A1)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...wording import number, with_interval
from ..conclusions import paired_difference, runs_of
from ..courses import course_of
from ..published import SHEN, SHEN_SETTINGS, Value, conclusion, is_above, published_section
from ..records import Finding, Length, NamedStudy, Study, StudyQuestion, SummaryRow

if TYPE_CHECKING:
    from ...report.blocks import Section
    from ...store.runs import StoredRun

__all__ = ["STUDY"]

_SOURCE = "Shen 2018, figures of test and training accuracy by batch size (A1)"
_PUBLISHED = {
    64: ("0.938 → 0.979", "0.065", "0.999", "0.01", "0.020"),
    256: ("0.904 → 0.971", "0.09", "0.983", "0.06", "0.012"),
    1024: ("0.849 → 0.952", "0.17", "0.954", "0.16", "0.002"),
}
"""Test accuracy after the first and the last epoch; then, at the end: test loss, training accuracy, training loss, and
training minus test accuracy. Read off figures, to about 0.002 and 0.005."""
_QUANTITIES = {
    "test accuracy, first epoch → last": "test_accuracy",
    "test loss at the end": "final_test_loss",
    "training accuracy at the end": "final_train_accuracy_eval",
    "training loss at the end": "final_train_loss_eval",
    "training minus test accuracy at the end": "final_accuracy_gap",
}


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Shen's conclusion, and what the seed of most of the contradictions is: large batches fit less, too."""
    arms = _arms(study)
    if len(arms) < 2:
        return ()
    small, large = arms[0], arms[-1]
    return tuple(_compared(study, small, large))


def _compared(study: Study, small: SummaryRow, large: SummaryRow) -> Iterator[Finding]:
    sizes = f"from batch size {small.batch_size:,} to {large.batch_size:,} at learning rate {number(small.lr)}"
    ids = [row.run for arm in (small, large) for row in runs_of(study, arm)]
    for statement, name, sign in (
        ("a larger batch ends at a lower test accuracy", "final_test_accuracy", -1),
        ("it ends at a higher training loss, too: it is not overfitted but trained less", "final_train_loss_eval", 1),
        ("the gap between training and test accuracy shrinks with the batch", "final_accuracy_gap", -1),
    ):
        change = paired_difference(study, name, small, large)
        if change.value is None:
            continue
        above = is_above(change)
        yield conclusion(
            statement,
            None if above is None else above == (sign > 0),
            f"{sizes}, {name.removeprefix('final_')} changes by {with_interval(change)}",
            source=f"{_SOURCE}; differences seed by seed, 90 % t interval",
            effect=change,
            runs=ids,
        )


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """The published table beside ours."""
    arms = {arm.batch_size: arm for arm in _arms(study)}
    values = [
        Value(what=f"batch size {size:,}: {what}", published=value, ours=_ours(study, runs, arms[size], name))
        for size, published in _PUBLISHED.items()
        if size in arms
        for (what, name), value in zip(_QUANTITIES.items(), published, strict=True)
    ]
    return (published_section(study, runs, SHEN, values),)


def _ours(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, name: str) -> str:
    if name in arm.estimates:
        return with_interval(arm.estimates[name])
    course = course_of(study, runs, arm)
    values = course.mean.get(name, ()) if course else ()
    return f"{number(values[1])} → {number(values[-1])}" if len(values) > 1 else "not measured"


def _arms(study: Study) -> list[SummaryRow]:
    """The batch sizes at the first learning rate that was asked for."""
    lr = study.question.lrs[0]
    arms = sorted((s for s in study.summary if s.lr == lr and not s.diverged), key=lambda s: s.batch_size)
    assert all(a.batch_size != b.batch_size for a, b in itertools.pairwise(arms))
    return arms


STUDY = NamedStudy(
    name="fixed_epochs",
    summary="several batch sizes at one learning rate and equally many epochs",
    source=_SOURCE,
    question=StudyQuestion(batch_sizes=(64, 256, 1024), lrs=(0.01,), length=Length(unit="epochs", amount=30)),
    quick={"seeds": (0, 1), "length": Length(unit="epochs", amount=3)},
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    conclude=conclude,
    sections=sections,
)
