"""What training would take at batch sizes that somebody asks about, also far from those that were run. Numbers only."""

from __future__ import annotations

from ..fits.step_time import accumulation
from ..store.records import Estimate, WhatIf
from ..wording import count, plural, times
from .recipe import predicted_at
from .state import SearchState

__all__ = ["what_if"]

_FAR = 8.0
"""Times the largest batch size that was run, and below the smallest, up to which the law was checked."""


def what_if(state: SearchState) -> tuple[WhatIf, ...]:
    """An answer for each batch size of `--at`, ascending, and why it is to be doubted.

    A batch size is taken at the learning rate of least expected regret there; in a table with one learning rate for
    each batch size, at the one that continues them. Sizes above the training set or the memory are answered too, and
    the doubt says so.
    """
    if state.question.within is not None or state.target is None:
        return ()
    return tuple(_at(state, size) for size in state.question.at)


def _at(state: SearchState, size: int) -> WhatIf:
    if not (state.reached or state.answerable):
        return WhatIf(batch_size=size, lr=None, predicted=None, doubt="no run reached the target")
    lr = state.decide(batch_sizes=(size,), preferred=state.preferred).lr
    predicted = predicted_at(state, size, lr)
    doubts = (
        _one_size(state, size),
        _outside(state, size),
        _failed(state, size),
        _never(predicted.steps_to_target),
        _above_training_set(state, size),
        _above_memory(state, size),
    )
    return WhatIf(
        batch_size=size,
        lr=lr if state.recorded.lrs else None,
        predicted=predicted,
        doubt="; ".join(filter(None, doubts)),
    )


def _run_sizes(state: SearchState) -> list[int]:
    """Batch sizes that the law rests on, ascending: those that reached the target, else those that were run."""
    return sorted({size for size, _ in state.reached} or {size for size, _ in state.tried})


def _never(steps: Estimate) -> str:
    if steps.value is None:
        return "more likely than not it never reaches the target there"
    return "it may never reach the target there" if steps.high is None else ""


def _one_size(state: SearchState, size: int) -> str:
    first, *others = _run_sizes(state)
    if others or first == size:
        return ""
    return f"only batch size {count(first)} reached the target: how others compare with it is assumed"


def _outside(state: SearchState, size: int) -> str:
    sizes = _run_sizes(state)
    over, under = size / sizes[-1], sizes[0] / size
    if max(over, under) <= 1.0 or len(sizes) == 1:
        return ""
    which = "largest" if over > 1.0 else "smallest"
    how = times(over) if over > 1.0 else f"1/{times(under).removesuffix(' times')}"
    said = f"{how} the {which} batch size that reached the target ({count(sizes[-1] if over > 1.0 else sizes[0])})"
    if max(over, under) <= _FAR:
        return f"extrapolated to {said}"
    return f"far outside, {said}: the interval holds only if the law goes on as it does up to {_FAR:g} times"


def _failed(state: SearchState, size: int) -> str:
    there = [seen for seen in state.observations if seen.batch_size == size and seen.to == "target"]
    failed = sum(seen.kind in ("censored", "diverged") for seen in there)
    if not failed or state.parts is None:  # a search stops runs on purpose
        return ""
    return f"{failed} of {plural(len(there), 'run')} at it never reached the target"


def _above_training_set(state: SearchState, size: int) -> str:
    if not state.examples or size <= state.examples:
        return ""
    return f"larger than the training set ({count(state.examples)} examples), so no such batch can be drawn from it"


def _above_memory(state: SearchState, size: int) -> str:
    largest = state.bench.largest_micro_batch_size
    if not state.bench.memory_bound or size <= largest:
        return ""
    micro, parts = (count(part) for part in accumulation(size, largest))
    return f"{count(largest)} examples fit into memory at once, so it is counted in {parts} parts of {micro}"
