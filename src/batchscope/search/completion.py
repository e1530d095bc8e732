"""How long the first run to the target may go on before another pair is looked at again. Numbers only, no torch.

Until a run has reached the target there is none to be behind: a run at a learning rate that is a little too high
settles above the target, and would be known to stall only after twice the steps of its best value. It is paused instead
once it has made twice the steps that the posterior expected of it. That it had not got there by then is an observation
like any other; the next choice follows from it, and may be the same pair, which then goes on.
"""

from __future__ import annotations

import math

import numpy as np

from .state import SearchState

__all__ = ["steps_allowed"]

_TIMES_EXPECTED, _FURTHER = 2.0, 1.5


def steps_allowed(state: SearchState, batch_size: int, lr: float) -> int | None:
    """Step at which a run to the target is paused; `None`: nowhere, for others bound it or its length is given.

    It is twice the median of the posterior, and half as far again as a run at the pair has gone already.
    """
    if state.reached or state.question.within is not None:
        return None
    expected = float(np.exp(min(float(np.median(state.posterior.log_steps(batch_size, lr))), 50.0)))
    own = (run for run in state.finished if (run.config.batch_size, run.config.lr) == (batch_size, lr))
    made = max((run.result.steps for run in own if run.result), default=0)
    return math.ceil(max(_TIMES_EXPECTED * expected, _FURTHER * made))
