"""Other processes: they end with this one, run no script again, print nothing, and one that dies harms no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from batchscope.training.executors.completed import completed
from batchscope.training.executors.processes import ProcessExecutor


def never() -> bool:
    return False


def until(happened: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody waited for yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_calls_are_done_in_other_processes(calls: Any) -> None:
    with ProcessExecutor(2) as executor:
        pids = executor.pids
        assert executor.processes == len(set(pids)) == 2
        assert {executor.submit(calls.pid).result() for _ in range(6)} <= set(pids)
    assert not any(map(alive, pids))


def test_an_error_says_where_it_came_from(calls: Any) -> None:
    from batchscope.errors import TaskError

    with ProcessExecutor(1) as executor:
        error = executor.submit(calls.fail, "task").exception()
        assert isinstance(error, TaskError)
        assert "in fail" in "".join(error.__notes__)
        assert "Unpicklable: 1" in str(executor.submit(calls.fail, "unpicklable").exception())
        assert isinstance(executor.submit(calls.leave).exception(), SystemExit)
        assert "pickle" in str(executor.submit(calls.pid, lambda: None).exception())
        assert executor.submit(threading.Lock).exception() is not None
        assert executor.submit(calls.pid).result() == executor.pids[0], "none of it ended the process"


def test_a_process_that_dies_fails_its_own_call_only(calls: Any) -> None:
    with ProcessExecutor(2) as executor:
        with pytest.raises(BrokenProcessPool, match="in the middle of a call"):
            executor.submit(calls.die).result()
        until(lambda: executor.processes == 1)
        assert executor.submit(calls.pid).result() in executor.pids
        last, waiting = executor.submit(calls.die), executor.submit(calls.pid)
        assert isinstance(last.exception(), BrokenProcessPool)
        assert isinstance(waiting.exception(), BrokenProcessPool)
        with pytest.raises(BrokenProcessPool):
            executor.submit(calls.pid)


def test_what_fails_elsewhere_is_done_here(calls: Any) -> None:
    from functools import partial

    for function in (calls.everywhere_but, calls.dies_everywhere_but):
        with ProcessExecutor(2) as executor:
            found = dict(completed(executor, partial(function, os.getpid()), range(5), late=never))
            assert found == dict.fromkeys(range(5), os.getpid())
            assert executor.processes == 0


def test_processes_print_nothing_and_leave_interrupts_alone(calls: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with ProcessExecutor(1) as executor:
        assert executor.submit(calls.interrupt_and_print).result() == "alive"
    assert capfd.readouterr() == ("", "")


def test_what_is_at_work_is_thrown_away(calls: Any, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    executor = ProcessExecutor(2)
    pids = executor.pids
    futures = [executor.submit(calls.forever, begun) for _ in range(4)]
    until(lambda: begun.exists() and len(begun.read_text().split()) == 2)
    executor.shutdown(wait=False, cancel_futures=True)
    assert not any(map(alive, pids))
    assert sorted(future.cancelled() for future in futures) == [False, False, True, True]
    assert sum(not future.cancelled() and isinstance(future.exception(), BrokenProcessPool) for future in futures) == 2


def test_when_it_is_late_nobody_waits_for_what_is_at_work(calls: Any, tmp_path: Path) -> None:
    from functools import partial

    begun, found = tmp_path / "begun", []
    with ProcessExecutor(2) as executor:
        pids = executor.pids
        function = partial(calls.stuck_but_first, begun)
        for number, _ in completed(executor, function, range(4), late=lambda: begun.exists() and bool(found)):
            found.append(number)
        assert found == [0]
        assert not any(map(alive, pids))


def test_a_call_that_waits_can_be_cancelled(calls: Any, tmp_path: Path) -> None:
    executor = ProcessExecutor(1)
    at_work, waiting = executor.submit(calls.forever, tmp_path / "begun"), executor.submit(calls.pid)
    until(at_work.running)
    assert waiting.cancel()
    assert not at_work.cancel()
    executor.shutdown(wait=False, cancel_futures=True)


def test_a_process_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        ProcessExecutor(2)


def run(script: Path, text: str) -> subprocess.Popen[str]:
    script.write_text(text, encoding="utf-8")
    return subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    with run(
        tmp_path / "script.py",
        "import os\n"
        "from batchscope.training.executors.completed import completed\n"
        "from batchscope.training.executors.processes import ProcessExecutor\n"
        "def own(number, late):\n"
        "    return os.getpid()\n"
        f"with open({str(tmp_path / 'ran')!r}, 'a') as file:\n"
        "    file.write('ran\\n')\n"
        "with ProcessExecutor(2) as executor:\n"
        "    assert executor.submit(os.getpid).result() in executor.pids\n"
        "    assert executor.submit(own, 0, None).exception() is not None\n"
        "    found = dict(completed(executor, own, range(3), late=lambda: False))\n"
        "print(set(found.values()) == {os.getpid()})\n",
    ) as script:
        assert script.communicate()[0] == "True\n"
    assert script.returncode == 0
    assert (tmp_path / "ran").read_text() == "ran\n"


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_their_parent_even_when_it_is_killed(tmp_path: Path, ending: signal.Signals) -> None:
    with run(
        tmp_path / "parent.py",
        "import signal, sys, time\n"
        "from batchscope.training.executors.processes import ProcessExecutor\n"
        "sys.excepthook = lambda *error: None\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "executor = ProcessExecutor(2)\n"
        "executor.submit(time.sleep, 1000)\n"
        "print(*executor.pids, flush=True)\n"
        "time.sleep(1000)\n",
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(ending)
    until(lambda: not any(map(alive, pids)))
