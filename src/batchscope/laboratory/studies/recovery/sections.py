"""The page's part of the recovery study: published ends beside ours, and every branch along its epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Column, Figure, Section, Table, Text
from ....wording import joined, number, with_interval
from ...courses import course_of
from ...page.figures.branch_curves import Branch, branch_curves, metrics_up
from ...published import SHEN, Value, published_section
from ...readings import EndMetric, arm_of, end_metric_of
from ...records import Study, SummaryRow
from .conclusions import compared_with_scratch
from .plan import RecoveryPlan, plan_of, switched_after, unchanged_after

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["sections"]

_PUBLISHED = {
    "scratch": ("0.978 to 0.980", "0.063 to 0.067"),
    "switched": ("0.978 to 0.980", "0.063 to 0.067"),
    "unchanged": ("0.953 → 0.963", "0.165 → 0.123"),
}
"""Test accuracy and test loss at the end, read off figures, to about 0.002 and 0.005; `→` is from its start."""
_COLOURS = {
    "unchanged": "var(--series-0)",
    "switched": "var(--series-1)",
    "scratch": "var(--series-2)",
    "higher": "var(--series-3)",
}


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """The published ends beside ours, and every branch along all of its epochs."""
    found = [published_section(study, runs, SHEN, _values(study, runs))]
    if (figure := _figure(study, runs)) is not None:
        found.append(Section("branches", "Every branch along its epochs", (figure, _note(study), _ends(study))))
    return found


def _roles(study: Study) -> Iterator[tuple[str, str, float, SummaryRow]]:
    """Branches that were run: name, what was published of it, after how many epochs it began, arm."""
    plan = plan_of(study.question)
    roles = [(f"batch size {plan.small:,} from scratch", "scratch", 0.0, arm_of(study, plan.small, plan.lr))]
    for after in (plan.early, plan.late):
        for what, size, lr in (
            (f"to batch size {plan.small:,}", plan.small, plan.lr),
            (f"to learning rate {number(plan.higher)}", plan.large, plan.higher),
        ):
            name = f"{switched_after(after)} {what}"
            roles.append((name, "switched", after, arm_of(study, size, lr, switched_after(after))))
    unchanged = arm_of(study, plan.large, plan.lr, unchanged_after(plan.late))
    roles.append((f"{unchanged_after(plan.late)}, unchanged", "unchanged", plan.late, unchanged))
    yield from ((name, kind, after, arm) for name, kind, after, arm in roles if arm is not None)


def _values(study: Study, runs: Sequence[StoredRun]) -> list[Value]:
    return [
        Value(what=f"{what} at the end: {name}", published=published, ours=_ours(study, runs, arm, metric, kind))
        for metric, what, place in (("test_accuracy", "test accuracy", 0), ("test_loss", "test loss", 1))
        for name, kind, _, arm in _roles(study)
        for published in (_PUBLISHED[kind][place],)
    ]


def _ours(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, metric: str, kind: str) -> str:
    end = with_interval(arm.estimates.get(f"final_{metric}"))
    course = course_of(study, runs, arm) if kind == "unchanged" else None
    values = course.mean.get(metric, ()) if course else ()
    return f"{number(values[0])} → {end}" if values else end


def _figure(study: Study, runs: Sequence[StoredRun]) -> Figure | None:
    plan, outcome = plan_of(study.question), end_metric_of(study)
    large = arm_of(study, plan.large, plan.lr)
    base = course_of(study, runs, large) if large else None
    if base is None:
        return None
    kept = {plan.early: _kept_at(study, base.steps, base.epochs, plan), plan.late: base.epochs[-1], 0.0: 0.0}
    branches = [Branch(label=_of_large(plan), course=base, colour=_COLOURS["unchanged"])]
    for name, kind, after, arm in _roles(study):
        course = course_of(study, runs, arm)
        if course is not None:
            colour = _COLOURS["higher" if kind == "switched" and arm.batch_size == plan.large else kind]
            dash = "dash" if after == plan.late else "solid"
            branches.append(Branch(label=name, course=course, colour=colour, dash=dash, begins=kept[after]))
    return branch_curves(
        "branches",
        branches,
        across=("epoch",),
        up=metrics_up(study, outcome, [branch.course for branch in branches]),
        examples=study.examples,
        caption=_caption(study, outcome),
        height=440,
    )


def _of_large(plan: RecoveryPlan) -> str:
    return f"batch size {plan.large:,} at learning rate {number(plan.lr)}"


def _kept_at(study: Study, steps: Sequence[int], epochs: Sequence[float], plan: RecoveryPlan) -> float:
    """The epoch of the evaluation at which the early weights were kept."""
    due = (e for s, e in zip(steps, epochs, strict=True) if (s + 0.5) * plan.large >= plan.early * study.examples)
    return next(due, epochs[-1])


def _caption(study: Study, outcome: EndMetric) -> str:
    ends: dict[str, list[float]] = {}
    for _, kind, _, arm in _roles(study):
        if (value := arm.estimates[f"final_{outcome.name}"].value) is not None:
            ends.setdefault(kind, []).append(value)
    named = {
        "scratch": "the small batch from scratch ends at",
        "switched": "the switched runs at",
        "unchanged": "the large batch carried on unchanged at",
    }
    phrases = [f"{words} {_between(ends[kind])}" for kind, words in named.items() if kind in ends]
    return (
        f"In {outcome.name}, {joined(phrases)}. The horizontal axis counts all epochs, those of the large batch before "
        "a switch among them; broken lines begin where the large batch ended."
    )


def _between(values: Sequence[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def _ends(study: Study) -> Table:
    outcome = end_metric_of(study)
    rows: list[tuple[str, ...]] = []
    for name, _, after, arm in _roles(study):
        effect, as_good, _ = compared_with_scratch(study, outcome, arm)
        verdict = {True: "as good", False: "behind", None: "open"}[as_good]
        epochs = after + (arm.estimates["epochs"].value or 0.0)
        end = with_interval(arm.estimates.get(f"final_{outcome.name}"))
        scratch = after == 0.0
        rows.append((name, number(epochs), end, "" if scratch else with_interval(effect), "" if scratch else verdict))
    heads = ("ends at epoch", outcome.name, "against the small batch from scratch", "verdict")
    return Table((Column("branch"), *(Column(head, numeric=True) for head in heads)), tuple(rows))


def _note(study: Study) -> Text:
    outcome = end_metric_of(study)
    phrase = (
        f"As good is worse than the small batch from scratch by no more than {outcome.margin}, behind is worse by more."
    )
    lost = [name for name, _, _, arm in _roles(study) if arm.diverged]
    if lost:
        phrase += f" Runs diverged: {joined(lost)}."
    return Text((phrase,), tone="note")
