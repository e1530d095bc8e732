"""What the texts say: every statement of four public texts on batch size, epochs and iterations, and what decides it.

The statements stand in `statements.toml`, in our own words. Where they speak of small and large batches without saying
more, a test compares the smallest and the largest batch size of a grid, and "at one learning rate" means the same
learning rate for all of them. Which statistic decides, and by which margin, is the business of the code that tests
them.
"""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

__all__ = ["Kind", "Need", "Statement", "statements"]


class Kind(enum.StrEnum):
    """What can be done about a statement."""

    MEASURABLE = "measurable"
    DEFINITION = "definition"
    NOT_TESTABLE = "not testable"

    @property
    def meaning(self) -> str:
        """The sentence a user reads."""
        return _KIND_MEANING[self]


_KIND_MEANING = {
    Kind.MEASURABLE: "it may be so or not, and a measurement decides",
    Kind.DEFINITION: "it says what a word means; a run's counters or an identity show whether the word is used so here",
    Kind.NOT_TESTABLE: "nothing that can be measured here decides it",
}


class Need(enum.StrEnum):
    """A measurement that serves one or several statements."""

    COUNTERS = "counters"
    FIXED_EPOCHS = "fixed-epochs"
    FIXED_STEPS = "fixed-steps"
    EARLY_STOPPING = "early-stopping"
    RATE_COMPENSATION = "rate-compensation"
    DISTANCE = "distance"
    GRADIENTS = "gradients"
    SHARPNESS = "sharpness"
    BATCH_NORM = "batch-norm"
    REGULARISING_NOISE = "regularising-noise"
    TRIAL_AND_ERROR = "trial-and-error"
    TIMING = "timing"
    MEMORY = "memory"

    @property
    def meaning(self) -> str:
        """What the need measures, in words."""
        return _NEED_MEANING[self]


_NEED_MEANING = {
    Need.COUNTERS: "examples, batches and updates counted in a real run",
    Need.FIXED_EPOCHS: "a grid of batch sizes and seeds at one learning rate, equally many epochs each",
    Need.FIXED_STEPS: "the same at equally many updates each, and runs looked at after a part of their steps",
    Need.EARLY_STOPPING: "runs until validation no longer improves, and well past it",
    Need.RATE_COMPENSATION: "every batch size at several learning rates, so that each can have its best",
    Need.DISTANCE: "distance from the initial weights and size of updates, in all and by layer",
    Need.GRADIENTS: "gradients by batch size from one checkpoint: norm, variance, angles, histogram, competition",
    Need.SHARPNESS: "box sharpness, Keskar's and relative, and the largest Hessian eigenvalue, of trained models",
    Need.BATCH_NORM: "the model without, with batch normalization before and after the activation; activation drift",
    Need.REGULARISING_NOISE: "little data and a model that overfits, every batch size equally well tuned",
    Need.TRIAL_AND_ERROR: "a sequence of trials that starts small and grows, each of them logged",
    Need.TIMING: "step time by batch size",
    Need.MEMORY: "peak memory of a step by batch size, and the largest that fits",
}


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One thing that a text says."""

    id: str
    """`S`, the text, the sentence, and a letter where the sentence says several things: `S0.5a`."""
    statement: str
    """In our words, one sentence."""
    source: str
    """Which text, and whose words they were where that is known."""
    kind: Kind
    pair: str | None = None
    """The statement that says the opposite; that one's pair is this."""
    also_against: tuple[str, ...] = ()
    """Further statements that contradict it, each of which names it in return."""
    needs: tuple[Need, ...] = ()
    """What has to be measured."""
    test: str = ""
    """What would decide it: the quantity, the comparison, and what it takes."""
    reason: str = ""
    """Why it is not testable."""

    @property
    def contradicted_by(self) -> tuple[str, ...]:
        """Ids of all statements that say the opposite, the pair among them."""
        return (*((self.pair,) if self.pair else ()), *self.also_against)


@cache
def statements() -> Mapping[str, Statement]:
    """All statements by id, in the order of the texts.

    >>> found = statements()["S2.7b"]
    >>> found.statement, found.pair, found.kind.value
    ('Large batches may converge more slowly.', 'S3.7d', 'measurable')
    """
    text = files("batchscope.laboratory.claims").joinpath("statements.toml").read_text(encoding="utf-8")
    entries = [_statement(entry) for entry in tomllib.loads(text)["statement"]]
    return MappingProxyType({entry.id: entry for entry in entries})


def _statement(entry: dict[str, Any]) -> Statement:
    return Statement(
        id=entry["id"],
        statement=entry["statement"],
        source=entry["source"],
        kind=Kind(entry["kind"]),
        pair=entry.get("pair"),
        also_against=tuple(entry.get("also_against", ())),
        needs=tuple(Need(need) for need in entry.get("needs", ())),
        test=entry.get("test", ""),
        reason=entry.get("reason", ""),
    )
