"""Trial and error as a rule: begin with few epochs and a small batch, raise both until time and quality balance.

The advice (SabrePC, "Epochs, Batch Size, Iterations") names no numbers. Here it is one fixed sequence of trials, each
of them a training from scratch:

1. the smallest batch size, few epochs;
2. *longer*: twice the epochs, as long as that betters the metric by more than a share `gain`; the last length that did
   is taken, and its value is the quality that is asked of all later trials;
3. *larger*: the next batch size for as many epochs. It is taken if its value is as good as that quality, up to a share
   `margin`, and its training takes less time than what was taken before, by a share `saving` at least; then comes the
   batch size after it. If it is not as good, its epochs are doubled as long as it would still be the faster one;
4. the end is where a larger batch is no longer as good, or no faster.

A trial that diverged is as good as none: the sequence begins again with the next larger batch, or, where something is
chosen already, stays with that. Numbers only, no torch; a decision depends on the trials so far and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from ....errors import UsageError
from ....wording import count, duration, number, percent

__all__ = ["Advice", "Choice", "Followed", "Next", "TrialTraining", "follow", "what_next"]


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The numbers that the advice leaves open.

    Raises:
        UsageError: they leave nothing to raise, or are out of range.
    """

    batch_sizes: tuple[int, ...]
    """Those that may be tried, the smallest first."""
    first_epochs: float
    most_epochs: float
    larger_is_better: bool = False
    """Of the metric; a share is of its absolute value before."""
    gain: float = 0.02
    """What twice the epochs have to better the metric by."""
    margin: float = 0.02
    """What a larger batch may be worse by."""
    saving: float = 0.05
    """What a larger batch has to save of the time."""

    def __post_init__(self) -> None:
        if len(self.batch_sizes) < 2 or list(self.batch_sizes) != sorted(set(self.batch_sizes)):
            phrase = ",".join(map(str, self.batch_sizes))
            raise UsageError(f"--batch-sizes {phrase} leaves nothing to raise; give at least two, the smallest first")
        if not 0 < self.first_epochs <= self.most_epochs:
            raise UsageError(
                f"{self.first_epochs:g} to {self.most_epochs:g} epochs make no sense to begin and end with"
            )


@dataclass(frozen=True, kw_only=True)
class TrialTraining:
    """One training from scratch."""

    batch_size: int
    epochs: float
    value: float | None
    """The best of the metric in it; `None`: it diverged."""
    seconds: float
    """Of its training steps."""


@dataclass(frozen=True, kw_only=True)
class Next:
    """What is to be tried, and why."""

    batch_size: int
    epochs: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The end of the sequence: what it recommends, and why it goes no further."""

    trial: TrialTraining | None
    """`None`: every trial diverged."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Followed:
    """A sequence as far as it came."""

    trials: tuple[TrialTraining, ...]
    decisions: tuple[Next | Choice, ...]
    """What each trial led to."""

    @property
    def choice(self) -> Choice | None:
        """The recommendation; `None`: the next trial could not be made."""
        last = self.decisions[-1] if self.decisions else None
        return last if isinstance(last, Choice) else None

    @property
    def seconds(self) -> float:
        """Training time of all trials."""
        return sum(trial.seconds for trial in self.trials)


def what_next(history: Sequence[TrialTraining], advice: Advice) -> Next | Choice:
    """The next trial, or the choice.

    Args:
        history: the trials so far, each of them what this function asked for.
        advice: what may be tried.

    Raises:
        ValueError: a trial is not the one that was asked for.

    Example:
        >>> advice = Advice(batch_sizes=(8, 32), first_epochs=2, most_epochs=16)
        >>> what_next([], advice).epochs
        2
        >>> first = TrialTraining(batch_size=8, epochs=2, value=0.8, seconds=1.0)
        >>> what_next([first], advice)
        Next(batch_size=8, epochs=4, reason='twice the epochs, to see whether they are worth it')
        >>> what_next([first, TrialTraining(batch_size=8, epochs=4, value=0.79, seconds=2.0)], advice)
        Next(batch_size=32, epochs=2, reason='twice the epochs better 0.8 by 1 % only: 2 are enough; a larger batch')
    """
    sequence = _sequence(advice)
    asked = next(sequence)
    for trial in history:
        if (trial.batch_size, trial.epochs) != (asked.batch_size, asked.epochs):
            raise ValueError(f"{trial} was not asked for: {asked}")
        try:
            asked = sequence.send(trial)
        except StopIteration as end:
            return end.value
    return asked


def follow(advice: Advice, made: Callable[[Next], TrialTraining | None]) -> Followed:
    """All trials of the sequence, one after another.

    Args:
        advice: what may be tried.
        made: makes or looks up a trial; `None`: it cannot, and the sequence ends there.
    """
    trials: list[TrialTraining] = []
    decisions: list[Next | Choice] = []
    asked: Next | Choice = what_next((), advice)
    while isinstance(asked, Next) and (trial := made(asked)) is not None:
        trials.append(trial)
        asked = what_next(trials, advice)
        decisions.append(asked)
    return Followed(trials=tuple(trials), decisions=tuple(decisions))


_Steps = Generator[Next, TrialTraining, Choice]


def _sequence(advice: Advice) -> _Steps:
    reason = "few epochs, the smallest batch"
    for place, size in enumerate(advice.batch_sizes):
        first = yield Next(batch_size=size, epochs=advice.first_epochs, reason=reason)
        if first.value is not None:
            return (yield from _larger(advice, *(yield from _longer(advice, first)), advice.batch_sizes[place + 1 :]))
        reason = f"batch size {count(size)} diverged: a larger one"
    return Choice(trial=None, reason="every batch size diverged at this learning rate")


def _longer(advice: Advice, chosen: TrialTraining) -> Generator[Next, TrialTraining, tuple[TrialTraining, str]]:
    """Doubles the epochs; the trial that is taken, and why not a longer one."""
    reason = "twice the epochs, to see whether they are worth it"
    while chosen.epochs < advice.most_epochs:
        epochs = min(2 * chosen.epochs, advice.most_epochs)
        trial = yield Next(batch_size=chosen.batch_size, epochs=epochs, reason=reason)
        gained = _gain(advice, chosen, trial)
        if gained is None:
            return chosen, f"{number(epochs)} epochs diverge: {number(chosen.epochs)} are taken"
        if gained <= advice.gain:
            phrase = f"better {number(chosen.value)} by {percent(gained)} only" if gained > 0 else "better nothing"
            return chosen, f"twice the epochs {phrase}: {number(chosen.epochs)} are enough"
        reason = f"twice the epochs bettered {number(chosen.value)} by {percent(gained)}: twice as many again"
        chosen = trial
    return chosen, f"{number(chosen.epochs)} epochs are the most"


def _larger(advice: Advice, quality: TrialTraining, why: str, sizes: Sequence[int]) -> _Steps:
    """Raises the batch size from a trial whose quality is asked of all others."""
    chosen = quality
    for size in sizes:
        trial, why = yield from _as_good(advice, quality, chosen, size, f"{why}; a larger batch")
        if trial is None:
            return Choice(trial=chosen, reason=f"{why}: batch size {count(chosen.batch_size)} stays")
        spent, before = duration(trial.seconds), duration(chosen.seconds)
        if trial.seconds > (1 - advice.saving) * chosen.seconds:
            phrase = f"as good, but {spent} against {before} saves too little"
            return Choice(trial=chosen, reason=f"{phrase}: batch size {count(chosen.batch_size)} stays")
        chosen, why = trial, f"as good in {spent} instead of {before}: taken"
    return Choice(trial=chosen, reason=f"{why}; no larger batch is left")


def _as_good(
    advice: Advice, quality: TrialTraining, chosen: TrialTraining, size: int, why: str
) -> Generator[Next, TrialTraining, tuple[TrialTraining | None, str]]:
    """Doubles the epochs of a batch size until it is as good; `None`, and why, where it cannot be and save time."""
    epochs = chosen.epochs
    while True:
        trial = yield Next(batch_size=size, epochs=epochs, reason=why)
        gained = _gain(advice, quality, trial)
        if gained is None:
            return None, "it diverged"
        if gained >= -advice.margin:
            return trial, ""
        lost = f"worse than {number(quality.value)} by {percent(-gained)}"
        if epochs >= advice.most_epochs:
            return None, f"{lost}, and {number(epochs)} epochs are the most"
        epochs = min(2 * epochs, advice.most_epochs)
        expected = trial.seconds * epochs / trial.epochs
        if expected > (1 - advice.saving) * chosen.seconds:
            return None, f"{lost}, and {number(epochs)} epochs would take {duration(expected)}"
        why = f"{lost}, but twice the epochs would still be faster"


def _gain(advice: Advice, before: TrialTraining, trial: TrialTraining) -> float | None:
    """Gain of a trial over one before it, as a share; `None`: it diverged."""
    if trial.value is None or before.value is None:
        return None
    better = (trial.value - before.value) * (1.0 if advice.larger_is_better else -1.0)
    return better / abs(before.value) if before.value else better
