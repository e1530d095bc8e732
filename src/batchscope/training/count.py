"""Epochs, batches and steps: the arithmetic, with its rule for a partial last batch made explicit.

A data set of N examples rarely divides by the batch size B, and three rules are in use for what is left over. They
differ by at most one step an epoch, which is enough for two scripts not to agree. `stream` is the rule of every run
that batchscope makes, and of the programs that it writes. Valid for any N and B of at least 1.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from fractions import Fraction

from ..errors import UsageError
from ..store.quantities import finite_number, whole_number

__all__ = ["Count", "LastBatch", "count"]


class LastBatch(enum.StrEnum):
    """What becomes of the examples that do not fill a batch at the end of an epoch."""

    KEEP = "keep"
    DROP = "drop"
    STREAM = "stream"

    @property
    def meaning(self) -> str:
        """The sentence a user reads."""
        return _MEANING[self]


_MEANING = {
    LastBatch.KEEP: "the last batch of an epoch may be smaller (drop_last=False): N/B rounded up",
    LastBatch.DROP: "a last batch that is not full is left out (drop_last=True): N/B rounded down",
    LastBatch.STREAM: (
        "a batch may run on into the next epoch, so that all are full: exactly N/B, the rule of find, of study and of "
        "the programs that they write"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Count:
    """How epochs, batches and steps of one training run relate."""

    examples: int
    batch_size: int
    last_batch: LastBatch
    rule: str
    """The rule for a partial last batch, in words."""
    steps_per_epoch: float
    last_batch_size: int
    """Examples in the last batch of an epoch; 0 where an epoch has no batch."""
    epochs: float
    """As asked for, or steps / steps_per_epoch."""
    steps: int
    """As asked for, or the fewest whole steps that complete the epochs."""
    examples_seen: int
    examples_left_out_per_epoch: int
    notes: tuple[str, ...]


def count(
    *,
    examples: int,
    batch_size: int,
    epochs: float | None = None,
    steps: int | None = None,
    last_batch: LastBatch | str = LastBatch.STREAM,
) -> Count:
    """Convert epochs to steps, or steps to epochs.

    Steps per epoch are ceil(N/B), floor(N/B) or N/B, by the rule for a partial last batch.

    Args:
        examples: N, the number of training examples.
        batch_size: B, examples per step.
        epochs: passes over the training set, whole or not; give this or `steps`.
        steps: weight updates; give this or `epochs`.
        last_batch: the rule for a partial last batch: `keep`, `drop` or `stream`, which is that of every search and
            study, and of the programs that they write.

    Returns:
        The whole account, with a note for every special case.

    Raises:
        UsageError: a number is missing, not positive, not whole, too large (`quantities.MOST`) or given twice; or an
            epoch without a batch cannot make steps.

    >>> run = count(examples=60_000, batch_size=256, epochs=30)
    >>> run.steps_per_epoch, run.steps, run.examples_seen
    (234.375, 7032, 1800192)
    >>> run = count(examples=60_000, batch_size=256, epochs=30, last_batch="keep")
    >>> run.steps_per_epoch, run.steps, run.examples_seen
    (235.0, 7050, 1800000)
    >>> count(examples=60_000, batch_size=256, steps=7050, last_batch="keep").epochs
    30.0
    """
    examples, batch_size = whole_number(examples, "examples"), whole_number(batch_size, "batch_size")
    rule = _parse_rule(last_batch)
    per_epoch = _steps_per_epoch(examples, batch_size, rule)
    if epochs is not None and steps is not None:
        raise UsageError(f"epochs {epochs} and steps {steps} are both given; give one, the other follows from it")
    if epochs is not None:
        epochs = finite_number(epochs, "epochs")
        steps = _ceil(_exact(epochs) * per_epoch)
    elif steps is not None:
        steps = whole_number(steps, "steps")
        if not per_epoch:
            raise UsageError(
                f"no number of epochs makes {steps} steps: the batch size {batch_size} exceeds {examples} examples, "
                f"so with drop_last=True an epoch has no batch; keep the last batch or use at most {examples}"
            )
        epochs = float(steps / per_epoch)
    else:
        raise UsageError("neither epochs nor steps is given; give one, the other follows from it")
    return Count(
        examples=examples,
        batch_size=batch_size,
        last_batch=rule,
        rule=rule.meaning,
        steps_per_epoch=float(per_epoch),
        last_batch_size=_last_batch_size(examples, batch_size, rule),
        epochs=float(epochs),
        steps=steps,
        examples_seen=_examples_seen(examples, batch_size, steps, rule),
        examples_left_out_per_epoch=examples % batch_size if rule is LastBatch.DROP else 0,
        notes=tuple(_notes(examples, batch_size, rule)),
    )


def _parse_rule(last_batch: LastBatch | str) -> LastBatch:
    try:
        return LastBatch(last_batch)
    except ValueError:
        raise UsageError(f"last_batch is {last_batch!r}; it must be one of {', '.join(LastBatch)}") from None


def _exact(epochs: float) -> Fraction:
    """The decimal that a person wrote: 0.1 is a tenth, not the nearest binary fraction."""
    return Fraction(str(epochs))


def _ceil(steps: Fraction) -> int:
    """Round up, but not for the last digit of a float: 5/3 epochs of 3 steps are 5 steps."""
    nearest = round(steps)
    return nearest if abs(steps - nearest) <= steps * Fraction(1, 2**52) else math.ceil(steps)


def _steps_per_epoch(examples: int, batch_size: int, rule: LastBatch) -> Fraction:
    exact = Fraction(examples, batch_size)
    if rule is LastBatch.STREAM:
        return exact
    return Fraction(math.ceil(exact) if rule is LastBatch.KEEP else math.floor(exact))


def _last_batch_size(examples: int, batch_size: int, rule: LastBatch) -> int:
    if rule is LastBatch.KEEP:
        return examples % batch_size or batch_size
    return 0 if rule is LastBatch.DROP and batch_size > examples else batch_size


def _examples_seen(examples: int, batch_size: int, steps: int, rule: LastBatch) -> int:
    if rule is not LastBatch.KEEP:
        return steps * batch_size
    whole_epochs, further_steps = divmod(steps, math.ceil(Fraction(examples, batch_size)))
    return whole_epochs * examples + further_steps * batch_size


def _notes(examples: int, batch_size: int, rule: LastBatch) -> list[str]:
    """What is special about these numbers, in sentences."""
    notes: list[str] = []
    if batch_size == 1:
        notes.append("batch size 1: every example is a step of its own")
    if batch_size == examples:
        notes.append("the batch is the whole training set: one step an epoch, on the full gradient")
    if batch_size > examples:
        consequence = _OVERSIZED[rule].format(n=examples)
        notes.append(f"the batch size {batch_size} exceeds the {examples} examples: {consequence}")
    if examples % batch_size:
        others = [
            f"{other} makes {float(_steps_per_epoch(examples, batch_size, other)):.6g} steps an epoch"
            for other in LastBatch
            if other is not rule
        ]
        notes.append(
            f"{examples:,} examples are no whole number of batches of {batch_size:,}. "
            f"Other rules: {' and '.join(others)}"
        )
    return notes


_OVERSIZED = {
    LastBatch.KEEP: "every epoch is one partial batch of {n}",
    LastBatch.DROP: "no batch is ever full, so nothing is trained",
    LastBatch.STREAM: "one step takes more than one epoch, so an example can come twice in a batch",
}
