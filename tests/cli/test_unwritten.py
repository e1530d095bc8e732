"""What the disk refuses once there is an answer costs that file alone: the answer is printed, and one note says so."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchscope import fit

Cli = Callable[..., Any]

TABLE = "batch_size,steps_to_target,step_time_s,lr\n16,900,0.001,0.01\n64,300,0.002,0.02\n256,150,0.006,0.04\n"


@contextmanager
def full_at(fails: Callable[[int, Path], bool]) -> Iterator[list[Path]]:
    """A disk that refuses what `fails` says of the number and the path of a file; yields all that were written."""
    real, written = os.replace, list[Path]()

    def replace(source: Any, target: Any, *more: Any, **how: Any) -> None:
        written.append(Path(target))
        if fails(len(written), Path(target)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target, *more, **how)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "replace", replace)
        yield written


def full_for(*names: str) -> Any:
    return full_at(lambda number, path: path.name in names)


def never(number: int, path: Path) -> bool:
    return False


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


# --- the answer is there, and one of its files is not -------------------------------------------------------------


@pytest.mark.parametrize("form", ["", "--json"])
@pytest.mark.parametrize("missing", ["plan.json", "report.html"])
def test_fit(cli: Cli, table: Path, missing: str, form: str) -> None:
    words = f"fit {table.name} --out out {form}"
    with full_for(missing):
        ended = cli(words)
    assert ended.status == (2 if missing == "plan.json" else 0)
    assert not Path("out", missing).exists()
    assert ended.err.count("No space left on device") == 1
    shown = {"plan.json": "For programs", "report.html": "Why, with figures"}
    if form:
        assert ended.answer["recipe"]["batch_size"] > 0
    else:
        assert "Train with batch size" in ended.out
        assert shown[missing] not in ended.out
    again = cli(words)
    assert again.status == 0
    assert Path("out", "plan.json").exists()
    assert Path("out", "report.html").exists()
    assert form or all(said in again.out for said in shown.values())


def test_the_page_is_made_after_the_answer_was_printed(cli: Cli, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr("batchscope.cli.output.answer", lambda *_: order.append("answer"))
    monkeypatch.setattr("batchscope.cli.pages.write_page", lambda folder: order.append("page") or folder)
    cli(f"fit {table.name} --out out")
    assert order[:2] == ["answer", "page"]


def test_a_fault_in_the_page_costs_the_page(cli: Cli, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchscope.report.page.draw", lambda contents: 1 / 0)
    ended = cli(f"fit {table.name} --out out --json")
    assert (ended.status, ended.answer["task"]) == (0, "runs")
    assert "The page was not made: division by zero" in ended.err
    assert Path("out/plan.json").exists()


def test_an_interrupt_while_the_page_is_made_comes_after_the_answer(
    cli: Cli, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(contents: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("batchscope.report.page.draw", interrupt)
    ended = cli(f"fit {table.name} --out out --json")
    assert ended.status == 130
    assert ended.answer["task"] == "runs"


def test_of_find_every_file(cli: Cli, profile: Path) -> None:
    """One search, then from its records: each file in turn is refused."""
    words = "find digits --max-batch-size 16 --target val_loss<=1.5 --trainings 0.1 --keep-model m.pt --out out --json"
    command = (*words.split(), "--hardware", profile)
    first = cli("", *command)
    assert first.status == 0, first.err
    Path("m.pt").unlink()
    for missing, status in (("plan.json", 2), ("answer.json", 2), ("m.pt", 2), ("timing.json", 2), ("report.html", 0)):
        with full_for(missing):
            ended = cli("", *command)
        assert ended.status == status, (missing, ended.err)
        assert ended.answer["recipe"] == first.answer["recipe"]
        assert ended.err.count("No space left on device") == 1, ended.err
        assert "run 1" not in ended.err
    assert cli("", *command).status == 0


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("bench digits --max-batch-size 8 --budget 2s", "bench.json"),
        ("bench digits --max-batch-size 8 --budget 2s --save p.json", "p.json"),
        ("noise digits --steps 20 --lr 0.1 --batch-size 16", "noise.json"),
        ("study digits --batch-sizes 16,32 --lrs 0.1 --seeds 1 --steps 20", "study.json"),
        ("study digits --batch-sizes 16,32 --lrs 0.1 --seeds 1 --steps 20", "report.html"),
    ],
)
def test_of_other_commands(cli: Cli, command: str, file: str) -> None:
    with full_for(file):
        ended = cli(f"{command} --out out --json")
    assert ended.status == (0 if file == "report.html" else 2), ended.err
    assert ended.answer
    assert ended.err.count("No space left on device") == 1
    assert not list(Path().rglob(file))


# --- in Python ----------------------------------------------------------------------------------------------------


def test_in_python_the_answer_is_returned_and_a_warning_logged(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = table.parent / "o\x1b[2Jut"
    with full_for("plan.json", "report.html"):
        plan = fit(table, out=out)
    assert plan.recipe is not None
    said = [record.getMessage() for record in caplog.records]
    assert ["plan.json" in said[0], "report.html" in said[1]] == [True, True]
    assert all(line.isprintable() for line in said)


# --- whichever write fails ----------------------------------------------------------------------------------------


def test_each_write_of_a_fit_may_fail(cli: Cli, table: Path) -> None:
    with full_at(never) as written:
        whole = cli(f"fit {table.name} --out out --json")
    for number in range(1, len(written) + 1):
        with full_at(lambda n, path, at=number: n == at):
            ended = cli(f"fit {table.name} --out out-{number} --json")
        assert ended.answer["recipe"] == whole.answer["recipe"], number
        assert ended.status == (0 if number == len(written) else 2)
        assert "No space left on device" in ended.err
        assert cli(f"fit {table.name} --out out-{number} --json").answer == whole.answer


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "find digits --max-batch-size 16 --target val_loss<=1.5 --trainings 0.1 --hardware",
        "study digits --batch-sizes 16,32 --lrs 0.1 --seeds 1 --steps 20",
        "claims digits --batch-sizes 32,128 --seeds 2 --epochs 1",
    ],
)
def test_each_write_may_fail_and_nothing_finished_is_lost(cli: Cli, profile: Path, command: str) -> None:
    """The n-th try fails at its n-th write, and goes on from what the tries before it left."""
    kept: dict[Path, bytes] = {}
    words = (*f"{command} --out out --json".replace("--hardware", f"--hardware {profile}").split(),)
    for number in range(1, 1000):
        with full_at(lambda n, path, at=number: n == at) as written:
            ended = cli("", *words)
        found = {path: path.read_bytes() for path in Path("out").glob("runs/*/result.json")}
        done = {path: result for path, result in found.items() if json.loads(result)["status"] != "paused"}
        assert {path: done[path] for path in kept} == kept, number
        kept = done
        assert "Traceback" not in ended.err
        if len(written) < number:
            break
        noted = written[number - 1].name == "attempt.json"  # of what is tried: nothing of the user's
        assert noted or "No space left on device" in ended.err, (number, written[number - 1], ended.err)
        assert json.loads(ended.out)
    assert ended.status in (0, 3), ended.err
