"""The benchmark of trainings in their users' own trainers: its clock, its verdicts, its words for the command line."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FOLDERS = (BENCHMARKS / "trainers", BENCHMARKS)
NAMES = {path.stem for folder in (*FOLDERS, BENCHMARKS / "real") for path in folder.glob("*.py")}

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs benchmarks/, which a source distribution lacks")
Script = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    """Imports a script of `benchmarks/trainers` by its bare name, and leaves no such name behind."""
    others = {each: sys.modules.pop(each) for each in NAMES if each in sys.modules}
    path = list(sys.path)
    sys.path[:0] = map(str, FOLDERS)
    try:
        yield importlib.import_module
    finally:
        sys.path[:] = path
        for each in NAMES & set(sys.modules):
            del sys.modules[each]
        sys.modules.update(others)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def trained(script: Script, values: Sequence[float], **limits: Any) -> tuple[dict[str, Any], list[bool]]:
    """Ten steps of 2 s between validations that take 50 s each; the set-up before takes 7 s."""
    clock = Clock()
    watch = script("own").Watch(1.0, rising=False, clock=clock, **{"max_seconds": 1e9, **limits})
    clock.now += 7
    watch.begins()
    stopped = []
    for number, value in enumerate(values, 1):
        clock.now += 20
        watch.validates()
        clock.now += 50
        stopped.append(watch.validated(10 * number, value))
    return watch.found(), stopped


def test_the_clock_stands_still_during_validations(script: Script) -> None:
    found, stopped = trained(script, [4.0, 2.0, 0.5])
    assert found["seconds"] == [20.0, 40.0, 60.0]
    assert (found["step_s"], found["validating_s"]) == (2.0, 150.0)
    assert stopped == [False, False, True]
    share = (2.0 - 1.0) / (2.0 - 0.5)
    assert found["steps_to_target"] == pytest.approx(20 * 1.5**share)
    assert found["seconds_to_target"] == pytest.approx(2 * found["steps_to_target"])


def test_a_first_validation_at_the_target_counts_with_its_own_step(script: Script) -> None:
    found, stopped = trained(script, [0.9])
    assert (found["steps_to_target"], found["seconds_to_target"], stopped) == (10, 20.0, [True])


def test_a_run_that_diverges_or_takes_too_long_is_stopped(script: Script) -> None:
    found, stopped = trained(script, [4.0, float("nan")])
    assert (found["seconds_to_target"], found["values"], stopped) == (None, [4.0, None], [False, True])
    assert trained(script, [4.0, 3.0, 2.0], max_seconds=50.0)[1] == [False, False, True]


def test_a_script_that_does_not_say_when_it_validates_is_told(script: Script) -> None:
    watch = script("own").Watch(1.0, rising=False, max_seconds=9.0)
    watch.begins()
    with pytest.raises(RuntimeError, match="not when it began"):
        watch.validated(10, 2.0)


def row(seconds: Sequence[float | None], default: Sequence[float | None], **changed: Any) -> dict[str, Any]:
    made = {
        "training": "plain_gpt",
        "status": "ok",
        "default": {"batch_size": 8, "lr": 1e-3},
        "recipe": {"batch_size": 32, "lr": 4e-3, "schedule": "constant", "steps": 300},
        "predicted": {"time_to_target_s": {"value": 4.0, "low": 3.0, "high": 5.0}},
        "fresh": [{"seconds_to_target": each} for each in seconds],
        "defaults": [{"seconds_to_target": each} for each in default],
        "wall_s": 50.0,
    }
    return {**made, **changed}


@pytest.mark.parametrize(
    ("seconds", "default", "status", "holds", "fast"),
    [
        ([3.5, 4.0, 9.0], [8.0, 8.0, 8.0], "ok", True, True),
        ([5.5, 6.0, 4.0], [5.0, 5.0, 5.0], "ok", False, False),
        ([5.5, 6.0, 4.0], [5.0, 5.0, 5.0], "keep-current", False, True),
        ([4.0, 4.0, 4.0], [None, None, 2.0], "ok", True, True),
        ([None, None, 4.0], [None, None, 2.0], "ok", False, False),
    ],
)
def test_the_verdicts(
    script: Script, seconds: list[float | None], default: list[float | None], status: str, holds: bool, fast: bool
) -> None:
    verdicts = script("verdicts")
    made = row(seconds, default, status=status)
    assert (verdicts.within(made), verdicts.fast_enough(made)) == (holds, fast)


def test_a_search_without_a_recipe_meets_nothing(script: Script) -> None:
    verdicts = script("verdicts")
    failed = row([], [5.0], status=None, recipe=None, predicted=None)
    assert verdicts.within(failed) is None
    assert not verdicts.fast_enough(failed)
    text = verdicts.table([row([4.0], [8.0]), failed], {"plain_gpt": "a small GPT"})
    assert "| a small GPT | 8, 0.001 | 32, 0.004 | 4 (3–5) | 4 | 8 | yes | 50 |" in text
    assert "| a small GPT | 8, 0.001 | none | – | – | 5 | – | 50 |" in text
    assert "interval: 1 of 2" in text
    assert "or kept: 1 of 2" in text


def test_an_open_interval_has_no_end(script: Script) -> None:
    open_ended = row([900.0], [8.0], predicted={"time_to_target_s": {"value": 4.0, "low": None, "high": None}})
    assert script("verdicts").within(open_ended)


def test_a_recipe_is_told_with_its_length_where_a_schedule_needs_it(script: Script) -> None:
    settings_of, recipe = script("run").settings_of, row([], [])["recipe"]
    assert settings_of({"recipe": recipe}) == {"batch_size": 32, "lr": 4e-3}
    assert settings_of({"recipe": {**recipe, "schedule": "task"}}) == {"batch_size": 32, "lr": 4e-3, "steps": 300}


@pytest.mark.shared
def test_a_script_trains_in_its_own_loop(script: Script) -> None:
    words = ["plain_gpt", "--target", "val_loss<=9", "--batch-size", "4", "--steps", "4", "--every", "2", "--seed", "1"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "trainers" / "own.py"), *words], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert (found["steps"], found["steps_to_target"]) == ([2], 2)
    assert found["seconds_to_target"] > 0


@pytest.mark.shared
def test_the_plain_script_is_a_task(script: Script) -> None:
    from batchscope.store.records import Target
    from batchscope.tasks.loading import load_task
    from batchscope.tasks.preflight.check import check
    from batchscope.tasks.workload import Workload

    training = script("trainings").TRAININGS["plain_gpt"]
    task = load_task(training.words[0]).task
    assert "val_loss" in check(Workload(task), target=Target.parse(training.target)).metrics


def test_every_training_has_its_script_and_defaults_of_its_own(script: Script) -> None:
    for name, training in script("trainings").TRAININGS.items():
        text = training.script.read_text(encoding="utf-8")
        assert f"batch_size={training.batch_size}, lr=1e-3, seed=0" in text, name
        assert training.lr == 1e-3
        named = [word.partition(f"{training.script}:")[2] for word in training.words if f"{training.script}:" in word]
        assert all(f"def {each}(" in text or f"class {each}(" in text for each in named), name
