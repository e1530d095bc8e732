"""Branches from kept weights on a bowl whose descent has a closed form, and what is concluded from their ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import UsageError
from batchscope.fits.schedules import WarmUp
from batchscope.laboratory.records import Finding, Length, Study, StudyQuestion
from batchscope.laboratory.studies.recovery import STUDY
from batchscope.laboratory.study import study
from batchscope.store.runs import read_runs

from ..cut_off import no_time_for_runs
from .bowl import CURVATURES, Bowl, shrunk

LR = 0.05
EPOCHS = 6


def asked(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (4, 40),
        "lrs": (LR,),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=EPOCHS),
    }
    return StudyQuestion(**{**values, **changes})


def made(tmp_path: Path, task: Any = None, **changes: Any) -> Study:
    return study(task or Bowl(), asked(**changes), out=tmp_path / "out", named=STUDY)


def finding_on(found: Study, words: str) -> Finding:
    return next(f for f in found.findings if words in f.statement)


def height(*legs: tuple[float, int]) -> float:
    """After legs of so many steps at a learning rate; every layer starts at a squared norm of 10."""
    total = 0.0
    for name, h in CURVATURES.items():
        left = 1.0
        for lr, steps in legs:
            left *= shrunk(lr, steps, name)
        total += 0.5 * h * 10 * left**2
    return total


ENDS = {
    ("", 40, LR): height((LR, 6)),
    ("", 4, LR): height((LR, 60)),
    ("switched after epoch 2", 4, LR): height((LR, 2), (LR, 60)),
    ("switched after epoch 2", 40, 10 * LR): height((LR, 2), (10 * LR, 6)),
    ("switched after epoch 6", 4, LR): height((LR, 6), (LR, 60)),
    ("switched after epoch 6", 40, 10 * LR): height((LR, 6), (10 * LR, 6)),
    ("carried on after epoch 6", 40, LR): height((LR, 6), (LR, 6)),
}
"""An epoch is 1 step of 40 or 10 of 4."""


def test_every_branch_ends_on_its_closed_form(tmp_path: Path) -> None:
    found = made(tmp_path)
    ends = {(row.variant, row.batch_size, row.lr): row.values["final_test_loss"] for row in found.rows}
    assert ends == {key: pytest.approx(value, rel=1e-9) for key, value in ENDS.items()}
    assert len(found.rows) == found.planned == 14


def test_the_switched_runs_recover_and_the_unchanged_one_does_not(tmp_path: Path) -> None:
    found = made(tmp_path)
    scratch = ENDS["", 4, LR]
    small, higher = (
        finding_on(found, "switched to the small batch"),
        finding_on(found, "switched to 10 times the learning rate"),
    )
    assert small.verdict == "so"
    assert small.effect is not None
    assert small.effect.value == pytest.approx(ENDS["switched after epoch 6", 4, LR] - scratch)
    as_good = [ENDS[f"switched after epoch {epoch}", 40, 10 * LR] <= 1.1 * scratch for epoch in (2, 6)]
    assert (higher.verdict == "so") == all(as_good)
    unchanged = finding_on(found, "carried on unchanged for another 6 epochs, the large batch stays behind")
    assert unchanged.verdict == "so"
    assert unchanged.effect is not None
    assert unchanged.effect.value == pytest.approx(ENDS["carried on after epoch 6", 40, LR] - scratch)


def test_a_run_of_two_epochs_switches_after_one(tmp_path: Path) -> None:
    found = made(tmp_path, length=Length(unit="epochs", amount=2))
    assert {row.variant for row in found.rows} == {
        "",
        "switched after epoch 1",
        "switched after epoch 2",
        "carried on after epoch 2",
    }


def test_two_rates_are_the_lower_and_the_higher(tmp_path: Path) -> None:
    found = made(tmp_path, lrs=(LR, 4 * LR))
    rates = {row.lr for row in found.rows if row.batch_size == 40}
    assert rates == {LR, 4 * LR}
    assert finding_on(found, "switched to 4 times the learning rate")


def test_a_large_batch_that_diverges_has_nothing_to_go_on_from(tmp_path: Path) -> None:
    class Explodes(Bowl):
        def loss(self, model: Any, batch: Any) -> Any:
            large = model.training and len(batch[0]) == 40
            return super().loss(model, batch) * (1e200 if large else 1.0)

    found = made(tmp_path, Explodes())
    assert {row.variant for row in found.rows} == {""}
    assert [f.verdict for f in found.findings if f.verdict] == ["left open"] * 3


def test_a_budget_leaves_runs_for_later_and_nothing_is_made_twice(tmp_path: Path) -> None:
    with no_time_for_runs():
        assert not made(tmp_path).complete
    found = made(tmp_path)
    assert found.complete
    before = [(path, path.stat().st_mtime_ns) for path in sorted((tmp_path / "out" / "runs").glob("*/*"))]
    assert made(tmp_path).answer() == found.answer()
    assert [(path, path.stat().st_mtime_ns) for path in sorted((tmp_path / "out" / "runs").glob("*/*"))] == before
    kept = [path.name for path in (tmp_path / "out" / "runs").glob("*/weights-*")]
    assert sorted(kept) == ["weights-epoch-2.pt"] * 2 + ["weights-last.pt"] * 2
    assert len(read_runs(tmp_path / "out")) == 14


def test_the_figure_begins_every_branch_where_its_weights_were_kept(tmp_path: Path) -> None:
    found = made(tmp_path)
    (section,) = (s for s in STUDY.sections(found, read_runs(tmp_path / "out")) if s.name == "branches")
    figure: Any = section.blocks[0]
    starts = {key.label: trace["x"][0] for key, trace in zip(figure.keys, figure.data, strict=True)}
    assert starts == {
        "batch size 40 at learning rate 0.05": 0.0,
        "batch size 4 from scratch": 0.0,
        "switched after epoch 2 to batch size 4": 2.0,
        "switched after epoch 2 to learning rate 0.5": 2.0,
        "switched after epoch 6 to batch size 4": 6.0,
        "switched after epoch 6 to learning rate 0.5": 6.0,
        "carried on after epoch 6, unchanged": 6.0,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_sizes": (4,)}, "--batch-sizes has 1 size; give two"),
        ({"batch_sizes": (4, 8, 16)}, "--batch-sizes has 3 sizes; give two"),
        ({"lrs": (0.1, 0.2, 0.3)}, "--lrs has 3; give one"),
        ({"length": Length(unit="epochs", amount=1)}, "a run lasts 1 epoch; give --epochs above 1"),
        ({"length": Length(unit="steps", amount=9)}, "a run lasts 9 steps; give --epochs above 1"),
        ({"schedule": "cosine"}, "--schedule cosine changes the learning rate in them; leave --schedule out"),
        ({"warmup": WarmUp.parse("5steps")}, "--warmup 5steps changes the learning rate in them; leave --warmup out"),
        ({"schedule": "task"}, "the task has no member schedule"),
    ],
)
def test_what_makes_no_sense_is_one_message(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(tmp_path, **changes)
