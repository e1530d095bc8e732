"""A page of many runs draws and lists some of them, says so, and reads the rows of few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from batchscope.fits.curves import best_held
from batchscope.report import build
from batchscope.report.blocks import Figure, Table, Text
from batchscope.report.sections import ends, learning_rate, loss_curves, noise_scale, recipe, runs_table, time_to_target
from batchscope.report.thinning import MOST_CURVES, MOST_POINTS
from batchscope.store.records import PlanStatus, RunStatus, Target
from batchscope.store.rows import StoredRows
from batchscope.store.runs import StoredRun
from batchscope.testing import evaluation, stored_run

from . import plans

MANY = 1500
TARGET = plans.ok().target
assert TARGET is not None


def run(number: int, *, target: Target = TARGET, status: RunStatus = RunStatus.REACHED, best: float = 0.0) -> StoredRun:
    values = (2.0, 1.0, best + 0.01 * target.value)
    rows = [evaluation(10 * i, {target.metric: value}) for i, value in enumerate(values)]
    steps = 15.0 + number / MANY if status is RunStatus.REACHED else None
    lr = 0.001 * (1 + number)
    found = stored_run(
        64, lr, rows, name=f"r{number}", status=status, target=target, steps_to_target=steps, seed=number
    )
    return replace(found, rows=Counted(found.rows, number))


class Counted(StoredRows):
    """Rows that note which runs were asked for theirs."""

    asked: ClassVar[set[int]] = set()

    def __init__(self, rows: Sequence[Any], number: int) -> None:
        super().__init__(Path("nowhere"), None)
        self._made, self._number = tuple(rows), number

    def read(self) -> tuple[Any, ...]:
        Counted.asked.add(self._number)
        return self._made


@pytest.fixture
def many() -> list[StoredRun]:
    Counted.asked.clear()
    return [run(number) for number in range(MANY)]


def test_the_page_reads_the_rows_of_few_runs_and_says_what_it_leaves_out(many: list[StoredRun]) -> None:
    page = build(plans.ok(), many)
    assert len(Counted.asked) <= MOST_CURVES + 2
    assert "Of these 1,500 runs" in page
    assert len(page) < 3_000_000


@pytest.mark.parametrize("section", [time_to_target, learning_rate])
def test_a_figure_counts_all_runs_and_draws_some(many: list[StoredRun], section: Any) -> None:
    (figure,) = section.build(plans.ok(), many).blocks
    assert isinstance(figure, Figure)
    points = [len(trace["x"]) for trace in figure.data if trace["mode"] == "markers"]
    assert max(points) <= MOST_POINTS
    assert f"Of these 1,500 runs {sum(points):,} are drawn" in figure.caption


def test_the_curves_that_the_text_names_are_drawn(many: list[StoredRun]) -> None:
    many[777] = replace(many[777], result=replace(many[777].result, steps_to_target=1.5))  # type: ignore[type-var]
    data = loss_curves.collect(plans.ok(), many)
    assert data.fewest_steps is not None
    assert data.fewest_steps.id == "r777"
    assert len(data.runs) <= MOST_CURVES + 1
    assert sum(data.endings.values()) == MANY
    assert "Of these 1,500 runs 201 are drawn" in loss_curves.conclude(data)


def test_the_table_lists_some(many: list[StoredRun]) -> None:
    note, table, _ = runs_table.build(plans.ok(), many).blocks
    assert isinstance(note, Text)
    assert isinstance(table, Table)
    assert "`batchscope runs` lists all" in note.paragraphs[0]
    assert (len(table.rows), table.rows[0][0], table.rows[-1][0]) == (MOST_POINTS, "r0", "r1499")


def test_a_small_folder_is_drawn_whole_and_nothing_is_said() -> None:
    page = build(plans.ok(), plans.runs())
    assert "evenly chosen" not in page


def test_the_closest_approach_is_that_of_all_runs_and_reads_few_rows() -> None:
    Counted.asked.clear()
    missed = [run(n, status=RunStatus.OUT_OF_STEPS, best=0.9 - 0.4 * (n == 321)) for n in range(MANY)]
    assert all((held := best_held(each.rows, TARGET)) is None or held[0] > TARGET.value for each in missed)
    Counted.asked.clear()
    plan = replace(plans.ok(), status=PlanStatus.TARGET_NOT_REACHED, recipe=None, predicted=None)
    assert "learning rate 0.322" in recipe.closest_approach(plan, missed)
    assert len(Counted.asked) < 10


def test_ends_of_many_runs_are_counted_whole(many: list[StoredRun]) -> None:
    ended = [run(n, status=RunStatus.OUT_OF_STEPS, best=1.0 - (n == 700) / 2) for n in range(MANY)]
    Counted.asked.clear()
    plan = replace(plans.within(), target=TARGET)
    (figure,) = ends.build(plan, ended).blocks
    assert isinstance(figure, Figure)
    assert "1500 runs of 1,500 had the whole length" in figure.caption.replace("1,500 runs of", "1500 runs of")
    assert "learning rate 0.701" in figure.caption
    assert len(Counted.asked) <= MOST_CURVES + 1


def test_readings_of_the_noise_scale_are_looked_for_where_there_are_most(many: list[StoredRun]) -> None:
    measured = [replace(r, config=replace(r.config, noise_scale_groups=4)) for r in many]
    noise_scale.build(plans.ok(), measured)
    assert len(Counted.asked) <= 50
