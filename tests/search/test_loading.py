"""Loading and the run's own clock in a plan: what sets the time of a step is said first; a run is told by its clock."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from batchscope.cli.views import bench_view, plan_view
from batchscope.fits.step_time import step_time_of
from batchscope.report.blocks import Row
from batchscope.report.sections.hardware import build
from batchscope.search.plan import build_plan
from batchscope.store.codec import decode, encode
from batchscope.store.records import Plan

from .searches import TRIED, bench, loading_bench, run, search, step_time, true_steps

SLOW_S = 2e-3


def printed(parts: list[object]) -> str:
    console = Console(width=10_000, file=io.StringIO())
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def slow_plan(workers: int = 2) -> Plan:
    return build_plan(search(bench=loading_bench(SLOW_S, workers)))


@pytest.mark.parametrize("workers", [0, 2])
def test_where_loading_sets_the_time_of_a_step_the_answer_says_so_first(workers: int) -> None:
    plan = slow_plan(workers)
    assert plan.recipe is not None
    assert plan.bench is not None
    size = plan.recipe.batch_size
    whole = step_time_of(plan.bench).of_batch(size)
    expected = SLOW_S * size / 2 if workers else SLOW_S * size + step_time(size)
    assert whole == pytest.approx(expected, rel=0.05)
    assert plan.predicted is not None
    assert plan.predicted.step_time_s.value == pytest.approx(whole)
    assert plan.message.startswith("Loading sets the time of a step from batch size ")
    assert ("with 2 loader workers, " if workers else "; loader workers, caching") in plan.message
    assert f"by {whole / step_time(size):.2g} times at most" in plan.message
    assert any("loading the batch" in e.statement and e.tag == "measured" for e in plan.evidence)
    assert decode(Plan, encode(plan)) == plan


def test_a_busy_machine_is_said_with_the_plan_and_with_the_bench() -> None:
    sentence = "the machine was busy while steps were timed: by how much"
    disturbed = replace(bench(), disturbance=sentence, notes=(sentence,))
    plan = build_plan(search(bench=disturbed))
    assert plan.notes.count(sentence) == 1
    assert decode(Plan, encode(plan)) == plan
    assert f"Note: {sentence.capitalize()}." in printed(list(plan_view(plan)))
    assert f"Note: {sentence.capitalize()}." in printed(list(bench_view(disturbed, plan.measured.hardware_knee)))
    assert sentence not in build_plan(search()).notes


def test_loading_pulls_the_recipe_to_smaller_batches() -> None:
    without, slow = build_plan(search()).recipe, slow_plan(0).recipe
    assert without is not None
    assert slow is not None
    assert slow.batch_size < without.batch_size


def test_where_computing_takes_longer_nothing_is_said() -> None:
    plan = build_plan(search(bench=loading_bench(1e-7, 2)))
    assert plan.message == build_plan(search()).message


def test_terminal_and_page_show_both_parts() -> None:
    plan = slow_plan()
    assert plan.bench is not None
    lines = [line for line in printed(list(plan_view(plan))).splitlines() if line.strip()]
    assert lines[0].startswith("Loading sets the time of a step")
    view = printed(list(bench_view(plan.bench, plan.measured.hardware_knee)))
    assert view.startswith("Loading sets the time of a step")
    assert "computing" in view
    assert "2 workers load the next batches while a step computes" in view
    figure = next(b for b in build(plan, ()).blocks if isinstance(b, Row)).figures[0]
    assert {"computing", "loading"} <= {key.label for key in figure.keys}
    assert "a step takes the longer of the two" in figure.caption
    plain = printed(list(bench_view(bench(), plan.measured.hardware_knee)))
    assert "loading" not in plain.lower()


def test_a_run_at_the_recipe_is_told_by_its_own_clock() -> None:
    slower = search([run(b, lr, slower=3.0) for b, lr in TRIED])
    plan = build_plan(slower)
    assert plan.recipe is not None
    assert plan.recipe.lr is not None
    assert plan.verified is not None
    by_bench = true_steps(plan.recipe.batch_size, plan.recipe.lr) * step_time(plan.recipe.batch_size)
    assert plan.verified.time_s == pytest.approx(3.0 * by_bench, rel=1e-6)
    (note,) = plan.notes
    assert "by its own clock" in note
    assert f"{by_bench * 1e3:.3g} ms" in note


def test_where_both_clocks_agree_no_note_is_made() -> None:
    assert build_plan(search()).notes == ()
    assert build_plan(search([run(b, lr, slower=1.03) for b, lr in TRIED])).notes == ()


def test_the_answer_for_another_machine_is_told_by_its_step_time() -> None:
    elsewhere = build_plan(search([run(b, lr, slower=3.0) for b, lr in TRIED], bench_counts=False))
    assert elsewhere.recipe is not None
    assert elsewhere.verified is not None
    told = elsewhere.verified.steps * step_time(elsewhere.recipe.batch_size)
    assert elsewhere.verified.time_s == pytest.approx(told)
    assert elsewhere.notes == ()
