"""What an answer rests on, in words: the batch sizes and learning rates that were run."""

from __future__ import annotations

from collections.abc import Iterable

from ..store.records import Plan, RestsOn, Verified
from ..wording import count, number, plural, sentence, times

__all__ = ["beyond_law_in_words", "doubts", "in_sentences", "one_batch_size", "rest_of_message", "rests_on_in_words"]

_MOST_LISTED = 8


def rests_on_in_words(rests_on: RestsOn) -> str:
    """The runs behind an answer in one line, to stand as it is or as a sentence.

    >>> rests_on_in_words(RestsOn(batch_sizes=(16, 64, 256), lrs=(0.01, 0.1, 0.3), runs=9, reached=4))
    'rests on 9 runs: batch sizes 16 to 256 (16, 64, 256), learning rates 0.01 to 0.3. 4 runs reached the target'
    >>> rests_on_in_words(RestsOn(batch_sizes=(32,), lrs=(0.1,), runs=1, reached=1))
    'rests on 1 run: batch size 32 alone, learning rate 0.1. 1 run reached the target'
    """
    if not rests_on.runs:
        return "rests on no finished run"
    parts = [_sizes(rests_on.batch_sizes), *([_lrs(rests_on.lrs)] if rests_on.lrs else [])]
    reached = "" if rests_on.reached is None else f". {_reached(rests_on.reached)} the target"
    return f"rests on {plural(rests_on.runs, 'run')}: {', '.join(parts)}{reached}"


def _reached(runs: int) -> str:
    return f"{plural(runs, 'run')} reached" if runs else "None reached"


def one_batch_size(rests_on: RestsOn | None) -> str:
    """Warning that only one batch size was run, without a full stop; empty where several were, or none.

    >>> one_batch_size(RestsOn(batch_sizes=(32,), lrs=(0.1,), runs=1, reached=1))
    'only batch size 32 was run: how other batch sizes compare with it is assumed, not measured'
    """
    if rests_on is None or len(rests_on.batch_sizes) != 1:
        return ""
    size = count(rests_on.batch_sizes[0])
    return f"only batch size {size} was run: how other batch sizes compare with it is assumed, not measured"


def beyond_law_in_words(verified: Verified | None) -> str:
    """Warning that the run at the recipe contradicts the law, without a full stop; empty where it does not.

    >>> beyond_law_in_words(Verified(steps=336, time_s=4.4, metric=1.8, times_the_law=6.3))
    'the run at this recipe took 6.3 times as many steps as the law of all runs says: the law does not hold here'
    """
    if verified is None or verified.times_the_law is None:
        return ""
    ratio = times(verified.times_the_law)
    return f"the run at this recipe took {ratio} as many steps as the law of all runs says: the law does not hold here"


def doubts(plan: Plan) -> tuple[str, ...]:
    """Warnings that come before the answer of a plan, in the order in which its message begins with them."""
    return tuple(filter(None, (one_batch_size(plan.rests_on), beyond_law_in_words(plan.verified))))


def rest_of_message(plan: Plan) -> str:
    """Message of a plan as sentences, without the warnings that were said before it."""
    said = doubts(plan)
    before = "".join(f"{doubt}; " for doubt in said)  # in the messages of earlier versions
    return sentence(plan.message.removeprefix(f"{in_sentences(said)} ".lstrip()).removeprefix(before))


def in_sentences(parts: Iterable[str]) -> str:
    """Parts of a message, each a sentence of its own; empty ones left out.

    >>> in_sentences(["only batch size 32 was run", "", "the fastest recipe found"])
    'Only batch size 32 was run. The fastest recipe found.'
    """
    return " ".join(sentence(part) for part in parts if part)


def _sizes(sizes: tuple[int, ...]) -> str:
    if len(sizes) == 1:
        return f"batch size {count(sizes[0])} alone"
    if len(sizes) == 2:
        return f"batch sizes {count(sizes[0])} and {count(sizes[1])}"
    listed = f" ({', '.join(map(count, sizes))})" if len(sizes) <= _MOST_LISTED else ""
    return f"batch sizes {count(sizes[0])} to {count(sizes[-1])}{listed}"


def _lrs(lrs: tuple[float, ...]) -> str:
    if len(lrs) == 1:
        return f"learning rate {number(lrs[0])}"
    return f"learning rates {number(lrs[0])} to {number(lrs[-1])}"
