"""A study whose runs all diverged is no answer."""

from __future__ import annotations

from pathlib import Path

from batchscope.laboratory.files import read_study

from .cut_off import no_time_for_runs
from .quadratic import Cli, made, question

DIVERGES = "study digits --batch-sizes 64 --lrs 1e9,1e10 --seeds 2 --epochs 1"


def test_runs_that_all_diverged_say_nothing(tmp_path: Path, cli: Cli) -> None:
    lost = made(tmp_path, question(batch_sizes=(4,), lrs=(1e9,)))
    assert lost.complete
    assert lost.all_diverged
    assert any("nothing can be said" in note for note in lost.notes)
    assert read_study(tmp_path / "out").all_diverged
    ended = cli(f"{DIVERGES} --out lost")
    assert ended.status == 3
    assert "nothing can be said: 4 runs at learning rates from" in ended.out.lower()
    followed = cli(f"{DIVERGES.replace('1e9,1e10', '0.1,1e9')} --out better")
    assert followed.status == 0
    assert "nothing can be said" not in followed.out.lower()


def test_a_study_without_rows_has_none_that_diverged(tmp_path: Path) -> None:
    with no_time_for_runs():
        cut = made(tmp_path, question())
    assert (cut.rows, cut.complete) == ((), False)
    assert not cut.all_diverged
