"""The deadline on a clock that the test turns, and the length of a run in seconds."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn
from torch.optim import SGD

from batchscope.store.records import RunStatus, Target
from batchscope.training.limits import CutOff, Deadline, SecondsRule
from batchscope.training.stopping import History


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


HISTORY = History(target=Target(metric="val_loss", value=0.1, mode="min"))


def test_the_deadline_ends_a_run_at_an_evaluation() -> None:
    clock = Clock(9.9)
    deadline = Deadline(10.0, clock=clock)
    assert deadline(HISTORY) is None
    assert not deadline.passed
    assert deadline.left_s == pytest.approx(0.1)
    clock.now = 10.0
    assert deadline(HISTORY) is RunStatus.OUT_OF_TIME
    assert deadline.passed
    clock.now = 12.0
    assert deadline.left_s == 0.0


def test_the_deadline_cuts_a_run_between_two_steps_but_not_after_its_last() -> None:
    clock = Clock(9.0)
    observer = Deadline(10.0, clock=clock).between_steps(5)
    model = nn.Linear(1, 1)
    observer.begin(model, SGD(model.parameters(), lr=0.1))
    assert observer.after_update(1) is None
    clock.now = 10.0
    with pytest.raises(CutOff):
        observer.after_update(4)
    assert observer.at_evaluation(4) is None
    assert observer.after_update(5) is None


def test_a_share_is_an_earlier_deadline_and_never_a_later_one() -> None:
    clock = Clock(0.0)
    whole = Deadline.after(10.0, clock=clock)
    assert whole.within(3.0).left_s == 3.0
    assert whole.within(30.0).left_s == 10.0
    clock.now = 8.0
    assert whole.within(3.0).left_s == 2.0


def test_seconds_of_training_steps_end_a_run() -> None:
    rule = SecondsRule(limit=2.0)

    def seen(kind: str, seconds: float) -> Any:
        rule.see({"kind": kind, "device_seconds": seconds})
        return rule(HISTORY)

    assert seen("evaluation", 1.9) is None
    assert seen("noise", 3.0) is None
    assert seen("evaluation", 2.0) is RunStatus.OUT_OF_TIME
