"""The advice on runs whose metrics and times are scripted, and trials read off longer runs against real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import UsageError
from batchscope.laboratory.files import rebuilt_study
from batchscope.laboratory.records import Length, Study, StudyQuestion
from batchscope.laboratory.studies.trial_and_error import STUDY, arms
from batchscope.laboratory.studies.trial_and_error.comparison import advice_for, compared, grid_best, trial_of, ways_of
from batchscope.laboratory.studies.trial_and_error.sequence import Next
from batchscope.laboratory.study import study
from batchscope.store.runs import read_runs
from batchscope.tasks.loading import load_task

from .scripted_task import At, Script, Scripted

EXAMPLES = 32


def floor(at: At) -> Mapping[str, float]:
    """A loss that comes to its floor after 8 epochs at the scaled learning rate, later where it is too small."""
    share = at.lr / (0.01 * at.batch_size) if at.batch_size else 1.0
    speed = share if share <= 1 else 1 / share
    return {"val_loss": max(0.1, 1.0 - 0.9 * speed * at.seen / EXAMPLES / 8)}


def question(**changes: Any) -> StudyQuestion:
    members: dict[str, Any] = {
        "batch_sizes": (4, 8, 16),
        "lrs": (0.04, 0.08),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=32),
    }
    return StudyQuestion(**{**members, **changes})


def made(tmp_path: Path, script: Script = floor, **changes: Any) -> Study:
    task = Scripted(script, examples=EXAMPLES, step_time_s=lambda size: 0.1 + 0.001 * size)
    return study(task, question(**changes), named=STUDY, out=tmp_path / "out", device=task.device)


def test_the_sequence_is_gone_through_for_each_seed_and_each_way_of_setting_the_rate(tmp_path: Path) -> None:
    found = made(tmp_path)
    ways = ways_of(found, read_runs(tmp_path / "out"))
    for seed in (0, 1):
        scaled = ways["the learning rate in proportion to the batch"][seed]
        tried = [(t.batch_size, t.epochs) for t in scaled.trials]
        assert tried == [(4, 1), (4, 2), (4, 4), (4, 8), (4, 16), (8, 8), (16, 8)]
        assert scaled.choice is not None
        assert scaled.choice.trial is not None
        assert (scaled.choice.trial.batch_size, scaled.choice.trial.epochs) == (16, 8)
        assert scaled.choice.trial.seconds == pytest.approx(8 * EXAMPLES / 16 * 0.116)
        one = ways["one learning rate"][seed]
        assert one.choice is not None
        assert one.choice.trial is not None
        assert (one.choice.trial.batch_size, one.choice.trial.epochs) == (4, 8)
        assert one.choice.reason.startswith("worse than 0.1 by 450 %, and 16 epochs would take")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert rebuilt_study(tmp_path / "out") == text
    for section in ("published", "trials", "choices"):
        assert f'<section id="{section}">' in text


def test_the_choice_is_compared_with_the_grid_as_it_is(tmp_path: Path) -> None:
    found = made(tmp_path)
    runs = read_runs(tmp_path / "out")
    best = grid_best(found)
    assert best is not None
    ways = ways_of(found, runs)
    for one in compared(found, runs, best, "the learning rate in proportion to the batch", ways):
        assert one.worse == pytest.approx(0.0, abs=1e-6)
        spent = [(1 + 2 + 4 + 8 + 16) * EXAMPLES / 4 * 0.104, 8 * EXAMPLES / 8 * 0.108, 8 * EXAMPLES / 16 * 0.116]
        grid = 2 * 32 * EXAMPLES * (0.104 / 4 + 0.108 / 8 + 0.116 / 16)
        assert one.cost == pytest.approx(sum(spent) / grid)
    own = [f for f in found.findings if f.verdict is not None]
    assert len(own) == 4
    assert {f.verdict for f in own if "good values can be found" in f.statement} == {"so"}


def test_the_runs_are_the_grid_and_those_that_the_advice_asks_for(tmp_path: Path) -> None:
    asked = question()
    planned = arms(asked, EXAMPLES)
    assert [(arm.batch_size, arm.lr) for arm in planned[6:]] == [(16, 0.16)]
    found = made(tmp_path)
    assert len(found.rows) == 2 * 7
    assert found.complete

    def settled(at: At) -> Mapping[str, float]:
        """Larger batches are of no use at all."""
        return {"val_loss": 0.5 if at.batch_size == 4 and at.seen else 2.0}

    other = made(tmp_path / "other", settled)
    assert len(other.rows) == 2 * 6
    assert made(tmp_path).answer() == found.answer()


def test_a_trial_is_the_beginning_of_a_longer_run(tmp_path: Path) -> None:
    task = load_task("digits", {"hidden": 8})
    courses: dict[float, tuple[Any, Any]] = {}
    for epochs in (2, 5):
        asked = question(batch_sizes=(60, 120), lrs=(0.1,), seeds=(0,), length=Length(unit="epochs", amount=epochs))
        found = study(task, asked, out=tmp_path / str(epochs))
        courses[epochs] = found.rows[0], read_runs(tmp_path / str(epochs))[0]
    asked = question(batch_sizes=(60, 120), lrs=(0.1,), length=Length(unit="epochs", amount=5))
    short, run = courses[2][0], courses[5][1]
    trial = trial_of(run, Next(batch_size=60, epochs=2, reason=""), "val_loss", advice_for(asked), 1437)
    assert trial.value == pytest.approx(short.values["best_val_loss"], rel=0.02)
    whole = trial_of(run, Next(batch_size=60, epochs=5, reason=""), "val_loss", advice_for(asked), 1437)
    assert whole.value == courses[5][0].values["best_val_loss"]


def test_a_rate_at_which_all_diverges_leads_nowhere_and_the_page_says_so(tmp_path: Path) -> None:
    def lost(at: At) -> Mapping[str, float]:
        return {"val_loss": float("inf") if at.seen > EXAMPLES / 2 else 1.0}

    found = made(tmp_path, lost, seeds=(0,))
    assert {row.status for row in found.rows} == {"diverged"}
    assert not [f for f in found.findings if "trial and error" in f.statement]
    assert "every batch size diverged at this learning rate" in (tmp_path / "out" / "report.html").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_sizes": (8,)}, "leaves nothing to raise"),
        (
            {"length": Length(unit="steps", amount=100)},
            "and a run that lasts 100 steps has none",
        ),
        ({"length": Length(unit="until-stopped", amount=10, patience=2)}, "give --epochs"),
        ({"schedule": "cosine"}, "leave --schedule out"),
    ],
)
def test_what_the_advice_cannot_be_followed_with_is_refused(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        arms(question(**changes), EXAMPLES)


def test_a_grid_that_is_not_whole_yet_counts_only_its_whole_seeds(tmp_path: Path) -> None:
    def noisy(at: At) -> Mapping[str, float]:
        """The learning rate 0.08 is the better one."""
        return {"val_loss": 1.0 + (0.1 if at.lr == 0.04 else 0.0) - at.seen * 1e-6}

    found = made(tmp_path, noisy, batch_sizes=(4, 8), length=Length(unit="epochs", amount=2))
    cut = replace(found, rows=tuple(row for row in found.rows if row.seed == 0 or row.lr == 0.04))
    best = grid_best(cut)
    assert best is not None
    assert best.lr == 0.08
    assert grid_best(replace(found, rows=tuple(row for row in found.rows if row.lr == 0.04))) is None
    same = grid_best(found, 0.04)
    assert same is not None
    assert same.lr == 0.04
