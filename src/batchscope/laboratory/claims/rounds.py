"""The order in which the verdicts' runs are made: what decides most first, whole parts before half ones.

    the first runs      one of each batch size, which show the pace; then it is planned again
    the first seeds     every part with three seeds, the part that most statements need first; a part that does not
                        fit into the time that is left waits, where another one fits
    the fourth seed     which decides more than what is late: parts that take long for the statements that need them
    late parts          with all seeds so far
    further seeds       one at a time, with every part; one that does not fit is not begun

On `digits` 59 statements were decided with two seeds, 69 with three, 75 with four, 79 with seven (docs/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from ...wording import duration
from ..engine import Laboratory
from ..pace import Pace, budget_for, pace_of
from .costs import RunsOf, runs_of, seconds_of
from .plan import ClaimsPlan
from .planning import FIRST_SEEDS, Fixed, Planned, Planning, after_first_runs, after_first_seeds, in_words

__all__ = ["PLAN", "Part", "Rounds"]

PLAN = "claims-plan"
"""The note that holds all plans."""

_SPENT = "claims-spent"
_PILOT_SHARE = 0.15
"""Of the budget that the first runs may take; it is planned again with those that were made then."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What every part took, over all commands on a folder."""

    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    seeds: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many each part was measured with."""

    def more(self, part: str, seconds: float, seeds: int) -> Spent:
        """The same after a part was measured with so many seeds in all."""
        return Spent(
            seconds={**self.seconds, part: self.seconds.get(part, 0.0) + seconds},
            seeds={**self.seeds, part: max(seeds, self.seeds.get(part, 0))},
        )


class Part(NamedTuple):
    """Something that is measured with some seeds."""

    name: str
    """As whoever watches reads it."""
    measure: Callable[[Sequence[int]], None]
    runs_of: RunsOf | None = None
    """What it is of a plan's runs; `None`: it is measured beside them."""
    once: bool = False
    """Whether it is the same for all seeds."""
    late: bool = False
    """Whether it takes so long, for so few statements, that a fourth seed decides more."""


class Measures(Protocol):
    """What makes the runs and measurements of a plan."""

    plan: ClaimsPlan

    @property
    def parts(self) -> Sequence[Part]:
        """Everything, what most statements need first."""
        ...

    def first_run(self, batch_size: int, lr: float) -> object:
        """One run of the grid, with the first seed."""
        ...


class Rounds:
    """Goes through a plan, and plans again.

    Args:
        laboratory: keeps runs and notes, and knows the time that is left.
        measures: makes runs and measurements.
        planning: the plans so far.
        fixed: what a user fixed of them.
        budget_s: of this command.
    """

    def __init__(
        self, laboratory: Laboratory, measures: Measures, planning: Planning, fixed: Fixed, budget_s: float
    ) -> None:
        self._laboratory, self._measures, self._fixed, self._budget_s = laboratory, measures, fixed, budget_s
        self.planning = planning
        self._spent = laboratory.store.read_note(_SPENT, Spent) or Spent()
        last = planning.made_at("after the first seeds")
        self._least = 0 if last is None else len(last.plan.seeds)
        self._extends = fixed.seeds is None and (last is None or last.budget_s < budget_s)

    def go(self) -> ClaimsPlan:
        """Measure everything that fits; `Laboratory.cut_off` says whether something did not.

        Returns:
            The plan that holds at the end.
        """
        self._first_runs()
        made = len(self.planning.plan.seeds[:FIRST_SEEDS])
        quick = [part for part in self._measures.parts if not part.late]
        late = [part for part in self._measures.parts if part.late]
        self._all_of(quick, 0, made)
        if self._one_more(made):
            self._all_of(quick, made, made + 1)
            made += 1
        self._all_of(late, 0, made)
        while self._one_more(made):
            self._all_of([*quick, *late], made, made + 1)
            made += 1
        return self.planning.plan

    # --- the first runs -----------------------------------------------------------------------------------------------

    def _first_runs(self) -> None:
        if self.planning.made_at("after the first runs") is not None:
            return
        laboratory, began = self._laboratory, self._laboratory.deadline.left_s
        laboratory.progress.stage("the first runs, which show the pace")
        for batch_size, lr in self.planning.plan.pilot:
            if began - laboratory.deadline.left_s > _PILOT_SHARE * self._budget_s:
                break
            self._measures.first_run(batch_size, lr)
        if not laboratory.times:
            return
        now = after_first_runs(
            self.planning,
            self._fixed,
            laboratory.examples,
            self._pace(),
            laboratory.step_time.of_batch,
            laboratory.deadline.left_s,
        )
        self._plan_again(now)
        needed = self._needed(now)
        if now.seconds > now.left_s:
            laboratory.progress.stage(
                f"the budget is too small for it: about {duration(now.seconds)} are needed and {duration(now.left_s)} "
                f"left, so what decides most comes first; --budget {budget_for(needed)} would do"
            )

    def _needed(self, now: Planned) -> float:
        """The budget that a plan would fit into."""
        return self._budget_s - now.left_s + now.seconds

    def _pace(self) -> Pace:
        before, last = self._laboratory.step_time.of_batch, self.planning.last.pace
        return pace_of(self._laboratory.times, before, last.evaluation_s) if self._laboratory.times else last

    def _plan_again(self, now: Planned) -> None:
        """Keep a plan, say what it changes, and go by it."""
        laboratory = self._laboratory
        laboratory.progress.stage(in_words(self.planning.last, now))
        self.planning = self.planning.then(now)
        laboratory.store.note(PLAN, self.planning)
        self._measures.plan = now.plan
        laboratory.question = replace(
            laboratory.question, batch_sizes=now.plan.batch_sizes, lrs=now.plan.lrs, seeds=now.plan.seeds
        )
        laboratory.expected = runs_of(now.plan, laboratory.examples)

    # --- everything with some seeds -----------------------------------------------------------------------------------

    def _all_of(self, parts: Sequence[Part], made: int, then: int) -> None:
        """Some parts in turn, with the seeds from one number to another.

        One whose runs do not fit any more waits for the others; then the cheapest comes first.
        """
        waiting: list[Part] = []
        for part in parts:
            if part.once and made:
                continue
            if part.runs_of in (None, "grid") or self._cost(part, then - made) <= self._laboratory.deadline.left_s:
                self._measure(part, made, then)
            else:
                waiting.append(part)
        for part in sorted(waiting, key=lambda part: self._cost(part, then - made)):
            self._measure(part, made, then)

    def _cost(self, part: Part, seeds: int) -> float:
        """Seconds of a part's runs; 0 of what is measured beside them."""
        if part.runs_of is None:
            return 0.0
        how = (self.planning.plan, self._laboratory.examples, self._pace(), self._laboratory.step_time.of_batch)
        return seconds_of(*how, part.runs_of, seeds=seeds)

    def _measure(self, part: Part, made: int, then: int) -> None:
        laboratory = self._laboratory
        if laboratory.late:
            laboratory.cut_off = True
            return
        laboratory.progress.stage(part.name)
        began = laboratory.deadline.left_s
        part.measure(self.planning.plan.seeds[made:then])
        self._spent = self._spent.more(part.name, began - laboratory.deadline.left_s, then)
        laboratory.store.note(_SPENT, self._spent)

    # --- further seeds ------------------------------------------------------------------------------------------------

    def _one_more(self, made: int) -> bool:
        """Whether one more seed is begun: those that a user fixed in any case, others where a whole one fits."""
        if self._laboratory.cut_off:
            return False
        if self._fixed.seeds is None:
            self._plan_seeds(made)
        return made < len(self.planning.plan.seeds)

    def _plan_seeds(self, made: int) -> None:
        """Plan as many seeds as fit: no more than before, if the command only goes on with the same budget."""
        now = after_first_seeds(
            self.planning,
            made,
            self._laboratory.examples,
            least=max(made, self._least) if self._extends else made,
            seed_s=self._seed_s(),
            left_s=self._laboratory.deadline.left_s,
            budget_s=self._budget_s,
        )
        seeds = len(self.planning.plan.seeds)
        changed = len(now.plan.seeds) != seeds if self._extends else len(now.plan.seeds) < seeds
        if changed or self.planning.made_at("after the first seeds") is None:
            self._plan_again(now)

    def _seed_s(self) -> float:
        """Seconds of one more seed with every part that was measured."""
        once = {part.name for part in self._measures.parts if part.once}
        spent, seeds = self._spent.seconds, self._spent.seeds
        return math.fsum(seconds / max(1, seeds[name]) for name, seconds in spent.items() if name not in once)
