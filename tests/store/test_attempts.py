"""What was being tried when a process died is found by the next one that holds the folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from batchscope.store.attempts import ATTEMPT, DEATHS, Attempt, Attempts, Growth, end_all
from batchscope.store.runs import Store

ABOUT = {"schema": 3, "command": "find", "task": "t"}
STEP = Attempt(what="a step", micro_batch_size=64, survived=16, free_bytes=10**9)


def kernel(root: Path, kills: int, boot: str = "a") -> Path:
    (root / "sys/kernel/random").mkdir(parents=True, exist_ok=True)
    (root / "vmstat").write_text(f"pgfault 3\noom_kill {kills}\n")
    (root / "sys/kernel/random/boot_id").write_text(f"{boot}\n")
    return root


def test_an_attempt_that_is_over_leaves_nothing(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempts.begin(STEP)
    assert (tmp_path / ATTEMPT).exists()
    attempts.end()
    assert Attempts(tmp_path).deaths == ()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kills", "boot", "killed"), [(7, "a", False), (8, "a", None), (9, "b", None)], ids=["none", "one", "other boot"]
)
def test_an_attempt_that_was_left_is_a_death(tmp_path: Path, kills: int, boot: str, killed: bool | None) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    proc = kernel(tmp_path / "proc", 7)
    attempts = Attempts(folder, proc)
    growth = Growth(steps=9, evaluations=1, grown_bytes=10, at_evaluations_bytes=0, steady=True)
    attempts.update(replace(attempts.begin(STEP), step=10, growth=growth))
    deaths = Attempts(folder, kernel(proc, kills, boot)).deaths
    assert [(death.what, death.step, death.growth, death.killed) for death in deaths] == [
        ("a step", 10, growth, killed)
    ]
    assert not (folder / ATTEMPT).exists()
    assert Attempts(folder, proc).deaths == deaths


@pytest.mark.parametrize(
    ("host", "boot", "group", "kills", "killed"),
    [
        (8, "a", "/job", 3, True),
        (8, "a", "/job", 2, None),
        (8, "a", "/other", 3, None),
        (7, "a", "/job", 3, False),
        (8, "b", "/job", 3, None),
    ],
    ids=["its own group", "another group of the machine", "started elsewhere", "nothing at all", "other boot"],
)
def test_whose_lack_of_memory_it_was(
    tmp_path: Path, host: int, boot: str, group: str, kills: int, killed: bool | None
) -> None:
    """The kernel's own count is of the whole machine, over the time until the next command."""
    folder, proc = tmp_path / "folder", kernel(tmp_path / "proc", 7)
    folder.mkdir()
    Attempts(folder, proc).begin(replace(STEP, group="/job", group_kills=2))
    attempts = Attempts(folder, kernel(proc, host, boot))
    attempts.settle(group, kills)
    assert [death.killed for death in attempts.deaths] == [killed]
    later = Attempts(folder, proc)
    later.settle(group, kills + 1)
    assert [death.killed for death in later.deaths] == [killed]


def test_what_an_attempt_is_part_of_goes_on_after_it(tmp_path: Path) -> None:
    attempts, outer = Attempts(tmp_path), replace(STEP, what="a study")
    outer = attempts.begin(outer)
    attempts.begin(STEP)
    attempts.end(outer)
    assert json.loads((tmp_path / ATTEMPT).read_text())["what"] == "a study"
    attempts.end()
    assert not (tmp_path / ATTEMPT).exists()


def test_the_end_of_the_process_ends_what_it_is_at_and_nothing_of_others(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempts.begin(STEP)
    end_all()
    assert not (tmp_path / ATTEMPT).exists()
    (tmp_path / ATTEMPT).write_text("another process's, which holds the folder by now")
    end_all()
    assert (tmp_path / ATTEMPT).exists()


def test_a_kernel_that_tells_nothing(tmp_path: Path) -> None:
    Attempts(tmp_path, tmp_path / "nowhere").begin(STEP)
    assert [death.killed for death in Attempts(tmp_path, tmp_path / "nowhere").deaths] == [None]


@pytest.mark.parametrize("content", ["", "{", "[]", "\0" * 100, '{"what": 3}', '{"more": 1}'])
def test_half_a_note_is_no_death(tmp_path: Path, content: str) -> None:
    (tmp_path / ATTEMPT).write_text(content)
    assert Attempts(tmp_path).deaths == ()
    assert not (tmp_path / ATTEMPT).exists()


def test_deaths_that_are_forgotten_are_gone(tmp_path: Path) -> None:
    for size in (8, 16):
        Attempts(tmp_path).begin(replace(STEP, micro_batch_size=size))
    attempts = Attempts(tmp_path)
    attempts.forget(lambda death: death.micro_batch_size == 8)
    assert [death.micro_batch_size for death in Attempts(tmp_path).deaths] == [16]
    attempts.forget(lambda death: True)
    assert not (tmp_path / DEATHS).exists()


def test_there_is_an_end_to_what_is_kept(tmp_path: Path) -> None:
    for size in range(60):
        Attempts(tmp_path).begin(replace(STEP, micro_batch_size=size))
    assert [death.micro_batch_size for death in Attempts(tmp_path).deaths][-1] == 59
    assert len(json.loads((tmp_path / DEATHS).read_text())["deaths"]) == 50


def test_deaths_of_another_question_go_with_it(tmp_path: Path) -> None:
    """A folder in which nothing was found out may take another question, and knows nothing of it then."""
    with Store(tmp_path, ABOUT) as store:
        store.attempts.begin(STEP)
    with Store(tmp_path, ABOUT) as store:
        assert len(store.attempts.deaths) == 1
    with Store(tmp_path, {**ABOUT, "task": "other"}) as store:
        assert store.attempts.deaths == ()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    attempts, victim = Attempts(tmp_path), tmp_path / "victim"
    attempt = attempts.begin(STEP)
    victim.write_text("mine")
    (tmp_path / ATTEMPT).unlink()
    (tmp_path / ATTEMPT).symlink_to(victim)
    attempts.update(attempt)
    assert victim.read_text() == "mine"
