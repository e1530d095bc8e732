"""Files and folders that cannot be used, through the command as it is typed: one clear message, exit status 2."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscope.store.runs import Store

from .sound import SOUND, refused

Cli = Callable[..., Any]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": "a", "step_time_s": [[1, 0.0', r"machine.json \(\d+ bytes\) is not whole JSON"),
        ('{"schema": 7, "name": "a", "step_time_s": [[1, 0.1]]}', r"has schema 7, and this version reads 1"),
        ('{"name": "a"}', r"step_time_s"),
        ('{"name": "a", "step_time_s": []}', r"step_time_s is empty"),
        ('{"name": "a", "step_time_s": [[1, -0.1]]}', r"step_time_s\[0\] has -0.1 seconds"),
        ("[]", r"profile"),
    ],
)
def test_a_profile_that_is_none(search: Callable[..., Any], profile: Path, content: str, message: str) -> None:
    profile.write_text(content, encoding="utf-8")
    refused(search(), message)
    profile.unlink()
    refused(search(), r"machine.json: No such file or directory; --hardware expects a hardware profile")


def test_a_file_of_the_users_is_never_to_be_removed(cli: Cli) -> None:
    Path("mine.py").write_text(SOUND, encoding="utf-8")
    Path("other.json").write_text('{"rows": []}', encoding="utf-8")
    Path("table.csv").write_text("batch_size,steps_to_target\n8,100\n16,60\n32,40\n", encoding="utf-8")
    for name in ("mine.py", "other.json", "nowhere.json", "."):
        for command in ("find mine.py:Sound", "fit table.csv"):
            ended = cli(f"{command} --hardware {name}")
            refused(ended, r"expects a hardware profile, a file that `batchscope bench TASK --save FILE` writes$")
            assert "remove" not in ended.err
            assert "--out" not in ended.err
    assert cli("bench mine.py:Sound --max-batch-size 8 --budget 5s --save machine.json").status == 0
    assert cli("find mine.py:Sound --hardware machine.json --dry-run").status == 0


@pytest.mark.parametrize("name", ["plan.json", "question.json", "bench.json", "config.json", "result.json"])
@pytest.mark.parametrize("damage", ["truncated", "other schema"])
def test_a_results_folder_that_is_damaged(cli: Cli, search: Callable[..., Any], name: str, damage: str) -> None:
    assert search().status == 0
    path = next(Path("out").glob(f"**/{name}"))
    content = path.read_text(encoding="utf-8")
    path.write_text(content[: len(content) // 2] if damage == "truncated" else '{"schema": 99}', encoding="utf-8")
    ended = cli("report out") if name == "plan.json" else search()
    if (name, damage) == ("question.json", "truncated"):
        assert ended.status == 0, "every run proves that it is of the same question"
        assert "written again" in ended.err
        return
    seen = r"is not whole JSON" if damage == "truncated" else r"schema|another question"
    refused(ended, rf"{name}.*{seen}" if name != "question.json" else seen)


@pytest.mark.parametrize("out", ["occupied/out", "/proc/batchscope"])
@pytest.mark.parametrize("command", ["find digits", "bench digits", "noise digits"])
def test_an_output_folder_that_cannot_be_written(cli: Cli, command: str, out: str) -> None:
    Path("occupied").touch()
    refused(cli(f"{command} --out {out}"), rf"{out}: .*; check the path and its permissions, or give another --out")


def test_profiles_and_pages_that_cannot_be_written(cli: Cli, search: Callable[..., Any]) -> None:
    Path("occupied").touch()
    ended = cli("bench digits --max-batch-size 4 --budget 5s --save occupied/here.json")
    assert ended.status == 2, ended.err
    assert ended.err.count("Not written: occupied/here.json: Not a directory") == 1
    assert "Traceback" not in ended.err
    assert "step time" in ended.out, "the answer is not lost with its copy"
    assert "Saved to" not in ended.out
    refused(cli("report nowhere"), r"nowhere")
    refused(cli("runs nowhere"), r"nowhere is no results folder")


def test_a_page_of_a_folder_without_an_answer(
    cli: Cli, search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("batchscope.search.runs.SearchRuns.begin", interrupted)
        assert search().status == 130
    refused(cli("report out"), r"the search in out is not finished; repeat the command that made it$")
    assert search().status == 0
    assert cli("report out").status == 0
    assert cli("noise digits --steps 10 --lr 0.1 --out noisy").status == 0
    refused(cli("report noisy"), r"noisy is of `batchscope noise`, which has no page; its answer is in noise.json$")
    assert Path("noisy/noise.json").exists()
    Path("empty").mkdir()
    refused(cli("report empty"), r"empty is no results folder; give the --out of a search")
    refused(cli("report nowhere"), r"there is no folder nowhere; give the --out of an earlier command$")


def test_a_full_disk(search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up when the first run is finished; afterwards the same command goes on."""
    whole, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if Path("out/rate-range.json").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(descriptor)

    monkeypatch.setattr("os.fsync", full)
    refused(search(), r"No space left on device; the disk is full: free some space and run the same command again")
    assert calls
    monkeypatch.undo()


def test_two_processes_on_one_folder(search: Callable[..., Any]) -> None:
    with Store("out", {"asked": "by another process"}):
        refused(search(), r"another process is at work in out; wait for it, or give another --out")


def test_a_refused_question_does_not_bind_the_folder(search: Callable[..., Any]) -> None:
    refused(search(target="acuracy>=0.9"), r"did you mean 'accuracy'\?")
    refused(search("def loss(self, model, batch):\n    return None"), r"returned None, not a tensor")
    assert search().status == 0


def test_refused_questions_leave_no_numbered_folders(cli: Cli, profile: Path) -> None:
    for target in ("acuracy>=0.9", "f1>=0.9"):
        command = f"find digits --target {target} --hardware {profile.name}"
        refused(cli(command), r"which evaluate\(model\) does not return")
    assert cli(f"find digits --target val_loss<=0.6 --trainings 0.5 --hardware {profile.name}").status == 0
    assert [path.name for path in Path("batchscope-runs").iterdir()] == ["digits"]


def test_an_edited_task_on_one_folder(search: Callable[..., Any]) -> None:
    assert search().status == 0
    refused(search("rows = 3"), r"out holds the answer to another question: its file mine\.py has changed since; give")


def test_another_task_or_seed_on_one_folder(search: Callable[..., Any], profile: Path) -> None:
    assert search().status == 0
    other = "out holds the answer to another question: its"
    refused(search("", "--set", "width=5"), rf"{other} setting width was 4, now 5; give")
    refused(search("", "--seed", "1"), rf"{other} seed was 0, now 1; give")
    assert search("", "--current", "batch_size=32,lr=0.1").status == 0
    before = profile.read_text(encoding="utf-8")
    profile.write_text(before.replace('"step_time_s": [[1, ', '"step_time_s": [[1, 1'), encoding="utf-8")
    assert search().status == 0
    assert len(list(Path("out").glob("plans/*.json"))) == 2
    assert len(list(Path("out").glob("bench*.json"))) == 2, "another machine has another bench"
