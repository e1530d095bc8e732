"""Schedules: every factor is that of torch's schedulers, and what makes no sense is refused with what to write."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from batchscope.errors import UsageError
from batchscope.fits.schedules import STABLE_SHARE, WarmUp, check_schedule, lr_factor, schedule_of_task

LR = 0.4
SCHEDULES = ("constant", "linear", "cosine", "wsd")


def lrs_of(make: Callable[[SGD], LRScheduler], steps: int) -> list[float]:
    """The learning rate in each step of a loop that steps its scheduler after the optimizer."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    schedule, lrs = make(optimizer), []
    for _ in range(steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return lrs


def torch_schedule(name: str, optimizer: SGD, steps: int, final_lr: float, warmup: int = 0) -> LRScheduler:
    """The schedulers that people would take for a run of so many steps, one after the other."""
    rest, stable = steps - warmup, round(STABLE_SHARE * (steps - warmup))
    parts: list[tuple[int, LRScheduler]] = []
    if warmup:
        parts.append((warmup, LinearLR(optimizer, start_factor=1 / warmup, end_factor=1.0, total_iters=warmup - 1)))
    if name == "linear":
        parts.append((rest, LinearLR(optimizer, start_factor=1.0, end_factor=final_lr, total_iters=rest)))
    elif name == "cosine":
        parts.append((rest, CosineAnnealingLR(optimizer, T_max=rest, eta_min=final_lr * LR)))
    else:
        parts.append((stable, ConstantLR(optimizer, factor=1.0)))
        end = final_lr if name == "wsd" else 1.0
        falling = LinearLR(optimizer, start_factor=1.0, end_factor=end, total_iters=rest - stable)
        parts.append((rest - stable, falling))
    starts = [sum(length for length, _ in parts[:i]) for i in range(1, len(parts))]
    return SequentialLR(optimizer, [part for _, part in parts], milestones=starts) if starts else parts[0][1]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("final_lr", [0.0, 0.1])
@pytest.mark.parametrize(("steps", "warmup"), [(5, 0), (40, 0), (48, 8), (52, 2)])
def test_the_factors_are_those_of_torchs_schedulers(name: str, final_lr: float, steps: int, warmup: int) -> None:
    ours = [LR * lr_factor(name, s, steps, warmup=warmup, final_lr=final_lr) for s in range(steps)]
    theirs = lrs_of(lambda o: torch_schedule(name, o, steps, final_lr, warmup), steps)
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 3])
def test_a_lambda_lr_with_it_trains_at_the_same_learning_rates(name: str, warmup: int) -> None:
    def factor(step: int) -> float:
        return lr_factor(name, step, 20, warmup=warmup, final_lr=0.2)

    assert lrs_of(lambda o: LambdaLR(o, factor), 20) == pytest.approx([LR * factor(s) for s in range(20)])


@given(
    st.sampled_from(SCHEDULES),
    st.integers(1, 300),
    st.floats(0, 0.99),
    st.floats(0, 0.95),
)
def test_no_step_is_wasted_and_none_is_above_the_learning_rate(
    name: str, total: int, warm_share: float, final_lr: float
) -> None:
    warmup = int(warm_share * total)
    factors = [lr_factor(name, s, total, warmup=warmup, final_lr=final_lr) for s in range(total)]
    assert all(0.0 < f <= 1.0 + 1e-12 for f in factors)
    assert factors[warmup] == pytest.approx(1.0)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert lr_factor(name, total, total, warmup=warmup, final_lr=final_lr) == pytest.approx(
        1.0 if name == "constant" else final_lr, abs=1e-12
    )


# --- warm-ups as people write them --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "amount", "unit", "written"),
    [
        ("5%", 0.05, "share", "5%"),
        (" 12.5 % ", 0.125, "share", "12.5%"),
        ("100steps", 100, "steps", "100steps"),
        ("1 step", 1, "steps", "1step"),
        ("20000examples", 20000, "examples", "20000examples"),
        ("1example", 1, "examples", "1example"),
    ],
)
def test_a_warm_up_is_a_share_steps_or_examples(text: str, amount: float, unit: Any, written: str) -> None:
    found = WarmUp.parse(text)
    assert found == WarmUp(amount=amount, unit=unit)
    assert str(found) == written
    assert WarmUp.parse(written) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100", "'100' is not the length of a warm-up; write for example --warmup 5%, 100steps or 20000examples"),
        ("0.05", "write for example --warmup 5%"),
        ("-5%", "'-5%' is not the length of a warm-up"),
        ("-10steps", "'-10steps' is not the length of a warm-up"),
        ("3epochs", "write for example"),
        ("", "write for example"),
        ("0steps", "--warmup 0steps is no warm-up; leave --warmup out"),
        ("0%", "leave --warmup out"),
        ("100%", "--warmup 100% is as long as the run or longer"),
        ("250%", "give a share below 100%, for example --warmup 5%"),
        ("1.5steps", "1.5steps is not a whole number of steps; write for example"),
        ("0.5examples", "not a whole number of examples"),
    ],
)
def test_what_is_no_warm_up_is_told_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        WarmUp.parse(text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        (math.nan, "leave --warmup out"),
        (math.inf, "--warmup is inf; it must be a number of at most"),
        (-1.0, "leave --wa"),
    ],
)
def test_a_warm_up_made_in_python_is_a_number_above_zero(amount: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WarmUp(amount=amount, unit="steps")


@pytest.mark.parametrize(
    ("text", "batch_size", "total", "steps"),
    [
        ("5%", 32, 1000, 50),
        ("7%", 32, 100, 7),
        ("5%", 32, 4, 1),
        ("100steps", 32, 1000, 100),
        ("100steps", 32, 0, 100),
        ("100examples", 32, 0, 4),
        ("96examples", 32, 0, 3),
        ("1example", 32, 0, 1),
    ],
)
def test_steps_of_a_warm_up(text: str, batch_size: int, total: int, steps: int) -> None:
    assert WarmUp.parse(text).steps(batch_size, total) == steps


# --- what goes together -------------------------------------------------------------------------------------------

WARM = WarmUp.parse("5%")


def own(progress: float) -> float:
    return 1.0 - progress


@pytest.mark.parametrize(
    ("task", "schedule", "answer"),
    [
        (None, None, "constant"),
        (None, "wsd", "wsd"),
        (own, None, "task"),
        (own, "task", "task"),
    ],
)
def test_the_schedule_is_the_one_asked_for_else_the_tasks_else_constant(task: Any, schedule: Any, answer: str) -> None:
    assert schedule_of_task(task, schedule, None, None) == answer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((own, "cosine", None, None), "and --schedule cosine sets it too; leave that out, or take the member out"),
        ((own, "constant", None, None), "--schedule constant sets it too"),
        ((own, None, WARM, None), "--warmup 5% sets it too"),
        ((own, None, None, 0.1), "--final-lr 10% sets it too"),
        ((own, "wsd", WARM, 0.1), "--schedule wsd --warmup 5% --final-lr 10% set it too; leave those out"),
        ((own, "task", WARM, None), "--warmup 5% sets it too"),
        ((None, "task", None, None), "the task has no member schedule"),
    ],
)
def test_a_task_with_a_schedule_and_another_one_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        schedule_of_task(*arguments)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("schedule", "final_lr", "message"),
    [
        ("cosine", 1.0, "--final-lr 100% is not a share"),
        ("cosine", 1.2, "at least 0% and below 100%, for example --final-lr 10%"),
        (None, -0.1, "--final-lr -10% is not a share"),
        ("linear", math.nan, "is not a share"),
        ("constant", 0.1, "add --schedule linear, cosine or wsd, or leave --final-lr out"),
        ("constant", 0.0, "--final-lr 0% says where a decay ends, and the learning rate is constant"),
        ("task", 0.1, "--final-lr 10% sets it too"),
    ],
)
def test_an_end_that_no_schedule_has_is_refused(schedule: Any, final_lr: float, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_schedule(schedule, None, final_lr)
    assert message in str(refused.value)


@pytest.mark.parametrize("schedule", [None, "linear", "cosine", "wsd"])
def test_what_makes_sense_passes(schedule: Any) -> None:
    check_schedule(schedule, WARM, 0.1)
    check_schedule(schedule, None, None)
    check_schedule("constant", WarmUp.parse("5steps"), None)
