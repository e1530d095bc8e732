"""The terminal: where the command line writes, and the live view of a search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from ..store.courses import course_of
from ..store.records import Row, RunConfig, RunStatus
from ..store.runs import StoredRun
from ..training.limits import Deadline
from ..training.progress import Prediction
from ..wording import about, elapsed, showable
from .lines import Lines
from .run_view import RunView, evaluation_in_words, finished_in_words
from .signals import before_the_end
from .streams import answers, messages
from .views import prediction_in_words, renewed_in_words

__all__ = ["LiveProgress", "show", "stderr", "stdout"]

_FIRST_S, _EVERY_S = 10.0, 30.0
"""In a file or a pipe: seconds of a run until its first line, and from one line to the next."""
_MUCH, _MUCH_S = 1.5, 10.0
"""A forecast has changed by much when it is this factor and these seconds off the one that was said."""
_REFRESHES_PER_SECOND = 4
_COMPLETE = (RunStatus.REACHED, RunStatus.OUT_OF_STEPS, RunStatus.DIVERGED)
"""How a run ends that does not wait to go on."""


class _Plain(Console):
    """Console that takes what users wrote for text: never for markup, and nothing in it steers the terminal.

    A string is one line; lines that are meant are parts of their own, or a `Text`.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(**how, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """The text, without control characters; every string that is printed comes by, those in tables too."""
        return super().render_str(showable(text), **how)

    def on_broken_pipe(self) -> None:
        """Go on where whoever read has gone."""


def stdout() -> Console:
    """Console for answers."""
    return _Plain(file=answers())


def stderr() -> Console:
    """Console for progress."""
    return _Plain(file=messages())


def show(console: Console, parts: Sequence[RenderableType]) -> None:
    """Print parts one under another; in a file or a pipe a sentence is one line, whatever its length."""
    for part in parts:
        whole = isinstance(part, Lines) or (isinstance(part, str) and not console.is_terminal)
        console.print(part, soft_wrap=whole)


class LiveProgress:
    """Progress of a search: on a terminal a few lines that move under the finished runs, else a line an event.

    A run that takes long is seen inside: on a terminal four times a second, in a file or a pipe after 10 s and then
    every 30 s.

    Args:
        console: where to; usually stderr.
        clock: seconds since some moment.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._spinner = Spinner("line" if console.options.ascii_only else "dots")
        self._moves = console.is_terminal and not console.is_dumb_terminal
        self._doing, self._since, self._measured = "", clock(), ""
        self._best = ""
        self._prediction: Prediction | None = None
        self._said: Prediction | None = None
        self._deadline: Deadline | None = None
        self._end = 0.0
        self._run: RunView | None = None
        self._next_line = 0.0
        self._numbers: dict[str, int] = {}
        self._waiting: set[str] = set()
        self._live = Live(
            console=console, get_renderable=self.drawn, refresh_per_second=_REFRESHES_PER_SECOND, transient=True
        )

    def __enter__(self) -> LiveProgress:
        if self._moves:
            before_the_end.append(self._live.stop)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
        if self._moves:
            before_the_end.remove(self._live.stop)

    def predicted(self, prediction: Prediction) -> None:
        """Show the predicted duration, first of all."""
        self._deadline = Deadline.after(prediction.budget_left_s, clock=self._clock)
        self._take(prediction)
        self._said = prediction
        show(self._console, [prediction_in_words(prediction)])

    def renewed(self, prediction: Prediction) -> None:
        """Take the renewed forecast; without a terminal it is a line where it has changed by much."""
        self._take(prediction)
        before = self._said
        if self._moves or (before is not None and not _changed(before, prediction)):
            return
        self._said = prediction
        show(self._console, [f"  {renewed_in_words(prediction)}"])

    def stage(self, text: str) -> None:
        """Show a part of the work that is no training run."""
        self._run = None
        self._begin(text)
        if not self._moves:
            show(self._console, [text])

    def run_started(self, config: RunConfig, why: str, left: str, expected_steps: float | None = None) -> None:
        """Show a training run that begins."""
        course = course_of(config)
        again = "" if course not in self._numbers else "goes on" if course in self._waiting else "again"
        number = self._numbers.setdefault(course, len(self._numbers) + 1)
        self._run = RunView(config, number, why, expected_steps, began=self._clock(), again=again)
        self._next_line = self._clock() + _FIRST_S
        self._begin(self._run.title)
        if not self._moves:
            show(self._console, ["; ".join(part for part in (self._run.title, left) if part)])

    def step(self, step: int) -> None:
        """Take a step of the run at work."""
        run = self._run
        if run is None:
            return
        run.step = step
        if not self._moves and self._clock() >= self._next_line:
            self._next_line = self._clock() + _EVERY_S
            show(self._console, [f"  {'; '.join(self._inside(run))}"])

    def row(self, row: Row) -> None:
        """Take an evaluation of the run, or of a training that is part of a measurement."""
        if row["kind"] != "evaluation":
            return
        if self._run is not None:
            self._run.evaluated(row, self._clock())
        else:
            self._measured = evaluation_in_words(row)

    def run_finished(self, run: StoredRun, best: str) -> None:
        """Show how a run ended."""
        self._best, view, self._run = best, self._run, None
        if run.result is None or view is None:
            return
        course = course_of(view.config)
        (self._waiting.discard if run.result.status in _COMPLETE else self._waiting.add)(course)
        show(self._console, [f"  {finished_in_words(run, view.number_)}"])
        self._begin("choosing what to run next")

    def _take(self, prediction: Prediction) -> None:
        self._prediction = prediction
        self._end = self._clock() + prediction.seconds - prediction.spent_s

    def _begin(self, text: str) -> None:
        self._doing, self._since, self._measured = text, self._clock(), ""

    def _inside(self, run: RunView) -> list[str]:
        """What is known in the middle of a run: the run, the command, the best so far."""
        best = f"best so far: {self._best}" if self._best else ""
        return [part for part in (run.state(self._clock()), self._left(), best) if part]

    def _left(self) -> str:
        """Time that is left of the command, by the forecast and by the budget."""
        if self._prediction is None or self._deadline is None:
            return ""
        what, left_s, budget_s = self._prediction.what, self._end - self._clock(), self._deadline.left_s
        if budget_s <= left_s or not budget_s:
            return f"the budget ends the {what} in {about(budget_s)}" if budget_s else "the budget is used up"
        left = f"about {about(left_s)} left" if left_s > 0 else "longer than was forecast"
        return f"{what}: {left}, at most {about(budget_s)}"

    def drawn(self) -> RenderableType:
        """The lines that move; drawn again by the console's own thread."""
        lines = [self._doing]
        if self._run is not None:
            lines += self._inside(self._run)
        else:
            passed = self._clock() - self._since
            lines[0] += f" ({elapsed(round(passed))})" if passed >= 2 else ""
            lines += [part for part in (self._measured, self._best and f"best so far: {self._best}") if part]
        if self._prediction is not None and self._prediction is not self._said:
            lines.append(renewed_in_words(self._prediction))
        text = Text("\n  ", overflow="fold").join(map(self._console.render_str, lines))
        self._spinner.update(text=text)
        return self._spinner


def _changed(before: Prediction, now: Prediction) -> bool:
    """Whether a forecast is another one by much, or much surer."""
    off = max(before.seconds, now.seconds) / max(1e-9, min(before.seconds, now.seconds))
    surer = before.high / max(1e-9, before.low) > _MUCH**2 * now.high / max(1e-9, now.low)
    return max(now.seconds - now.spent_s, abs(now.seconds - before.seconds)) >= _MUCH_S and (off >= _MUCH or surer)
