"""The plain records in which the measuring half and the reasoning half meet.

Immutable, keyword-only, free of torch and NumPy, and equal to what stands in the files (`codec` says how).
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import TargetError

SCHEMA = 1


class RunStatus(enum.StrEnum):
    """How one training run ended. Every ending is a result; none is an exception."""

    REACHED = "reached"
    OUT_OF_STEPS = "out-of-steps"
    BEHIND = "behind"
    DIVERGED = "diverged"
    STALLED = "stalled"
    LEVELLED_OFF = "levelled-off"
    OVERFIT = "overfit"
    OUT_OF_TIME = "out-of-time"
    PAUSED = "paused"
    STOPPED_EARLY = "stopped-early"

    @property
    def meaning(self) -> str:
        """The sentence a user reads."""
        return _RUN_MEANING[self]

    @property
    def ending(self) -> str:
        """The same in a word or two.

        >>> RunStatus.OUT_OF_TIME.ending, RunStatus.PAUSED.ending
        ('out-of-time', 'set aside')
        """
        return "set aside" if self is RunStatus.PAUSED else self.value


_RUN_MEANING = {
    RunStatus.REACHED: "reached the target",
    RunStatus.OUT_OF_STEPS: "used all the steps it was given before it reached the target",
    RunStatus.BEHIND: "stopped early: clearly behind a run that was already finished",
    RunStatus.DIVERGED: "diverged: the loss left the range of numbers or rose far above its start",
    RunStatus.STALLED: "stalled: no improvement for half of the run, above the target",
    RunStatus.LEVELLED_OFF: "levelled off: it had no target, and gained little any more",
    RunStatus.OVERFIT: "overfitted before the target: the training loss fell while the metric got worse",
    RunStatus.OUT_OF_TIME: "stopped because the time budget was used up",
    RunStatus.PAUSED: "set aside on the way to the target: another recipe was more promising",
    RunStatus.STOPPED_EARLY: "stopped early: no better value of the metric for as many epochs as the patience",
}


class PlanStatus(enum.StrEnum):
    """What a plan says; the first four carry a recipe and end with exit status 0, the others with 3."""

    OK = "ok"
    KEEP_CURRENT = "keep-current"
    MEMORY_BOUND = "memory-bound"
    EXTRAPOLATED = "extrapolated"
    TARGET_NOT_REACHED = "target-not-reached"
    INSUFFICIENT_DATA = "insufficient-data"

    @property
    def exit_status(self) -> int:
        """0 for an answer, 3 where no recommendation can be given."""
        return 3 if self in (PlanStatus.TARGET_NOT_REACHED, PlanStatus.INSUFFICIENT_DATA) else 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 90 % interval; an open end is `None`."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """How many independent readings stand behind it."""
    unit: str
    method: str


_TARGET = re.compile(r"\s*([A-Za-z_][\w./-]*)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A metric of `evaluate` and the value at which training is done.

    >>> Target.parse("val_loss<=0.12")
    Target(metric='val_loss', value=0.12, mode='min')
    """

    metric: str
    value: float
    mode: Literal["min", "max"]

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `METRIC<=VALUE` or `METRIC>=VALUE`.

        Raises:
            TargetError: the text is neither, or the metric is one of `test_*`, which are reported only.
        """
        match = _TARGET.fullmatch(text)
        if not match:
            raise TargetError(
                f"target {text!r} is not METRIC<=NUMBER or METRIC>=NUMBER; write for example 'val_loss<=0.12'"
            )
        metric, comparison, number = match.groups()
        value = float(number)
        if not math.isfinite(value):
            raise TargetError(f"target {text!r} asks for {number}, which is not a finite number")
        if metric.startswith("test_"):
            raise TargetError(
                f"target {text!r} uses a test metric; test metrics are reported only: choose one on validation data"
            )
        return cls(metric=metric, value=value, mode="min" if comparison.startswith("<") else "max")

    def met_by(self, value: float) -> bool:
        """Whether a metric's value is at the target or beyond."""
        return value <= self.value if self.mode == "min" else value >= self.value

    def __str__(self) -> str:
        return f"{self.metric}{'<=' if self.mode == 'min' else '>='}{self.value:.6g}"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The whole configuration of one training run: equal configuration, equal run.

    Raises:
        ValueError: `batch_size` is not `micro_batch_size * grad_accum_steps * world_size`.
    """

    task: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int
    micro_batch_size: int
    grad_accum_steps: int = 1
    world_size: int = 1
    lr: float
    """0 where a table of measurements does not say it."""
    optimizer_changes: Mapping[str, Any] = field(default_factory=dict)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    seed: int = 0
    target: Target | None = None
    max_steps: int
    evaluation_growth: float = 1.05
    """The next evaluation comes at `max(step + 1, step * evaluation_growth)`."""
    evaluation_epochs: float | None = None
    """Epochs from one evaluation to the next; where it is given, evaluations are evenly spaced instead."""
    device: str = "cpu"
    purpose: str = "run"
    """Why the search asked for it: pilot, rate-range, probe, current, verify."""
    noise_scale_groups: int = 0
    """Micro-batch groups for the gradient noise scale in a measured step; 0 switches the probe off."""
    stall_patience: float | None = None
    """Stop as stalled when the best metric is older than this share of the run (and 50 steps)."""

    def __post_init__(self) -> None:
        made = self.micro_batch_size * self.grad_accum_steps * self.world_size
        if made != self.batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not micro_batch_size {self.micro_batch_size} * grad_accum_steps "
                f"{self.grad_accum_steps} * world_size {self.world_size} = {made}"
            )


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended, in numbers."""

    status: RunStatus
    message: str
    steps: int
    examples: int
    device_seconds: float
    """Seconds spent in training steps on this machine, evaluation excluded."""
    steps_to_target: float | None
    """Interpolated in log steps between the first evaluation at the target and the one before; `None`: not reached."""
    last: Mapping[str, float]
    best: Mapping[str, float]
    """The metrics of the evaluation with the best target metric."""
    best_step: int
    first: Mapping[str, float]
    rows_sha256: str = ""


Row = Mapping[str, Any]
"""One line of `rows.jsonl`. `kind` is `evaluation` (`step`, `examples`, `device_seconds`, `train_loss`, `metrics`) or
`noise` (`step`, `examples`, `groups`, `group_size`, `mean_square_norm`, `square_norm_of_mean`)."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One micro-batch size on one device: the time of a step and the memory it needs."""

    micro_batch_size: int
    step_time_s: float | None
    """Median over the timed steps."""
    step_time_mad_s: float | None = None
    steps_timed: int = 0
    gradient_time_s: float | None = None
    """The forward and backward part alone: what one more accumulation step costs."""
    peak_memory_bytes: int | None = None
    memory_method: str = ""


@dataclass(frozen=True, kw_only=True)
class MemorySplit:
    """Where the bytes of one training step are."""

    weights: int
    gradients: int
    optimizer_state: int
    activations_per_example: float
    optimizer_step_extra: int
    other: int = 0


@dataclass(frozen=True, kw_only=True)
class HardwareProfile:
    """A device as a search sees it: step time and peak memory against micro-batch size, and the memory it has."""

    name: str
    step_time_s: tuple[tuple[int, float], ...]
    peak_memory_bytes: tuple[tuple[int, float], ...] = ()
    capacity_bytes: int | None = None
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Bench:
    """All that is known of the hardware before training, and how it was learnt."""

    profile: HardwareProfile
    readings: tuple[Reading, ...]
    split: MemorySplit | None
    largest_micro_batch_size: int
    largest_verified: bool
    """Whether one real step was run at that size."""
    smallest_micro_batch_size: int = 1
    limit_bytes: int | None = None
    memory_bound: bool = False
    """Whether memory, rather than the data set or `--max-batch-size`, sets the largest size."""
    device_seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RateRange:
    """A range test: the rate doubled every step until training broke."""

    batch_size: int
    ceiling_lr: float
    """The rate at which the loss left its range, or the last one tried."""
    broke: bool
    normalised: bool
    """Whether the size of an update is independent of the gradient's, as with Adam."""
    lrs: tuple[float, ...]
    losses: tuple[float | None, ...]
    steps: int

    @property
    def pilot_lr(self) -> float:
        """A rate at which a first run will train: a twelfth of the ceiling, to three digits."""
        return float(f"{self.ceiling_lr / 12:.3g}")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a search knows of this machine's clock; kept, so that a resumed search decides as before."""

    evaluation_s: float
    budget_s: float
    """The first one; it sets how closely runs are evaluated, however long the search goes on later."""
    step_s: float
    """One training step at a typical batch size on this machine, which may not be the one that the answer is for."""
    spent_s: float = 0.0
    given_s: float = 0.0
    """The largest budget within which the search has come to an end."""

    @property
    def evaluation_growth(self) -> float:
        """How far apart evaluations are: closer than a twentieth of the run, unless a hundred take long."""
        share = 100.0 * self.evaluation_s / self.budget_s
        return 1.05 if share < 0.1 else 1.1 if share < 0.3 else 1.2


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """When to give up on a training that no longer improves; unknown where the size of the training set is."""

    best_epoch: float | None
    patience: float | None
    """In epochs: twice the longest wait between two improvements in the runs at this recipe's batch size."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to set in a training script; of measurements made elsewhere some parts may be unknown."""

    batch_size: int
    micro_batch_size: int
    grad_accum_steps: int
    world_size: int
    lr: float | None
    schedule: str
    warmup_steps: int
    optimizer_changes: Mapping[str, Any]
    steps: int
    steps_per_epoch: int | None
    epochs: float | None
    early_stop: EarlyStop


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What training at a recipe is expected to take."""

    steps_to_target: Estimate
    step_time_s: Estimate
    time_to_target_s: Estimate
    examples_to_target: Estimate
    peak_memory_bytes: Estimate


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The quantities behind a recipe."""

    critical_batch_size: Estimate
    gradient_noise_scale: Estimate
    knee_exponent: Estimate
    hardware_knee: Estimate
    largest_micro_batch_size: Estimate


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A run made at exactly the recipe."""

    steps: float
    time_s: float | None
    metric: float


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Another recipe, and what it is better at."""

    why: str
    recipe: Recipe
    predicted: Predicted


@dataclass(frozen=True, kw_only=True)
class EasierTarget:
    """What the same runs say about a target that is passed on the way."""

    target: Target
    recipe: Recipe | None
    predicted: Predicted | None


@dataclass(frozen=True, kw_only=True)
class SearchCost:
    """What a search took, in each currency."""

    seconds: float
    device_seconds: float
    examples: int
    runs: int
    run_equivalents: float | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One statement that a plan rests on, and how it is known."""

    statement: str
    tag: Literal["measured", "fitted", "literature", "assumption"]
    source: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A fitted curve with its 90 % band, for the page: one value for each batch size."""

    batch_size: tuple[int, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The fitted curves of a plan."""

    time_to_target_s: Curve
    steps_to_target: Curve
    examples_to_target: Curve
    lr: Curve


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where a measurement was made."""

    batchscope: str
    python: str
    torch: str | None
    numpy: str
    platform: str
    device: str
    device_name: str
    cpu_count: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer of a search, as it stands in `plan.json`."""

    schema: int = SCHEMA
    task: str
    objective: Literal["time", "examples"]
    target: Target | None
    status: PlanStatus
    message: str
    recipe: Recipe | None
    probability_within_5_percent: float | None
    predicted: Predicted | None
    measured: Measured
    verified: Verified | None
    alternatives: tuple[Alternative, ...]
    search: SearchCost
    evidence: tuple[Evidence, ...]
    environment: Environment
    current: Recipe | None = None
    current_predicted: Predicted | None = None
    bench: Bench | None = None
    curves: Curves | None = None
    easier_targets: tuple[EasierTarget, ...] = ()
    within: str | None = None
    """The length of training that was asked for; the target is then the best value found within it."""
    notes: tuple[str, ...] = ()
    examples_in_training_set: int = 0
    """0: unknown."""
    table: str | None = None
    """The file that the measurements were read from; `None`: they were made by a search."""
