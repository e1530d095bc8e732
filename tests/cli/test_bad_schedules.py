"""Schedules and warm-ups that make no sense: one message before the first run, and its advice can be followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .sound import SOUND, refused

Cli = Callable[..., Any]

OWN = "def schedule(self, progress):\n    return 1.0 - progress"
WITHIN = "find mine.py:Mine --trainings 0.5 --out out --within 2epochs --hardware machine.json"
STUDY = "study mine.py:Mine --batch-sizes 10,50 --lrs 0.1 --seeds 1 --epochs 2 --out out"


def write(member: str = "pass") -> None:
    body = "\n".join(f"    {line}" for line in member.splitlines())
    Path("mine.py").write_text(f"{SOUND}\nclass Mine(Sound):\n{body}\n", encoding="utf-8")


def no_run() -> bool:
    return not list(Path("out").glob("runs/*"))


BAD = [
    ("--warmup 50", r"'50' is not the length of a warm-up; write for example --warmup 5%, 100steps or 20000examples"),
    ("--warmup -5%", r"'-5%' is not the length of a warm-up"),
    ("--warmup 0steps", r"leave --warmup out"),
    ("--warmup 100%", r"is as long as the run or longer.*for example --warmup 5%"),
    ("--final-lr -10% --schedule linear", r"--final-lr '-10%' is not a share; write for example 10% or 0.1"),
    ("--final-lr 100% --schedule linear", r"at least 0% and below 100%, for example --final-lr 10%"),
    ("--final-lr 10 --schedule linear", r"--final-lr 10 is 1000%; did you mean 10%\?"),
    ("--final-lr 10% --schedule constant", r"add --schedule linear, cosine or wsd, or leave --final-lr out"),
]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        *BAD,
        ("--final-lr 10%", r"add --schedule linear, cosine or wsd, or leave --final-lr out"),
        ("--warmup 5%", r"--warmup 100steps or 20000examples, or add --within or a --schedule that decays"),
        ("--schedule task", r"task"),
    ],
)
def test_a_search_is_refused(search: Callable[..., Any], words: str, message: str) -> None:
    refused(search("", *words.split()), message)
    assert no_run()


@pytest.mark.parametrize(
    "advice",
    ["--warmup 5steps", "--warmup 200examples", "--warmup 5% --schedule linear", "--final-lr 10% --schedule wsd"],
)
def test_the_advice_is_followed_in_a_search(search: Callable[..., Any], advice: str) -> None:
    ended = search("", *advice.split())
    assert ended.status == 0, ended.err


@pytest.mark.usefixtures("profile")
@pytest.mark.parametrize("more", ["", " --dry-run"])
def test_a_warm_up_as_long_as_every_run_within_a_length(cli: Cli, more: str) -> None:
    write()
    refused(
        cli(f"{WITHIN} --warmup 5000steps{more}"),
        r"--warmup 5000steps is 5,000 steps at batch size 1, and a run within 2 epochs has 200 steps.*"
        r"for example --warmup 5%, or a longer --within",
    )
    assert no_run()
    assert cli(f"{WITHIN} --warmup 5%{more}").status == 0


@pytest.mark.parametrize("words", ["--schedule cosine", "--warmup 5steps", "--final-lr 10%", "--schedule constant"])
@pytest.mark.parametrize("command", [WITHIN, STUDY, f"{WITHIN} --dry-run"])
@pytest.mark.usefixtures("profile")
def test_a_schedule_of_the_task_and_one_that_is_asked_for(cli: Cli, command: str, words: str) -> None:
    write(OWN)
    refused(cli(f"{command} {words}"), rf"and {words} sets it too; leave that out, or take the member out of the task")
    assert no_run()


@pytest.mark.parametrize("command", [WITHIN, STUDY])
@pytest.mark.usefixtures("profile")
def test_a_schedule_of_the_task_alone_is_used(cli: Cli, command: str) -> None:
    write(OWN)
    ended = cli(command)
    assert ended.status == 0, ended.err
    configs = [path.read_text(encoding="utf-8") for path in Path("out").glob("runs/*/config.json")]
    assert configs
    assert all('"schedule": "task"' in config for config in configs)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        *(pair for pair in BAD if "-10%" not in pair[0]),
        ("--final-lr 10%", r"leave --final-lr out"),
        ("--warmup 4steps", r"--warmup 4steps is 4 steps at batch size 50, and a run of 2 epochs has 4 steps.*5%"),
    ],
)
def test_a_study_is_refused(cli: Cli, words: str, message: str) -> None:
    write()
    refused(cli(f"{STUDY} {words}"), message)
    assert no_run()


@pytest.mark.parametrize(
    ("length", "words", "message"),
    [
        (
            "--time 5s",
            "--warmup 5%",
            r"a share of a known number of steps; give --epochs or --steps, or the warm-up",
        ),
        (
            "--time 5s",
            "--schedule wsd",
            r"a wsd schedule decays over a known number of steps; give --epochs",
        ),
    ],
)
def test_a_study_by_the_clock_knows_no_share(cli: Cli, length: str, words: str, message: str) -> None:
    write()
    refused(cli(f"{STUDY.replace('--epochs 2', length)} {words}"), message)
    assert no_run()


def test_a_study_has_the_schedule_asked_for(cli: Cli) -> None:
    write()
    ended = cli(f"{STUDY} --schedule wsd --warmup 30examples --final-lr 10%")
    assert ended.status == 0, ended.err
    from batchscope.store.runs import read_runs

    configs = [run.config for run in read_runs("out")]
    assert {(c.batch_size, c.schedule, c.warmup_steps, c.final_lr) for c in configs} == {
        (10, "wsd", 3, 0.1),
        (50, "wsd", 1, 0.1),
    }
    page = Path("out/report.html").read_text(encoding="utf-8").replace("\xa0", " ")
    assert "wsd, down to 10 % of the learning rate, after a linear warm-up of 30 examples" in page
