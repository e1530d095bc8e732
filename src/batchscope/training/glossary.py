"""The words of the arithmetic, each with its definition, its formula, and a check by counting a run batch by batch.

The formulas of `count` divide; the check here walks: it cuts batches from the examples one after another, as a loader
does, and counts what comes. The two must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from .count import Count, LastBatch

__all__ = ["GLOSSARY", "CheckedTerm", "Counters", "Term", "check_glossary", "walk"]

_MOST_STEPS = 200_000


@dataclass(frozen=True, kw_only=True)
class Term:
    """A word, what it means here, and how its number follows from N examples and batch size B."""

    term: str
    also: tuple[str, ...] = ()
    """Other names for the same thing."""
    definition: str
    formula: str


@dataclass(frozen=True, kw_only=True)
class CheckedTerm(Term):
    """A word with its number in one run, by the formula and by counting."""

    value: float
    """By the formula."""
    counted: float | None = None
    """By walking through the run; `None`: not counted."""
    agrees: bool | None = None
    note: str = ""
    """Why it was not counted."""


GLOSSARY = {
    entry.term: entry
    for entry in (
        Term(
            term="epoch",
            also=("pass",),
            definition="one pass over the training set: every example is used once, or left out by the last-batch rule",
            formula="whole epochs: steps / steps per epoch, rounded down",
        ),
        Term(
            term="batch size",
            definition="how many examples one step uses, over all devices and accumulated micro-batches together",
            formula="micro-batch size x accumulated micro-batches x devices, at most N where epochs are kept apart",
        ),
        Term(
            term="step",
            also=("iteration", "update"),
            definition="one update of the weights from one batch",
            formula="epochs x steps per epoch, rounded up",
        ),
        Term(
            term="steps per epoch",
            also=("iterations per epoch", "batch count of an epoch"),
            definition="how many batches one pass over the training set makes, and so how often it updates the weights",
            formula="N / B, rounded up (keep) or down (drop), or as it is (stream)",
        ),
        Term(
            term="batch count",
            also=("total number of iterations",),
            definition="how many batches the whole run draws; some texts mean those of one epoch",
            formula="epochs x steps per epoch, rounded up",
        ),
        Term(
            term="last batch",
            definition="how many examples the last batch of an epoch has; fewer than B where a rest of them is kept",
            formula="remainder of N / B, or B where it is 0 (keep); B (drop, stream)",
        ),
        Term(
            term="examples seen",
            definition="how many examples the steps of the run use together, repeated ones counted again",
            formula="the sizes of all batches together",
        ),
        Term(
            term="left out",
            definition="the examples of an epoch that no step uses, because they do not fill a batch",
            formula="remainder of N / B (drop); 0 (keep, stream)",
        ),
    )
}
"""Every word that `batchscope count` explains."""


@dataclass(kw_only=True)
class Counters:
    """What was counted while walking through a run."""

    updates: int = 0
    examples: int = 0
    epochs: int = 0
    """Whole passes that were over at the last update."""
    sizes: list[int] = field(default_factory=list[int])
    """Of the batches of the first pass."""


def walk(run: Count) -> Counters:
    """Go through a run batch by batch, as a loader does, and count.

    Args:
        run: how many examples, batch size, rule for the last batch, and steps.

    Returns:
        The counters after the run's last step.

    Cost: a few microseconds a step.

    >>> from batchscope.training.count import count
    >>> counters = walk(count(examples=10, batch_size=4, epochs=2, last_batch="keep"))
    >>> counters.updates, counters.epochs, counters.examples, counters.sizes
    (6, 2, 20, [4, 4, 2])
    """
    counters = Counters()
    batches = _batches(run.examples, run.batch_size, run.last_batch)
    for _ in range(run.steps):
        size, ended = next(batches)
        counters.updates += 1
        counters.examples += size
        if not counters.epochs:
            counters.sizes.append(size)
        counters.epochs += ended
    return counters


def _batches(examples: int, batch_size: int, rule: LastBatch) -> Iterator[tuple[int, int]]:
    """Without end: the size of the next batch, and how many passes are over after it."""
    used = 0
    while True:
        left = examples - used
        if rule is LastBatch.STREAM:
            used += batch_size
            ended, used = divmod(used, examples)
            yield batch_size, ended
            continue
        taken = min(batch_size, left)
        used += taken
        over = used == examples or (rule is LastBatch.DROP and examples - used < batch_size)
        used = 0 if over else used
        yield taken, int(over)


def check_glossary(run: Count) -> tuple[CheckedTerm, ...]:
    """Every word of the glossary with its number in a run, by the formula and by counting.

    Args:
        run: the arithmetic of it.

    Returns:
        One entry for each word. A run of over 200,000 steps, or without any, is not counted; where it ends within its
        first epoch, what belongs to a whole epoch is not. The note says so.

    Cost: at most a fraction of a second.

    >>> from batchscope.training.count import count
    >>> for entry in check_glossary(count(examples=10, batch_size=4, epochs=2, last_batch="keep"))[:4]:
    ...     print(entry.term, entry.value, entry.counted, entry.agrees)
    epoch 2.0 2.0 True
    batch size 4.0 4.0 True
    step 6.0 6.0 True
    steps per epoch 3.0 3.0 True
    """
    values = _by_formula(run)
    if not 0 < run.steps <= _MOST_STEPS:
        note = "no step is made" if not run.steps else f"not counted: more than {_MOST_STEPS:,} steps"
        return tuple(_checked(term, values[name], None, note) for name, term in GLOSSARY.items())
    counters = walk(run)
    return tuple(_checked(term, values[name], *_counted(name, run, counters)) for name, term in GLOSSARY.items())


def _by_formula(run: Count) -> dict[str, float]:
    per_epoch = Fraction(run.examples, run.batch_size)
    if run.last_batch is not LastBatch.STREAM:
        per_epoch = Fraction(round(run.steps_per_epoch))
    whole = run.batch_size if run.last_batch is LastBatch.STREAM else min(run.batch_size, run.examples)
    return {
        "epoch": run.steps // per_epoch if per_epoch else 0,
        "batch size": whole,
        "step": run.steps,
        "steps per epoch": run.steps_per_epoch,
        "batch count": run.steps,
        "last batch": run.last_batch_size,
        "examples seen": run.examples_seen,
        "left out": run.examples_left_out_per_epoch,
    }


_OF_THE_RUN: dict[str, Callable[[Counters], float]] = {
    "epoch": lambda counters: counters.epochs,
    "batch size": lambda counters: max(counters.sizes),
    "step": lambda counters: counters.updates,
    "batch count": lambda counters: counters.updates,
    "examples seen": lambda counters: counters.examples,
}
_OF_AN_EPOCH: dict[str, Callable[[Counters, int], float]] = {
    "steps per epoch": lambda counters, examples: len(counters.sizes),
    "last batch": lambda counters, examples: counters.sizes[-1],
    "left out": lambda counters, examples: examples - sum(counters.sizes),
}


def _counted(name: str, run: Count, counters: Counters) -> tuple[float | None, str]:
    if name in _OF_THE_RUN:
        return _OF_THE_RUN[name](counters), ""
    if run.last_batch is LastBatch.STREAM:
        if name == "steps per epoch":
            return run.examples * counters.updates / counters.examples, ""
        return (0, "") if name == "left out" else (counters.sizes[-1], "")
    if not counters.epochs:
        return None, "not counted: the run ends within its first epoch"
    return _OF_AN_EPOCH[name](counters, run.examples), ""


def _checked(term: Term, value: float, counted: float | None, note: str) -> CheckedTerm:
    return CheckedTerm(
        **vars(term),
        value=float(value),
        counted=None if counted is None else float(counted),
        agrees=None if counted is None else abs(counted - value) <= 1e-9 * abs(value),
        note=note,
    )
