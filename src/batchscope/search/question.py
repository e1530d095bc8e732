"""What a search is asked, and how people write sizes, times and recipes on a command line. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import TargetError, UsageError
from ..fits.schedules import WarmUp, check_schedule
from ..store.quantities import MOST, checked_members, finite_number, parse_number, parse_whole, whole_number
from ..store.records import Metric, ScheduleName, Target
from ..wording import plural
from .strategies import SearchName

__all__ = [
    "CurrentRecipe",
    "Question",
    "Within",
    "as_option",
    "hardest_first",
    "parse_at",
    "parse_bytes",
    "parse_current",
    "parse_seconds",
    "parse_share",
    "parse_within",
    "sizes_asked",
]

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_ONLY_BYTES = {"": 1, "b": 1}
_BYTES = _ONLY_BYTES | {
    name: size
    for power, letter in enumerate("kmgt", 1)
    for name, size in ((letter, 1024**power), (f"{letter}ib", 1024**power), (f"{letter}b", 1000**power))
}
_FEWEST_BYTES = 2**20
"""Fewer bytes without another unit are no limit that anybody means."""
_LARGEST_SIZE, _MOST_SIZES = 2**30, 64
_QUANTITY = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([a-zA-Z]*)\s*")


@dataclass(frozen=True, kw_only=True)
class CurrentRecipe:
    """The batch size and learning rate in use today."""

    batch_size: int
    lr: float

    def __post_init__(self) -> None:
        checked_members(
            self, whole={"batch_size": "the current batch size"}, finite={"lr": "the current learning rate"}
        )


@dataclass(frozen=True, kw_only=True)
class Within:
    """Length of a training, where the recipe that ends best after it is asked for."""

    amount: float
    unit: Literal["seconds", "epochs", "steps"]
    """Seconds of training steps on the hardware that the answer is for, passes over the training set, or steps: then a
    larger batch sees more examples, in more time."""

    def __post_init__(self) -> None:
        name = f"--within in {self.unit}"
        amount = whole_number(self.amount, name) if self.unit == "steps" else finite_number(self.amount, name)
        object.__setattr__(self, "amount", float(amount))

    def __str__(self) -> str:
        return f"{self.amount:.15g} {self.unit if self.amount != 1 else self.unit[:-1]}"


@dataclass(frozen=True, kw_only=True)
class Question:
    """Everything that decides the answer of a search, the task and the hardware apart.

    Attributes:
        target: when training is done; `None`: chosen from the pilot run.
        easier_targets: of the same metric; each gets a recipe of its own from the same runs.
        within: the recipe that ends best after this length is asked for, instead of the way to a target.
        metric: that runs are judged by where no target is given; `None`: one whose direction is known by its name, a
            validation loss first.
        confirm: evaluations in a row that have to be at the target or beyond; it is reached at the first of them.
            `None`: by the noise of the evaluations (`fits.evaluation_noise.confirmations`).
        objective: what is to be smallest, time to target or examples to target.
        current: kept unless the gain is clear.
        schedule: of the learning rate; `None`: the task's own where it has the member `schedule`, else constant.
        warmup: of every run; a share of one only where its length is known.
        final_lr: share of the learning rate at which a schedule that decays ends; `None`: 0.
        max_batch_size: no larger batch is recommended.
        memory_limit: bytes that a step may take.
        seed: of every choice made at random.
        trainings: how often the recipe will be used; a probe is bought when it saves more than it costs over all of
            them.
        search: what chooses the runs; `anchors` is ours, the others are what people would use instead.
        evaluation_share: of a run's time that evaluations may take at most; a training gets at least 8 all the same.
        at: batch sizes to say of what training would take there; they change no run and no recipe.
    """

    target: Target | None = None
    easier_targets: tuple[Target, ...] = ()
    within: Within | None = None
    metric: Metric | None = None
    confirm: int | None = None
    objective: Literal["time", "examples"] = "time"
    current: CurrentRecipe | None = None
    schedule: ScheduleName | None = None
    warmup: WarmUp | None = None
    final_lr: float | None = None
    max_batch_size: int | None = None
    memory_limit: int | None = None
    seed: int = 0
    trainings: float = 12.0
    search: SearchName = "anchors"
    evaluation_share: float = 0.1
    at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        limits = {"max_batch_size": "--max-batch-size", "memory_limit": "--memory-limit", "confirm": "--confirm"}
        checked_members(self, whole=limits, finite={"trainings": "--trainings"})
        object.__setattr__(self, "seed", whole_number(self.seed, "--seed", least=0, most=2**32 - 1))
        for target in filter(None, (self.target, *self.easier_targets)):
            if not math.isfinite(target.value):
                raise TargetError(f"the target {target} is not a finite number")
        if not 0.0 < self.evaluation_share <= 1.0:
            raise UsageError(
                f"--evaluation-share is {100 * self.evaluation_share:g}%; it must be above 0 and at most 100%: a run "
                "is evaluated to see when it reaches its target"
            )
        object.__setattr__(self, "at", sizes_asked(self.at))
        if self.at and self.within is not None:
            raise UsageError(
                f"--at asks how long training takes to a target, and --within {self.within} gives its length; leave "
                "one of them out"
            )
        if self.within is not None and self.target is not None:
            raise UsageError(
                f"--within {self.within} asks for the best metric in that time, --target {self.target} for the "
                "shortest time to a value; give one of them"
            )
        self._check_judgement()
        if self.within is not None and self.search != "anchors":
            raise UsageError(
                f"--search {self.search} looks for the shortest time to a target, and --within {self.within} asks for "
                "the best metric in that time; leave one of them out"
            )
        check_schedule(self.schedule, self.warmup, self.final_lr)
        if self.warmup is not None and self.warmup.unit == "share" and self.to_target_at_constant_lr:
            raise UsageError(
                f"--warmup {self.warmup} is a share of a run, and how long a run at a constant learning rate takes to "
                "its target is not known before it is made; give the warm-up in steps or examples, for example "
                "--warmup 100steps or 20000examples, or add --within or a --schedule that decays"
            )

    @property
    def at_equal_steps(self) -> bool:
        """Whether trainings of a given number of steps are compared, in which a larger batch sees more examples."""
        return self.within is not None and self.within.unit == "steps"

    @property
    def to_target_at_constant_lr(self) -> bool:
        """Whether runs go on at a constant learning rate until the target, and none has a length of its own."""
        return self.schedule == "constant" and self.within is None

    @property
    def decays_to_target(self) -> bool:
        """Whether a target is to be reached under a schedule, whose length is then found by runs at the recipe."""
        return self.within is None and self.schedule not in (None, "constant")

    def _check_judgement(self) -> None:
        """Check what runs are judged by.

        Raises:
            UsageError: the metric is not the target's, or the number of confirmations makes no sense.
        """
        if self.target is not None and self.metric not in (None, self.target.judged_by):
            raise UsageError(
                f"--metric {self.metric} and --target {self.target} name two different things to judge by; give one"
            )
        if self.confirm is not None and self.within is not None:
            raise UsageError(
                f"--confirm {self.confirm} says when a target counts as reached, and --within {self.within} has none; "
                "leave one of them out"
            )

    @property
    def judged_by(self) -> Metric:
        """The metric that runs are compared by; that of a search at work is known."""
        metric = self.metric if self.target is None else self.target.judged_by
        assert metric is not None
        return metric

    @property
    def tries_current_first(self) -> bool:
        """Whether the first run is at the current recipe, so that no range test says where to begin."""
        return self.search == "anchors" and self.current is not None and self.within is None

    @property
    def counts_examples(self) -> bool:
        """Whether examples are to be saved, not time."""
        return self.objective == "examples" or (self.within is not None and self.within.unit == "epochs")


def hardest_first(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Targets of one metric, the one that is reached last first.

    Raises:
        TargetError: they are not all of one metric and direction, or one is given twice.

    Example:
        >>> [str(t) for t in hardest_first([Target.parse("val_loss<=0.3"), Target.parse("val_loss<=0.1")])]
        ['val_loss<=0.1', 'val_loss<=0.3']
    """
    kinds = {(target.metric, target.mode) for target in targets}
    if len(kinds) > 1 or len(set(targets)) < len(targets):
        raise TargetError(
            f"the targets {', '.join(map(str, targets))} must be different values of one metric, so that a run that "
            "reaches the hardest has passed the others; ask about another metric in a search of its own"
        )
    return tuple(sorted(targets, key=lambda t: t.value if t.mode == "min" else -t.value))


def sizes_asked(sizes: Sequence[int]) -> tuple[int, ...]:
    """Batch sizes that somebody asks about: each once, ascending.

    Raises:
        UsageError: one is not a whole number from 1 to 2**30, or there are more than fit on a page.
    """
    found = tuple(sorted({whole_number(size, "a batch size of --at", most=_LARGEST_SIZE) for size in sizes}))
    if len(found) > _MOST_SIZES:
        raise UsageError(f"--at names {len(found)} batch sizes; ask about at most {_MOST_SIZES} at once")
    return found


def parse_at(text: str) -> tuple[int, ...]:
    """Batch sizes, `64,512,4096`.

    Raises:
        UsageError: a part is no whole number from 1 to 2**30.

    Example:
        >>> parse_at("512, 64,1e3")
        (64, 512, 1000)
    """
    parts = [part for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"--at {text!r} names no batch size; write for example --at 64,512,4096")
    return sizes_asked([parse_whole(part, "a batch size of --at", most=_LARGEST_SIZE) for part in parts])


def parse_within(text: str) -> Within:
    """The length of a training: `300s`, `10m`, `20epochs`, `5000steps`.

    Raises:
        UsageError: it is not one, not above zero, or a bare number.

    Example:
        >>> parse_within("20epochs")
        Within(amount=20.0, unit='epochs')
    """
    epochs = _quantity(text, {"epoch": 1.0, "epochs": 1.0})
    if epochs is not None and epochs > 0:
        return Within(amount=epochs, unit="epochs")
    steps = _quantity(text, {"step": 1.0, "steps": 1.0})
    if steps is not None and not steps.is_integer():
        raise UsageError(
            f"--within {text!r} is not a whole number of steps; write for example 300s, 10m, 20epochs or 5000steps"
        )
    if steps is not None and steps > 0:
        return Within(amount=steps, unit="steps")
    if (bare := _quantity(text, {"": 1.0})) is not None and bare > 0:
        raise UsageError(
            f"--within {text.strip()} has no unit; did you mean {bare:.15g}s, {bare:.15g}epochs or "
            f"{math.ceil(bare)}steps?"
        )
    try:
        return Within(amount=parse_seconds(text, "--within"), unit="seconds")
    except UsageError:
        raise UsageError(
            f"--within {text!r} is not a length of training above zero; write for example 300s, 10m, 20epochs or "
            "5000steps"
        ) from None


def parse_seconds(text: str, name: str = "--budget") -> float:
    """A length of time: `90`, `90s`, `10m`, `1.5h`.

    Raises:
        UsageError: it is not one, or not above zero.

    Example:
        >>> parse_seconds("1.5h")
        5400.0
    """
    value = _quantity(text, _SECONDS)
    if value is None or value <= 0:
        raise UsageError(f"{name} {text!r} is not a length of time above zero; write for example 90s, 10m or 1.5h")
    return value


def as_option(seconds: float) -> str:
    """A length of time as `parse_seconds` reads it, in whole seconds, rounded up.

    >>> as_option(45), as_option(1200), as_option(7200), as_option(5400)
    ('45s', '20m', '2h', '90m')
    """
    whole = math.ceil(seconds)
    unit, size = next((u, s) for u, s in (("h", 3600), ("m", 60), ("s", 1)) if whole % s == 0)
    return f"{whole // size}{unit}"


def parse_share(text: str, name: str) -> float:
    """A share: `10%` or `0.1`.

    Raises:
        UsageError: it is not one, or a number above 1 that lacks its percent sign. Whether it makes sense is for
            whoever asks.

    Example:
        >>> parse_share("10%", "--evaluation-share"), parse_share("0.25", "--evaluation-share")
        (0.1, 0.25)
    """
    value = _quantity(text.replace("%", " percent"), {"": 1.0, "percent": 0.01})
    if value is None:
        raise UsageError(f"{name} {text!r} is not a share; write for example 10% or 0.1")
    if 1.0 < value <= 100.0 and "%" not in text:
        raise UsageError(f"{name} {text.strip()} is {100 * value:.6g}%; did you mean {value:.6g}%?")
    return value


def parse_bytes(text: str, name: str = "--memory-limit") -> int:
    """An amount of memory: `500MB`, `8GiB`, `8G` (binary), or at least 1 MiB in bytes.

    Raises:
        UsageError: it is not one, not above zero, or so few bytes that their unit was forgotten.

    Example:
        >>> parse_bytes("2k")
        2048
    """
    value = _quantity(text, _BYTES)
    if value is None or value < 1:
        raise UsageError(f"{name} {text!r} is not an amount of memory above zero; write for example 500MB or 8GiB")
    if value < _FEWEST_BYTES and value == _quantity(text, _ONLY_BYTES):
        meant = f"{value:g}GiB or {value:g}MiB" if value < 1000 else f"{value / 1000:g}kB"
        raise UsageError(f"{name} {text!r} is {plural(int(value), 'byte')}; so little needs a unit: write {meant}")
    return int(value)


def _quantity(text: str, units: Mapping[str, float]) -> float | None:
    match = _QUANTITY.fullmatch(text)
    if match is None or match.group(2).lower() not in units:
        return None
    amount = float(match.group(1)) * units[match.group(2).lower()]
    if amount > MOST:
        raise UsageError(f"{text.strip()!r} is too large; at most {MOST:,} make sense")
    return amount


def parse_current(text: str, *, default_lr: float | None = None) -> CurrentRecipe:
    """The recipe in use: `batch_size=32,lr=0.001`.

    Args:
        text: as typed.
        default_lr: the learning rate where the text has none; without it, there must be one.

    Raises:
        TargetError: a part is missing, unknown, repeated or not a positive number.

    Example:
        >>> parse_current("batch_size=32, lr=1e-3")
        CurrentRecipe(batch_size=32, lr=0.001)
    """
    example = "write for example 'batch_size=32,lr=0.001'"
    parts: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or key not in ("batch_size", "lr") or key in parts:
            raise TargetError(f"the current recipe {text!r} has the part {part.strip()!r}; {example}")
        parts[key] = value.strip()
    if default_lr is not None:
        parts.setdefault("lr", str(default_lr))
    if missing := {"batch_size", "lr"} - set(parts):
        raise TargetError(f"the current recipe {text!r} lacks {' and '.join(sorted(missing))}; {example}")
    try:
        return CurrentRecipe(
            batch_size=parse_whole(parts["batch_size"], "batch_size"), lr=parse_number(parts["lr"], "lr")
        )
    except UsageError as error:
        raise TargetError(f"the current recipe {text!r} makes no sense: {error}; {example}") from None
