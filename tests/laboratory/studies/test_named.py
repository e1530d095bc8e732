"""Every named study in its quick form, on its default task: the contract, the page, and that nothing is made twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscope.laboratory.records import ROW_MEMBERS, SUMMARY_MEMBERS
from batchscope.laboratory.studies import named_study, names

Cli = Callable[..., Any]


SMALL = {"batch_norm": "--epochs 1", "modes": "--lrs 0.3"}
"""What makes the quick forms small whose cost is not that of a wide network."""


@pytest.mark.parametrize("name", names())
def test_a_named_study_answers_in_its_quick_form_on_a_narrow_network(cli: Cli, name: str) -> None:
    answers(cli, name, f"--set hidden=16 {SMALL.get(name, '')}")


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_named_study_answers_in_its_quick_form(cli: Cli, name: str) -> None:
    answers(cli, name)


def answers(cli: Cli, name: str, words: str = "") -> None:
    command = f"study {name} --quick --json --out out {words}"
    ended = cli(command)
    assert ended.status == 0, ended.err
    answer = json.loads(ended.out)
    assert set(answer) == {"study", "task", "rows", "summary", "findings"}
    assert (answer["study"], answer["task"]) == (name, named_study(name).task)
    assert answer["rows"]
    assert all(set(ROW_MEMBERS) <= set(row) for row in answer["rows"])
    assert all(set(SUMMARY_MEMBERS) <= set(row) for row in answer["summary"])
    own = [f for f in answer["findings"] if f["verdict"] is not None]
    assert own, "a named study says what was published, and what its runs say of it"
    ids = {row["run"] for row in answer["rows"]}
    assert all(set(f["runs"]) <= ids and f["source"] for f in answer["findings"])
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert '<section id="published">' in page
    assert cli("report out").status == 0
    assert Path("out/report.html").read_text(encoding="utf-8") == page
    again = cli(command)
    assert json.loads(again.out) == answer


@pytest.mark.parametrize("name", names())
def test_a_named_study_says_what_it_is_and_whence_it_comes(name: str) -> None:
    study = named_study(name)
    assert study.name == name
    assert study.summary
    assert study.source
    assert study.quick
