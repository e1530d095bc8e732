"""Records of one training run: how it is configured, how it ended, what it wrote on the way."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .estimates import Metric, Target

__all__ = [
    "Row",
    "RunConfig",
    "RunResult",
    "RunStatus",
    "ScheduleName",
]

ScheduleName = Literal["constant", "linear", "cosine", "wsd", "task"]
"""Course of the learning rate, by `fits.schedules`; `task`: that of the task's member `schedule`."""


class RunStatus(enum.StrEnum):
    """Ways in which a training run ends. Every one is a result; none is an exception."""

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
        """Sentence that a user reads about this ending.

        >>> RunStatus.LEVELLED_OFF.meaning, RunStatus.OUT_OF_TIME.meaning
        ('levelled off: it had no target, and gained little any more', 'stopped because the time budget was used up')
        """
        return _RUN_MEANING.get(self) or f"{self.ending}: {_RUN_DETAIL[self]}"

    @property
    def detail(self) -> str:
        """What this ending means, to stand beside `ending`.

        >>> RunStatus.LEVELLED_OFF.detail
        'it had no target, and gained little any more'
        """
        return _RUN_DETAIL.get(self) or _RUN_MEANING[self]

    @property
    def ending(self) -> str:
        """This ending in a few words, to stand after "the run" or "3 runs".

        >>> RunStatus.OUT_OF_STEPS.ending, RunStatus.PAUSED.ending
        ('ran to the last step', 'paused')
        """
        return _RUN_ENDING[self]


_RUN_MEANING = {
    RunStatus.REACHED: "reached the target",
    RunStatus.OUT_OF_STEPS: "ran to the last of the steps that it was given",
    RunStatus.BEHIND: "stopped: it was clearly behind a run that was already finished",
    RunStatus.OUT_OF_TIME: "stopped because the time budget was used up",
}

_RUN_DETAIL = {
    RunStatus.DIVERGED: "the loss left the range of numbers or rose far above its start",
    RunStatus.STALLED: "no better value for half of the run, above the target",
    RunStatus.LEVELLED_OFF: "it had no target, and gained little any more",
    RunStatus.OVERFIT: "the training loss fell while the metric got worse, before the target",
    RunStatus.PAUSED: "on the way to the target, from where it can go on",
    RunStatus.STOPPED_EARLY: "no better value of the metric for as many epochs as the patience",
}

_RUN_ENDING = {
    RunStatus.REACHED: "reached the target",
    RunStatus.OUT_OF_STEPS: "ran to the last step",
    RunStatus.BEHIND: "fell behind",
    RunStatus.DIVERGED: "diverged",
    RunStatus.STALLED: "stopped improving",
    RunStatus.LEVELLED_OFF: "levelled off",
    RunStatus.OVERFIT: "overfitted",
    RunStatus.OUT_OF_TIME: "ran out of time",
    RunStatus.PAUSED: "paused",
    RunStatus.STOPPED_EARLY: "stopped early",
}

RUN_PURPOSES = {
    "pilot": "the first runs, which show whether a learning rate trains at all and how far it gets",
    "probe": "a run that a search by anchors makes to learn at which batch size and learning rate to train",
    "trial": "a run at a batch size and learning rate that another search strategy asked for",
    "current": "a run at the current recipe, to compare with",
    "recipe": "a run at exactly the recommended recipe, to verify it",
    "horizon": "a run at the recipe that fixes over how many steps its schedule goes",
    "study": "a run of a study",
    "table": "a run that a table of measurements tells of",
}
"""Meaning of each `RunConfig.purpose` that users meet."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Whole configuration of one training run: equal configuration, equal run.

    Raises:
        ValueError: `batch_size` is not `micro_batch_size * grad_accum_steps * world_size`, or a number is none.
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
    schedule: ScheduleName = "constant"
    warmup_steps: int = 0
    final_lr: float = 0.0
    """Share of the learning rate at which a schedule that decays ends."""
    seed: int = 0
    target: Target | None = None
    metric: Metric | None = None
    """That judges a run without a target; `None`: a loss among those of `evaluate`."""
    max_steps: int
    evaluation_growth: float = 1.05
    """Evaluations lie no closer together than this ratio of their steps; `training.evaluation_grid` has the formula."""
    evaluation_every: int = 1
    """Steps that pay for one evaluation."""
    evaluation_gap: int = 1
    """Steps between two evaluations, or a third of the way so far, that are not too far apart unpaid."""
    evaluation_epochs: float | None = None
    """Epochs from one evaluation to the next; where it is given, evaluations are evenly spaced instead."""
    device: str = "cpu"
    purpose: str = "run"
    """What the run was made for; `RUN_PURPOSES` has the words."""
    noise_scale_groups: int = 0
    """Micro-batch groups for the gradient noise scale in a measured step; 0 switches the probe off."""
    num_threads: int | None = None
    """Threads of torch that it is trained and evaluated with, on a CPU; `None`: as many as the process has."""
    stall_patience: float | None = None
    """Stop as stalled when the best metric is older than this share of the run (and 50 steps, and 3 evaluations)."""

    def __post_init__(self) -> None:
        for name in ("lr", "final_lr", "evaluation_growth"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise ValueError(f"{name} is {value}, not a finite number of at least 0")
        made = self.micro_batch_size * self.grad_accum_steps * self.world_size
        if made != self.batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not micro_batch_size {self.micro_batch_size} * grad_accum_steps "
                f"{self.grad_accum_steps} * world_size {self.world_size} = {made}"
            )


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of one training run, in numbers."""

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
    rows_bytes: int | None = None
    """Size of the file with that hash; `None`: it was written by a version that did not note it."""
    made_for: str = ""
    """Seals of the folder's question and of the run's course; empty: written by an older version."""


Row = Mapping[str, Any]
"""One line of `rows.jsonl`. `kind` is `evaluation` or `noise`.

An `evaluation` has `step`, `examples`, `train_loss`, `metrics`, and from the start of the run `device_seconds` of all
steps and `evaluation_seconds` of all evaluations; on a CPU also `processor_seconds` of the process in all steps, and of
the steps since the evaluation before in which nothing was measured the mean `step_s` and the 20th percentile
`low_step_s`. A `noise` reading has `step`, `examples`, `groups`, `group_size`, `mean_square_norm` and
`square_norm_of_mean`."""
