"""A call of user code that hangs ends with a message, whatever it stands in; what only takes long does not."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from batchscope.errors import TaskError
from batchscope.tasks.patience import FIRST_S, GENEROUS, LEAST_S, Patience, patience, waiting_for
from batchscope.tasks.step_timeout import watching
from batchscope.tasks.user_code import explained


def sleeps() -> None:
    time.sleep(1e6)


def waits_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def tries_again() -> None:
    """As code does that takes every error for a network's."""
    for _ in range(2):
        with contextlib.suppress(BaseException):
            time.sleep(1e6)
    time.sleep(1e6)


class Slow:
    def __del__(self) -> None:
        time.sleep(1e6)


def hangs_in_a_destructor() -> None:
    """The first interruption is dropped by Python, and nothing is said of it."""
    slow = Slow()
    del slow
    time.sleep(1e6)


def yields() -> Iterator[int]:
    try:
        yield 1
    finally:
        time.sleep(1e6)


def hangs_where_a_generator_is_dropped() -> None:
    stream = yields()
    next(stream)
    del stream
    time.sleep(1e6)


@pytest.mark.parametrize(
    "hangs", [sleeps, waits_for_a_lock, tries_again, hangs_in_a_destructor, hangs_where_a_generator_is_dropped]
)
def test_a_call_that_hangs_ends_with_a_message(hangs: Callable[[], None]) -> None:
    with (
        pytest.raises(
            TaskError, match=r"evaluate\(model\) .* \(test_step_timeout.py, line \d+.*--step-timeout"
        ) as said,
        watching(0.3),
        explained("evaluate(model)"),
    ):
        hangs()
    assert said.value.exit_status == 2
    assert not patience().watched


def test_the_message_names_the_innermost_call_and_a_time_out_that_is_enough() -> None:
    def task(seconds: float) -> None:
        with explained("evaluate(model)"), explained("collate(examples)"):
            time.sleep(seconds)

    with pytest.raises(TaskError, match=r"^collate") as said, watching(0.4):
        task(1e6)
    advised = re.search(r"--step-timeout ([\d.]+)s waits longer", str(said.value))
    assert advised is not None
    with watching(float(advised[1])):
        task(0.45)


def test_many_calls_may_take_longer_together() -> None:
    with watching(0.5), explained("evaluate(model)"):
        for _ in range(12):
            with explained("loss(model, batch)"):
                time.sleep(0.1)


def test_work_of_ours_is_not_watched() -> None:
    with watching(0.2):
        time.sleep(0.7)


def test_code_that_cannot_be_interrupted_is_left_to_the_last_resort() -> None:
    said = list[str]()
    with watching(0.2, last_resort=said.append, grace_s=0.6), explained("evaluate(model)"):
        while not said:
            with contextlib.suppress(BaseException):
                time.sleep(1.0)
    assert len(said) == 1
    assert said[0].startswith("evaluate(model)")


def test_without_a_last_resort_the_message_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), watching(0.2, grace_s=0.6), explained("evaluate(model)"):
        while not caplog.records:
            with contextlib.suppress(BaseException):
                time.sleep(0.2)
    assert "--step-timeout" in caplog.text


def test_signals_of_the_program_are_left_alone() -> None:
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2
    before = [signal.getsignal(number) for number in numbers]
    with watching(10.0):
        assert [signal.getsignal(number) for number in numbers] == before


def test_an_interrupt_of_the_users_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt), watching(10.0), explained("evaluate(model)"):
        signal.raise_signal(signal.SIGINT)


def test_what_an_interrupted_call_left_is_not_waited_for() -> None:
    patience().waited_for.append(("evaluate(model)", 0.0))
    with watching(0.2):
        time.sleep(0.7)
    assert not patience().waited_for


def test_in_another_thread_nothing_is_interrupted_and_the_limit_holds_for_loaders() -> None:
    limits = list[float]()

    def work() -> None:
        with watching(0.1), explained("evaluate(model)"):
            time.sleep(0.4)
            limits.append(patience().limit_s("a batch"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert limits == [0.1]


def test_time_in_which_the_process_stood_still_does_not_count() -> None:
    """As where a laptop sleeps: it is stopped for longer than the limit, in the middle of a call."""
    script = (
        "import time\n"
        "from batchscope.tasks.step_timeout import watching\n"
        "from batchscope.tasks.patience import waiting_for\n"
        "with watching(2.0), waiting_for('evaluate(model)'):\n"
        "    print('here', flush=True)\n"
        "    time.sleep(1.0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(3.0)
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(60) == 0


def test_the_limit_follows_from_what_was_measured() -> None:
    known = Patience()
    assert known.limit_s("a step") == FIRST_S
    assert known.limit_s("a batch", expected_s=1.0) == LEAST_S
    known.done.add("a step")
    known.took("a step", 2.0)
    assert known.limit_s("a step") == LEAST_S
    known.took("a step", 100.0)
    known.took("a step", 50.0)
    assert known.limit_s("a step") == GENEROUS * 100.0
    assert Patience(asked_s=7.0).limit_s("a step", expected_s=1.0) == 7.0
    assert Patience(asked_s=7.0).limit_s("a batch", expected_s=100.0) == 100.0


def test_a_call_that_failed_is_none_that_was_measured() -> None:
    with contextlib.suppress(OSError), waiting_for("a call that fails"):
        raise OSError
    assert patience().limit_s("a call that fails") == FIRST_S
