"""Minima, stops and restored weights of runs whose metrics are scripted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from batchscope.laboratory.files import rebuilt_study
from batchscope.laboratory.records import Finding, Length, Study, StudyQuestion
from batchscope.laboratory.studies.early_stopping import STUDY
from batchscope.laboratory.study import study

from ..cut_off import no_time_for_runs
from .scripted_task import At, Script, Scripted

EXAMPLES = 40


def minimum_at(at: At) -> float:
    """The epoch of the minimum validation loss; before the first step no batch size is known."""
    return 10.0 if at.batch_size == 5 else 20.0


def bowl(at: At) -> Mapping[str, float]:
    """A parabola about an epoch; deeper for the smaller batch, shifted by the seed; the training loss falls on."""
    epoch, best = at.seen / EXAMPLES, minimum_at(at)
    minimum = 0.3 + 0.1 * (at.batch_size == 20) + 0.001 * at.draw
    val = minimum + 0.002 * (epoch - best) ** 2
    test = 0.5 + 0.003 * (epoch - best) ** 2 + 0.001 * at.draw
    return {"val_loss": val, "test_loss": test, "test_accuracy": 1 - test / 2, "train_loss": 2.0 / (1 + epoch)}


def made(tmp_path: Path, script: Script = bowl, **changes: Any) -> Study:
    members: dict[str, Any] = {
        "batch_sizes": (5, 20),
        "lrs": (0.01,),
        "seeds": (0, 1, 2),
        "length": Length(unit="epochs", amount=40),
    }
    task = Scripted(script, examples=EXAMPLES)
    return study(task, StudyQuestion(**{**members, **changes}), named=STUDY, out=tmp_path / "out", device=task.device)


def finding_on(found: Study, words: str) -> Finding:
    return next(f for f in found.findings if words in f.statement)


def page(tmp_path: Path) -> str:
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert rebuilt_study(tmp_path / "out") == text
    return text


def test_the_larger_batch_ends_higher_and_later(tmp_path: Path) -> None:
    found = made(tmp_path)
    higher, later = (
        finding_on(found, "ends at a higher best val_loss"),
        finding_on(found, "takes more epochs to its best"),
    )
    assert higher.verdict == later.verdict == "so"
    assert "changes by 0.1" in higher.statement
    assert "from batch size 5 to 20" in later.statement
    assert "changes by 10" in later.statement
    text = page(tmp_path)
    for section in ("published", "stops", "rules", "minimum"):
        assert f'<section id="{section}">' in text


def test_patience_loses_nothing_past_a_smooth_minimum_and_the_last_epoch_does(tmp_path: Path) -> None:
    found = made(tmp_path)
    stopped = finding_on(found, "training may stop")
    assert stopped.verdict == "so"
    assert "with patience 10 epochs" in stopped.statement
    assert "by 0 %, after 62 % of its epochs" in stopped.statement
    assert finding_on(found, "not the last").verdict == "so"
    assert finding_on(found, "who tunes for the training data").verdict == "so"


def test_the_best_weights_are_restored(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert (
        "the largest difference in any metric is 0"
        in finding_on(found, "weights restored from the best epoch of 6 runs").statement
    )
    kept = found.measurements["restored"]
    rows = {row.run: row for row in found.rows}
    assert set(kept) == set(rows)
    for run, metrics in kept.items():
        assert metrics["test_loss"] == pytest.approx(rows[run].values["best_test_loss"])
    before = (tmp_path / "out" / "measured-restored.json").stat().st_mtime_ns
    assert made(tmp_path).answer() == found.answer()
    assert (tmp_path / "out" / "measured-restored.json").stat().st_mtime_ns == before


def test_real_stopping_is_followed_and_replayed_on(tmp_path: Path) -> None:
    found = made(tmp_path, length=Length(unit="until-stopped", amount=100, patience=10))
    epochs = {(row.batch_size, row.epochs) for row in found.rows}
    assert epochs == {(5, 20.0), (20, 30.0)}
    assert {row.status for row in found.rows} == {"stopped-early"}
    assert "patience 10 epochs" in finding_on(found, "training may stop").statement
    assert "the runs were ended by patience themselves" in page(tmp_path).lower()


def test_a_run_that_still_improves_is_said_so(tmp_path: Path) -> None:
    found = made(tmp_path, length=Length(unit="epochs", amount=15))
    for conclusion in ("ends at a higher best val_loss", "takes more epochs to its best"):
        assert finding_on(found, conclusion).verdict == "left open"
        assert "at batch size 20 it still improved at the end" in finding_on(found, conclusion).statement


def test_one_batch_size_and_no_test_part_are_enough(tmp_path: Path) -> None:
    def bare(at: At) -> Mapping[str, float]:
        return {"val_loss": bowl(at)["val_loss"]}

    found = made(tmp_path, bare, batch_sizes=(5,))
    assert not any("larger batch" in f.statement or "test" in f.statement for f in found.findings)
    text = page(tmp_path)
    assert "The task reports no such metric on a test part" in text
    assert '<section id="minimum">' not in text


def test_a_score_alone_can_be_watched(tmp_path: Path) -> None:
    def score(at: At) -> Mapping[str, float]:
        whole = bowl(at)
        return {"val_accuracy": 1 - whole["val_loss"] / 2, "test_accuracy": whole["test_accuracy"]}

    found = made(tmp_path, score)
    assert finding_on(found, "ends at a lower best val_accuracy").verdict == "so"
    assert finding_on(found, "training may stop").verdict == "so"
    assert "cannot be replayed here: they take a validation loss above 0" in page(tmp_path)


def test_a_budget_that_ends_leaves_the_rest_open(tmp_path: Path) -> None:
    task = Scripted(bowl, examples=EXAMPLES)
    asked = StudyQuestion(batch_sizes=(5,), lrs=(0.01,), length=Length(unit="epochs", amount=10))
    with no_time_for_runs():
        found = study(task, asked, named=STUDY, out=tmp_path / "out", device=task.device)
    assert (found.rows, found.complete) == ((), False)
    assert '<section id="published">' in page(tmp_path)
