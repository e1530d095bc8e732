"""Records of the answer of a search as it stands in `plan.json`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .estimates import Estimate, Target
from .hardware import Bench, Environment
from .programs import TaskProgram
from .schema import SCHEMA

__all__ = [
    "Alternative",
    "Curve",
    "Curves",
    "EarlyStop",
    "EasierTarget",
    "Evidence",
    "Measured",
    "Plan",
    "PlanStatus",
    "Predicted",
    "Recipe",
    "RestsOn",
    "RunEvaluations",
    "SearchCost",
    "Verified",
]


class PlanStatus(enum.StrEnum):
    """Kinds of answers; the first four end with exit status 0, the others with 3.

    All but `TARGET_NOT_REACHED` and `INSUFFICIENT_DATA` carry a recipe; that of `UNFINISHED` is the best bet so far.
    """

    OK = "ok"
    KEEP_CURRENT = "keep-current"
    MEMORY_BOUND = "memory-bound"
    EXTRAPOLATED = "extrapolated"
    TARGET_NOT_REACHED = "target-not-reached"
    INSUFFICIENT_DATA = "insufficient-data"
    UNFINISHED = "unfinished"

    @property
    def exit_status(self) -> int:
        """Exit status of the command: 0 for an answer, 3 where there is none to rely on."""
        answers = (PlanStatus.OK, PlanStatus.KEEP_CURRENT, PlanStatus.MEMORY_BOUND, PlanStatus.EXTRAPOLATED)
        return 0 if self in answers else 3


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """Early stopping of a training that no longer improves; unknown where the size of the training set is."""

    best_epoch: float | None
    patience: float | None
    """In epochs: twice the longest wait between two improvements in the runs at this recipe's batch size, and at least
    a quarter of the training."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings for a training script; after measurements made elsewhere some parts may be unknown."""

    batch_size: int
    micro_batch_size: int
    grad_accum_steps: int
    world_size: int
    lr: float | None
    schedule: str
    warmup_steps: int
    final_lr: float = 0.0
    """Share of the learning rate at which a schedule that decays ends."""
    precision: str = "float32"
    """In which the task's loss is computed: float32, or autocast to bfloat16 or float16."""
    num_threads: int | None = None
    """Of torch, on a CPU, by what was measured there; `None`: not on one, or unknown."""
    optimizer_changes: Mapping[str, Any]
    steps: int
    """Median of the predicted steps to the target, but no fewer than the run at exactly this recipe needed, where there
    is one; where the learning rate decays or a length was asked for, the length of the training."""
    steps_per_epoch: float | None
    """Exactly N / B: a batch may run on into the next epoch, so that all are full."""
    epochs: float | None
    early_stop: EarlyStop


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Predictions for a training at a recipe."""

    steps_to_target: Estimate
    step_time_s: Estimate
    time_to_target_s: Estimate
    examples_to_target: Estimate
    peak_memory_bytes: Estimate


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measured and fitted quantities behind a recipe."""

    critical_batch_size: Estimate
    gradient_noise_scale: Estimate
    knee_exponent: Estimate
    hardware_knee: Estimate
    largest_micro_batch_size: Estimate
    evaluation_spread: Estimate = field(default_factory=Estimate.missing)
    """Standard deviation of one evaluation of the target's metric about its level, near the target."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Run that was made at exactly the recipe."""

    steps: float
    """To the target, interpolated; where a length is given, all of it."""
    time_s: float | None
    metric: float
    """Of the target, at the first evaluation that reaches it; where a length is given, the last one."""
    ends_at: Estimate | None = None
    """Level of the metric at the end of the run, with the interval of one evaluation there: no evaluation was chosen by
    its value. `None`: its evaluations were not recorded."""
    times_the_law: float | None = None
    """Steps ÷ those that the law of all runs tells, where they are outside of its 90 % interval: the prediction is then
    the run's. `None`: law and run agree."""


@dataclass(frozen=True, kw_only=True)
class RunEvaluations:
    """Evaluations of the run at the recipe: how many, and how far apart where the target was reached."""

    number: int
    """With the one before the first step."""
    every_steps: int
    every_examples: int


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Alternative recipe, and what it is better at."""

    why: str
    recipe: Recipe
    predicted: Predicted


@dataclass(frozen=True, kw_only=True)
class EasierTarget:
    """Recipe, by the same runs, for a target that is passed on the way."""

    target: Target
    recipe: Recipe | None
    predicted: Predicted | None


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """What training would take at a batch size that was asked about, also far from those that were run."""

    batch_size: int
    lr: float | None
    """`None`: no learning rate is known."""
    predicted: Predicted | None
    """`None`: nothing is known to predict it from."""
    doubt: str = ""
    """Why to doubt it beyond its intervals, as clauses without a full stop; empty: not at all."""


@dataclass(frozen=True, kw_only=True)
class SearchCost:
    """Cost of a search in time, examples and runs."""

    seconds: float
    """Wall time of the search with everything in it, over all commands that worked on it."""
    device_seconds: float
    """Of all training steps on the hardware that the answer is for, its bench included where it ran there."""
    examples: int
    runs: int
    run_equivalents: float | None
    evaluation_seconds: float = 0.0
    """Of `seconds`, what the evaluations of the runs took here."""
    training_seconds: float = 0.0
    """Of `seconds`, what the training steps of the runs took here, loading included; what is left is set-up."""
    training_here_s: float | None = None
    """Wall time of one training at the recipe on this machine, evaluations included."""


@dataclass(frozen=True, kw_only=True)
class RestsOn:
    """Runs that an answer rests on."""

    batch_sizes: tuple[int, ...]
    """Those that were run, ascending."""
    lrs: tuple[float, ...]
    """Learning rates of the runs, ascending; empty where they were not recorded."""
    runs: int
    reached: int | None
    """Runs that reached the target; unknown where the length of training was given, or no target was found."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Statement that a plan rests on, and its tag: how it is known."""

    statement: str
    tag: Literal["measured", "fitted", "literature", "assumption"]
    source: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Fitted curve with its 90 % band, for the page: one value for each batch size."""

    batch_size: tuple[int, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Fitted curves of a plan."""

    time_to_target_s: Curve
    steps_to_target: Curve
    examples_to_target: Curve
    lr: Curve


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Answer of a search, as it stands in `plan.json`."""

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
    what_if: tuple[WhatIf, ...] = ()
    """At the batch sizes of `--at`."""
    within: str | None = None
    """The length of training that was asked for; the target is then the value at which the run at the recipe ended."""
    expected_end: Estimate | None = None
    """Value of the metric at which another training at the recipe is expected to end; where a length is given."""
    notes: tuple[str, ...] = ()
    examples_in_training_set: int = 0
    """0: unknown."""
    table: str | None = None
    """The file that the measurements were read from; `None`: they were made by a search."""
    rests_on: RestsOn | None = None

    @property
    def has_model(self) -> bool:
        """Whether a trained model of the recipe can be given: not of one that the budget kept from its target."""
        return self.recipe is not None and (self.verified is not None or self.status is not PlanStatus.UNFINISHED)

    evaluations: RunEvaluations | None = None
    """Of the run at the recipe; `None`: there is none."""
    program: TaskProgram | None = None
    """The task as a program that trains it must know it; `None`: there is none, or it is an older answer."""
