"""How a study is asked for on a command line: which one, on what, with which numbers. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from ..errors import UsageError
from ..fits.schedules import WarmUp
from ..laboratory.records import MOST_SEEDS, Length, NamedStudy, StudyQuestion
from ..laboratory.studies import named_study, names
from ..search.question import parse_seconds, parse_share
from ..store.quantities import parse_number, parse_whole, whole_number
from ..tasks.builtin import BUILT_IN
from ..tasks.settings import near_miss
from .options import Schedule

__all__ = ["Numbers", "StudyWords", "choose", "default_task", "parsed_numbers"]

Numbers = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False, show_default=False)]
"""Separated by commas, or the option repeated."""

_DEFAULT_PATIENCE, _DEFAULT_CAP = 10.0, 1000.0

_Number = TypeVar("_Number", int, float)


def choose(what: str, task: str | None) -> tuple[NamedStudy | None, str | None]:
    """Which study, and the task to run it on: `TASK`, `NAME` or `NAME TASK`.

    Returns:
        The named study, `None` for the user's own sweep; and the task, `None` for the study's default.

    Raises:
        UsageError: the word is neither; the message lists the named studies.
    """
    there, name = names(), what.replace("-", "_")
    if name in there:
        return named_study(name), task
    if task is None and (what in BUILT_IN or any(sign in what for sign in ":/.")):
        return None, what
    raise UsageError(
        f"there is no study {what!r}{near_miss(what, [*there, *BUILT_IN])}; named studies are "
        f"{', '.join(there) or 'none yet'}; a study of your own is named by its task: {', '.join(BUILT_IN)}, "
        "package.module:factory or path/to/file.py:factory"
    )


def default_task(named: NamedStudy, settings: Sequence[str]) -> tuple[str, list[str]]:
    """The task of a named study when none is given, and its settings: the study's, each replaced by the user's.

    With `path=FILE` it is the task `arrays` on that file.
    """
    keys = {text.partition("=")[0].strip() for text in settings}
    own = named.array_settings if "path" in keys else named.settings
    kept = [f"{key}={value}" for key, value in own.items() if key not in keys]
    return "arrays" if "path" in keys else named.task, [*kept, *settings]


@dataclass(frozen=True, kw_only=True)
class StudyWords:
    """The options of a study as they were written; what is not given is the named study's."""

    batch_sizes: Sequence[str] = ()
    lrs: Sequence[str] = ()
    seeds: int | None = None
    first_seed: int = 0
    epochs: float | None = None
    steps: int | None = None
    time: str | None = None
    until_stopped: bool = False
    patience: float | None = None
    schedule: Schedule | None = None
    warmup: str | None = None
    final_lr: str | None = None
    metric: str | None = None
    memory_limit: int | None = None
    repeats: int | None = None
    quick: bool = False

    def question(self, named: NamedStudy | None) -> StudyQuestion:
        """The question that these words ask of a study.

        Raises:
            UsageError: a number makes no sense, or too much or too little was given.
        """
        if self.quick and named is None:
            raise UsageError("--quick is the small form of a named study; a study of a task is as small as its options")
        sizes, lrs = parsed_numbers(self.batch_sizes, self.lrs)
        if named is None:
            for name, values, example in (("--batch-sizes", sizes, "8,32,128"), ("--lrs", lrs, "0.01,0.1")):
                if not values:
                    raise UsageError(f"{name} is missing; a study of a task needs it, for example {name} {example}")
        given: dict[str, Any] = {
            "batch_sizes": sizes,
            "lrs": lrs,
            "seeds": self._seeds(named),
            "length": self._length(),
            "schedule": self.schedule,
            "warmup": None if self.warmup is None else WarmUp.parse(self.warmup),
            "final_lr": self._end,
            "metric": self.metric,
            "memory_limit": self.memory_limit,
            "repeats": self.repeats,
        }
        given = {name: value for name, value in given.items() if value not in (None, ())}
        own = self._own(named)
        return replace(own, **given) if own else StudyQuestion(**given)

    @property
    def _end(self) -> float | None:
        return None if self.final_lr is None else parse_share(self.final_lr, "--final-lr")

    def _own(self, named: NamedStudy | None) -> StudyQuestion | None:
        if named is None:
            return None
        return replace(named.question, **named.quick) if self.quick else named.question

    def _seeds(self, named: NamedStudy | None) -> tuple[int, ...]:
        question = self._own(named)
        own = len(question.seeds) if question else len(StudyQuestion(batch_sizes=(1,), lrs=(1.0,)).seeds)
        count = own if self.seeds is None else self.seeds
        count = whole_number(count, "--seeds", most=MOST_SEEDS)
        return tuple(range(self.first_seed, self.first_seed + count))

    def _length(self) -> Length | None:
        given = [name for name, value in {"--steps": self.steps, "--time": self.time}.items() if value is not None]
        given += ["--epochs"] if self.epochs is not None and not self.until_stopped else []
        given += ["--until-stopped"] if self.until_stopped else []
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} both say when a run is over; give one of them")
        if self.patience is not None and not self.until_stopped:
            raise UsageError(f"--patience {self.patience:g} belongs to --until-stopped, which is not given")
        if self.steps is not None:
            return Length(unit="steps", amount=self.steps)
        if self.time is not None:
            return Length(unit="seconds", amount=parse_seconds(self.time, "--time"))
        if self.until_stopped:
            patience = _DEFAULT_PATIENCE if self.patience is None else self.patience
            return Length(
                unit="until-stopped", amount=_DEFAULT_CAP if self.epochs is None else self.epochs, patience=patience
            )
        return None if self.epochs is None else Length(unit="epochs", amount=self.epochs)


def parsed_numbers(batch_sizes: Sequence[str], lrs: Sequence[str]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Batch sizes and learning rates as numbers.

    Raises:
        UsageError: one is none.
    """
    return (
        _parsed(batch_sizes, "--batch-sizes", parse_whole, "8,32,128"),
        _parsed(lrs, "--lrs", parse_number, "0.01,0.1"),
    )


def _parsed(texts: Sequence[str], name: str, parse: Callable[[str, str], _Number], example: str) -> tuple[_Number, ...]:
    try:
        return tuple(parse(word, f"one of {name}") for text in texts for word in text.split(","))
    except UsageError as error:
        raise UsageError(f"{error}; write for example {name} {example}") from None
