"""Signals end the program with 130, 143, 129 and one sentence: small programs, each with a command of its own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SENTENCE = "finished runs are kept, and the same command goes on from there"
PROGRAM = """
import os, signal, sys, time
from batchscope.cli.signals import as_program, uninterrupted, while_answering
from batchscope.cli.streams import only_answers_on_stdout, answers

def here():
    os.write(2, b"here\\n")

def command(words):
    with only_answers_on_stdout(to_the_end=True):
        return carried_out(words)

def carried_out(words):
{body}

as_program(sys.argv[1:], command)
"""
SLEEPS = "here(); time.sleep(1e6)"
TRIES_AGAIN = """
here()
for _ in range(2):
    try:
        time.sleep(1e6)
    except BaseException:
        pass
time.sleep(1e6)
"""
IN_A_DESTRUCTOR = """
class Slow:
    def __del__(self):
        here()
        time.sleep(1e6)
slow = Slow()
del slow
time.sleep(1e6)
"""
IN_A_WEAK_CALLBACK = """
import weakref
class Thing: pass
thing = Thing()
kept = weakref.ref(thing, lambda _: (here(), time.sleep(1e6)))
del thing
time.sleep(1e6)
"""
ANOTHER_ERROR = """
try:
    here()
    time.sleep(1e6)
finally:
    raise OSError("what the interruption did to something else")
"""
RETURNS_ALL_THE_SAME = """
try:
    here()
    time.sleep(1e6)
finally:
    return 0
"""
IN_C = """
import ctypes
c, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
c.pthread_mutex_lock(lock)
here()
c.pthread_mutex_lock(lock)
"""
HANGS_AT_ITS_END = """
import threading
try:
    here()
    time.sleep(1e6)
finally:
    threading.Event().wait()
"""
CHILDREN = """
import multiprocessing
context = multiprocessing.get_context("fork")
def child():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    context.Process(target=time.sleep, args=(1e6,)).start()
    time.sleep(1e6)
context.Process(target=child).start()
time.sleep(0.5)
here()
time.sleep(1e6)
"""


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str
    left: list[int]


class Program:
    def __init__(self, folder: Path, body: str, *words: str, before: Callable[[], Any] | None = None) -> None:
        indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
        (folder / "program.py").write_text(PROGRAM.format(body=indented), encoding="utf-8")
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, folder / "program.py", *words],
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=before,
            )

    def wait_for(self, text: str) -> None:
        ends = time.monotonic() + 60
        while text not in self._err.read_text():
            assert time.monotonic() < ends, self._err.read_text()
            assert self.process.poll() is None, self._err.read_text()
            time.sleep(0.01)

    def send(self, number: int, *, to_group: bool = False) -> None:
        (os.killpg if to_group else os.kill)(self.process.pid, number)

    def ended(self) -> Ended:
        status = self.process.wait(60)
        return Ended(status, self._out.read_text(), self._err.read_text(), self.left())

    def left(self) -> list[int]:
        """Living processes of its session."""
        found = list[int]()
        for folder in Path("/proc").iterdir():
            try:
                words = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(words[3]) == self.process.pid and words[0] != "Z":
                found.append(int(folder.name))
        return found

    def kill(self) -> None:
        for number in self.left():
            os.kill(number, signal.SIGKILL)
        self.process.wait()


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    begun = list[Program]()

    def run(body: str, *words: str, before: Callable[[], Any] | None = None) -> Program:
        begun.append(Program(tmp_path, body, *words, before=before))
        return begun[-1]

    yield run
    for program in begun:
        program.kill()


def check(ended: Ended, number: int) -> None:
    assert ended.status == 128 + number, ended.err
    assert ended.err.count(SENTENCE) == 1
    assert "Traceback" not in ended.err
    assert "ignored" not in ended.err
    assert ended.left == []


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_signal_ends_it_with_its_status_and_one_sentence(start: Start, number: int, twice: bool) -> None:
    program = start(SLEEPS, "find", "--json")
    program.wait_for("here")
    program.send(number)
    if twice and program.process.poll() is None:
        program.send(number)
    ended = program.ended()
    check(ended, number)
    assert json.loads(ended.out)["status"] == "error"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(TRIES_AGAIN, id="tries again"),
        pytest.param(IN_A_DESTRUCTOR, id="destructor"),
        pytest.param(IN_A_WEAK_CALLBACK, id="weak callback"),
        pytest.param(ANOTHER_ERROR, id="another error"),
        pytest.param(RETURNS_ALL_THE_SAME, id="returns all the same"),
    ],
)
def test_what_swallows_an_exception_does_not_swallow_a_signal(start: Start, body: str) -> None:
    program = start(body)
    program.wait_for("here")
    program.send(signal.SIGINT)
    check(program.ended(), signal.SIGINT)


@pytest.mark.parametrize("body", [IN_C, HANGS_AT_ITS_END], ids=["in C", "in a finally"])
def test_the_third_signal_ends_what_cannot_be_interrupted(start: Start, body: str) -> None:
    program = start(body, "--json")
    program.wait_for("here")
    for _ in range(3):
        if program.process.poll() is None:
            program.send(signal.SIGTERM)
            time.sleep(0.2)
    ended = program.ended()
    check(ended, signal.SIGTERM)
    assert json.loads(ended.out)["error"] == "SIGTERM"


@pytest.mark.slow
def test_code_in_c_ends_after_the_grace(start: Start) -> None:
    program = start(IN_C)
    program.wait_for("here")
    program.send(signal.SIGHUP)
    check(program.ended(), signal.SIGHUP)


@pytest.mark.parametrize("to_group", [False, True], ids=["to it", "to all"])
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_children_and_their_children_are_gone(start: Start, number: int, to_group: bool) -> None:
    program = start(CHILDREN)
    program.wait_for("here")
    assert len(program.left()) == 3
    program.send(number, to_group=to_group)
    check(program.ended(), number)


def test_a_signal_that_the_parent_ignores_stays_ignored(start: Start) -> None:
    """As `nohup` does it."""
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    program = start("here(); time.sleep(1.0); return 0", before=ignore)
    program.wait_for("here")
    program.send(signal.SIGHUP)
    ended = program.ended()
    assert ended.status == 0
    assert SENTENCE not in ended.err


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_ordinary_way_out_is_no_death(start: Start, tmp_path: Path, interrupted: bool) -> None:
    """Whatever was announced and not taken back, a process that ends of its own will leaves nothing behind."""
    body = f"""
from pathlib import Path
from batchscope.store.attempts import Attempt, Attempts
attempts = Attempts(Path({str(tmp_path)!r}))
attempts.begin(Attempt(what="a step"))
here()
time.sleep({1e6 if interrupted else 0.0})
return 0
"""
    program = start(body)
    program.wait_for("here")
    if interrupted:
        program.send(signal.SIGTERM)
    assert program.ended().status == (128 + signal.SIGTERM if interrupted else 0)
    assert not (tmp_path / "attempt.json").exists()


def test_an_answer_that_was_begun_is_written_whole_and_alone(start: Start) -> None:
    body = """
with while_answering():
    answers().write('{"answer": ')
    here()
    time.sleep(1.0)
    answers().write('1}\\n')
time.sleep(1e6)
"""
    program = start(body, "--json")
    program.wait_for("here")
    program.send(signal.SIGTERM)
    ended = program.ended()
    check(ended, signal.SIGTERM)
    assert json.loads(ended.out) == {"answer": 1}


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_a_signal_at_the_end_of_the_interpreter(start: Start, number: int) -> None:
    """The answer is there, and what runs at exit is at work."""
    body = """
import atexit
atexit.register(lambda: (here(), time.sleep(1e6)))
with while_answering():
    answers().write("{}\\n")
return 0
"""
    program = start(body, "--json")
    program.wait_for("here")
    program.send(number)
    ended = program.ended()
    check(ended, number)
    assert json.loads(ended.out) == {}


def test_the_terminal_has_its_cursor_again(tmp_path: Path) -> None:
    """Also where the signal came while the live view was about to begin or to end."""
    body = """
import rich.live
from batchscope.cli.terminal import LiveProgress, stderr
class Hides(LiveProgress):
    def __enter__(self):
        super().__enter__()
        self._console.file.write("here")
        self._console.file.flush()
        time.sleep(1e6)
with Hides(stderr()):
    pass
"""
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    (tmp_path / "program.py").write_text(PROGRAM.format(body=indented), encoding="utf-8")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], stderr=theirs, stdout=subprocess.DEVNULL
    ) as process:
        os.close(theirs)
        seen = b""
        while b"here" not in seen:
            seen += os.read(ours, 1024)
        process.send_signal(signal.SIGTERM)
        try:
            while more := os.read(ours, 1024):
                seen += more
        except OSError:
            pass  # the other end is closed
        assert process.wait(60) == 143
    os.close(ours)
    assert b"\x1b[?25l" in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")
    assert seen.decode().rstrip().endswith(SENTENCE)


def test_a_command_line_inside_another_program_leaves_its_signals_alone(cli: Callable[..., Any]) -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    assert cli("count --examples 10 --batch-size 2 --epochs 1").status == 0
    assert [signal.getsignal(number) for number in NUMBERS] == before
