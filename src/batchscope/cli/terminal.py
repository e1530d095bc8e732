"""The terminal: where the command line writes, and the live view of a search."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from ..store.records import Row, RunConfig, RunStatus
from ..store.runs import StoredRun
from ..training.limits import Deadline
from ..training.progress import Prediction
from ..wording import number, plural
from .views import about, prediction_in_words

__all__ = ["LiveProgress", "show", "stderr", "stdout"]


class _Answers(Console):
    def on_broken_pipe(self) -> None:
        """Raise where whoever read the answer has gone; `main` decides what that means."""
        raise BrokenPipeError


def stdout() -> Console:
    """Console for answers. What users wrote is never taken for markup."""
    return _Answers(file=sys.stdout, markup=False, emoji=False, highlight=False)


def stderr() -> Console:
    """Console for progress."""
    return Console(file=sys.stderr, markup=False, emoji=False, highlight=False)


def show(console: Console, parts: Sequence[RenderableType]) -> None:
    """Print parts one under another; in a file or a pipe a sentence is one line, whatever its length."""
    for part in parts:
        whole = isinstance(part, str) and not console.is_terminal
        console.print(part, soft_wrap=whole)


class LiveProgress:
    """Progress of a search: on a terminal a few lines that move under the finished runs, else a line an event.

    Args:
        console: where to; usually stderr.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._doing = ""
        self._best = ""
        self._deadline: Deadline | None = None
        self._runs = 0

    def __enter__(self) -> LiveProgress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def predicted(self, prediction: Prediction) -> None:
        """Show the predicted duration, first of all."""
        self._deadline = Deadline.after(prediction.budget_s)
        show(self._console, [prediction_in_words(prediction)])

    def stage(self, text: str) -> None:
        """Show a part of the work that is no training run."""
        self._doing = text
        self._say(text)

    def run_started(self, config: RunConfig, why: str, left: str) -> None:
        """Show a training run that begins."""
        self._runs += 1
        recipe = f"batch size {config.batch_size}, learning rate {number(config.lr)}"
        self._doing = f"run {self._runs}: {config.purpose}, {recipe}" + (f" ({why})" if why else "")
        self._say("; ".join(part for part in (self._doing, left) if part))

    def row(self, row: Row) -> None:
        """Show an evaluation of the run."""
        if row["kind"] != "evaluation":
            return
        metrics = ", ".join(f"{k} {number(v)}" for k, v in row["metrics"].items() if not k.startswith("test_"))
        left = ""
        if self._deadline is not None:
            left = f"at most {about(self._deadline.left_s)} left"
        best = self._best and f"best so far: {self._best}"
        self._draw("\n  ".join(part for part in (self._doing, f"step {row['step']}: {metrics}", left, best) if part))

    def run_finished(self, run: StoredRun, best: str) -> None:
        """Show how a run ended."""
        self._best = best
        if run.result is None:
            return
        config, steps = run.config, run.result.steps_to_target
        what = f"{config.purpose:<8} batch size {config.batch_size:>6}  learning rate {number(config.lr):<8}"
        length = plural(steps or run.result.steps, "step")
        end = RunStatus.REACHED.ending if steps else run.result.status.ending
        show(self._console, [f"  {what} {length}: {end}"])
        self._doing = "choosing what to run next"
        self._draw(f"{self._doing}\n  best so far: {best}" if best else self._doing)

    def _say(self, text: str) -> None:
        if self._console.is_terminal:
            self._draw(text)
        else:
            show(self._console, [text])

    def _draw(self, text: str) -> None:
        if self._console.is_terminal:
            self._live.update(Spinner("dots", Text(text, overflow="fold")))
