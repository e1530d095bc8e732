"""What every executor keeps to: that of `concurrent.futures`, with one more question and one way to throw all away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, as_completed, wait
from functools import partial
from typing import Any

import pytest

from batchscope.training.executors.base import CountedExecutor
from batchscope.training.executors.completed import completed
from batchscope.training.executors.in_process import InProcessExecutor
from batchscope.training.executors.processes import ProcessExecutor

EXECUTORS: dict[str, Callable[[], CountedExecutor]] = {
    "in_process": InProcessExecutor,
    "processes": partial(ProcessExecutor, 2),
}


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest, calls: Any) -> Iterator[CountedExecutor]:
    del calls  # processes inherit `sys.path`, on which it must be by then
    with EXECUTORS[request.param]() as made:
        yield made


def never() -> bool:
    return False


class TestEveryExecutor:
    """An executor to come is one more row of `EXECUTORS`."""

    def test_results_come_in_futures(self, executor: CountedExecutor) -> None:
        futures = {executor.submit(divmod, n, 3): n for n in range(7)}
        assert {futures[future]: future.result() for future in as_completed(futures)} == {
            n: divmod(n, 3) for n in range(7)
        }

    def test_keyword_arguments_go_along(self, executor: CountedExecutor) -> None:
        assert executor.submit(int, "ff", base=16).result() == 255

    def test_map_keeps_the_order(self, executor: CountedExecutor) -> None:
        assert list(executor.map(pow, range(5), [2] * 5)) == [0, 1, 4, 9, 16]

    def test_an_error_is_the_original_one_and_harms_no_other_call(self, executor: CountedExecutor) -> None:
        failing, fine = executor.submit(int, "seven"), executor.submit(int, "7")
        with pytest.raises(ValueError, match="seven"):
            failing.result()
        assert fine.result() == 7

    def test_processes_are_counted_until_it_is_shut_down(self, executor: CountedExecutor) -> None:
        assert executor.processes >= 1
        executor.shutdown()
        assert executor.processes == 0

    def test_nothing_is_submitted_after_shutdown(self, executor: CountedExecutor) -> None:
        future = executor.submit(int, "7")
        executor.shutdown()
        executor.shutdown()
        assert future.result() == 7, "shutdown waits for what was submitted"
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(int, "7")

    def test_leaving_by_an_exception_throws_all_away(self, executor: CountedExecutor) -> None:
        with pytest.raises(KeyboardInterrupt), executor:
            raise KeyboardInterrupt
        assert executor.processes == 0

    def test_completed_gives_each_argument_with_its_result(self, executor: CountedExecutor, calls: Any) -> None:
        found = dict(completed(executor, calls.squared, range(9), late=never))
        assert found == {n: n * n for n in range(9)}
        assert executor.processes >= 1

    def test_what_a_call_raises_is_seen_here(self, executor: CountedExecutor, calls: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            list(completed(executor, calls.inverted, [1, 0, 2], late=never))

    def test_nothing_is_begun_when_it_is_late(self, executor: CountedExecutor, calls: Any) -> None:
        assert list(completed(executor, calls.squared, range(3), late=lambda: True)) == []


def test_in_process_calls_are_done_when_they_are_submitted() -> None:
    done: list[int] = []
    with InProcessExecutor() as executor:
        future = executor.submit(done.append, 3)
        assert (done, future.done(), executor.submit(os.getpid).result()) == ([3], True, os.getpid())


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_in_process_what_ends_the_program_is_not_kept_for_later(ending: type[BaseException]) -> None:
    def ends() -> Any:
        raise ending

    with InProcessExecutor() as executor, pytest.raises(ending):
        executor.submit(ends)


def test_in_process_a_call_that_is_cut_off_ends_the_results() -> None:
    from batchscope.training.limits import CutOff

    def cut(number: int, late: Callable[[], bool]) -> int:
        if number == 2:
            raise CutOff
        return number

    assert list(completed(InProcessExecutor(), cut, range(5), late=never)) == [(0, 0), (1, 1)]


def test_wait_sees_calls_in_process_as_done() -> None:
    with InProcessExecutor() as executor:
        assert not wait([executor.submit(int, "1")], timeout=0, return_when=ALL_COMPLETED).not_done


def test_executors_import_no_torch() -> None:
    modules = ("base", "in_process", "processes", "worker")
    lines = [f"import batchscope.training.executors.{module}" for module in modules]
    subprocess.run(
        [sys.executable, "-c", "\n".join([*lines, "import sys", "assert 'torch' not in sys.modules"])], check=True
    )
