"""Requests of a search for runs, and what the results folder has for them, so that nothing is trained twice.

A request names a configuration and a point up to which it is wanted: its target, its number of steps, a milestone, a
limit. Any stored run of the same course answers it, as it was there (`training.replay`). What a question was once
answered it is answered again, whatever has become of the run since: that is kept with the question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..store.answers import Questions
from ..store.courses import course_of
from ..store.records import RunConfig, RunStatus, Target
from ..store.runs import Store, StoredRun
from ..training.replay import as_asked, at_step, seen
from ..training.stopping import PauseRule, StepLimitRule, StopRule

__all__ = ["Request", "Requests"]

_NOTE = "ends"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A run up to a point.

    Attributes:
        config: of the run.
        milestone: where it is paused; `None`: nowhere.
        limit: number of steps after which it is paused.
    """

    config: RunConfig
    milestone: Target | None = None
    limit: int | None = None

    @property
    def key(self) -> str:
        """Text that is equal exactly for equal requests."""
        config = self.config
        return f"{course_of(config)} {config.target} {config.max_steps} {self.milestone} {self.limit}"

    @property
    def pauses(self) -> list[StopRule]:
        """Rules that pause it."""
        at: list[StopRule] = [PauseRule(milestone=self.milestone)] if self.milestone is not None else []
        return [*at, *([StepLimitRule(steps=self.limit)] if self.limit is not None else [])]


@dataclass(frozen=True, kw_only=True)
class _End:
    """Where a run ended for a request."""

    run: str
    step: int
    status: RunStatus


@dataclass(frozen=True, kw_only=True)
class _Ends:
    """Where runs ended for the requests of a question, by their keys."""

    ends: Mapping[str, _End] = field(default_factory=dict[str, _End])


class Requests:
    """What a results folder has for the requests of one question.

    Args:
        store: the folder.
        questions: its questions.
        longer: whether the question has more time than it ever had: a run that its clock ended then goes on.
    """

    def __init__(self, store: Store, questions: Questions, *, longer: bool) -> None:
        self._store, self._questions, self._longer = store, questions, longer
        known = questions.read_note(_NOTE, _Ends)
        self._ends: dict[str, _End] = dict(known.ends) if known else {}
        self._at: dict[str, int] = {}

    def answered(self, request: Request, rules: Sequence[StopRule] | None = None) -> StoredRun | None:
        """The run of a request as far as it was asked for; `None`: it must be made, or go on.

        Args:
            request: the run, and up to where.
            rules: that would end it besides; `None`: they are not known yet, and nothing is kept.
        """
        run = self._store.of_course(request.config)
        if run is None or run.result is None:
            return None
        end = self._ends.get(request.key)
        if end is not None and end.run == run.id and not (self._longer and end.status is RunStatus.OUT_OF_TIME):
            view = at_step(run, request.config, end.step, end.status)
        else:
            since = self._at.get(run.id, 0)
            view = seen(run, request.config, pauses=request.pauses, rules=rules or (), since=since)
        if view is not None and rules is not None:
            self.keep(request, view)
        return view

    @property
    def out_of_time(self) -> bool:
        """Whether the clock ended a run that was asked for."""
        return any(end.status is RunStatus.OUT_OF_TIME for end in self._ends.values())

    def keep(self, request: Request, run: StoredRun) -> None:
        """Keep where a run ended for a request."""
        assert run.result is not None
        end = _End(run=run.id, step=run.result.steps, status=run.result.status)
        self._at[run.id] = end.step
        if self._ends.get(request.key) != end:
            self._ends[request.key] = end
            self._questions.note(_NOTE, _Ends(ends=self._ends))

    def earlier(self, request: Request) -> StoredRun | None:
        """A run that earlier questions left, as far as it had gone when this question was first asked.

        It has reached the target, has diverged, or counts as paused: where an earlier question let it end by its own
        target and rules, it would have gone on for this one. `None` where there was none.
        """
        run = self._store.of_course(request.config)
        found = self._questions.asked.runs.get(run.id) if run is not None else None
        if run is None or found is None:
            return None
        rows = tuple(row for row in run.rows if row["step"] <= found.steps)
        view = seen(replace(run, rows=rows), request.config)
        if view is None:
            status = found.status if found.status is RunStatus.DIVERGED else RunStatus.PAUSED
            view = at_step(run, request.config, found.steps, status)
        if view is not None and view.result is not None:
            self._at[run.id] = view.result.steps
        return view

    def to_make(self, request: Request) -> tuple[RunConfig, StoredRun | None]:
        """The configuration to train a request at, and the run that goes on, if there is one."""
        run = self._store.of_course(request.config)
        return (request.config, None) if run is None else (as_asked(run, request.config), run)
