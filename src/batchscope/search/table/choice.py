"""Which columns of a file are read, and as what; of several that could be meant, the one that is, or a question.

Columns that say the same in every row are as good as one another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
_NO_METRIC = {
    "batch_size": "the examples of a step",
    "lr": "the learning rate of a run",
    "seed": "the seed of a run",
    "run": "the name of a run",
    "state": "how a run ended",
    **dict.fromkeys(TARGETS, "the way to a target"),
    **dict.fromkeys(TIMES, "what time something took"),
    **dict.fromkeys(POSITIONS, "where in a run a row was evaluated"),
}
"""What a column of each role says, for a target on it."""
_GOALS = (
    *("target", "target_value", "target_metric", "target_loss", "target_accuracy", "target_quality"),
    *("goal", "goal_metric", "goal_value", "quality_target"),
)
"""Columns that say what a run was after."""
_LAST_PART = re.compile(r".*[./:]")
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


def _value(cell: str) -> float | str:
    """A number as one, so that 0.75 and 0.750 are alike; anything else as it is written."""
    try:
        return float(cell)
    except ValueError:
        return cell


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
        self._given = self._given_columns()

    def choice(self) -> Choice:
        found = self._candidates()
        needed = {each.index for some in found.values() for each in some}
        goals = [i for i, name in enumerate(self._sheet.names) if _LAST_PART.sub("", plain(name)) in _GOALS]
        self._cells = self._sheet.cells(sorted({*needed, *goals}))
        self._settle(found)
        self._check_goals(goals)
        return Choice(used=self._used, cells=self._cells, ignored=self._ignored(), notes=tuple(self._notes))

    def _given_columns(self) -> dict[int, str]:
        """Roles that the caller gave columns for, by column; a column may name the runs and be something else, too.

        Raises:
            TableError: a column was given for two roles.
        """
        given: dict[int, str] = {}
        for role, name in self._names.chosen.items():
            (found,) = self._names.candidates(role)
            if role == "run":
                continue
            if (other := given.setdefault(found.index, role)) != role:
                raise TableError(
                    f"{self._names.where}: --column {other}={self._names.chosen[other]} and --column {role}={name} are "
                    f"one column; give another for {other} or {role}"
                )
        return given

    def _free(self, role: str, found: Sequence[Found]) -> list[Found]:
        """Those that were not given for another role."""
        return [each for each in found if role == "run" or self._given.get(each.index, role) == role]

    def _candidates(self) -> dict[str, list[Found]]:
        """Columns that each role may be, for all roles that are needed or may be there."""
        names = self._names
        roles = ("batch_size", *TARGETS, *TIMES, "lr", "seed", "state")
        found = {role: self._free(role, names.candidates(role)) for role in roles}
        if not found["batch_size"]:
            self._check_not_given_away(["batch_size"])
            if all(re.fullmatch(r"[-+]?[0-9.,]+(e[-+]?[0-9]+)?", name.strip().lower()) for name in names.written):
                raise TableError(
                    f"{names.where}: the column names are {names.shown}: these are numbers, so a line of column names "
                    f"is missing, and batch_size is missing; write one above them, for example {EXAMPLE}"
                )
            raise TableError(names.missing(("batch_size",), EXAMPLE))
        if any(found[role] for role in TARGETS):
            return {role: some for role, some in found.items() if some}
        return {role: some for role, some in (found | self._of_curves()).items() if some}

    def _of_curves(self) -> dict[str, list[Found]]:
        """Columns of a table whose rows are evaluations; how a run ended its curve tells, so that `state` is none."""
        names, target = self._names, self._target
        metric = self._free(target.metric, names.metric(target)) if target is not None else []
        if not metric:
            self._check_not_given_away(list(TARGETS))
        if target is not None and (is_no_metric := _NO_METRIC.get(plain(target.metric))):
            raise TableError(
                f"{names.where}: --target '{target}': {target.metric} is {is_no_metric}, no metric; write for example "
                "--target 'val_loss<=0.3'"
            )
        if not metric:
            raise TableError(self._no_target())
        found = {metric[0].role: metric, "state": list[Found]()}
        for role in ("run", *POSITIONS):
            found[role] = self._free(role, names.candidates(role))
        if not any(found[role] for role in POSITIONS):
            self._check_not_given_away(list(POSITIONS))
            missing = names.missing(tuple(POSITIONS), f"batch_size,step,{metric[0].role}")
            raise TableError(f"{missing}: each row says where in its run it was evaluated")
        return found

    def _check_not_given_away(self, roles: Sequence[str]) -> None:
        """Raise a `TableError` where a column that the roles need was given for another."""
        for role in roles:
            for each in self._names.candidates(role):
                if each.index in self._given:
                    raise self._lost(role, each, self._given[each.index])

    def _lost(self, role: str, found: Found, other: str) -> TableError:
        return TableError(
            f"{self._names.where}: {found.name} is taken for {other}, and no column is left for {role}; give --column "
            f"{role}=NAME, or another for {other}"
        )

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
        dropped = {
            role for kinds in (tuple(TARGETS), TIMES, tuple(POSITIONS)) for role in self._meant_less(kinds, found)
        }
        found = {role: some for role, some in found.items() if role not in dropped}
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
        self._check_needed(found)
        self._keep_one_position()
        self._keep_known_states()
        self._say_choice()

    def _meant_less(self, kinds: Sequence[str], found: Mapping[str, list[Found]]) -> list[str]:
        """Roles that say the same thing as one that the caller gave a column for.

        Raises:
            TableError: none was given, or several were; where in a run a row is may be said twice.
        """
        there = [role for role in kinds if role in found]
        given = [role for role in there if role in self._names.chosen]
        if len(given) > 1 or (len(there) > 1 and not given and kinds[0] not in POSITIONS):
            columns = [found[role][0].name for role in given or there]
            raise TableError(
                f"{self._names.where}: {joined(columns)} say the same thing twice; keep one of these columns, or "
                f"give {'only ' if given else ''}--column {(given or there)[0]}={columns[0]}"
            )
        return [role for role in there if given and role not in given]

    def _check_needed(self, found: Mapping[str, list[Found]]) -> None:
        """Raise a `TableError` where a role that is needed lost its only column to another."""
        metric = tuple(role for role in found if role not in ROLES)
        for roles in (("batch_size",), tuple(TARGETS), metric, tuple(POSITIONS)):
            there = [role for role in roles if role in found]
            if there and not any(role in self._used for role in there):
                lost = found[there[0]][0]
                raise self._lost(there[0], lost, next(r for r, each in self._used.items() if each.index == lost.index))

    def _taken(self) -> set[int]:
        """Columns that are taken, but for that of the runs' names, which may be something else, too."""
        return {each.index for role, each in self._used.items() if role != "run"}

    def _keep_one_position(self) -> None:
        for role in [role for role in POSITIONS if role in self._used][1:]:
            del self._used[role]

    def _check_goals(self, columns: Sequence[int]) -> None:
        """Whether all runs were after one target, where columns say which.

        Raises:
            TableError: they were not.
        """
        if not any(role in self._used for role in TARGETS):
            return
        taken = {each.index for each in self._used.values()}
        for index in (i for i in columns if i not in taken):
            cells = list(zip(self._cells.lines, self._cells.columns[index], strict=True))
            told = [(line, cell.strip()) for line, cell in cells if cell.strip()]
            other = next((each for each in told if _value(each[1]) != _value(told[0][1])), None)
            if other is not None:
                name, (first, goal) = self._sheet.names[index].strip(), told[0]
                raise TableError(
                    f"{self._sheet.where(other[0])}: {name} is {other[1]!r}, and in line {first} {goal!r}: ways to "
                    "different targets do not make one law; keep the rows of one target"
                )

    def _keep_known_states(self) -> None:
        """A column of that name that says anything else is none."""
        if "state" not in self._used or "state" in self._names.chosen:
            return
        known = {*UNFINISHED, *BROKEN, *CUT, *_DONE, ""}
        if not {state_of_run(cell) for cell in self._cells.columns[self._used["state"].index]} <= known:
            del self._used["state"]

    def _say_choice(self) -> None:
        chosen = self._names.chosen
        found = {role: each for role, each in self._used.items() if role not in chosen and plain(each.name) != role}
        other = [f"{role} is {each.name}" for role, each in found.items()]
        if other:
            self._notes.append(
                f"columns as they were found: {joined(other)}; --column {other[0].partition(' ')[0]}=NAME takes another"
            )
        unread = [f"--column {role}={name}" for role, name in chosen.items() if role not in self._used]
        if unread:
            rows = "a run" if any(role in self._used for role in TARGETS) else "an evaluation"
            self._notes.append(f"not needed where each row is {rows}: {joined(unread)}")
        self._notes += [each.assumed for each in self._used.values() if each.assumed]

    def _ignored(self) -> tuple[str, ...]:
        taken = {each.index for each in self._used.values()}
        return tuple(plain(name) for i, name in enumerate(self._sheet.names) if i not in taken and name.strip())
