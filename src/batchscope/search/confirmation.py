"""What the runs of a search are judged by, and how many evaluations in a row confirm its target. No torch.

Where `--confirm` does not say it, the first run that comes to the target decides: by the noise and the gain of its
evaluations before it was there (`fits.evaluation_noise.confirmations`), the one at the target left out, which was
chosen by its value. Until then one evaluation is enough. A run that was there once goes on where more are needed. So
the number follows from a stored run, and is the same whenever the search is repeated. Without a target, and for the
searches other than ours, it is the first run that decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..fits.curves import curve_of, steps_to_target, up_to_target
from ..fits.evaluation_noise import confirmations, evaluation_spread
from ..store.records import Estimate, Metric, RunConfig, Target
from ..store.runs import StoredRun
from ..wording import number, plural, with_interval
from .question import Question

if TYPE_CHECKING:
    from .state import SearchState

__all__ = ["Confirmation", "aimed", "confirmation_in_words", "resolved", "settled"]


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Noise of the evaluations near the target, and what follows from it.

    Attributes:
        spread: standard deviation of one evaluation, in the metric's unit.
        confirm: evaluations in a row that confirm the target.
    """

    spread: Estimate
    confirm: int


def resolved(question: Question, metric: Metric | None) -> Question:
    """A question with the metric that its runs are judged by, and its targets with the number that confirms them."""

    def confirmed(target: Target) -> Target:
        return target if question.confirm is None else replace(target, confirm=question.confirm)

    return replace(
        question,
        metric=metric,
        target=None if question.target is None else confirmed(question.target),
        easier_targets=tuple(map(confirmed, question.easier_targets)),
    )


def settled(state: SearchState, run: StoredRun, *, at_its_end: bool = False) -> dict[str, Any]:
    """Changes of a search's state where a run settles how many evaluations confirm the target; empty where it does not.

    Args:
        state: of the search before the run.
        run: that was finished.
        at_its_end: whether it settles that wherever it ended; else only where it came to the target.
    """
    target = state.target
    if target is None or state.confirmation is not None or state.question.within is not None:
        return {}
    once = replace(target, confirm=1)
    reached = steps_to_target(run.rows, once) is not None
    if not reached and not at_its_end:
        return {}
    curve = curve_of(run.rows, target)
    before = up_to_target(curve, once)[:-1] if reached else curve
    steps, values = [step for step, _ in before], [value for _, value in before]
    given = state.question.confirm or (target.confirm if target.confirm > 1 else None)
    confirm = given or confirmations(steps, values, rising=target.mode == "max")
    spread = evaluation_spread(steps, values, unit=target.metric)
    return {
        "target": replace(target, confirm=confirm),
        "confirmation": Confirmation(spread=spread, confirm=confirm),
    }


def aimed(state: SearchState, config: RunConfig) -> RunConfig:
    """A configuration whose target, where it has one, is confirmed as often as it is now."""
    if config.target is None or state.target is None:
        return config
    return replace(config, target=replace(config.target, confirm=state.target.confirm))


def confirmation_in_words(state: SearchState) -> str:
    """Note on noisy evaluations and how many of them confirm the target; empty where one does."""
    found, target = state.confirmation, state.target
    if found is None or target is None or found.confirm == 1 or found.spread.value is None:
        return ""
    why = "as --confirm says" if state.question.confirm is not None else "--confirm 1 takes the first at it"
    return (
        f"{target.metric} varies from one evaluation to the next with a standard deviation of "
        f"{with_interval(replace(found.spread, unit=''))}. The target therefore counts as reached at the first of "
        f"{plural(found.confirm, 'evaluation')} in a row at {number(target.value)} or beyond ({why})"
    )
