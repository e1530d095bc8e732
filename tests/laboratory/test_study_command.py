"""A study through the command: killed, out of time, what scripts rely on, and what is refused."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from batchscope.errors import OutOfTime
from batchscope.laboratory.files import read_study
from batchscope.laboratory.records import Length
from batchscope.laboratory.study import study
from batchscope.tasks.loading import load_task

from .quadratic import COMMAND, Cli, files_of, made, question, without_clock

# --- stopped, and going on ----------------------------------------------------------------------------------------


def test_a_killed_study_goes_on_and_repeats_nothing(cli: Cli) -> None:
    words = [sys.executable, "-m", "batchscope", *COMMAND.split()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        limit = time.monotonic() + 100
        while len(list(Path("out").glob("runs/*/result.json"))) < 3 and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    finished = {path.parent for path in Path("out").glob("runs/*/result.json")}
    assert 3 <= len(finished) <= 8
    before = {path: state for path, state in files_of(Path("out")).items() if path.parent in finished}
    resumed = cli(f"{COMMAND} --json")
    assert resumed.status == 0, resumed.err
    after = files_of(Path("out"))
    assert {path: after[path] for path in before} == before
    whole = cli(f"{COMMAND.replace('--out out', '--out whole')} --json")
    assert len(resumed.answer["rows"]) == 8
    by_run = [sorted(a["rows"], key=lambda row: row["run"]) for a in (resumed.answer, whole.answer)]
    assert without_clock({"rows": by_run[0], "summary": []}) == without_clock({"rows": by_run[1], "summary": []})
    again = cli(f"{COMMAND} --json")
    assert again.answer == resumed.answer
    assert "run 1" not in again.err


def test_a_budget_leaves_whole_runs_and_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(OutOfTime, match="--budget"):
        made(tmp_path, question(), budget_s=1e-6)
    assert made(tmp_path, question()).complete


def test_the_clock_stops_a_run_between_two_steps(tmp_path: Path) -> None:
    asked = question(batch_sizes=(1,), lrs=(0.1,), seeds=(0,), length=Length(unit="epochs", amount=10**6))
    started = time.monotonic()
    cut = made(tmp_path, asked, budget_s=2.0)
    assert time.monotonic() - started < 30
    assert not cut.complete


# --- the contract -------------------------------------------------------------------------------------------------


def test_the_json_is_what_scripts_rely_on(cli: Cli) -> None:
    ended = cli(f"{COMMAND} --json")
    assert ended.status == 0
    answer = ended.answer
    assert list(answer) == ["study", "task", "rows", "summary", "findings"]
    assert (answer["study"], answer["task"], len(answer["rows"]), len(answer["summary"])) == ("sweep", "digits", 8, 4)
    metrics = [f"{part}_{what}" for part in ("val", "test") for what in ("loss", "accuracy")]
    names = {"batch_size", "lr", "seed", "steps", "epochs", "status", "run"}
    names |= {f"{when}_{metric}" for when in ("final", "best") for metric in metrics}
    names |= {"final_train_accuracy_eval", "final_train_loss_eval", "best_epoch", "step_time_s", "epoch_time_s"}
    for row in answer["rows"]:
        assert names <= set(row)
        assert not any(isinstance(value, dict | list) for value in row.values())
        assert Path("out/runs", row["run"], "result.json").exists()
        assert row["final_accuracy_gap"] == pytest.approx(row["final_train_accuracy_eval"] - row["final_test_accuracy"])
        assert row["best_loss_ratio"] == pytest.approx(row["best_val_loss"] / row["best_train_loss_eval"])
    for entry in answer["summary"]:
        assert set(entry["best_val_loss"]) == {"value", "low", "high", "n", "unit", "method"}
        own = [r for r in answer["rows"] if (r["batch_size"], r["lr"]) == (entry["batch_size"], entry["lr"])]
        assert entry["best_val_loss"]["value"] == pytest.approx(np.mean([r["best_val_loss"] for r in own]))
    assert all({"statement", "tag", "source", "effect", "runs"} <= set(f) for f in answer["findings"])
    stored = json.loads(Path("out/study.json").read_text(encoding="utf-8"))
    assert {name: stored[name] for name in answer} == answer


def test_every_run_is_the_same_for_the_same_seeds(tmp_path: Path) -> None:
    task = load_task("digits")
    asked = question(batch_sizes=(128,), length=Length(unit="epochs", amount=1))
    first, second = (study(task, asked, out=tmp_path / name) for name in ("a", "b"))
    values = [[(r.run, r.values["final_val_loss"]) for r in found.rows] for found in (first, second)]
    assert values[0] == values[1]


def test_the_page_can_be_rebuilt_from_the_files(cli: Cli) -> None:
    cli(COMMAND)
    page = Path("out/report.html")
    before = page.read_text(encoding="utf-8")
    for section in ("findings", "sizes", "curves", "epochs", "rates", "gap", "costs", "runs", "conditions"):
        assert f'<section id="{section}">' in before
    assert cli("report out").status == 0
    assert page.read_text(encoding="utf-8") == before
    stored = json.loads(Path("out/study.json").read_text(encoding="utf-8"))
    del stored["page"]
    assert read_study(Path("out")).answer() == stored


def test_a_dry_run_trains_nothing(cli: Cli) -> None:
    ended = cli(f"{COMMAND} --dry-run")
    assert ended.status == 0
    assert "8 runs at the speed that was just measured" in ended.out
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("study digitz", r"no study 'digitz'; did you mean 'digits'\?.*path/to/file.py:factory"),
        ("study digits arrays", "there is no study 'digits'"),
        ("study digits", "--batch-sizes is missing"),
        ("study digits --batch-sizes 8", "--lrs is missing"),
        ("study digits --batch-sizes 8,x --lrs 1", "--batch-sizes is x; it must be a whole number"),
        ("study digits --batch-sizes 8,8 --lrs 1", "--batch-sizes has 8 twice"),
        ("study digits --batch-sizes 0 --lrs 1", "--batch-sizes is 0; it must be at least 1"),
        ("study digits --batch-sizes 8 --lrs -1", "must be a number above 0"),
        ("study digits --batch-sizes 8 --lrs nan", "must be a number above 0"),
        ("study digits --batch-sizes 8 --lrs 1 --seeds 0", "--seeds is 0; it must be at least 1"),
        ("study digits --batch-sizes 8 --lrs 1 --epochs 0", "--epochs is 0; it must be a number above 0"),
        ("study digits --batch-sizes 8 --lrs 1 --epochs 3 --steps 4", "--steps and --epochs both say"),
        ("study digits --batch-sizes 8 --lrs 1 --time 0s", "--time '0s' is not a length of time"),
        ("study digits --batch-sizes 8 --lrs 1 --patience 3", "--patience 3 belongs to --until-stopped"),
        ("study digits --batch-sizes 8 --lrs 1 --metric test_loss", "test metrics are reported only"),
        ("study digits --batch-sizes 8 --lrs 1 --metric f1", "not among what the task evaluates"),
        ("study digits --batch-sizes 8 --lrs 1 --metric speed", "write speed:max or speed:min"),
        ("study digits --batch-sizes 8,2000 --lrs 1", "2000 is larger than the training set of 1437"),
        ("study digits --batch-sizes 8,1024 --lrs 1 --memory-limit 200KB", "--batch-sizes of at most 8"),
        ("study digits --batch-sizes 8 --lrs 1 --time 1s --schedule cosine", "give --epochs or --steps"),
    ],
)
def test_what_makes_no_sense_is_one_message(cli: Cli, words: str, said: str) -> None:
    ended = cli(words)
    assert (ended.status, ended.out) == (2, "")
    messages = [line for line in ended.err.splitlines() if line.startswith("batchscope: ")]
    assert len(messages) == 1, ended.err
    assert re.search(said, messages[0]), messages[0]
