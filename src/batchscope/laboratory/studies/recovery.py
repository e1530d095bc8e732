"""A large batch, switched to a small one or to a higher rate early and late: does it recover? Shen's experiment (A3).

For each seed the large batch is trained at the lower rate, and its weights are kept after two epochs and at the end.
From both, runs as long as the first go on: at the small batch, and at the large batch with the higher rate; from the
end also unchanged. The small batch from scratch is what they are compared with. Each of these runs begins with a fresh
optimizer (without momentum that makes no difference) and with the order of the examples from its start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...errors import UsageError
from ...report.blocks import Column, Figure, Section, Table, Text
from ...store.records import Estimate, RunStatus
from ...wording import joined, number, plural, times, with_interval
from ..conclusions import paired_difference
from ..courses import course_of
from ..page.figures.branch_curves import Branch, branch_curves, metrics_up
from ..published import SHEN, SHEN_SETTINGS, Value, conclusion, published_section
from ..readings import EndMetric, arm_of, end_metric_of
from ..records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion, SummaryRow

if TYPE_CHECKING:
    from ...store.runs import StoredRun
    from ..engine import Laboratory

__all__ = ["STUDY"]

_SOURCE = "Shen 2018, figures of recovery (A3)"
_EARLY = 2.0
"""Epochs after which the early switch is made, as published; in a run that is no longer, half of them."""
_TENFOLD = 10.0
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


class RecoveryPlan(NamedTuple):
    """What a question asks for."""

    small: int
    large: int
    lr: float
    higher: float
    """The rate that is switched to."""
    early: float
    """Epochs after which the early switch is made."""
    late: float
    """Epochs after which the late switch is made: the length of every run."""


def plan_of(question: StudyQuestion) -> RecoveryPlan:
    """The two batch sizes, the two rates and the epochs of the late switch.

    Raises:
        UsageError: they are not two, or a run is not of more than one epoch at a constant rate.
    """
    sizes, lrs, length = sorted(question.batch_sizes), sorted(question.lrs), question.length
    if len(sizes) != 2:
        raise UsageError(
            f"recovery switches from a large batch to a small one, and --batch-sizes has {plural(len(sizes), 'size')}; "
            "give two, for example --batch-sizes 64,1024"
        )
    if len(lrs) > 2:
        raise UsageError(
            f"recovery switches from one rate to a higher one, and --lrs has {len(lrs)}; give one, which is multiplied "
            "by ten, or two, for example --lrs 0.01,0.1"
        )
    if length.unit != "epochs" or length.amount <= _EARLY / 2:
        raise UsageError(
            f"recovery switches early and at the end of a run of so many epochs, and a run lasts {length}; "
            f"give --epochs above {_EARLY / 2:g}"
        )
    if question.schedule != "constant":
        raise UsageError(f"recovery continues runs at their rate, and a {question.schedule} schedule lets it decay")
    higher = lrs[1] if len(lrs) == 2 else float(f"{_TENFOLD * lrs[0]:.12g}")
    early = _EARLY if length.amount > _EARLY else _EARLY / 2
    return RecoveryPlan(small=sizes[0], large=sizes[1], lr=lrs[0], higher=higher, early=early, late=length.amount)


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """The large and the small batch from scratch, and the five branches."""
    plan = plan_of(question)
    scratch = (
        Arm(batch_size=plan.large, lr=plan.lr, length=question.length),
        Arm(batch_size=plan.small, lr=plan.lr, length=question.length),
    )
    return (*scratch, *(arm for _, arm in _branches(question)))


def _branches(question: StudyQuestion) -> tuple[tuple[float, Arm], ...]:
    """After how many epochs of the large batch, and what then."""
    plan, length = plan_of(question), question.length
    switched = [
        (after, Arm(batch_size=size, lr=lr, length=length, variant=_switched(after)))
        for after in (plan.early, plan.late)
        for size, lr in ((plan.small, plan.lr), (plan.large, plan.higher))
    ]
    unchanged = Arm(batch_size=plan.large, lr=plan.lr, length=length, variant=_unchanged(plan.late))
    return (*switched, (plan.late, unchanged))


def _switched(after: float) -> str:
    return f"switched after epoch {after:g}"


def _unchanged(after: float) -> str:
    return f"carried on after epoch {after:g}"


def measure_all(laboratory: Laboratory) -> None:
    """Seed by seed: the large batch, the small one, and what goes on from the large one's weights."""
    large, small = laboratory.arms[:2]
    plan = plan_of(laboratory.question)
    for seed in laboratory.question.seeds:
        first = laboratory.run(large, seed, keep=(plan.early, "last"))
        laboratory.run(small, seed)
        if first is None or first.result is None or first.result.status is RunStatus.DIVERGED:
            continue
        starts = {
            plan.early: laboratory.starting_from(laboratory.weights(first, plan.early)),
            plan.late: laboratory.starting_from(laboratory.weights(first, "last")),
        }
        for after, arm in _branches(laboratory.question):
            laboratory.run(arm, seed, workload=starts[after])


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Whether the switched runs recover, and the unchanged one does not."""
    plan, outcome = plan_of(study.question), end_metric_of(study)
    return (
        _switches(study, outcome, "switched to the small batch", plan.small, plan.lr),
        _switches(study, outcome, f"switched to {times(plan.higher / plan.lr)} the rate", plan.large, plan.higher),
        _stays(study, outcome),
    )


def _switches(study: Study, outcome: EndMetric, what: str, size: int, lr: float) -> Finding:
    plan = plan_of(study.question)
    compared = [_compared(study, outcome, arm_of(study, size, lr, _switched(a))) for a in (plan.early, plan.late)]
    verdicts = [verdict for _, verdict, _ in compared]
    holds = False if False in verdicts else (None if None in verdicts else True)
    said = [
        f"after epoch {after:g} {text}" for after, (_, _, text) in zip((plan.early, plan.late), compared, strict=True)
    ]
    return conclusion(
        f"a large batch does not get stuck: {what}, early or late, it ends as good as the small batch from scratch",
        holds,
        f"{outcome.name} at the end against the small batch from scratch: {joined(said)}",
        source=_rule(outcome),
        effect=compared[-1][0],
    )


def _stays(study: Study, outcome: EndMetric) -> Finding:
    plan = plan_of(study.question)
    effect, as_good, text = _compared(study, outcome, arm_of(study, plan.large, plan.lr, _unchanged(plan.late)))
    return conclusion(
        f"carried on unchanged for another {plan.late:g} epochs, the large batch stays behind",
        None if as_good is None else not as_good,
        f"{outcome.name} at the end against the small batch from scratch: {text}",
        source=_rule(outcome),
        effect=effect,
    )


def _compared(study: Study, outcome: EndMetric, arm: SummaryRow | None) -> tuple[Estimate | None, bool | None, str]:
    """The difference to the small batch from scratch, whether it is as good, and both in words."""
    plan = plan_of(study.question)
    scratch = arm_of(study, plan.small, plan.lr)
    if arm is None or scratch is None:
        return None, None, "there is no finished run"
    if arm.diverged:
        return None, False, f"{arm.diverged} of {arm.runs} runs diverged"
    name = f"final_{outcome.name}"
    change = paired_difference(study, name, scratch, arm)
    return change, outcome.as_good(change, scratch.estimates[name].value), f"it differs by {with_interval(change)}"


def _rule(outcome: EndMetric) -> str:
    return (
        f"{_SOURCE}; differences seed by seed, 90 % t interval; as good is worse by no more than {outcome.margin}, "
        "behind is worse by more"
    )


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """The published ends beside ours, and every branch along all of its epochs."""
    found = [published_section(study, runs, SHEN, _values(study, runs))]
    if (figure := _figure(study, runs)) is not None:
        found.append(Section("branches", "Every branch along its epochs", (figure, _note(study), _ends(study))))
    return found


def _roles(study: Study) -> Iterator[tuple[str, str, float, SummaryRow]]:
    """Each branch that was run: its name, what was published of it, after how many epochs it began, its arm."""
    plan = plan_of(study.question)
    roles = [(f"batch size {plan.small:,} from scratch", "scratch", 0.0, arm_of(study, plan.small, plan.lr))]
    for after in (plan.early, plan.late):
        for what, size, lr in (
            (f"to batch size {plan.small:,}", plan.small, plan.lr),
            (f"to rate {number(plan.higher)}", plan.large, plan.higher),
        ):
            name = f"{_switched(after)} {what}"
            roles.append((name, "switched", after, arm_of(study, size, lr, _switched(after))))
    unchanged = arm_of(study, plan.large, plan.lr, _unchanged(plan.late))
    roles.append((f"{_unchanged(plan.late)}, unchanged", "unchanged", plan.late, unchanged))
    yield from ((name, kind, after, arm) for name, kind, after, arm in roles if arm is not None)


def _values(study: Study, runs: Sequence[StoredRun]) -> list[Value]:
    return [
        Value(what=f"{what} at the end: {name}", published=told, ours=_ours(study, runs, arm, metric, kind))
        for metric, what, place in (("test_accuracy", "test accuracy", 0), ("test_loss", "test loss", 1))
        for name, kind, _, arm in _roles(study)
        for told in (_PUBLISHED[kind][place],)
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
        caption=_said(study, outcome),
        height=440,
    )


def _of_large(plan: RecoveryPlan) -> str:
    return f"batch size {plan.large:,} at rate {number(plan.lr)}"


def _kept_at(study: Study, steps: Sequence[int], epochs: Sequence[float], plan: RecoveryPlan) -> float:
    """The epoch of the evaluation at which the early weights were kept."""
    due = (e for s, e in zip(steps, epochs, strict=True) if (s + 0.5) * plan.large >= plan.early * study.examples)
    return next(due, epochs[-1])


def _said(study: Study, outcome: EndMetric) -> str:
    ends: dict[str, list[float]] = {}
    for _, kind, _, arm in _roles(study):
        if (value := arm.estimates[f"final_{outcome.name}"].value) is not None:
            ends.setdefault(kind, []).append(value)
    named = {
        "scratch": "the small batch from scratch ends at",
        "switched": "the switched runs at",
        "unchanged": "the large batch carried on unchanged at",
    }
    said = [f"{words} {_between(ends[kind])}" for kind, words in named.items() if kind in ends]
    return (
        f"In {outcome.name}, {joined(said)}. The horizontal axis counts all epochs, those of the large batch before a "
        "switch among them; broken lines begin where the large batch ended."
    )


def _between(values: Sequence[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def _ends(study: Study) -> Table:
    outcome = end_metric_of(study)
    rows: list[tuple[str, ...]] = []
    for name, _, after, arm in _roles(study):
        effect, as_good, _ = _compared(study, outcome, arm)
        verdict = {True: "as good", False: "behind", None: "open"}[as_good]
        epochs = after + (arm.estimates["epochs"].value or 0.0)
        end = with_interval(arm.estimates.get(f"final_{outcome.name}"))
        scratch = after == 0.0
        rows.append((name, number(epochs), end, "" if scratch else with_interval(effect), "" if scratch else verdict))
    heads = ("ends at epoch", outcome.name, "against the small batch from scratch", "verdict")
    return Table((Column("branch"), *(Column(head, numeric=True) for head in heads)), tuple(rows))


def _note(study: Study) -> Text:
    outcome = end_metric_of(study)
    said = (
        f"As good is worse than the small batch from scratch by no more than {outcome.margin}, behind is worse by more."
    )
    lost = [name for name, _, _, arm in _roles(study) if arm.diverged]
    if lost:
        said += f" Runs diverged: {joined(lost)}."
    return Text((said,), tone="note")


STUDY = NamedStudy(
    name="recovery",
    summary="a large batch switched to a small one, or to ten times the rate, early and late: does it recover?",
    source=_SOURCE,
    question=StudyQuestion(batch_sizes=(64, 1024), lrs=(0.01,), length=Length(unit="epochs", amount=30)),
    quick={"batch_sizes": (128, 512), "seeds": (0, 1), "length": Length(unit="epochs", amount=1.5)},
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
