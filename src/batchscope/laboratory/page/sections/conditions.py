"""What was asked, how the numbers are defined, and where they were measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Facts, Section, Text
from ....wording import count, number, sentence
from ...records import Study, StudyQuestion

if TYPE_CHECKING:
    from ....store.runs import StoredRun

_DEFINITIONS = (
    "Batches are cut from a stream of seeded permutations without gaps, so that all are full, and E epochs of N "
    "examples are round(E N / B) steps. Evaluations come once an epoch, more often in runs that are given in steps or "
    "seconds.",
    "A training loss or accuracy in a curve or a gap is of a fixed random part of the training data, 2,000 examples at "
    "most, in evaluation mode: the running mean that training prints is of weights that change meanwhile.",
    "A run counts as diverged when its loss leaves the range of numbers, or when its training loss stays ten times "
    "above the loss at the start for three evaluations. It has no metrics, and a learning rate at which a seed "
    "diverged is not chosen.",
)


def _schedule(asked: StudyQuestion) -> str:
    warm = f", after a linear warm-up of {asked.warmup.in_words}" if asked.warmup else ""
    end = f", down to {number(100 * asked.final_lr)} % of the learning rate" if asked.final_lr else ""
    course = "of the task" if asked.schedule == "task" else asked.course["schedule"]
    return f"{course}{end}{warm}"


def build(study: Study, runs: Sequence[StoredRun]) -> Section:
    """Definitions, then facts."""
    asked, here = study.question, study.environment
    pairs = (
        ("batch sizes", ", ".join(count(b) for b in asked.batch_sizes)),
        ("learning rates", ", ".join(number(lr) for lr in asked.lrs)),
        ("seeds", ", ".join(str(s) for s in asked.seeds)),
        ("a run", str(asked.length)),
        ("schedule", _schedule(asked)),
        ("training examples", count(study.examples)),
        ("device", f"{here.device_name} ({here.device})" if here.device_name else here.device),
        ("threads", count(here.threads)),
        ("versions", f"batchscope {here.batchscope}, torch {here.torch or 'none'}, Python {here.python}"),
    )
    notes = tuple(sentence(note) for note in study.notes)
    return Section(
        "conditions", "Conditions and definitions", (Text((*_DEFINITIONS, *notes)), Facts(pairs)), folded=True
    )
