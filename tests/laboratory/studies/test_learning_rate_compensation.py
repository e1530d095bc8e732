"""What a higher learning rate wins back, where metrics are a table of batch size and learning rate plus a draw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import UsageError
from batchscope.fits.intervals import ratio_of_paired_means
from batchscope.laboratory.records import Finding, Length, Study, StudyQuestion
from batchscope.laboratory.studies.learning_rate_compensation import STUDY, arms
from batchscope.laboratory.studies.learning_rate_compensation.scaling import scaling_of
from batchscope.laboratory.study import study
from batchscope.store.runs import read_runs

from .scripted_task import At, Script, Scripted

ACCURACY = {(4, 0.01): 0.9, (4, 0.1): 0.85, (20, 0.01): 0.5, (20, 0.1): 0.88}


def table(at: At) -> Mapping[str, float]:
    """The seed moves the large batch's accuracy by its draw; losses are lower where accuracies are higher."""
    measured = ACCURACY.get((at.batch_size, at.lr), 0.1) if at.seen else 0.1
    accuracy = measured + (0.01 * math.tanh(at.draw) if at.batch_size == 20 else 0.0)
    return {"val_loss": 1 - accuracy, "test_accuracy": accuracy, "test_loss": 2 * (1 - accuracy)}


def power_of(exponent: float, *, best_at: float = 0.02) -> Script:
    """The best learning rate of a batch is `best_at` x (batch / 4) to that power; each seed is off by a little."""

    def script(at: At) -> Mapping[str, float]:
        if not at.seen:
            return {"val_loss": 99.0, "test_loss": 99.0}
        best = best_at * (at.batch_size / 4) ** exponent
        off = math.log(at.lr / best) + 0.05 * math.tanh(at.draw)
        return {"val_loss": 0.1 + off**2, "test_loss": 0.2 + off**2}

    return script


def asked(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (4, 20),
        "lrs": (0.01, 0.1),
        "seeds": (0, 1, 2, 3),
        "length": Length(unit="epochs", amount=1),
    }
    return StudyQuestion(**{**values, **changes})


def made(tmp_path: Path, script: Script = table, **changes: Any) -> Study:
    task = Scripted(script)
    return study(task, asked(**changes), out=tmp_path / "out", named=STUDY, device=task.device)


def finding_on(found: Study, words: str) -> Finding:
    return next(f for f in found.findings if words in f.statement)


def test_ten_times_the_smallest_rate_is_added_for_the_largest_batch_alone() -> None:
    cells = [(arm.batch_size, arm.lr) for arm in arms(asked(lrs=(0.01, 0.02)), 40)]
    assert cells == [(4, 0.01), (4, 0.02), (20, 0.01), (20, 0.02), (20, 0.1)]
    assert len(arms(asked(), 40)) == 4
    published = [(arm.batch_size, arm.lr) for arm in arms(STUDY.question, 60_000)]
    assert len(published) == 26
    assert {(64, 0.01), (1024, 0.01), (1024, 0.1)} <= set(published)


def test_the_share_won_back_is_the_ratio_of_mean_changes(tmp_path: Path) -> None:
    found = made(tmp_path)
    value = {(r.batch_size, r.lr, r.seed): r.values["final_test_accuracy"] or 0.0 for r in found.rows}
    pairs = [
        (value[20, 0.1, s] - value[20, 0.01, s], value[4, 0.01, s] - value[20, 0.01, s]) for s in found.question.seeds
    ]
    expected = ratio_of_paired_means(pairs)
    back = finding_on(found, "wins back the accuracy")
    assert back.effect == expected
    assert expected.value == pytest.approx(0.38 / 0.4, rel=0.03)
    assert back.verdict == "so"


def test_a_rate_that_wins_little_back_is_not_enough(tmp_path: Path) -> None:
    def script(at: At) -> Mapping[str, float]:
        lost = 0.1 if (at.batch_size, at.lr) == (20, 0.1) else 0.0
        return {name: value - lost for name, value in table(at).items()}

    assert finding_on(made(tmp_path, script), "wins back the accuracy").verdict == "not so"


def test_without_a_loss_there_is_nothing_to_win_back(tmp_path: Path) -> None:
    def script(at: At) -> Mapping[str, float]:
        return table(at._replace(batch_size=4))

    back = finding_on(made(tmp_path, script), "wins back the accuracy")
    assert back.verdict == "left open"
    assert "no clear loss" in back.statement


def test_a_raised_rate_that_diverges_wins_nothing_back(tmp_path: Path) -> None:
    def script(at: At) -> Mapping[str, float]:
        lost = (at.batch_size, at.lr) == (20, 0.1) and at.seen > 0
        return {name: math.nan if lost else value for name, value in table(at).items()}

    back = finding_on(made(tmp_path, script), "wins back the accuracy")
    assert back.verdict == "not so"
    assert "4 of 4 runs diverged" in back.statement


def test_what_is_left_with_rates_of_their_own(tmp_path: Path) -> None:
    found = made(tmp_path)
    left = finding_on(found, "a slight difference between small and large batches is left")
    assert left.effect is not None
    assert left.effect.value == pytest.approx(0.02, abs=0.01)
    gone = finding_on(found, "most of the difference at one learning rate goes away")
    assert gone.verdict == "so"
    assert gone.effect is not None
    assert gone.effect.value == pytest.approx(0.02 / 0.4, abs=0.02)


LRS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)


@pytest.mark.parametrize(
    ("exponent", "rises", "linear"), [(1.0, "so", "so"), (0.5, "so", "not so"), (-0.5, "not so", "not so")]
)
def test_the_exponent_of_the_best_rate(tmp_path: Path, exponent: float, rises: str, linear: str) -> None:
    found = made(tmp_path, power_of(exponent, best_at=0.04), batch_sizes=(4, 8, 16), lrs=LRS)
    scaling = scaling_of(found)
    assert scaling is not None
    assert scaling.exponent.value == pytest.approx(exponent, abs=0.3)
    assert (scaling.at_least, scaling.at_most) == (False, False)
    if exponent != 0.5:
        assert finding_on(found, "a large one with a large").verdict == rises
    assert finding_on(found, "in proportion to the batch size").verdict == linear


def test_a_best_rate_at_the_end_of_the_grid_is_a_bound(tmp_path: Path) -> None:
    found = made(tmp_path, power_of(1.0, best_at=0.005), batch_sizes=(4, 8, 16), lrs=(0.001, 0.005, 0.01))
    scaling = scaling_of(found)
    assert scaling is not None
    assert scaling.chosen == {4: (0.005,) * 4, 8: (0.01,) * 4, 16: (0.01,) * 4}
    assert (scaling.at_least, scaling.at_most) == (True, False)
    assert scaling.rises is True
    assert scaling.linear is None
    assert "bounds only" in finding_on(found, "in proportion to the batch size").statement


def test_one_rate_has_no_scaling(tmp_path: Path) -> None:
    found = made(tmp_path, power_of(1.0), lrs=(0.02,))
    assert scaling_of(found) is None
    assert not [f for f in found.findings if "in proportion" in f.statement]


def test_the_page_has_a_figure_for_every_batch_size(tmp_path: Path) -> None:
    found = made(tmp_path)
    sections = {s.name: s for s in STUDY.sections(found, read_runs(tmp_path / "out"))}
    assert list(sections) == ["published", "compensation", "scaling", "every-rate"]
    row: Any = sections["every-rate"].blocks[0]
    assert [figure.name for figure in row.figures] == ["by-rate-4", "by-rate-20"]
    assert all(
        [key.label for key in figure.keys] == ["learning rate 0.01", "learning rate 0.1"] for figure in row.figures
    )
    assert len({str(figure.layout["yaxis"]["range"]) for figure in row.figures}) == 1
    assert "Best at learning rate 0.1, an end of the grid" in row.figures[1].caption
    published: Any = sections["published"].blocks[0]
    shares = [row for row in published.rows if row[0].startswith("share of the test accuracy")]
    assert [row[1] for row in shares] == ["0.96"]


def test_one_batch_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="learning_rate_compensation compares batch sizes, and --batch-sizes has only 4"
    ):
        made(tmp_path, batch_sizes=(4,))
