"""Steps at which a run is evaluated: as close together as is paid for, but never too far apart. Numbers only.

With `k` evaluations made, the one before the first step counted, and the latest of them at step `s`, the next comes at

```
max(s + 1, growth · s, min(s + max(gap, s / 3), every · (k + 1) - 1))        rounded up
```

`every` is the number of steps that pay for one evaluation: where it decides, there is one for every so many steps; with
1, one at each step. Where that would leave a gap of more than `gap` steps and more than a third of the way so far, the
evaluation comes unpaid: of a training of 13 gaps or more, 8 evaluations come at 1, 2, 3, 4, 5.3, 7.1, 9.5 and 12.6
gaps. What came unpaid is made up for later. `growth` thins them out in long runs that could pay for more: a first
passage is interpolated in log steps (`fits.curves`), and gains nothing by evaluations closer than 5 %.

Between evaluations a third of the way apart, the interpolation is off by at most h²/8 · |f''/f'| in the logarithm of
the step, h = log(4/3): 1 % of the steps for a power law s^-1, 2 % where an exponential decay has fallen to a twentieth.
"""

from __future__ import annotations

import math

from ..store.records import RunConfig

__all__ = ["evaluations_within", "next_evaluation"]

_STRETCH = 3
"""A gap of a third of the way so far is never too far."""


def next_evaluation(config: RunConfig, step: int, made: int, examples: int | None) -> int:
    """Step of the evaluation after the one at `step`.

    Args:
        config: of the run.
        step: of the latest evaluation.
        made: evaluations until then, the one before the first step and the latest included.
        examples: in an epoch, for runs that are evaluated so many times an epoch; `None`: a stream, which has none.

    >>> config = RunConfig(task="t", batch_size=1, micro_batch_size=1, lr=0.1, max_steps=100)
    >>> [next_evaluation(config, step, made, 0) for step, made in ((0, 1), (1, 2), (40, 30))]
    [1, 2, 42]
    """
    if config.evaluation_epochs is not None:
        assert examples is not None
        stride = config.evaluation_epochs * examples / config.batch_size
        return max(step + 1, math.ceil((math.floor(step / stride + 1e-9) + 1) * stride - 1e-9))
    unpaid = step + max(config.evaluation_gap, -(-step // _STRETCH))
    paid = config.evaluation_every * (made + 1) - 1
    return max(step + 1, math.ceil(step * config.evaluation_growth), min(unpaid, paid))


def evaluations_within(config: RunConfig, steps: int, examples: int = 0) -> list[int]:
    """Steps of all evaluations of a run that ends after so many steps, from the one before the first step.

    >>> config = RunConfig(task="t", batch_size=1, micro_batch_size=1, lr=0.1, max_steps=100, evaluation_every=30)
    >>> evaluations_within(config, 9)
    [0, 1, 2, 3, 4, 6, 8, 9]
    """
    found = [0]
    while found[-1] < steps:
        found.append(min(steps, next_evaluation(config, found[-1], len(found), examples)))
    return found
