"""The run at another batch size that is bought before a search ends with one: when it can pay, and only then."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from batchscope.search.neighbour import neighbour
from batchscope.search.plan import build_plan
from batchscope.search.strategies.anchors import Proposal

from .searches import bench, best_lr, run, search, true_steps
from .test_unfinished import MILESTONE, paused

ALONE = [paused(16, 0.08), paused(16, 0.04), run(16, 0.06)]


def bought(**changes: object) -> Proposal:
    found = neighbour(search(ALONE, milestone=MILESTONE, **changes))
    assert found is not None
    return found


def test_where_one_batch_size_was_run_the_neighbour_that_can_pay_is_bought() -> None:
    """In truth batch size 64 takes 0.55 times as long as 16; it is among the neighbours of 16, at a working rate."""
    found = bought()
    assert 2 <= max(found.batch_size / 16, 16 / found.batch_size) <= 4
    assert math.isfinite(true_steps(found.batch_size, found.lr))
    assert found.lr == pytest.approx(best_lr(found.batch_size), rel=1.0)
    assert found.value > found.price > 0
    assert found.why.startswith("only batch size 16 was run so far: may save ")
    assert "may save" in found.why
    assert found.needs_s > 0


def test_it_is_not_bought_where_it_cannot_save_its_price() -> None:
    assert neighbour(search(ALONE, milestone=MILESTONE, trainings=0.1)) is None
    assert bought(trainings=24.0).value == pytest.approx(2 * bought().value)


def test_none_is_bought_where_several_were_run_or_nothing_got_anywhere_or_there_is_no_other() -> None:
    assert neighbour(search([*ALONE, paused(64, 0.2)], milestone=MILESTONE)) is None
    assert neighbour(search([run(16, 0.08, most=10)], milestone=MILESTONE)) is None
    assert neighbour(search([run(1, 0.005)], max_batch_size=1)) is None


def test_without_a_milestone_its_price_is_a_training() -> None:
    found = neighbour(search([run(16, 0.08), run(16, 0.04)]))
    assert found is not None
    assert bought().price < 0.7 * found.price


def test_a_step_that_takes_as_long_as_its_examples_makes_no_larger_batch_pay() -> None:
    """Where twice the examples take twice the time a larger batch cannot be faster; a smaller one can be a little."""
    times = tuple((size, 1e-5 * size) for size in (1, 4, 16, 64, 256, 1024))
    flat = replace(bench(), readings=(), profile=replace(bench().profile, step_time_s=times))
    found = neighbour(search([run(16, 0.08), paused(16, 0.04)], milestone=MILESTONE, bench=flat, bench_counts=False))
    assert found is None or found.batch_size < 16


def test_an_answer_from_one_batch_size_says_so_first_and_tells_no_probability() -> None:
    plan = build_plan(search([run(16, 0.08), run(16, 0.04)]))
    assert plan.message.startswith("Only batch size 16 was run: ")
    assert plan.probability_within_5_percent is None
    assert plan.curves is not None
    assert plan.curves.steps_to_target.batch_size[-1] <= 8 * 16
    assert build_plan(search()).probability_within_5_percent is not None
