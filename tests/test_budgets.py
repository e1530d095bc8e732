"""Every command ends with its budget, by a clock that only steps, examples and evaluations turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import OutOfTime
from batchscope.laboratory.claims.run import ClaimsQuestion, claims
from batchscope.laboratory.records import Length, StudyQuestion
from batchscope.laboratory.study import study
from batchscope.search.find import find
from batchscope.search.question import parse_seconds
from batchscope.store.records import PlanStatus, RunStatus
from batchscope.store.runs import read_runs
from batchscope.tasks.loading import as_loaded
from batchscope.testing import FakeDevice
from batchscope.training.measurements import BenchLimits, NoiseRun, keep_bench, keep_noise

LARGEST = 128
"""Examples in the training set."""
HANDFUL = 5
"""Steps of a run that an answer may rest on."""


@dataclass(frozen=True, kw_only=True)
class Slow:
    """What takes long: an example to load, an evaluation, a step."""

    example_s: float | None = None
    evaluation_s: float = 0.0
    step_s: float = 5e-3

    def device(self) -> FakeDevice:
        return FakeDevice(step_time_s=lambda size: self.step_s * (1.0 + size / 64))

    @property
    def longest_s(self) -> float:
        """Seconds of the longest step or evaluation."""
        step_s = self.step_s * (1.0 + LARGEST / 64) + LARGEST * (self.example_s or 0.0)
        return max(step_s, self.evaluation_s)


SLOW = {
    "examples": Slow(example_s=2e-3),
    "evaluations": Slow(evaluation_s=0.4),
    "steps": Slow(step_s=0.05),
}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: whether it has an answer, and the seconds of its clock."""

    answered: bool
    seconds: float
    said: str = ""


def run_find(loaded: Any, out: Path, device: FakeDevice, budget_s: float) -> tuple[bool, str]:
    plan = find(loaded, out=out, device=device, budget_s=budget_s)
    return plan.status.exit_status == 0, plan.message


def run_study(loaded: Any, out: Path, device: FakeDevice, budget_s: float) -> tuple[bool, str]:
    question = StudyQuestion(batch_sizes=(4, 32), lrs=(0.1,), seeds=(0, 1), length=Length(unit="epochs", amount=3))
    found = study(loaded, question, out=out, device=device, budget_s=budget_s)
    return found.complete, " ".join(found.notes)


def run_claims(loaded: Any, out: Path, device: FakeDevice, budget_s: float) -> tuple[bool, str]:
    found = claims(loaded, ClaimsQuestion(budget_s=budget_s), out=out, device=device)
    return found.study.complete, " ".join(found.study.notes)


def run_bench(loaded: Any, out: Path, device: FakeDevice, budget_s: float) -> tuple[bool, str]:
    bench = keep_bench(loaded, BenchLimits(), out=out, device=device, budget_s=budget_s)
    return True, " ".join(bench.notes)


def run_noise(loaded: Any, out: Path, device: FakeDevice, budget_s: float) -> tuple[bool, str]:
    report = keep_noise(loaded, NoiseRun(), out=out, device=device, budget_s=budget_s)
    return True, " ".join(report.notes)


COMMANDS: dict[str, Callable[[Any, Path, FakeDevice, float], tuple[bool, str]]] = {
    "find": run_find,
    "study": run_study,
    "claims": run_claims,
    "bench": run_bench,
    "noise": run_noise,
}


def ended(command: str, slow: Slow, out: Path, budget_s: float) -> Ended:
    device = slow.device()
    task = device.task(examples=LARGEST, example_time_s=slow.example_s, evaluation_s=slow.evaluation_s)
    try:
        answered, said = COMMANDS[command](as_loaded(task), out, device, budget_s)
    except OutOfTime as error:
        answered, said = False, str(error)
    return Ended(answered=answered, seconds=device.now, said=said)


def cases() -> list[Any]:
    """Every command with everything that is slow; searches and claims of ten seconds are many steps."""
    return [
        pytest.param(command, slow, budget_s, marks=[pytest.mark.slow] if budget_s > 3 and command != "bench" else [])
        for command in COMMANDS
        for slow in SLOW
        for budget_s in (1.0, 3.0, 10.0)
    ]


@pytest.mark.parametrize(("command", "slow", "budget_s"), cases())
def test_a_command_ends_with_its_budget(command: str, slow: str, budget_s: float, tmp_path: Path) -> None:
    seen = ended(command, SLOW[slow], tmp_path, budget_s)
    assert seen.seconds <= budget_s + max(0.1 * budget_s, SLOW[slow].longest_s), seen.said
    if command == "find" and seen.answered:
        steps = [run.result.steps for run in read_runs(tmp_path) if run.result]
        assert max(steps) >= HANDFUL


@pytest.mark.slow
def test_a_search_without_time_to_train_names_what_took_it_and_the_budget_that_would_do(tmp_path: Path) -> None:
    slow = Slow(evaluation_s=0.7)
    device = slow.device()
    task = as_loaded(device.task(examples=LARGEST, evaluation_s=slow.evaluation_s))
    for budget_s in (1.0, 3.0):
        device.now = 0.0
        plan = find(task, out=tmp_path / str(budget_s), device=device, budget_s=budget_s)
        assert plan.status is PlanStatus.INSUFFICIENT_DATA
        assert plan.recipe is None
        assert "checking the task took" in plan.message
        assert device.now <= budget_s + slow.evaluation_s
    longer = parse_seconds(plan.message.rpartition("--budget ")[2].split()[0])
    device.now = 0.0
    plan = find(task, out=tmp_path / "3.0", device=device, budget_s=longer)
    assert plan.search.runs >= 1
    assert plan.status is not PlanStatus.INSUFFICIENT_DATA


@pytest.mark.slow
def test_what_was_cut_short_before_any_run_is_measured_anew(tmp_path: Path) -> None:
    slow = Slow(step_s=0.1)
    device = slow.device()
    task = as_loaded(device.task(examples=LARGEST))
    short = find(task, out=tmp_path, device=device, budget_s=3.0)
    assert short.bench is not None
    assert short.bench.cut_short
    assert short.search.runs == 0
    device.now = 0.0
    whole = find(task, out=tmp_path, device=device, budget_s=300.0)
    assert whole.bench is not None
    assert len(whole.bench.profile.step_time_s) > len(short.bench.profile.step_time_s)
    assert whole.search.runs >= 1


def test_a_question_that_was_answered_is_answered_again_when_its_budget_is_used_up(tmp_path: Path) -> None:
    slow = Slow(evaluation_s=0.05)
    device = slow.device()
    task = as_loaded(device.task(examples=LARGEST, evaluation_s=slow.evaluation_s))
    first = find(task, out=tmp_path, device=device, budget_s=5.0)
    assert first.search.runs >= 1
    again = find(task, out=tmp_path, device=device, budget_s=5.0)
    assert (again.status, again.recipe) == (first.status, first.recipe)
    assert again.search.runs == first.search.runs


def test_a_study_that_made_no_run_says_which_budget_would_do(tmp_path: Path) -> None:
    seen = ended("study", Slow(step_s=0.3), tmp_path, 8.0)
    assert not seen.answered
    assert "--budget" in seen.said


def test_a_noise_run_that_its_budget_ends_at_its_first_steps_is_no_answer(tmp_path: Path) -> None:
    device = Slow(step_s=0.4).device()
    task = as_loaded(device.task(examples=LARGEST))
    run = NoiseRun(lr=0.1, batch_size=64)
    with pytest.raises(OutOfTime, match="--budget"):
        keep_noise(task, run, out=tmp_path / "short", device=device, budget_s=10.0)
    report = keep_noise(task, run, out=tmp_path / "longer", device=device, budget_s=40.0)
    assert report.status is RunStatus.OUT_OF_TIME
    assert report.steps >= HANDFUL
