"""Which columns of a file are read, and as what; of several that could be meant, the one that is, or a question.

Columns that say the same in every row are as good as one another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import TableError
from ...store.records import Target
from ...wording import joined
from .names import ROLES, TARGETS, TIMES, Found, Names, Unit, plain
from .sheet import EXAMPLE, Cells, Sheet

__all__ = ["BROKEN", "CUT", "POSITIONS", "UNFINISHED", "Choice", "choose", "state_of_run"]

POSITIONS: dict[str, Unit] = {"step": "steps", "examples": "examples", "epoch": "epochs"}
"""Roles that say where in a run a row was evaluated; of several columns the first."""
UNFINISHED = ("running", "waiting", "scheduled", "queued", "pending")
BROKEN = ("fail", "failed", "crashed", "killed", "error", "cancelled", "canceled", "stopped", "preempted")
CUT = ("pruned", "early_stopped", "terminated")
_DONE = ("complete", "completed", "finished", "done", "success", "succeeded", "ok")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Columns that are read.

    Attributes:
        used: column of each role; the target's metric is a role, too.
        cells: of those columns, and of others that could have been meant.
        ignored: names of the columns that are not read.
        notes: on what was chosen, where it was not plain.
    """

    used: Mapping[str, Found]
    cells: Cells
    ignored: tuple[str, ...]
    notes: tuple[str, ...]

    def column(self, role: str) -> list[str]:
        """Cells of a role's column."""
        return self.cells.columns[self.used[role].index]


def choose(sheet: Sheet, names: Names, target: Target | None) -> Choice:
    """Choose the columns of a file.

    Args:
        sheet: the file.
        names: of its columns.
        target: what the runs were after; needed where each row is an evaluation.

    Raises:
        TableError: a column is missing, two say the same thing and differ, or a row has too many cells or too few.
    """
    _check_chosen(names, target)
    return _Chooser(sheet, names, target).choice()


def state_of_run(cell: str) -> str:
    """How a run ended, as trackers write it: `TrialState.COMPLETE`, `FINISHED`, `crashed`.

    >>> state_of_run("TrialState.PRUNED"), state_of_run(" Finished")
    ('pruned', 'finished')
    """
    return cell.strip().lower().rpartition(".")[2].replace(" ", "_").replace("-", "_")


def _check_chosen(names: Names, target: Target | None) -> None:
    metric = target.metric if target is not None else None
    wrong = [role for role in names.chosen if role not in ROLES and role != metric]
    if wrong:
        may = joined([*ROLES, *([metric] if metric else [])])
        raise TableError(
            f"--column {wrong[0]}={names.chosen[wrong[0]]}: a column may be taken for {may}; write one of these"
        )


class _Chooser:
    def __init__(self, sheet: Sheet, names: Names, target: Target | None) -> None:
        self._sheet, self._names, self._target = sheet, names, target
        self._notes: list[str] = []
        self._used: dict[str, Found] = {}

    def choice(self) -> Choice:
        found = self._candidates()
        self._cells = self._sheet.cells(sorted({each.index for some in found.values() for each in some}))
        self._settle(found)
        return Choice(used=self._used, cells=self._cells, ignored=self._ignored(), notes=tuple(self._notes))

    def _candidates(self) -> dict[str, list[Found]]:
        """Columns that each role may be, for all roles that are needed or may be there."""
        names = self._names
        found = {role: names.candidates(role) for role in ("batch_size", *TARGETS, *TIMES, "lr", "seed", "state")}
        if not found["batch_size"]:
            if all(re.fullmatch(r"[-+]?[0-9.,]+(e[-+]?[0-9]+)?", name.strip().lower()) for name in names.written):
                raise TableError(
                    f"{names.where}: the column names are {names.shown}: these are numbers, so a line of column names "
                    f"is missing, and batch_size is missing; write one above them, for example {EXAMPLE}"
                )
            raise TableError(names.missing(("batch_size",), EXAMPLE))
        if any(found[role] for role in TARGETS):
            return {role: some for role, some in found.items() if some}
        metric = self._target and names.metric(self._target)
        if not metric:
            raise TableError(self._no_target())
        found[metric[0].role] = metric
        for role in ("run", *POSITIONS):
            found[role] = names.candidates(role)
        if not any(found[role] for role in POSITIONS):
            missing = names.missing(tuple(POSITIONS), f"batch_size,step,{metric[0].role}")
            raise TableError(f"{missing}: each row says where in its run it was evaluated")
        return {role: some for role, some in found.items() if some}

    def _no_target(self) -> str:
        names = self._names
        if self._target is not None:
            return (
                f"{names.missing(tuple(TARGETS), EXAMPLE)}; or, for a row at each evaluation, --column "
                f"{self._target.metric}=NAME says which column is {self._target.metric}"
            )
        if "value" in map(plain, names.written):
            value = next(name.strip() for name in names.written if plain(name) == "value")
            return (
                f"{names.where}: there is {value}, the objective of a study, and nothing says what it counts; give "
                f"--column steps_to_target={value} (or epochs_to_target, examples_to_target) if it is the way to the "
                f"target, or --target 'val_loss<=0.3' --column val_loss={value} if it is a metric"
            )
        return (
            f"{names.missing(tuple(TARGETS), EXAMPLE)}; or, where each row is an evaluation, say what is to be "
            "reached: --target 'val_loss<=0.3'"
        )

    def _settle(self, found: Mapping[str, list[Found]]) -> None:
        """One column for each role; of several that say the same in every row, the first."""
        for kinds in (tuple(TARGETS), TIMES):
            there = [role for role in kinds if role in found]
            given = [role for role in there if role in self._names.chosen]
            if len(there) > 1 and not given:
                columns = [found[role][0].name for role in there]
                raise TableError(
                    f"{self._names.where}: {joined(columns)} say the same thing twice; keep one of these columns, or "
                    f"give --column {there[0]}={columns[0]}"
                )
            for role in there if len(given) == 1 else ():
                if role not in given:
                    found = {key: some for key, some in found.items() if key != role}
        for role, some in found.items():
            taken = some if role == "run" else [each for each in some if each.index not in self._taken()]
            if not taken:
                continue
            if len(taken) > 1 and len({plain(each.name) for each in taken}) == 1:
                raise self._names.ask(role, taken)
            same = all(self._cells.columns[each.index] == self._cells.columns[taken[0].index] for each in taken[1:])
            exact = [each for each in taken if each.name.strip() == role]
            if not same and len(exact) != 1:
                raise self._names.ask(role, taken)
            self._used[role] = (exact or taken)[0]
        self._keep_one_position()
        self._keep_known_states()
        self._say_choice()

    def _taken(self) -> set[int]:
        return {each.index for each in self._used.values()}

    def _keep_one_position(self) -> None:
        there = [role for role in POSITIONS if role in self._used]
        given = [role for role in there if role in self._names.chosen]
        for role in there:
            if role != (given or there)[0]:
                del self._used[role]

    def _keep_known_states(self) -> None:
        """A column of that name that says anything else is none."""
        if "state" not in self._used or "state" in self._names.chosen:
            return
        known = {*UNFINISHED, *BROKEN, *CUT, *_DONE, ""}
        if not {state_of_run(cell) for cell in self._cells.columns[self._used["state"].index]} <= known:
            del self._used["state"]

    def _say_choice(self) -> None:
        other = [f"{role} is {each.name}" for role, each in self._used.items() if plain(each.name) != role]
        given = [role for role in self._used if role in self._names.chosen]
        if other and len(given) < len(other):
            self._notes.append(
                f"columns as they were found: {joined(other)}; --column {other[0].partition(' ')[0]}=NAME takes another"
            )
        self._notes += [each.assumed for each in self._used.values() if each.assumed]

    def _ignored(self) -> tuple[str, ...]:
        taken = self._taken()
        return tuple(plain(name) for i, name in enumerate(self._sheet.names) if i not in taken and name.strip())
