"""How long a further training would take here by the clock, and the budget that lets it be made. Numbers only."""

from __future__ import annotations

import math

from ..store.records import Estimate
from ..wording import about
from .forecast import seconds_in
from .question import as_option
from .state import SearchState

__all__ = ["budget_with", "rounded_up", "training_in_words", "wall_seconds"]

_WHOLE_MINUTES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 75, 90, 120)
_MOST = 4.0
"""Times the predicted time that is planned for at most, however wide the interval is."""


def wall_seconds(state: SearchState, training_s: float) -> float:
    """Seconds by the clock of so many seconds of training steps, evaluations and set-up included.

    The factor is that of the runs so far: what their steps and evaluations took here over what their steps take on the
    hardware that the answer is for; at least 1 where that is this machine.
    """
    made = sum(run.result.steps * state.seconds_of(run.config.batch_size) for run in state.finished if run.result)
    if made <= 0.0:
        return training_s
    factor = sum(seconds_in(run, 0.0) for run in state.finished) / made
    return training_s * (max(1.0, factor) if state.bench_counts else factor)


def training_in_words(state: SearchState, time_to_target_s: Estimate) -> str:
    """Wall time of a training with its 90 % credible interval, "about 4 min (2 min to 9 min)"."""
    value, low, high = (
        None if end is None else about(wall_seconds(state, end))
        for end in (time_to_target_s.value, time_to_target_s.low, time_to_target_s.high)
    )
    if value is None:
        return "a time that nothing can be said of yet"
    return f"about {value} ({low or '0 s'} to {high})" if high else f"about {value} ({low or '0 s'} or more)"


def budget_with(state: SearchState, time_to_target_s: Estimate) -> str:
    """Budget for what was spent and one more training, for the option `--budget`, which counts earlier commands too.

    The training may take as long as its interval says, up to 4 times the value.
    """
    most = _MOST * (time_to_target_s.value or 0.0)
    high = most if time_to_target_s.high is None else min(time_to_target_s.high, most)
    return as_option(rounded_up(state.seconds + wall_seconds(state, high)))


def rounded_up(seconds: float) -> float:
    """A length of time rounded up to one that people would write.

    >>> [as_option(rounded_up(seconds)) for seconds in (3.2, 41, 400, 9000)]
    ['10s', '50s', '8m', '3h']
    """
    if seconds <= 50.0:
        return 10 * max(1, math.ceil(seconds / 10))
    minutes = next((whole for whole in _WHOLE_MINUTES if 60 * whole >= seconds), None)
    return 60 * minutes if minutes else 3600 * math.ceil(seconds / 3600)
