"""Schedules of the learning rate: the factor on it in each step of a run. Numbers only, no torch.

In 0-based step `s`, among the first `warmup` of the `total` steps of a run, the factor is `(s + 1) / warmup`; in the
others, with the progress `p = (s - warmup) / (total - warmup)` and the share `f` of the learning rate to end at:

```
constant   1
linear     1 - (1 - f) p
cosine     f + (1 - f) (1 + cos(pi p)) / 2                      (Loshchilov & Hutter 2017, eq. 5)
wsd        1 for p <= 0.8, then 1 - (1 - f) (p - 0.8) / 0.2     (warm-up, stable, decay: Hu et al. 2024)
task       the task's own `schedule(s / total)`
```

So the first step after the warm-up has the whole learning rate, and the last step of a run one that is still above
`f`: `f` itself would be that of the step after it. No step has a learning rate of zero, and none is wasted. These are
the factors of torch's LinearLR and CosineAnnealingLR over `total - warmup` steps and of a LambdaLR that is stepped once
after each step; the warm-up begins at `1 / warmup` and not at zero, where the first step would change nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from ..store.quantities import finite_number
from ..store.records import ScheduleName
from ..wording import number, plural

__all__ = ["STABLE_SHARE", "WarmUp", "check_schedule", "lr_factor", "schedule_of_task"]

STABLE_SHARE = 0.8
"""Share of a run, warm-up apart, that `wsd` keeps the learning rate constant."""

_WARM_UP = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(%|steps?|examples?)\s*")
_WRITE = "write for example --warmup 5%, 100steps or 20000examples"


def lr_factor(schedule: str, step: int, total: int, *, warmup: int = 0, final_lr: float = 0.0) -> float:
    """Factor on the learning rate in a step of a run.

    Args:
        schedule: `constant`, `linear`, `cosine` or `wsd`.
        step: 0-based.
        total: steps of the run, warm-up included.
        warmup: of these, in which it rises linearly to the learning rate.
        final_lr: share of the learning rate at which a decay ends; `constant` has none.

    Example:
        >>> [round(lr_factor("linear", s, 4), 2) for s in range(4)]
        [1.0, 0.75, 0.5, 0.25]
        >>> [round(lr_factor("wsd", s, 10, final_lr=0.1), 2) for s in (0, 8, 9, 10)]
        [1.0, 1.0, 0.55, 0.1]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return final_lr + (1.0 - final_lr) * _decay(schedule, progress)


def _decay(schedule: str, progress: float) -> float:
    """What is left of a decay to zero at a share of the way."""
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule == "wsd":
        return min(1.0, (1.0 - progress) / (1.0 - STABLE_SHARE))
    return 1.0


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Length of the warm-up of a run, in which the learning rate rises linearly.

    Raises:
        UsageError: it is nothing, not a whole number of steps or examples, or as long as the run.
    """

    amount: float
    unit: Literal["share", "steps", "examples"]
    """`share`: of the steps of the run."""

    def __post_init__(self) -> None:
        if not self.amount > 0:
            raise UsageError(f"--warmup {self} is no warm-up; leave --warmup out where there is none")
        finite_number(self.amount, "--warmup")
        if self.unit == "share" and self.amount >= 1:
            raise UsageError(
                f"--warmup {self} is as long as the run or longer, so that it would never train at its learning rate; "
                "give a share below 100%, for example --warmup 5%"
            )
        if self.unit != "share" and self.amount != int(self.amount):
            raise UsageError(f"--warmup {self} is not a whole number of {self.unit}; {_WRITE}")

    @classmethod
    def parse(cls, text: str) -> WarmUp:
        """A warm-up as it is written on the command line: a share, steps or examples.

        Raises:
            UsageError: it is not one.

        Example:
            >>> WarmUp.parse("5%"), str(WarmUp.parse("1 step"))
            (WarmUp(amount=0.05, unit='share'), '1step')
        """
        match = _WARM_UP.fullmatch(text)
        if match is None:
            raise UsageError(f"--warmup {text!r} is not the length of a warm-up; {_WRITE}")
        amount = float(match.group(1))
        if match.group(2) == "%":
            return cls(amount=amount / 100, unit="share")
        return cls(amount=amount, unit="steps" if match.group(2).startswith("step") else "examples")

    def steps(self, batch_size: int, total: int) -> int:
        """Steps of the warm-up of a run of so many steps, at least one: examples rounded up, a share to the nearest.

        >>> WarmUp.parse("5%").steps(32, 1000), WarmUp.parse("100examples").steps(32, 1000)
        (50, 4)
        """
        if self.unit == "share":
            return max(1, round(self.amount * total))
        return int(self.amount) if self.unit == "steps" else math.ceil(self.amount / batch_size)

    @property
    def in_words(self) -> str:
        """Length as it stands in a sentence.

        >>> WarmUp.parse("5%").in_words, WarmUp.parse("20000examples").in_words, WarmUp.parse("1step").in_words
        ('5 % of the run', '20,000 examples', '1 step')
        """
        if self.unit == "share":
            return f"{number(100 * self.amount)} % of the run"
        return plural(int(self.amount), self.unit[:-1])

    def __str__(self) -> str:
        if self.unit == "share":
            return f"{100 * self.amount:.6g}%"
        return f"{self.amount:.15g}{self.unit if self.amount != 1 else self.unit[:-1]}"


def check_schedule(schedule: ScheduleName | None, warmup: WarmUp | None, final_lr: float | None) -> None:
    """Refuse options that make no sense together.

    Args:
        schedule: of the learning rate; `None`: not known yet.
        warmup: before it.
        final_lr: share of the learning rate at which it ends.

    Raises:
        UsageError: the share is none, or one of a schedule that does not end anywhere.
    """
    if final_lr is not None and not 0.0 <= final_lr < 1.0:
        raise UsageError(
            f"--final-lr {100 * final_lr:.6g}% is not a share of the learning rate to decay to; it must be at least 0% "
            "and below 100%, for example --final-lr 10%"
        )
    if final_lr is not None and schedule == "constant":
        raise UsageError(
            f"--final-lr {100 * final_lr:.6g}% says where a decay ends, and the learning rate is constant; add "
            "--schedule linear, cosine or wsd, or leave --final-lr out"
        )
    if schedule == "task":
        _refuse_beside_own(None, warmup, final_lr)


def schedule_of_task(
    own: object | None, schedule: ScheduleName | None, warmup: WarmUp | None, final_lr: float | None
) -> ScheduleName:
    """Schedule of a task's runs: the one asked for, else the task's own, else constant.

    Args:
        own: member `schedule` of the task, or `None`.
        schedule: asked for; `None`: none was.
        warmup: asked for.
        final_lr: asked for.

    Raises:
        UsageError: the task has a schedule and another was asked for, or its own was and it has none.
    """
    if own is None:
        if schedule == "task":
            raise UsageError(
                "the schedule asked for is the task's own, and the task has no member schedule(progress); add one, or "
                "ask for constant, linear, cosine or wsd"
            )
        return schedule or "constant"
    _refuse_beside_own(None if schedule == "task" else schedule, warmup, final_lr)
    return "task"


def _refuse_beside_own(schedule: ScheduleName | None, warmup: WarmUp | None, final_lr: float | None) -> None:
    given = {
        "--schedule": schedule,
        "--warmup": warmup,
        "--final-lr": None if final_lr is None else f"{100 * final_lr:.6g}%",
    }
    words = [f"{name} {value}" for name, value in given.items() if value is not None]
    if words:
        also = "sets" if len(words) == 1 else "set"
        raise UsageError(
            "the task has a member schedule(progress), which sets the learning rate over the whole run, warm-up and "
            f"end included, and {' '.join(words)} {also} it too; leave {'that' if len(words) == 1 else 'those'} out, "
            "or take the member out of the task"
        )
