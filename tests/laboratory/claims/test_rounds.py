"""The rounds of the verdicts on a scripted clock: planned again at the real pace, whole seeds, and resumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batchscope.laboratory.claims.costs import runs_of, seconds_of
from batchscope.laboratory.claims.plan import ClaimsPlan, counts, first_choices, largest_plan
from batchscope.laboratory.claims.planning import Fixed, Planned, Planning, in_words
from batchscope.laboratory.claims.rounds import PLAN, Part, Rounds
from batchscope.laboratory.pace import RunTime, pace_of
from batchscope.laboratory.records import Length, StudyQuestion
from batchscope.store.runs import Store
from batchscope.testing import evaluation, stored_run
from batchscope.training.limits import Deadline

EXAMPLES = 1000
LRS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
QUESTION = StudyQuestion(batch_sizes=(8, 64), lrs=(0.1,), length=Length(unit="epochs", amount=1))
EXPECTED = pace_of([], lambda b: 0.001, 0.001)


class StepTime:
    """A thousandth of a second a step, as it was timed beforehand."""

    @staticmethod
    def of_batch(batch_size: int) -> float:
        del batch_size
        return 0.001


@dataclass
class Progress:
    said: list[str] = field(default_factory=list[str])

    def stage(self, text: str) -> None:
        self.said.append(text)


@dataclass
class Laboratory:
    """What rounds need of a laboratory, on a clock that moves only where something is measured."""

    store: Store
    budget_s: float
    now: float = 0.0
    cut_off: bool = False
    expected: int | None = None
    examples: int = EXAMPLES
    step_time: Any = StepTime
    progress: Progress = field(default_factory=Progress)
    times: list[RunTime] = field(default_factory=list[RunTime])
    question: StudyQuestion = QUESTION

    def __post_init__(self) -> None:
        self.deadline = Deadline(self.budget_s, clock=lambda: self.now)

    @property
    def late(self) -> bool:
        return self.deadline.passed


class Measures:
    """Parts whose seconds are written down; a run takes `slower` times what was expected, and is made once."""

    def __init__(
        self, laboratory: Laboratory, plan: ClaimsPlan, slower: float, late_s: float, there: set[tuple[str, int]]
    ) -> None:
        self.laboratory, self.plan, self.slower, self.late_s, self.there = laboratory, plan, slower, late_s, there
        self.made: list[tuple[str, tuple[int, ...]]] = []

    def first_run(self, batch_size: int, lr: float) -> None:
        del lr
        steps = int(self.plan.epochs * EXAMPLES / batch_size)
        seconds = self.slower * (0.001 * steps + 0.001 * (self.plan.epochs + 1))
        self.laboratory.now += seconds
        evaluations = int(self.plan.epochs) + 1
        training_s = self.slower * 0.001 * steps
        time = RunTime(
            batch_size=batch_size, steps=steps, evaluations=evaluations, training_s=training_s, seconds=seconds
        )
        self.laboratory.times.append(time)

    @property
    def parts(self) -> Sequence[Part]:
        return (
            Part("grid", self._runs("grid"), "grid"),
            Part("once", lambda seeds: self._took("once", seeds, 0.5 / len(seeds)), once=True),
            Part("norm", self._runs("norm"), "norm"),
            Part("fixed", self._runs("fixed steps"), "fixed steps"),
            Part("late", lambda seeds: self._took("late", seeds, self.late_s), late=True),
        )

    def _runs(self, part: Any) -> Callable[[Sequence[int]], None]:
        def measure(seeds: Sequence[int]) -> None:
            each = seconds_of(self.plan, EXAMPLES, EXPECTED, StepTime.of_batch, part, seeds=1)
            self._took(part, seeds, self.slower * each)

        return measure

    def _took(self, part: str, seeds: Sequence[int], each: float) -> None:
        seconds = each * sum((part, seed) not in self.there for seed in seeds)
        whole = self.laboratory.now + seconds <= self.laboratory.budget_s
        self.laboratory.now += seconds
        self.made.append((part if whole else f"{part}, cut off", tuple(seeds)))
        self.there |= {(part, seed) for seed in seeds}
        self.laboratory.cut_off |= not whole


def planning_for(budget_s: float, **fixed: Any) -> Planning:
    choices = first_choices(EXAMPLES, lrs=LRS, seed=0, **fixed)

    def cost(plan: ClaimsPlan) -> float:
        return seconds_of(plan, EXAMPLES, EXPECTED, StepTime.of_batch)

    plan = largest_plan(choices, cost, 0.6 * budget_s)
    first = Planned(
        moment="before the first run",
        plan=plan,
        runs=runs_of(plan, EXAMPLES),
        seconds=cost(plan),
        left_s=budget_s,
        budget_s=budget_s,
        pace=EXPECTED,
    )
    return Planning(lrs=LRS, plans=(first,))


def gone(
    store: Store,
    budget_s: float,
    *,
    slower: float,
    late_s: float = 1.0,
    fixed: Fixed | None = None,
    there: set[tuple[str, int]] | None = None,
    **options: Any,
) -> tuple[Laboratory, Measures, ClaimsPlan, Planning]:
    planning = store.read_note(PLAN, Planning) or planning_for(budget_s, **options)
    laboratory = Laboratory(store, budget_s)
    measures = Measures(laboratory, planning.plan, slower, late_s, set() if there is None else there)
    rounds = Rounds(laboratory, measures, planning, fixed or Fixed(), budget_s)  # type: ignore[arg-type]
    return laboratory, measures, rounds.go(), rounds.planning


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "out", {"command": "claims"}) as opened:
        yield opened


def test_at_the_expected_pace_seeds_are_added_until_the_budget_is_used(store: Store) -> None:
    laboratory, measures, plan, planning = gone(store, 100.0, slower=1.0)
    assert not laboratory.cut_off
    assert len(plan.seeds) >= 4
    assert [moment.moment for moment in planning.plans][:2] == ["before the first run", "after the first runs"]
    assert store.read_note(PLAN, Planning) == planning
    assert [part for part, seeds in measures.made if seeds == (0, 1, 2)][:4] == ["grid", "once", "norm", "fixed steps"]
    late = next(seeds for part, seeds in measures.made if part == "late")
    assert late == (0, 1, 2, 3), "after the fourth seed"
    assert laboratory.expected == runs_of(plan, EXAMPLES)


@pytest.mark.parametrize(("slower", "budget_s"), [(5.0, 200.0), (20.0, 600.0)])
def test_a_slower_pace_makes_the_plan_smaller_and_nothing_is_half_made(
    store: Store, slower: float, budget_s: float
) -> None:
    laboratory, measures, plan, planning = gone(store, budget_s, slower=slower)
    first = planning.plans[0]
    assert planning.plans[1].seconds <= budget_s
    assert planning.plans[1].pace.step_factor == pytest.approx(slower, rel=0.01)
    assert planning.plans[1].runs < first.runs
    assert not laboratory.cut_off
    assert laboratory.now <= budget_s
    assert len(plan.seeds) >= 3
    assert not [part for part, _ in measures.made if "cut off" in part]
    assert any("planned again" in said for said in laboratory.progress.said)


def test_where_nothing_fits_the_grid_comes_first_and_the_budget_that_would_do_is_said(store: Store) -> None:
    laboratory, measures, _, _ = gone(store, 10.0, slower=50.0)
    assert laboratory.cut_off
    assert measures.made[0][0].startswith("grid")
    assert any("the budget is too small" in said and "would do" in said for said in laboratory.progress.said)


def test_what_a_user_fixed_stays_and_every_seed_is_begun(store: Store) -> None:
    options: dict[str, Any] = {"batch_sizes": (8, 64), "seeds": 5, "epochs": 20}
    fixed = Fixed(batch_sizes=(8, 64), lrs=LRS, seeds=5, epochs=20)
    _, measures, plan, planning = gone(store, 1000.0, slower=3.0, fixed=fixed, **options, fixed_lrs=True)
    assert plan == planning.plans[0].plan
    assert {seed for _, seeds in measures.made for seed in seeds} == {0, 1, 2, 3, 4}


def test_the_same_command_plans_the_same_and_a_larger_budget_adds_seeds(store: Store) -> None:
    there: set[tuple[str, int]] = set()
    _, _, plan, planning = gone(store, 150.0, slower=6.0, late_s=15.0, there=there)
    laboratory, _, again, kept = gone(store, 150.0, slower=6.0, late_s=15.0, there=there)
    assert (again, kept, laboratory.now) == (plan, planning, 0.0)
    _, _, more, later = gone(store, 3000.0, slower=6.0, late_s=15.0, there=there)
    assert len(more.seeds) == 7 > len(plan.seeds)
    assert (more.epochs, more.lrs, more.batch_sizes) == (plan.epochs, plan.lrs, plan.batch_sizes)
    assert later.plans[: len(planning.plans)] == planning.plans


def test_a_seed_that_does_not_fit_any_more_is_not_begun(store: Store) -> None:
    laboratory, measures, plan, _ = gone(store, 100.0, slower=1.0, late_s=12.0)
    assert not laboratory.cut_off
    whole = {seed for part, seeds in measures.made if part == "grid" for seed in seeds}
    assert whole == set(plan.seeds) == {s for part, seeds in measures.made if part == "late" for s in seeds}


def test_a_new_plan_is_said_with_what_changes(store: Store) -> None:
    _, _, _, planning = gone(store, 200.0, slower=20.0)
    words = in_words(*planning.plans[:2])
    assert "times as long a step as was measured before" in words
    assert "instead of" in words


def test_a_run_of_another_length_does_not_count() -> None:
    plan = ClaimsPlan(batch_sizes=(10, 40), lrs=(0.1, 1.0), seeds=(0, 1), epochs=2)

    def run(batch_size: int, lr: float, steps: int, variant: str = "") -> Any:
        settings = {"variant": variant} if variant else {}
        rows = (evaluation(0, {"val_loss": 1.0}), evaluation(steps, {"val_loss": 0.5}))
        return stored_run(batch_size, lr, rows, settings=settings, max_steps=steps, seed=0)

    assert counts(plan, run(10, 0.1, 200), EXAMPLES)
    assert not counts(plan, run(10, 0.1, 500), EXAMPLES)
    assert not counts(plan, run(10, 10.0, 200), EXAMPLES)
    assert counts(plan, run(10, 0.1, 900, "long"), EXAMPLES)
