"""Streams that are full, closed, gone or of another alphabet: no traceback, no end of a search, no half answer."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from batchscope.cli.streams import answer_lost, answers, only_answers_on_stdout, say
from batchscope.cli.terminal import LiveProgress, stderr

from .sound import SOUND

COUNT = "count --examples 9 --batch-size 2 --epochs 1"
HEAD = f"{sys.executable} -m batchscope"
TALKS = f"""{SOUND}
class Talks(Sound):
    def evaluate(self, model):
        print("evaluated – 1 ≤ 2")
        return super().evaluate(model)
print("a task")
def task():
    return Talks()
"""
pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    words = ["bash", "-o", "pipefail", "-c", command]
    env = {**os.environ, **environment}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, timeout=120, check=False)


# --- a stream that takes nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "status", "said"),
    [
        (">/dev/full", 2, "stdout: No space left on device"),
        ("--json >&-", 0, "stdout is closed"),
        ("2>/dev/full", 0, ""),
        ("--json >/dev/full 2>&1", 2, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_an_answer_to_a_stream_that_takes_nothing(tmp_path: Path, where: str, status: int, said: str) -> None:
    ended = shell(f"{HEAD} {COUNT} {where}", tmp_path)
    text = ended.stderr.decode()
    assert (ended.returncode, said in text) == (status, True), text
    assert "Traceback" not in text
    assert len(text.splitlines()) == bool(said)
    assert bool(ended.stdout) == where.startswith("2>")


HANGS = """
import ctypes
def task():
    c, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    c.pthread_mutex_lock(lock)
    print("here", flush=True)
    c.pthread_mutex_lock(lock)
"""
NOWHERE = ["2>/dev/full", ">&-", "<&- >&- 2>&-", ">/dev/full", "<&-"]


@pytest.mark.skipif(sys.platform != "linux", reason="a lock of glibc")
@pytest.mark.parametrize("where", NOWHERE)
def test_a_process_that_is_ended_from_outside_beside_such_streams(tmp_path: Path, where: str) -> None:
    """The watchdog ends it from another thread, as `signals` does; what can be said is said, once."""
    (tmp_path / "hängs–中.py").write_text(HANGS, encoding="utf-8")
    find = "find hängs–中.py --json --step-timeout 0.3s"
    environment = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "cp1252"}
    ended = shell(f"{HEAD} {find} {where}", tmp_path, **environment)
    assert ended.returncode == 2
    said = ended.stderr.decode("cp1252")
    assert said.count("task() in hängs–\\u4e2d.py did not come back") == ("2>" not in where)
    assert "Traceback" not in said
    if ">&-" in where or where == ">/dev/full":
        assert ended.stdout == b""
    else:
        assert json.loads(ended.stdout)["error"] == "TaskError"


@pytest.mark.parametrize("where", NOWHERE)
def test_a_signal_beside_such_streams(tmp_path: Path, where: str) -> None:
    (tmp_path / "ends.py").write_text(
        "import os, signal, time\ndef task():\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(1e6)\n",
        encoding="utf-8",
    )
    ended = shell(f"{HEAD} find ends.py --json {where}", tmp_path)
    said = ended.stderr.decode()
    assert ended.returncode == 143, said
    assert said.count("ended by SIGTERM; ") == ("2>" not in where)
    assert "Traceback" not in said
    if ">&-" in where or where == ">/dev/full":
        assert ended.stdout == b""
    else:
        assert json.loads(ended.stdout)["error"] == "SIGTERM"


def test_a_search_whose_readers_have_all_gone(tmp_path: Path) -> None:
    """The task prints at every evaluation, into a pipe that nobody reads; all is kept, and the status is the plan's."""
    (tmp_path / "talks.py").write_text(TALKS, encoding="utf-8")
    find = "find talks.py --max-batch-size 16 --target 'val_loss<=0.9' --trainings 0.1 --out out --json"
    ended = shell(f"({HEAD} {find} 2>&1 >answer; echo $? >status) | head -n 2", tmp_path)
    assert len(ended.stdout.splitlines()) == 2
    answer = json.loads((tmp_path / "answer").read_text(encoding="utf-8"))
    assert (tmp_path / "status").read_text(encoding="utf-8") == "0\n", answer["message"]
    assert answer["recipe"]
    assert {"plan.json", "report.html"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_terminal_that_vanishes(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    find = "find digits --max-batch-size 16 --target val_loss<=1.5 --trainings 0.1 --out out --json"
    with open(tmp_path / "answer", "wb") as out:
        words = [sys.executable, "-m", "batchscope", *find.split()]
        process = subprocess.Popen(words, cwd=tmp_path, stdout=out, stderr=theirs, start_new_session=True)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    assert process.wait(120) == 0
    assert json.loads((tmp_path / "answer").read_text(encoding="utf-8"))["recipe"]


def test_a_terminal_of_its_own_that_vanishes_ends_it_as_a_signal(tmp_path: Path) -> None:
    """Whoever closes the window sends SIGHUP, and takes stdin and stderr along."""
    (tmp_path / "sleeps.py").write_text(
        "import time\ndef task():\n    print('here', flush=True)\n    time.sleep(1e6)\n", encoding="utf-8"
    )
    ours, theirs = pty.openpty()
    with open(tmp_path / "answer", "wb") as out:
        words = [sys.executable, "-m", "batchscope", "find", "sleeps.py", "--json"]
        take = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # noqa: E731
        streams: dict[str, Any] = {"stdin": theirs, "stdout": out, "stderr": theirs}
        process = subprocess.Popen(words, cwd=tmp_path, start_new_session=True, preexec_fn=take, **streams)
    os.close(theirs)
    seen = b""
    while b"here" not in seen:
        seen += os.read(ours, 1024)
    os.close(ours)
    assert process.wait(60) == 129
    assert json.loads((tmp_path / "answer").read_text(encoding="utf-8"))["error"] == "SIGHUP"


def test_what_a_stream_takes_again_is_written_again(capfd: pytest.CaptureFixture[str]) -> None:
    """A full disk silences what it refuses, and no more; a reader that has gone silences all, children too."""
    with only_answers_on_stdout(to_the_end=False):
        kept = os.dup(1)
        raw = answers()
        say("before")
        os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
        print("lost", file=sys.stderr)
        os.dup2(kept, 2)
        print("after", file=sys.stderr)
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, 2)
        print("gone", file=sys.stderr)
        subprocess.run([sys.executable, "-c", "print('child')"], check=True)
        assert answers() is raw
        assert answer_lost() is None
        os.dup2(kept, 2)
        os.close(kept)
    assert "before" in capfd.readouterr().err


def test_a_descriptor_that_another_program_made_non_blocking(tmp_path: Path) -> None:
    slow = "import time; time.sleep(1); import sys; sys.stdout.write(sys.stdin.read())"
    program = (
        "import os; os.set_blocking(1, False)\n"
        "from batchscope.cli.streams import answers, only_answers_on_stdout\n"
        "with only_answers_on_stdout(to_the_end=True):\n"
        "    answers().write('x' * 300_000)"
    )
    (tmp_path / "much.py").write_text(program, encoding="utf-8")
    assert len(shell(f"{sys.executable} much.py | {sys.executable} -c '{slow}'", tmp_path).stdout) == 300_000


# --- alphabets and terminals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "locale", "name", "dash"),
    [
        ("ascii", "C.UTF-8", "\\xf8\\u4e2d", "-"),
        ("cp1252", "C.UTF-8", "ø\\u4e2d", "–"),
        ("", "C", "\\udcc3\\udcb8\\udce4\\udcb8\\udcad", "-"),
    ],
)
def test_what_an_alphabet_lacks_is_written_in_ascii(
    tmp_path: Path, encoding: str, locale: str, name: str, dash: str
) -> None:
    (tmp_path / "runs.csv").write_text(
        "batch_size,steps_to_target,step_time_s,lr\n16,900,0.001,0.01\n64,300,0.002,0.02\n256,150,0.006,0.04\n",
        encoding="utf-8",
    )
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": locale}
    ended = shell(f"{HEAD} fit runs.csv --out ø中", tmp_path, **environment)
    assert ended.returncode == 0, ended.stderr
    text = ended.stdout.decode(encoding or "ascii")
    assert f"For programs: {name}/plan.json" in text
    assert re.search(rf"\d{dash}\d", text)
    assert "?" not in text


class Ascii(io.StringIO):
    """A terminal without any other characters."""

    encoding = "ascii"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["20", "1", "0", "nonsense"])
@pytest.mark.parametrize("term", ["xterm-256color", "dumb", ""])
def test_any_terminal(monkeypatch: pytest.MonkeyPatch, term: str, columns: str) -> None:
    screen = Ascii()
    monkeypatch.setattr(sys, "stderr", screen)
    for name, value in {"TERM": term, "COLUMNS": columns, "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    with LiveProgress(stderr()) as progress:
        progress.stage("timing m\x1b[2J\nsteps")
        progress.stage("choosing")
    said = screen.getvalue()
    assert "\x1b[2J" not in said
    assert "timing" in said.replace("\n", "") or term != "dumb" or columns in ("0", "1")


def test_a_terminal_that_moves_nothing_gets_a_line_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Ascii()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "dumb")
    with LiveProgress(stderr()) as progress:
        progress.stage("timing steps")
    assert screen.getvalue() == "timing steps\n"
