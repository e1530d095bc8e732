"""The records of a study: what is asked, what is run, what came out, in numbers only; no torch.

A study trains a task in several *arms*, each of them one setting, and repeats every arm for several seeds. One run
gives one `StudyRow`, one arm one `SummaryRow`. How runs are made is the business of `engine`, how rows and
summaries follow from stored runs that of `summary`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UsageError
from ..fits.schedules import WarmUp, check_schedule
from ..store.codec import encode
from ..store.quantities import MOST, checked_members, finite_number, whole_number
from ..store.records import SCHEMA, Environment, Estimate, RunStatus, ScheduleName

if TYPE_CHECKING:
    from ..report.blocks import Section
    from ..store.runs import StoredRun
    from .engine import Laboratory

__all__ = [
    "EXAMPLES_OF_RUN",
    "MOST_SEEDS",
    "ROW_MEMBERS",
    "SUMMARY_MEMBERS",
    "TRAIN_PART",
    "Arm",
    "Finding",
    "Length",
    "NamedStudy",
    "Study",
    "StudyQuestion",
    "StudyRow",
    "SummaryRow",
    "Verdict",
    "grid",
    "note_name",
]

EXAMPLES_OF_RUN = "examples_in_training_set"
"""The setting of a run whose training set is not the task's."""

MOST_SEEDS = 1000
"""More seeds than anybody repeats a setting with."""

TRAIN_PART = "train-part"
"""The measurement that is there, not applicable, where runs cannot be evaluated on their training data."""

Verdict = Literal["so", "not so", "left open"]
"""What runs say of a conclusion: they bear it out, contradict it, or leave it open."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """Length of a run: when it is over."""

    unit: Literal["epochs", "steps", "seconds", "until-stopped"]
    amount: float
    """So many epochs, steps, or seconds of training steps; `until-stopped`: the most epochs."""
    patience: float | None = None
    """`until-stopped`: epochs without a better value of the metric after which a run ends."""

    def __post_init__(self) -> None:
        if not 0 < self.amount <= MOST:
            raise UsageError(
                f"a run of {self.amount:g} {self._noun} makes no sense; give a number above 0 and at most {MOST:,}"
            )
        if self.unit == "steps" and self.amount != int(self.amount):
            raise UsageError(f"a run of {self.amount:g} steps makes no sense; give a whole number")
        if self.unit == "until-stopped" and not (self.patience and 0 < self.patience <= MOST):
            raise UsageError(f"a patience of {self.patience} epochs makes no sense; give a number above 0")

    @property
    def _noun(self) -> str:
        return "epochs" if self.unit == "until-stopped" else self.unit

    def steps(self, examples: int, batch_size: int) -> int | None:
        """Steps of a run at most; `None` where the clock decides.

        Batches are cut from a stream of permutations without gaps, so E epochs are round(E N / B) steps, at least 1.

        >>> Length(unit="epochs", amount=30).steps(1437, 32)
        1347
        """
        if self.unit == "seconds":
            return None
        if self.unit == "steps":
            return int(self.amount)
        return max(1, round(self.amount * examples / batch_size))

    def __str__(self) -> str:
        if self.unit == "until-stopped":
            return f"until nothing improved for {self.patience:g} epochs, at most {self.amount:g} epochs"
        return f"{self.amount:g} {self.unit if self.amount != 1 else self.unit[:-1]}"


@dataclass(frozen=True, kw_only=True)
class StudyQuestion:
    """Everything that decides what a study finds, the task and the machine apart.

    Raises:
        UsageError: a number makes no sense, or is given twice.
    """

    batch_sizes: tuple[int, ...]
    lrs: tuple[float, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    """A seed draws the weights and the order of the examples together."""
    length: Length = Length(unit="epochs", amount=30)
    schedule: ScheduleName | None = None
    """`None`: the task's own where it has the member `schedule`, else constant."""
    warmup: WarmUp | None = None
    final_lr: float | None = None
    """Share of the learning rate at which a schedule that decays ends; `None`: 0."""
    metric: str | None = None
    """What a choice is made by; `None`: the validation loss, else another loss, else a known score."""
    memory_limit: int | None = None
    """Bytes that a step may take."""
    repeats: int | None = None
    """Independent draws, in studies that measure on drawn batches."""

    def __post_init__(self) -> None:
        for name, values in {"--batch-sizes": self.batch_sizes, "--lrs": self.lrs, "--seeds": self.seeds}.items():
            if not values:
                raise UsageError(f"{name} is empty; give at least one")
            if len(set(values)) < len(values):
                again = next(value for value in values if values.count(value) > 1)
                raise UsageError(f"{name} has {again:g} twice; give each once")
        object.__setattr__(
            self, "batch_sizes", tuple(whole_number(b, "one of --batch-sizes") for b in self.batch_sizes)
        )
        object.__setattr__(self, "lrs", tuple(finite_number(lr, "one of --lrs", most=math.inf) for lr in self.lrs))
        seeds = tuple(whole_number(seed, "one of the seeds", least=0, most=2**32 - 1) for seed in self.seeds)
        object.__setattr__(self, "seeds", seeds)
        checked_members(self, whole={"memory_limit": "--memory-limit", "repeats": "--repeats"})
        if self.repeats is not None and self.repeats < 2:
            raise UsageError(f"--repeats {self.repeats} makes no sense; a spread needs at least 2")
        if (metric := self.metric) is not None and metric.startswith("test_"):
            raise UsageError(f"--metric {metric}: test metrics are reported only; choose by one on validation data")
        check_schedule(self.schedule, self.warmup, self.final_lr)

    @property
    def course(self) -> dict[str, Any]:
        """Members of an arm that say how its learning rate goes."""
        return {"schedule": self.schedule or "constant", "warmup": self.warmup, "final_lr": self.final_lr}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One setting that is repeated over seeds."""

    batch_size: int
    lr: float
    length: Length
    variant: str = ""
    """What is different from the task as it came: `adam`, `norm before`; part of what makes a run another one."""
    schedule: ScheduleName = "constant"
    warmup: WarmUp | None = None
    final_lr: float | None = None
    optimizer_changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int, float]:
        """Variant, batch size and learning rate, which the rows of an arm have in common."""
        return self.variant, self.batch_size, self.lr


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One finished run."""

    run: str
    """The id in the results folder."""
    variant: str
    batch_size: int
    lr: float
    seed: int
    steps: int
    epochs: float
    status: str
    """A `RunStatus`; a run that diverged has no metrics: every value of them is `None`."""
    values: Mapping[str, float | None]
    """`final_<metric>`, `best_<metric>` (at the best epoch by validation) and what `summary` derives."""

    def flat(self) -> dict[str, Any]:
        """The row as a script reads it: one object without nesting; NaN and infinities are `null`."""
        own = {name: getattr(self, name) for name in ROW_MEMBERS}
        return encode({**own, **self.values})


ROW_MEMBERS = ("run", "variant", "batch_size", "lr", "seed", "steps", "epochs", "status")
"""What every row of any study has, in this order; its metrics come after."""


@dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """One arm over its seeds."""

    variant: str
    batch_size: int
    lr: float
    runs: int
    diverged: int
    """How many of the runs; the estimates are of the others."""
    best_lr: bool
    """Whether this is the best learning rate of its batch size (and variant) by validation."""
    estimates: Mapping[str, Estimate]
    """For each value of the rows, its mean over the seeds with a 90 % t interval inside what is possible."""

    @property
    def key(self) -> tuple[str, int, float]:
        """Variant, batch size and learning rate, as `Arm.key`."""
        return self.variant, self.batch_size, self.lr

    def flat(self) -> dict[str, Any]:
        """The summary row as a script reads it: one object, whose measured members are estimates."""
        own = {name: getattr(self, name) for name in SUMMARY_MEMBERS}
        return encode({**own, **self.estimates})


SUMMARY_MEMBERS = ("variant", "batch_size", "lr", "runs", "diverged", "best_lr")
"""What every summary row has; its estimates come after."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence with its numbers, and how it is known."""

    statement: str
    tag: Literal["measured", "fitted", "literature", "assumption"]
    source: str
    """Of which runs, by which rule; for `literature` author and year."""
    effect: Estimate | None = None
    """The size of what the sentence says, where it is one number."""
    runs: tuple[str, ...] = ()
    """The ids of the runs behind it; empty: all."""
    verdict: Verdict | None = None
    """What our runs say of a published conclusion; `None`: nothing was decided here."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study found."""

    study: str
    """The named study; `sweep`: the user's own grid."""
    task: str
    rows: tuple[StudyRow, ...]
    summary: tuple[SummaryRow, ...]
    findings: tuple[Finding, ...]
    question: StudyQuestion
    metric: str
    """What choices were made by."""
    larger_is_better: bool
    examples: int
    """In the training set."""
    planned: int
    """Runs that were asked for; a study that decides on the way may need fewer."""
    complete: bool
    """Whether the budget was enough for all of them."""
    environment: Environment
    quick: bool = False
    """Whether it is the small form of a named study."""
    needed_s: float | None = None
    """Seconds that the missing runs take, at the pace of those that were made; `None`: none is missing, or no run was
    made by the command that ended last."""
    measurements: Mapping[str, Any] = field(default_factory=dict)
    """What a named study noted for its own sections, in JSON types."""
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def all_diverged(self) -> bool:
        """Whether there are runs, and none of them is one that anything can rest on."""
        return bool(self.rows) and all(row.status == RunStatus.DIVERGED for row in self.rows)

    def read_note(self, kind: str) -> dict[str, Any]:
        """All measurements of a kind, by what they are of, as `note_name` names them."""
        beginning = note_name(kind, "")
        found = {name: data for name, data in self.measurements.items() if name.startswith(beginning)}
        return {name[len(beginning) :]: data for name, data in found.items()}

    def examples_of(self, run: StoredRun) -> int:
        """Examples in the training set of a run, which a named study may have changed."""
        return int(run.config.settings.get(EXAMPLES_OF_RUN, self.examples))

    def answer(self) -> dict[str, Any]:
        """The five members that scripts rely on, in JSON types."""
        return {
            "study": self.study,
            "task": self.task,
            "rows": [row.flat() for row in self.rows],
            "summary": [row.flat() for row in self.summary],
            "findings": encode(self.findings),
        }


def note_name(kind: str, of: object) -> str:
    """The name of one of several measurements of a kind, such as one a run; `Study.read_note` reads them.

    >>> note_name("robustness", 3)
    'robustness-3'
    """
    return f"{kind}-{of}"


def grid(question: StudyQuestion, examples: int) -> tuple[Arm, ...]:
    """Every batch size at every learning rate; `examples` is for studies whose lengths depend on it."""
    del examples
    return tuple(
        Arm(batch_size=size, lr=lr, length=question.length, **question.course)
        for size in question.batch_sizes
        for lr in question.lrs
    )


def _run_all(laboratory: Laboratory) -> None:
    laboratory.run_all()


def _no_findings(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    return ()


def _no_sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    return ()


@dataclass(frozen=True, kw_only=True)
class NamedStudy:
    """A published experiment: its set-up, what it measures, what it concludes and shows.

    `batchscope.laboratory.studies` says how one is written.

    Attributes:
        name: as a user writes it; the name of its file.
        summary: one line for the list of studies.
        source: author, year, figure or section.
        question: the published settings; every option of the command line replaces one of them.
        quick: what `--quick` replaces in the question: small numbers that show every part at work.
        task: what it runs on when no task is named, a built-in task.
        settings: of that task; `--set` replaces them one by one.
        array_settings: of the task `arrays`, on `--set path=FILE.npz` without a task.
        arms: what will be trained, for the prediction and the count; a study that decides on the way says the most.
        measure_all: makes the runs and measurements.
        conclude: the study's own findings, from what was stored.
        sections: its own part of the page, above the common part.
    """

    name: str
    summary: str
    source: str
    question: StudyQuestion
    quick: Mapping[str, Any] = field(default_factory=dict)
    task: str = "digits"
    settings: Mapping[str, Any] = field(default_factory=dict)
    array_settings: Mapping[str, Any] = field(default_factory=dict)
    arms: Callable[[StudyQuestion, int], Sequence[Arm]] = grid
    measure_all: Callable[[Laboratory], None] = _run_all
    conclude: Callable[[Study, Sequence[StoredRun]], Sequence[Finding]] = _no_findings
    sections: Callable[[Study, Sequence[StoredRun]], Sequence[Section]] = _no_sections

    def is_quick(self, question: StudyQuestion) -> bool:
        """Whether a question asks for the small form, also where a user changed a part of it."""
        small = [getattr(question, name) == value for name, value in self.quick.items()]
        return bool(small) and sum(small) > len(small) / 2
