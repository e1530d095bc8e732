"""Repeats in several processes: the same results, whoever does them; nothing outlives the process that asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscope.laboratory.studies.gradient_size.measure import Part, measure_part
from batchscope.tasks.loading import as_loaded, load_task
from batchscope.tasks.workload import Workload
from batchscope.training.executors.processes import SharedRepeats

MODULE = '''
import os

def squares(workload, model, numbers, arguments, stop):
    """Fails in every process but one, where that is asked for."""
    here = os.getpid() == arguments["parent"]
    if arguments["refuses"] and not here:
        raise MemoryError("no memory in this process")
    return here, [n * n for n in numbers]
'''
FRAME = {"batch_sizes": (1, 4, 16), "samples": 16, "lr": 0.1, "seed": 3, "limit": 0.5, "mark": 0.01, "marks": (0.02,)}
CHUNKS = [range(0, 2), range(2, 3), range(3, 5)]


def ready() -> tuple[Any, Workload]:
    loaded = load_task("digits", ["hidden=16"])
    return loaded, Workload(loaded.task, name=loaded.name, settings=loaded.settings)


def part_of(shared: SharedRepeats, workload: Workload, seed: int) -> Part:
    parts = [found for _, found in shared.results(measure_part, workload.model(seed), CHUNKS, FRAME)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.joined(part)
    return whole


def values(part: Part) -> Any:
    return part.norms.repeats, part.norms.norms, part.histograms, part.beyond


def never() -> bool:
    return False


@pytest.fixture
def squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "squares_for_tests.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import squares_for_tests  # pyright: ignore[reportMissingImports]

    return squares_for_tests.squares


def test_the_results_are_the_same_in_one_process_and_in_two(squares: Callable[..., Any]) -> None:
    loaded, workload = ready()
    with SharedRepeats(loaded, workload, late=never, processes=1) as shared:
        assert shared.expect(1e6) == 1
        alone = [values(part_of(shared, workload, seed)) for seed in (0, 1)]
    assert alone[0][0] == (0, 1, 2, 3, 4)
    assert alone[0][1] != alone[1][1]
    with SharedRepeats(loaded, workload, late=never, processes=2) as shared:
        assert shared.expect(1.0) == 1, "a short measurement is not worth a process"
        assert shared.expect(1e6) == 2
        assert [values(part_of(shared, workload, seed)) for seed in (0, 1)] == alone
        model, asked = workload.model(0), {"parent": os.getpid(), "refuses": False}
        elsewhere = dict(shared.results(squares, model, CHUNKS, asked))
        assert elsewhere == {n: (False, [i * i for i in n]) for n in CHUNKS}
        here = dict(shared.results(squares, model, CHUNKS, {**asked, "refuses": True}))
        assert here == {n: (True, [i * i for i in n]) for n in CHUNKS}
        assert shared.processes == 1


def test_a_task_made_in_python_is_measured_here(squares: Callable[..., Any]) -> None:
    loaded, workload = ready()
    with SharedRepeats(as_loaded(loaded.task), workload, late=never, processes=2) as shared:
        assert shared.expect(1e6) == 1
        found = list(shared.results(squares, workload.model(0), CHUNKS, {"parent": os.getpid(), "refuses": False}))
    assert [(n, answer[0]) for n, answer in found] == [(n, True) for n in CHUNKS]


def test_a_task_that_changed_since_is_measured_here(tmp_path: Path, squares: Callable[..., Any]) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from batchscope.tasks.builtin.digits import digits as mine\n", encoding="utf-8")
    loaded = load_task(f"{path}:mine", {"hidden": 8})
    workload = Workload(loaded.task, name=loaded.name, settings=loaded.settings)
    path.write_text("from batchscope.tasks.builtin.digits import digits as mine  # edited\n", encoding="utf-8")
    with SharedRepeats(loaded, workload, late=never, processes=2) as shared:
        assert shared.expect(1e6) == 2
        found = list(shared.results(squares, workload.model(0), CHUNKS, {"parent": os.getpid(), "refuses": False}))
        assert [answer[0] for _, answer in found] == [True, True, True]


def test_when_it_is_late_nothing_more_is_begun(squares: Callable[..., Any]) -> None:
    loaded, workload = ready()
    done: list[range] = []
    with SharedRepeats(loaded, workload, late=lambda: len(done) == 2, processes=1) as shared:
        for numbers, _ in shared.results(squares, workload.model(0), CHUNKS, {"parent": 0, "refuses": False}):
            done.append(numbers)
    assert done == CHUNKS[:2]


def test_processes_end_with_their_parent_even_when_it_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from batchscope.tasks.loading import load_task\n"
        "from batchscope.training.executors.processes import SharedRepeats\n"
        "from batchscope.tasks.workload import Workload\n"
        "loaded = load_task('digits')\n"
        "shared = SharedRepeats(loaded, Workload(loaded.task), late=lambda: False, processes=2)\n"
        "shared.expect(1e6)\n"
        "print(*[worker.process.pid for worker in shared.workers], flush=True)\n"
        "time.sleep(1000)\n",
        encoding="utf-8",
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(signal.SIGKILL)
    limit = time.monotonic() + 60
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < limit
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody waited for yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
