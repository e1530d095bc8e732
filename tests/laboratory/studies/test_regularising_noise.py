"""What is left at equal training loss, on runs whose metrics follow closed forms, and on few of a task's examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import UsageError
from batchscope.laboratory.files import rebuilt_study
from batchscope.laboratory.records import EXAMPLES_OF_RUN, Finding, Length, Study, StudyQuestion
from batchscope.laboratory.studies.regularising_noise import STUDY
from batchscope.laboratory.study import study
from batchscope.store.runs import read_runs

from .scripted_task import At, Script, Scripted

FEW = 300
BEST = {10: 0.1, 60: 0.4}
"""The learning rate that is best for a batch size."""


def fits(at: At) -> Mapping[str, float]:
    """The training loss falls exponentially, fastest at the best learning rate; the gap is the batch's, and grows."""
    epoch = at.seen / FEW
    speed = 0.5 if at.lr == BEST.get(at.batch_size) else 0.3
    train = 2.0 * math.exp(-speed * epoch)
    gap = (0.1 if at.batch_size == 10 else 0.2) * (1 - math.exp(-epoch)) + 0.0001 * at.draw
    return {
        "val_loss": train + gap,
        "test_loss": train + gap,
        "test_accuracy": 0.9 - gap,
        "train_loss": train,
        "train_accuracy": 0.9,
    }


def made(tmp_path: Path, script: Script = fits, *, examples: int = 2 * FEW, **changes: Any) -> Study:
    members: dict[str, Any] = {
        "batch_sizes": (10, 60),
        "lrs": (0.1, 0.4),
        "seeds": (0, 1, 2),
        "length": Length(unit="epochs", amount=8),
    }
    task = Scripted(script, examples=examples)
    return study(task, StudyQuestion(**{**members, **changes}), named=STUDY, out=tmp_path / "out", device=task.device)


def finding_on(found: Study, words: str) -> Finding:
    return next(f for f in found.findings if words in f.statement)


def test_a_gap_at_equal_training_loss_is_found_as_it_was_made(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert {(s.batch_size, s.lr) for s in found.summary if s.best_lr} == set(BEST.items())
    tuned = finding_on(found, "remains after each has the learning rate that is best for it")
    assert tuned.verdict == "so"
    assert "from batch size 10 at learning rate 0.1 to 60 at learning rate 0.4" in tuned.statement
    finding = next(f for f in found.findings if "by their noise" in f.statement)
    assert finding.verdict == "so"
    level = 2.0 * math.exp(-0.5 * 8)
    assert f"a training loss of {math.ceil(1000 * level) / 1000:g}" in finding.statement
    assert finding.effect is not None
    assert finding.effect.value == pytest.approx(0.1, abs=0.001)
    assert finding_on(found, "the gap between training and test accuracy is smaller").verdict == "so"
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert rebuilt_study(tmp_path / "out") == text
    for section in ("published", "equal-loss", "remaining"):
        assert f'<section id="{section}">' in text


def test_the_runs_see_few_examples_the_same_for_every_batch_size(tmp_path: Path) -> None:
    found = made(tmp_path, lrs=(0.1,), seeds=(0,))
    runs = read_runs(tmp_path / "out")
    assert {run.config.settings[EXAMPLES_OF_RUN] for run in runs} == {FEW}
    assert {(row.variant, row.batch_size, row.steps, row.epochs) for row in found.rows} == {
        (f"{FEW} examples", 10, 240, 8.0),
        (f"{FEW} examples", 60, 40, 8.0),
    }
    assert made(tmp_path, lrs=(0.1,), seeds=(0,)).answer() == found.answer()


def test_a_small_data_set_is_taken_whole(tmp_path: Path) -> None:
    found = made(tmp_path, examples=120, lrs=(0.1,), seeds=(0,))
    assert {row.variant for row in found.rows} == {""}
    assert all(EXAMPLES_OF_RUN not in run.config.settings for run in read_runs(tmp_path / "out"))


def test_small_batches_that_overfit_more_are_said_so(tmp_path: Path) -> None:
    def turned(at: At) -> Mapping[str, float]:
        values = dict(fits(at))
        return {**values, "val_loss": 2 * values["train_loss"] + 0.3 - values["val_loss"] + at.draw * 1e-4}

    found = made(tmp_path, turned)
    assert finding_on(found, "by their noise").verdict == "not so"


def test_without_a_training_loss_it_says_why(tmp_path: Path) -> None:
    class Refuses(Scripted):
        def metrics_on(self, model: Any, batch: Any) -> Mapping[str, float]:
            raise RuntimeError("no targets in evaluation mode")

    task = Refuses(fits, examples=60)
    asked = StudyQuestion(batch_sizes=(10, 60), lrs=(0.1,), seeds=(0, 1), length=Length(unit="epochs", amount=2))
    found = study(task, asked, named=STUDY, out=tmp_path / "out", device=task.device)
    assert not any("by their noise" in f.statement for f in found.findings)
    assert "no targets in evaluation mode" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((8,), "compares batch sizes"), ((8, 512), "trains on 300 examples, fewer than a batch of 512")],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(tmp_path, batch_sizes=sizes)
