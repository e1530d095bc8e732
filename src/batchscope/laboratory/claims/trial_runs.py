"""The advice to begin small and grow, followed with each seed, as runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...store.not_applicable import not_applicable
from ..records import Arm, Length
from ..studies.trial_and_error.sequence import Next, TrialTraining, follow
from ..summary import row_of
from .plan import ClaimsPlan, trial_variant
from .results import step_time_of_rounds
from .tuning import advice_for

if TYPE_CHECKING:
    from ..engine import Laboratory

__all__ = ["follow_advice"]


def follow_advice(laboratory: Laboratory, plan: ClaimsPlan, lr: float, seeds: Sequence[int]) -> None:
    """Make the trainings that the advice leads to with each seed; times are those of the timing."""
    timing, metric = laboratory.read_note("timing"), laboratory.target
    if timing is None or not_applicable(timing) is not None:
        step_time = laboratory.step_time
    else:
        step_time = step_time_of_rounds(timing)
    advice = advice_for(plan, larger_is_better=metric.mode == "max")
    for seed in seeds:

        def made(asked: Next, seed: int = seed) -> TrialTraining | None:
            length = Length(unit="epochs", amount=asked.epochs)
            arm = Arm(batch_size=asked.batch_size, lr=lr, length=length, variant=trial_variant(asked.epochs))
            run = laboratory.run(arm, seed)
            if run is None:
                return None
            row = row_of(run, metric, laboratory.examples)
            return TrialTraining(
                batch_size=asked.batch_size,
                epochs=asked.epochs,
                value=row.values.get(f"best_{metric.metric}"),
                seconds=row.steps * step_time.of_batch(asked.batch_size),
            )

        follow(advice, made)
