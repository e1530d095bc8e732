"""An `evaluate` that goes wrong in the middle of a search or takes long, and a budget too short for anything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .sound import refused

LATER = """
calls = 0
def evaluate(self, model):
    import pathlib
    Mine.calls += bool(list(pathlib.Path("out").glob("runs/*/result.json")))
    if Mine.calls > 2 and pathlib.Path("fault").exists():
        {action}
    return Sound.evaluate(self, model)
"""
"""It goes wrong in the second run while there is a file of that name, so that the task itself stays the same."""

SLOW = """
def evaluate(self, model):
    import time
    until = time.perf_counter() + {seconds}
    while time.perf_counter() < until:
        pass
    return Sound.evaluate(self, model)
"""

TARGET = "val_loss<=0.8"
NOTHING_TRAINED = (
    r"^the budget of 1 µs ended before anything was trained: (loading|checking) the task took \S+ m?s\b.*"
    r"Repeat the command with --budget \d+s or more$"
)


def finished() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("out").glob("runs/*/result.json")}


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            "raise OSError('the share is gone')",
            r"evaluate\(model\) raised OSError: the share is gone .*it was evaluation \d+ of the run with batch size "
            r"\d+ and learning rate .*, after step \d+; finished runs are kept",
        ),
        (
            "model.weight.data.mul_(0.9)",
            r"evaluate\(model\) changed the model \(weight\); it was evaluation \d+ .*copy",
        ),
        ("return {'val_los': 1.0}", r"evaluate\(model\) returned val_los, and accuracy, val_loss before; it was eval"),
    ],
)
def test_a_fault_in_the_middle_of_a_search_that_then_goes_on_without_it(
    search: Callable[..., Any], action: str, message: str
) -> None:
    """The finished runs are kept, and the same command goes on from them."""
    Path("fault").touch()
    dense, task = ("--evaluation-share", "100%", "--current", "batch_size=4,lr=0.02"), LATER.format(action=action)
    refused(search(task, *dense, target=TARGET, trainings=50.0), message)
    kept = finished()
    assert kept
    Path("fault").unlink()
    ended = search(task, "--json", *dense, target=TARGET, trainings=50.0)
    assert ended.status == 0, ended.err
    assert "going on from what out holds" in ended.err
    assert {path: path.read_bytes() for path in kept} == kept


def test_an_evaluation_that_fails_before_the_first_run(search: Callable[..., Any]) -> None:
    refused(search("def evaluate(self, model):\n    raise OSError('gone')"), r"evaluate\(model\) raised OSError: gone")


def test_a_dear_evaluation_is_said_before_the_search_and_what_it_cost_with_the_answer(
    search: Callable[..., Any],
) -> None:
    ended = search(SLOW.format(seconds=0.05), "--json", "--budget", "100s", target=TARGET)
    said = r"one evaluation takes [5-9]\d.* ms, as long as .* steps at batch size 100: the 8 that each training gets"
    assert re.search(said, ended.err)
    assert ended.err.index("one evaluation takes") < ended.err.index("run 1:")
    plan = ended.answer
    assert any(re.search(said, note) for note in plan["notes"])
    assert plan["search"]["evaluation_seconds"] > 8 * 0.05
    assert plan["recipe"] is not None
    apart = plan["evaluations"]["every_steps"]
    assert plan["evaluations"]["every_examples"] == apart * plan["recipe"]["batch_size"]
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert f"times, in the end every {apart} steps" in page
    assert "of it evaluations" in page


def test_a_run_does_not_wait_for_its_next_evaluation_when_the_budget_ends(search: Callable[..., Any]) -> None:
    """The next one would come after ten times the budget: it comes at once, and is the last."""
    ended = search(SLOW.format(seconds=0.6), "--json", "--budget", "6s", target="val_loss<=0.001")
    assert ended.status == 3
    rows = [path.read_text().splitlines() for path in Path("out").glob("runs/*/rows.jsonl")]
    assert sum(json.loads(lines[-1])["evaluation_seconds"] for lines in rows) < 12 * 0.6


@pytest.mark.parametrize("words", ["", "--search grid", "--search halving", "--current batch_size=8,lr=0.1"])
def test_a_budget_shorter_than_a_step_is_an_answer_without_a_recipe(search: Callable[..., Any], words: str) -> None:
    ended = search("", "--json", "--budget", "0.000001s", *words.split())
    assert ended.status == 3
    assert (ended.answer["status"], ended.answer["recipe"]) == ("insufficient-data", None)
    assert re.search(NOTHING_TRAINED, ended.answer["message"])
    assert search("", "--json", *words.split()).status == 0, "with a longer budget the same command goes on"


def test_a_budget_shorter_than_a_step_without_a_target(cli: Callable[..., Any], profile: Path) -> None:
    for words in ("", "--within 1epochs"):
        ended = cli(f"find digits --budget 0.000001s --json --hardware {profile} {words}")
        assert (ended.status, ended.answer["status"]) == (3, "insufficient-data")
        assert re.search(NOTHING_TRAINED, ended.answer["message"])
