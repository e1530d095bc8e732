"""Every option that is a number, of every command: a fraction, an infinity and no number are one message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from batchscope.cli.commands import app
from batchscope.search.question import parse_bytes, parse_seconds, parse_within

from .sound import refused

Cli = Any
TASK = {"count": "", "fit": "t.csv", "init": "f.py", "report": "f", "runs": "f"}
COMMANDS = ("find", "bench", "noise", "fit", "study", "claims", "count", "init", "report", "runs")


def numbers(kind: type) -> Iterator[tuple[str, str]]:
    for command in COMMANDS:
        for argument in app[command].assemble_argument_collection():
            if argument.hint is kind or kind in get_args(argument.hint):
                yield command, argument.names[0]


def test_the_options_are_found() -> None:
    found = {*numbers(int), *numbers(float)}
    assert {("count", "--examples"), ("study", "--seeds"), ("noise", "--lr"), ("fit", "--seed")} <= found


@pytest.mark.parametrize(("command", "option"), [*numbers(int)])
@pytest.mark.parametrize("text", ["1000.5", "nan", "1e400", "-1", "True", "9" * 5000])
def test_an_option_that_counts(cli: Cli, command: str, option: str, text: str) -> None:
    refused(cli(f"{command} {TASK.get(command, 'digits')} {option} {text}"), rf"{option} is .*; it must be")


@pytest.mark.parametrize(("command", "option"), [*numbers(float)])
@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "0", "-1"])
def test_an_option_that_measures(cli: Cli, command: str, option: str, text: str) -> None:
    refused(cli(f"{command} {TASK.get(command, 'digits')} {option} {text}"), rf"{option} is .*; it must be")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("find digits --budget 1e400", "'1e400' is too large"),
        ("find digits --memory-limit 1e400", "'1e400' is too large"),
        ("find digits --within 1e400epochs", "'1e400epochs' is too large"),
        ("find digits --within 1000.5steps", r"1000\.5steps\' is not a whole number of steps"),
        ("find digits --warmup 1e400steps", "--warmup is inf"),
        ("find digits --evaluation-share 1e400", "'1e400' is too large"),
        ("find digits --current batch_size=32.5,lr=0.1", r"batch_size is 32\.5; it must be a whole number"),
        ("find digits --current batch_size=32,lr=nan", "lr is nan; it must be a number"),
        ("find digits --set hidden=64.5", "must be a whole number"),
        ("find digits --set hidden=1e400", "must be a whole number"),
        ("study digits --batch-sizes 8,16.5 --lrs 0.1", r"--batch-sizes is 16\.5; .* write for example"),
        ("study digits --batch-sizes 8 --lrs inf", "--lrs is inf; .* write for example"),
        ("study digits --batch-sizes 8 --lrs 0.1 --seeds 1001", "--seeds is 1001; it must be at most 1,000"),
        ("study digits --batch-sizes 8 --lrs 0.1 --seed 4294967295", "it must be at most 4,294,967,295"),
    ],
)
def test_numbers_inside_a_text(cli: Cli, words: str, message: str) -> None:
    refused(cli(words), message)


def test_a_quantity_may_have_an_exponent() -> None:
    assert (parse_seconds("1e3"), parse_seconds("1.5e1m"), parse_bytes("1e9")) == (1000.0, 900.0, 10**9)
    assert str(parse_within("1e3epochs")) == "1000 epochs"


def test_whole_numbers_may_be_written_as_people_write_them(cli: Cli) -> None:
    ended = cli("count --examples 1e3 --batch-size 64.0 --steps 1_000 --json")
    assert (ended.answer["examples"], ended.answer["batch_size"], ended.answer["steps"]) == (1000, 64, 1000)
