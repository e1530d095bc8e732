"""Real searches whose time is up after one more run: what is answered then, and that the same command goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchscope.search.runs import SearchRuns
from batchscope.store.runs import StoredRun
from batchscope.training.limits import Deadline

from .folders import DIGITS, Cli, answer, files_of

COMMAND = f"{DIGITS} --trainings 5 --out out --budget 10m"


def over_after_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the budget end when one run was made."""
    make = SearchRuns.make

    def counted(runs: SearchRuns, *words: Any, **more: Any) -> StoredRun:
        made = make(runs, *words, **more)
        runs.runner.deadline = Deadline(0.0)
        return made

    monkeypatch.setattr(SearchRuns, "make", counted)


@pytest.mark.usefixtures("profile")
def test_a_search_that_is_cut_off_names_its_best_bet_and_goes_on(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    before: dict[Path, tuple[int, bytes]] = {}
    for _ in range(2):
        with monkeypatch.context() as patched:
            over_after_a_run(patched)
            ended = cli(f"{COMMAND} --json")
        plan, before = ended.answer, files_of("out")
        assert (ended.status, plan["status"]) == (3, "unfinished")
        assert plan["message"].count("Repeat the command with --budget ") == 1
        assert plan["recipe"] is not None
        assert plan["probability_within_5_percent"] is None
        assert plan["rests_on"]["runs"] == plan["search"]["runs"] >= 1
        assert (plan["verified"] is None) == ("which reached" not in plan["message"])
        if len(plan["rests_on"]["batch_sizes"]) == 1:
            assert plan["message"].startswith("Only batch size")
        messages.append(plan["message"])
    whole = answer(cli, COMMAND)
    assert whole["status"] == "ok"
    assert before.keys() <= files_of("out").keys()
    assert whole["search"]["runs"] >= 3
    assert messages[0] != messages[1]
