"""Answer of a search for a given length in words: where a training ends, and why that is believed. Numbers only."""

from __future__ import annotations

from ..store.endings import endings_of
from ..store.records import Evidence, RunStatus
from ..wording import plural, with_interval
from .state import SearchState
from .strategies.space import Pair
from .within import WORTH

__all__ = ["better_than", "end_in_words", "evidence_of_lengths"]


def end_in_words(state: SearchState, batch_size: int, lr: float) -> str:
    """Clause on where a training at a recipe is expected to end: "at val_loss 0.3 (0.2–0.4) after 3 epochs"."""
    lengths, within = state.lengths, state.question.within
    end = lengths.end(batch_size, lr)
    known = with_interval(end) if end.low is not None else f"{with_interval(end)} or so, how near is not known,"
    equal = ", at equal steps" if state.question.at_equal_steps else ""
    return f"at {lengths.metric.name} {known} after {within}{equal}"


def better_than(state: SearchState, current: Pair) -> tuple[bool, str]:
    """Whether the recipe is expected to end clearly better than the current one, and a clause that compares them."""
    lengths, decision = state.lengths, state.decision
    if current not in lengths.whole:
        return True, "a training at the current recipe did not come to its end"
    mean, low = lengths.gain((decision.batch_size, decision.lr), current)
    clear = low > 0.0 and mean > WORTH
    compared = f"the current recipe is expected to end at {with_interval(lengths.end(*current))}"
    return clear, compared if clear else f"{compared}, no other clearly better"


def evidence_of_lengths(state: SearchState, how_often: str) -> list[Evidence]:
    """Statements on the runs of the length, and on what their ends were taken to follow."""
    lengths, within = state.lengths, state.question.within
    short = [run for run in state.finished if run.result and run.result.status is not RunStatus.OUT_OF_STEPS]
    lost = [f"{n} {ending}" for ending, n in endings_of(short)]
    others = f"; of the others, {', '.join(lost)}" if lost else ""
    of_steps = state.question.at_equal_steps
    return [
        Evidence(
            statement=f"{len(lengths.whole)} of {plural(len(state.finished), 'run')} had the whole length of {within}"
            f"{others}",
            tag="measured",
            source=f"{how_often}, and is kept in the results folder",
        ),
        Evidence(
            statement="where a training of this length ends is a law of batch size and learning rate, with a best "
            f"{'batch size above which nothing more is gained' if of_steps else 'batch size'} and a best learning rate "
            "that grows with it",
            tag="fitted",
            source=f"{plural(len(lengths.ends), 'run')} and a prior from 15 recorded tasks; the ends of runs are the "
            "level of their last evaluations, not the best of them; 90 % credible intervals",
        ),
    ]
