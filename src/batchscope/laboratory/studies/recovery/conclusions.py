"""Whether the switched runs of the recovery study end as good as the small batch from scratch. Numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....store.records import Estimate
from ....wording import joined, times, with_interval
from ...conclusions import paired_difference
from ...published import conclusion
from ...readings import EndMetric, arm_of, end_metric_of
from ...records import Finding, Study, SummaryRow
from .plan import plan_of, switched_after, unchanged_after

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["SOURCE", "compared_with_scratch", "conclude"]

SOURCE = "Shen 2018, figures of recovery (A3)"


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Whether the switched runs recover, and the unchanged one does not."""
    plan, outcome = plan_of(study.question), end_metric_of(study)
    return (
        _switches(study, outcome, "switched to the small batch", plan.small, plan.lr),
        _switches(
            study, outcome, f"switched to {times(plan.higher / plan.lr)} the learning rate", plan.large, plan.higher
        ),
        _stays(study, outcome),
    )


def _switches(study: Study, outcome: EndMetric, what: str, size: int, lr: float) -> Finding:
    plan = plan_of(study.question)
    compared = [
        compared_with_scratch(study, outcome, arm_of(study, size, lr, switched_after(a)))
        for a in (plan.early, plan.late)
    ]
    verdicts = [verdict for _, verdict, _ in compared]
    holds = False if False in verdicts else (None if None in verdicts else True)
    phrases = [
        f"after epoch {after:g} {text}" for after, (_, _, text) in zip((plan.early, plan.late), compared, strict=True)
    ]
    return conclusion(
        f"a large batch does not get stuck: {what}, early or late, it ends as good as the small batch from scratch",
        holds,
        f"{outcome.name} at the end against the small batch from scratch: {joined(phrases)}",
        source=_rule(outcome),
        effect=compared[-1][0],
    )


def _stays(study: Study, outcome: EndMetric) -> Finding:
    plan = plan_of(study.question)
    effect, as_good, text = compared_with_scratch(
        study, outcome, arm_of(study, plan.large, plan.lr, unchanged_after(plan.late))
    )
    return conclusion(
        f"carried on unchanged for another {plan.late:g} epochs, the large batch stays behind",
        None if as_good is None else not as_good,
        f"{outcome.name} at the end against the small batch from scratch: {text}",
        source=_rule(outcome),
        effect=effect,
    )


def compared_with_scratch(
    study: Study, outcome: EndMetric, arm: SummaryRow | None
) -> tuple[Estimate | None, bool | None, str]:
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
        f"{SOURCE}; differences seed by seed, 90 % t interval; as good is worse by no more than {outcome.margin}, "
        "behind is worse by more"
    )
