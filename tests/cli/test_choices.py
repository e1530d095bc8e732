"""Commands without their argument say what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from batchscope.cli.choices import TASKS
from batchscope.laboratory.studies import names
from batchscope.tasks.builtin import BUILT_IN

from .conftest import Cli


def listed(text: str) -> list[str]:
    """The first words of indented lines."""
    return re.findall(r"^  (\S+)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("command", ["find", "bench", "noise", "claims", "study", "find --target val_loss<=1"])
def test_every_built_in_task_is_listed(cli: Cli, command: str) -> None:
    ended = cli(command)
    assert (ended.status, ended.out) == (2, "")
    assert set(BUILT_IN) <= set(listed(ended.err))
    assert {name for name, _ in TASKS} <= set(listed(ended.err))


def test_every_study_is_listed(cli: Cli) -> None:
    assert set(names()) <= set(listed(cli("study").err))


def test_the_columns_of_a_table_are_listed(cli: Cli) -> None:
    assert listed(cli("fit").err)[:2] == ["batch_size", "steps_to_target"]
    assert "--target" in cli("fit").err
    assert "--column lr=NAME" in cli("fit").err


def test_results_folders_that_are_there_are_listed(cli: Cli) -> None:
    assert "There is none in batchscope-runs/ here" in cli("runs").err
    Path("batchscope-runs/mine").mkdir(parents=True)
    for command in ("runs", "report"):
        assert listed(cli(command).err) == ["batchscope-runs/mine"]


@pytest.mark.parametrize("command", ["fit", "init", "runs"])
def test_the_example_is_understood(cli: Cli, command: str) -> None:
    """It ends with a result, or because the file that it names is not there."""
    example = re.search(r"^For example: batchscope (.+)$", cli(command).err, flags=re.MULTILINE)
    assert example is not None
    ended = cli(example[1])
    assert ended.status == 0 or "No such file" in ended.err or "is no results folder" in ended.err


def test_an_option_without_its_value_is_another_error(cli: Cli) -> None:
    assert "parameter --set requires an argument" in cli("find digits --set").err
