"""Outlook of a study: what is done, and whether what is left fits into the budget at the pace of the runs made.

Before the first run a study has a forecast from step times. The runs that are made show by how much it was off, with
evaluations, probes, loading and set-up; so a budget that will not do is said early, with the one that would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..store.records import RunStatus, Target
from ..store.runs import StoredRun
from ..wording import count, plural
from .pace import RunTime, budget_for
from .records import Arm

__all__ = ["Outlook", "Standing"]

_TELLING = 3
"""Runs that show the pace."""
_MARGIN = 1.1
"""By which a budget that is named is more than what is expected."""


class Outlook:
    """Compares runs with what was expected of them.

    Args:
        expected_s: seconds of a run of an arm, as forecast.
        arms: what the study will train, at most.
        seeds: that each arm is repeated for.
        budget_s: of the command.
        drops_seeds: whether a seed that does not fit any more is not begun; else it is begun, and cut off.

    >>> from .records import Length
    >>> from .pace import RunTime
    >>> def took(seconds): return RunTime(batch_size=8, steps=9, evaluations=2, training_s=1.0, seconds=seconds)
    >>> arms = [Arm(batch_size=size, lr=0.1, length=Length(unit="epochs", amount=1)) for size in (8, 64)]
    >>> outlook = Outlook(lambda arm: 1.0, arms, (0, 1, 2), budget_s=40.0, drops_seeds=True)
    >>> outlook.begins(0, 40.0), outlook.made(arms[0], took(5.0), 35.0), outlook.made(arms[1], took(7.0), 28.0)
    (True, None, None)
    >>> outlook.needed_s, outlook.begins(1, 28.0), outlook.begins(2, 11.0)
    (24.0, True, False)
    """

    def __init__(
        self,
        expected_s: Callable[[Arm], float],
        arms: Sequence[Arm],
        seeds: Sequence[int],
        *,
        budget_s: float,
        drops_seeds: bool,
    ) -> None:
        self._expected_s, self._budget_s, self._drops = expected_s, budget_s, drops_seeds
        self._of_seed = math.fsum(map(expected_s, arms))
        self._runs, self._seeds = len(arms) * len(seeds), tuple(seeds)
        self._begun: set[int] = set()
        self._there, self._took, self._of_those, self._made = 0.0, 0.0, 0.0, 0
        self._told = False

    def read(self, arm: Arm, seed: int) -> None:
        """Take note of a run that was made before."""
        self._begun.add(seed)
        self._there += self._expected_s(arm)

    def made(self, arm: Arm, time: RunTime, left_s: float) -> str | None:
        """Take note of a run that was just made.

        Returns:
            What is to be said, once, as soon as it is seen that the budget will not do.
        """
        expected = self._expected_s(arm)
        self._there += expected
        self._took, self._of_those, self._made = self._took + time.seconds, self._of_those + expected, self._made + 1
        needed = self.needed_s
        if self._told or needed is None or self._made < _TELLING or needed <= left_s:
            return None
        self._told = True
        return self._warning(needed, left_s)

    def begins(self, seed: int, left_s: float) -> bool:
        """Whether a run of a seed is begun: in any case where its seed was, or where seeds are not dropped."""
        known = seed in self._begun or seed not in self._seeds or not self._made
        fits = known or not self._drops or self._factor * self._of_seed <= left_s
        if fits:
            self._begun.add(seed)
        return fits

    @property
    def needed_s(self) -> float | None:
        """Seconds that the runs take that are not there yet; `None`: no run shows it."""
        if not self._made:
            return None
        return self._factor * max(0.0, self._of_seed * len(self._seeds) - self._there)

    @property
    def _factor(self) -> float:
        return self._took / self._of_those if self._of_those else 1.0

    def _warning(self, needed: float, left_s: float) -> str:
        share = (self._there + left_s / self._factor) / (self._of_seed * len(self._seeds))
        whole = math.floor(share * len(self._seeds))
        return (
            f"the budget will not do: at the pace of {plural(self._made, 'run')}, about "
            f"{count(math.floor(share * self._runs))} of {count(self._runs)} runs fit into it; seeds are made one "
            f"after the other, and {whole or 'none'} of {len(self._seeds)} will be whole; "
            f"--budget {budget_for(_MARGIN * (self._budget_s - left_s + needed))} would do"
        )


class Standing:
    """The runs of a study so far, made or read: how many, and the best.

    Args:
        target: the metric that runs are compared by.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._done = 0
        self._best: tuple[float, str] | None = None

    def progress(self, planned: int) -> str:
        """How many runs are done; of how many, unless there are more than were planned."""
        of = f" of {planned}" if self._done < planned else ""
        return f"{self._done}{of} runs done"

    def add(self, run: StoredRun) -> str:
        """Count a run, and say which is the best so far."""
        self._done += 1
        metric = self._target.metric
        value = run.result.best.get(metric) if run.result else None
        if value is not None and math.isfinite(value) and run.result and run.result.status is not RunStatus.DIVERGED:
            sign = 1.0 if self._target.mode == "min" else -1.0
            if self._best is None or sign * value < sign * self._best[0]:
                self._best = value, f"batch size {run.config.batch_size}, learning rate {run.config.lr:g}"
        return f"{metric} {self._best[0]:.4g} at {self._best[1]}" if self._best else ""
