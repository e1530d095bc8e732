"""Every advice that a message gives about a file of a results folder is followed here, and gets the user on."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .sound import SOUND

Cli = Callable[..., Any]
Damage = Callable[[Path], None]


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def of_another_version(path: Path) -> None:
    path.write_text('{"schema": 99}\n', encoding="utf-8")


def gone(path: Path) -> None:
    path.unlink()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link(path: Path) -> None:
    path.rename("victim")
    path.symlink_to(Path("victim").absolute())


FILES = (
    "question.json",
    "plan.json",
    "rate-range.json",
    "timing.json",
    "questions/1/question.json",
    "questions/1/answer.json",
    "runs/*/config.json",
    "runs/*/result.json",
    "runs/*/rows.jsonl",
)
DAMAGES = (truncated, of_another_version, gone, fifo, a_folder, a_link)
CASES = [(name, damage) for name in FILES for damage in DAMAGES]
QUICK = [
    ("question.json", truncated),
    ("timing.json", truncated),
    ("runs/*/config.json", truncated),
    ("runs/*/config.json", gone),
    ("runs/*/rows.jsonl", gone),
    ("questions/1/question.json", fifo),
]


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def find(cli: Cli, profile: Path, out: str = "out") -> Any:
    """A short search on a machine with fixed step times."""
    Path("mine.py").write_text(SOUND, encoding="utf-8")
    command = f"find mine.py:Sound --trainings 0.5 --target val_loss<=0.9 --out {out} --hardware"
    return cli(command, profile)


def followed(message: str) -> str:
    """Do what a message says first; the folder in which the command is to go on."""
    said = ("batchscope: ", "Not written: ")
    (text,) = [line.removeprefix(each) for line in message.splitlines() for each in said if line.startswith(each)]
    if found := re.search(r"remove the folder (\S+) and|remove (\S+) to run it again", text):
        remove(Path(found[1] or found[2]))
    elif "; remove it" in text or ": remove it" in text:
        remove(Path(re.split(r": | \(", text)[0]))
    elif "give another --out" in text:
        return "another"
    else:
        pytest.fail(f"nothing to follow in {message!r}")
    return "out"


@pytest.fixture
def folder(cli: Cli, profile: Path, finished: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search, made once."""
    if not finished:
        assert find(cli, profile).status == 0
        finished["out"] = Path(shutil.copytree("out", tmp_path_factory.mktemp("finished") / "out"))
    else:
        shutil.copytree(finished["out"], "out")
    return Path("out")


@pytest.fixture(scope="module")
def finished() -> dict[str, Path]:
    """Where a finished search is kept between tests."""
    return {}


@pytest.mark.parametrize(
    ("name", "damage"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_the_advice_gets_the_user_on(cli: Cli, profile: Path, folder: Path, name: str, damage: Damage) -> None:
    damage(min(folder.glob(name)))
    out = "out"
    ended = find(cli, profile)
    for _ in range(2):
        if ended.status != 0:
            assert ended.status == 2, ended.err
            out = followed(ended.err)
            ended = find(cli, profile, out)
    assert ended.status == 0, ended.err
    assert cli(f"report {out}").status == 0
    assert cli(f"runs {out}").status == 0
    if damage is a_link:
        assert Path("victim").exists()


@pytest.mark.parametrize("command", ["report", "runs"])
@pytest.mark.parametrize("name", ["plan.json", "runs/*/config.json", "runs/*/result.json", "runs/*/rows.jsonl"])
def test_the_advice_of_commands_that_only_read_gets_the_user_on(
    cli: Cli, profile: Path, folder: Path, command: str, name: str
) -> None:
    truncated(min(folder.glob(name)))
    ended = cli(f"{command} out")
    assert ended.status == 2, ended.out
    followed(ended.err)
    assert find(cli, profile).status == 0
    assert cli(f"{command} out").status == 0
