"""What was published beside what is measured here: set-ups, values, conclusions, and what differs. Numbers only.

A published value on other data is no target: it stands beside ours, and what differs in the set-up is said under it. A
published *conclusion* is a statement about a sign or an order, which our runs bear out, contradict, or leave open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..report.blocks import Block, Column, Section, Table, Text
from ..store.records import Estimate
from ..wording import count, joined, number, plural, sentence, with_interval
from .records import Finding, Study, Verdict

if TYPE_CHECKING:
    from ..store.runs import StoredRun

__all__ = [
    "CHANG",
    "CHANG_SETTINGS",
    "SHEN",
    "SHEN_SETTINGS",
    "Setup",
    "Value",
    "all_of",
    "conclusion",
    "differences",
    "is_above",
    "published_section",
    "rate_and_size",
]

SHEN_SETTINGS: Mapping[str, Any] = {
    "model": "mlp",
    "hidden": 1024,
    "depth": 2,
    "optimizer": "sgd",
    "momentum": 0,
    "init": "xavier",
    "scale": "standard",
}
"""Shen's network and optimizer, as settings of the tasks `digits` and `arrays`."""

CHANG_SETTINGS: Mapping[str, Any] = {
    "model": "vgg",
    "dropout": 0.2,
    "optimizer": "sgd",
    "momentum": 0,
    "init": "xavier",
}
"""Chang and Pathak's network and optimizer, as settings of the tasks `digits` and `arrays`."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The conditions under which numbers were published."""

    who: str
    """Author and year."""
    data: str
    examples: int
    """In the training set."""
    length: str
    """Of a run."""
    seeds: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of our built-in tasks, that rebuild model and optimizer."""
    more: tuple[str, ...] = ()
    """What else is known to be different here, whatever the task."""


SHEN = Setup(
    who="Shen 2018",
    data="MNIST",
    examples=60_000,
    length="30 epochs",
    seeds=1,
    settings=SHEN_SETTINGS,
    more=("a partial last batch was kept in each epoch; here batches are cut from a stream without gaps",),
)

CHANG = Setup(
    who="Chang and Pathak 2020",
    data="cats and dogs, 128 x 128 pixels",
    examples=18_610,
    length="until nothing improved for 100 epochs",
    seeds=1,
    settings=CHANG_SETTINGS,
    more=("the published runs went through the same batches in the same order in every epoch; here each is shuffled",),
)


@dataclass(frozen=True, kw_only=True)
class Value:
    """One published number and ours."""

    what: str
    published: str
    ours: Estimate | str


def is_above(estimate: Estimate | None, bound: float = 0.0) -> bool | None:
    """Whether a value lies above a bound: `None` where its interval has the bound inside, or is not known.

    >>> def e(low, high): return Estimate(value=1.0, low=low, high=high, n=3, unit="", method="")
    >>> is_above(e(0.5, 1.5)), is_above(e(-1.5, -0.5)), is_above(e(-1.0, 2.0)), is_above(e(None, None))
    (True, False, None, None)
    """
    if estimate is None:
        return None
    if estimate.low is not None and estimate.low > bound:
        return True
    return False if estimate.high is not None and estimate.high < bound else None


def all_of(answers: Sequence[bool | None]) -> bool | None:
    """Whether a statement holds everywhere: not, where it fails anywhere; `None` where that is not known.

    >>> all_of([True, True]), all_of([True, None]), all_of([None, False]), all_of([])
    (True, None, False, None)
    """
    if False in answers:
        return False
    return None if None in answers or not answers else True


_VERDICTS: Mapping[bool | None, Verdict] = {True: "so", False: "not so", None: "left open"}


def conclusion(
    statement: str,
    holds: bool | None,
    by: str,
    *,
    source: str,
    effect: Estimate | None = None,
    runs: Sequence[str] = (),
) -> Finding:
    """A published conclusion with what our runs say of it.

    Args:
        statement: the conclusion, in our words.
        holds: whether our runs bear it out; `None`: they leave it open.
        by: what decides it here, with its numbers.
        source: author, year, figure, and the rule that decides.
        effect: the number that decides.
        runs: the ids of the runs behind it; empty: all.

    >>> found = conclusion("a large batch is faster", None, "the interval has 1 inside", source="Shen 2018")
    >>> found.statement
    'published: a large batch is faster; here it is left open: the interval has 1 inside'
    >>> found.verdict
    'left open'
    """
    verdict = _VERDICTS[holds]
    return Finding(
        statement=f"published: {statement}; here it is {verdict}: {by}",
        tag="measured",
        source=source,
        effect=effect,
        runs=tuple(runs),
        verdict=verdict,
    )


def differences(study: Study, runs: Sequence[StoredRun], setup: Setup) -> tuple[str, ...]:
    """Differences of our set-up from the published one, one sentence each."""
    found: list[str] = []
    settings = next((run.config.settings for run in runs), {})
    if study.task in ("digits", "arrays"):
        path = settings.get("path")
        found.append(
            f"the data: {study.task}{f' ({path})' if path else ''} with {count(study.examples)} training examples, "
            f"where {setup.data} has {count(setup.examples)}"
        )
        other = {k: settings[k] for k, v in setup.settings.items() if k in settings and settings[k] != v}
        if other:
            phrase = joined([f"{k}={v} (published: {setup.settings[k]})" for k, v in other.items()])
            found.append(f"settings of the task: {phrase}")
    else:
        found.append(
            f"the task is {study.task}, with a model, a loss and an optimizer of its own and {count(study.examples)} "
            f"training examples; published on {setup.data} with {count(setup.examples)}"
        )
    if str(study.question.length) != setup.length:
        found.append(f"a run lasts {study.question.length}; published: {setup.length}")
    if len(study.question.seeds) != setup.seeds:
        found.append(f"{plural(len(study.question.seeds), 'seed')} a setting; published: {setup.seeds}")
    return (*found, *setup.more)


def published_section(
    study: Study, runs: Sequence[StoredRun], setup: Setup, values: Sequence[Value], *more: Block
) -> Section:
    """The values side by side, what differs, and further blocks of the study."""
    rows = tuple((v.what, v.published, v.ours if isinstance(v.ours, str) else with_interval(v.ours)) for v in values)
    table = Table((Column("quantity"), Column(setup.who, numeric=True), Column("here", numeric=True)), rows)
    phrase = " ".join(sentence(text) for text in differences(study, runs, setup))
    blocks: list[Block] = [table] if rows else []
    blocks.append(Text((f"What differs from {setup.who}: {phrase}",), tone="note"))
    return Section("published", f"{setup.who} beside this task", (*blocks, *more))


def rate_and_size(batch_size: int, lr: float) -> str:
    """A setting as tables of values name it.

    >>> rate_and_size(1024, 0.1)
    'batch size 1,024, learning rate 0.1'
    """
    return f"batch size {count(batch_size)}, learning rate {number(lr)}"
