"""One run as whoever watches sees it: what it is for, how far it is, when it will end, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..store.endings import ending_of, gained
from ..store.records import Row, RunConfig, RunStatus
from ..store.runs import StoredRun
from ..wording import about, count, elapsed, number, plural

__all__ = ["RunView", "evaluation_in_words", "finished_in_words"]

_PURPOSES = {
    "pilot": "first run",
    "probe": "is it faster?",
    "trial": "a trial of the search strategy",
    "current": "your current recipe",
    "recipe": "the recommended recipe",
    "horizon": "how many steps should the schedule have?",
}
"""Words for what a run is made for; a run of a study needs none."""
_ENDINGS = {
    RunStatus.PAUSED: "paused on the way, to go on if none is better",
    RunStatus.BEHIND: "stopped early, clearly slower than the best run",
}
_LEAST_S = 1.0
"""Seconds of a run before its pace says when it will end."""


@dataclass(kw_only=False)
class RunView:
    """A run at work.

    Attributes:
        config: of the run.
        number_: of the runs that this command made; one that goes on keeps its own.
        why: it is made.
        expected_steps: step at which it is expected to end; `None`: at its last step where it is a study's run of so
            many steps, else not known.
        began: on the clock of whoever watches.
        again: what it does that was at work before, "goes on" or "again"; empty for one that begins.
        step: that it has made.
    """

    config: RunConfig
    number_: int
    why: str
    expected_steps: float | None
    began: float
    again: str = ""
    step: int = 0
    _first: tuple[int, float] | None = field(default=None, init=False)
    _evaluation: str = field(default="", init=False)

    def __post_init__(self) -> None:
        fixed = self.config.purpose == "study" and "until" not in self.config.settings
        if self.expected_steps is None and fixed:
            self.expected_steps = float(self.config.max_steps)

    @property
    def title(self) -> str:
        """The run's number, recipe and purpose."""
        why = self.why or _PURPOSES.get(self.config.purpose, "")
        recipe = f"batch size {count(self.config.batch_size)}, learning rate {number(self.config.lr)}"
        return f"{' '.join(filter(None, ('run', str(self.number_), self.again)))}: {recipe}" + (
            f" ({why})" if why else ""
        )

    def evaluated(self, row: Row, now: float) -> None:
        """Take an evaluation."""
        self.step = max(self.step, int(row["step"]))
        if self._first is None:
            self._first = self.step, now
        self._evaluation = evaluation_in_words(row)

    def state(self, now: float) -> str:
        """How far the run is, its last evaluation, and the time that it will still take."""
        step, expected = self.step, self.expected_steps
        of = f" of about {count(expected)}" if expected is not None and expected > step else ""
        parts = [f"step {count(step)}{of}", plural(step * self.config.batch_size, "example"), self._evaluation]
        left_s = self._left_s(now)
        parts.append(f"about {about(left_s)} left of this run" if left_s is not None else "")
        return ", ".join(part for part in parts if part)

    def _left_s(self, now: float) -> float | None:
        """Seconds to the expected end, at the pace of the run so far, evaluations included."""
        if self.expected_steps is None or self._first is None:
            return None
        steps, seconds = self.step - self._first[0], now - self._first[1]
        if steps < 1 or seconds < _LEAST_S or self.step >= self.expected_steps:
            return None
        return (self.expected_steps - self.step) * seconds / steps


def evaluation_in_words(row: Row) -> str:
    """An evaluation: its metrics, those on the test split apart, and its step."""
    metrics = ", ".join(f"{k} {number(v)}" for k, v in row["metrics"].items() if not k.startswith("test_"))
    return f"{metrics} at step {count(row['step'])}"


def finished_in_words(run: StoredRun, number_: int) -> str:
    """A finished run in one line: its number, its recipe, its length, how it ended."""
    config, result = run.config, run.result
    assert result is not None
    recipe = f"batch size {config.batch_size:>6}  learning rate {number(config.lr):<8}"
    explained = result.status is not RunStatus.BEHIND or gained(run)
    end = _ENDINGS.get(result.status, result.status.ending) if explained else ending_of(run)
    if result.steps_to_target:
        end = RunStatus.REACHED.ending
    length = f"{plural(result.steps_to_target or result.steps, 'step')}, {elapsed(result.device_seconds)}"
    return f"run {number_:<3} {recipe} {length}: {end}"
