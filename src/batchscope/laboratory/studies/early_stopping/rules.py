"""Stopping rules that are replayed on a study's runs, and those that conclusions are drawn by. Numbers only."""

from __future__ import annotations

from collections.abc import Sequence

from ....fits.early_stopping import Rule
from ....wording import number
from ...records import Study, SummaryRow
from .replay import Curve, Replayed, by_rule, on_test_part, replayed

__all__ = ["CRITERIA", "arms_at_first_lr", "extreme_criteria", "patience_rules", "percent_change", "usual_rule"]

_PATIENCES = (3.0, 10.0, 30.0, 100.0)
"""In epochs; 100 is the published one."""
_USUAL = 10.0
"""The patience that conclusions are drawn by, where the runs are longer."""
CRITERIA = (
    *(Rule(kind="GL", amount=a) for a in (1, 3, 5)),
    *(Rule(kind="PQ", amount=a) for a in (0.5, 1, 3)),
    *(Rule(kind="UP", amount=s) for s in (2, 4, 8)),
)
"""From the fastest to the slowest of Prechelt's exemplars."""


def arms_at_first_lr(study: Study) -> list[SummaryRow]:
    """The batch sizes at the first learning rate that was asked for."""
    lr = study.question.lrs[0]
    return sorted((s for s in study.summary if s.lr == lr and not s.diverged), key=lambda s: s.batch_size)


def patience_rules(study: Study) -> list[Rule]:
    """Patience rules that can end a run of the study's length."""
    length = study.question.length
    most = length.patience if length.unit == "until-stopped" else length.amount if length.unit == "epochs" else None
    amounts = [p for p in _PATIENCES if most is None or p <= most] or [max(1.0, (most or 2.0) // 2)]
    return [Rule(kind="patience", amount=amount) for amount in amounts]


def usual_rule(study: Study) -> Rule:
    """The patience rule that conclusions are drawn by."""
    rules = patience_rules(study)
    return next((rule for rule in rules if rule.amount == _USUAL), rules[-1])


def extreme_criteria(
    study: Study, curves: Sequence[Curve]
) -> tuple[tuple[Rule, Replayed], tuple[Rule, Replayed]] | None:
    """The fastest and the slowest of Prechelt's criteria, of those that stop in every run if there are two."""
    found = [(rule, o) for rule in CRITERIA if (o := replayed(study, curves, by_rule(rule))) is not None]
    if not found or on_test_part(study, curves) is None:
        return None
    always = [(rule, o) for rule, o in found if not o.never]
    ordered = sorted(always if len(always) > 1 else found, key=lambda pair: pair[1].stop_epoch.value or 0.0)
    return ordered[0], ordered[-1]


def percent_change(value: float) -> str:
    """A share in per cent with its sign."""
    return f"{number(float(f'{100 * value:.2g}'))} %"
