"""What the command line shows: live progress on stderr, and the answer as a table on stdout."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .progress import Prediction
from .records import Alternative, Bench, Plan, PlanStatus, Predicted, Recipe, Row, RunConfig
from .report.summary import summary
from .report.wording import bytes_, count, duration, number, percent, plural, with_interval
from .store import StoredRun

__all__ = ["LiveProgress", "bench_table", "plan_view", "runs_table"]


class LiveProgress:
    """Draws the course of a search: on a terminal one line that moves under the finished runs, else a line an event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._doing = ""
        self._best = ""
        self._left = ""
        self._deadline = 0.0
        self._runs = 0

    def __enter__(self) -> LiveProgress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def predicted(self, prediction: Prediction) -> None:
        """The predicted duration, first of all."""
        self._deadline = time.monotonic() + prediction.budget_s
        self._console.print(prediction_in_words(prediction), highlight=False)

    def stage(self, text: str) -> None:
        """A part of the work that is no training run."""
        self._doing = text
        self._say(text)

    def run_started(self, config: RunConfig, why: str, left: str) -> None:
        """A training run."""
        self._runs += 1
        self._doing = (
            f"run {self._runs}: {config.purpose}, batch size {config.batch_size}, rate {number(config.lr)} ({why})"
        )
        self._left = left
        self._say(self._doing)

    def row(self, row: Row) -> None:
        """An evaluation of the run."""
        if row["kind"] != "evaluation":
            return
        metrics = ", ".join(
            f"{name} {number(value)}" for name, value in row["metrics"].items() if not name.startswith("test_")
        )
        left = f"at most {duration(max(0.0, self._deadline - time.monotonic()))} left"
        parts = [self._doing, f"step {row['step']}: {metrics}", left, self._best and f"best so far: {self._best}"]
        self._draw("\n  ".join(part for part in parts if part))

    def run_finished(self, run: StoredRun, best: str) -> None:
        """How it ended."""
        self._best = best
        if run.result is None:
            return
        steps = run.result.steps_to_target
        end = (
            f"target after {number(steps)} steps"
            if steps
            else f"{run.result.message} ({plural(run.result.steps, 'step')})"
        )
        self._console.print(
            f"  {run.config.purpose:<8} batch size {run.config.batch_size:>6}  rate {number(run.config.lr):<8} {end}",
            highlight=False,
        )

    def _say(self, text: str) -> None:
        if self._console.is_terminal:
            self._draw(text)
        else:
            self._console.print(text, highlight=False)

    def _draw(self, text: str) -> None:
        if self._console.is_terminal:
            self._live.update(Spinner("dots", Text(text, overflow="fold")))


def prediction_in_words(prediction: Prediction) -> str:
    """One sentence."""
    low, high = duration(prediction.low), duration(prediction.high)
    span = f"{low} to {high}" if low != high else high
    return (
        f"This search should take about {duration(prediction.seconds)} ({span}) after the measurements of the "
        f"hardware, assuming {prediction.assumption}; it ends after {duration(prediction.budget_s)} at the latest (--budget)."
    )


def plan_view(plan: Plan, folder: str) -> RenderableType:
    """The answer, to be read in ten seconds."""
    parts: list[RenderableType] = [Text(sentence) for sentence in summary(plan)[:1]]
    if plan.recipe is not None and plan.predicted is not None:
        parts.append(_recipe_table(plan, plan.recipe, plan.predicted))
        parts.extend(Text(sentence) for sentence in summary(plan)[3:])
    else:
        parts.extend(Text(sentence) for sentence in summary(plan)[1:])
    if plan.status not in (PlanStatus.OK, PlanStatus.TARGET_NOT_REACHED, PlanStatus.INSUFFICIENT_DATA):
        parts.append(Text(f"{plan.status.value}: {plan.message}."))
    if plan.alternatives:
        parts.append(_alternatives_table(plan.alternatives))
    parts.append(Text(_cost_in_words(plan)))
    parts.append(Text(f"Why, with figures: {folder}/report.html   for programs: {folder}/plan.json", overflow="fold"))
    return Group(*(item for part in parts for item in (part, Text())))


def _recipe_table(plan: Plan, recipe: Recipe, predicted: Predicted) -> Table:
    table = Table(show_header=True, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("recipe", style="bold")
    if plan.current is not None and plan.current_predicted is not None:
        table.add_column("current")
    for name, *values in _recipe_rows(plan, recipe, predicted):
        table.add_row(name, *values)
    return table


def _recipe_rows(plan: Plan, recipe: Recipe, predicted: Predicted) -> Iterable[tuple[str, ...]]:
    pairs = [(recipe, predicted)]
    if plan.current is not None and plan.current_predicted is not None:
        pairs.append((plan.current, plan.current_predicted))
    yield ("batch size", *(count(r.batch_size) for r, _ in pairs))
    if any(r.grad_accum_steps > 1 for r, _ in pairs):
        yield ("  in micro-batches", *(f"{r.grad_accum_steps} x {r.micro_batch_size}" for r, _ in pairs))
    yield ("learning rate", *(number(r.lr) for r, _ in pairs))
    if recipe.schedule != "constant":
        yield ("schedule", *(r.schedule for r, _ in pairs))
    yield ("steps", *(with_interval(p.steps_to_target) for _, p in pairs))
    yield ("epochs", *(number(r.epochs) for r, _ in pairs))
    yield ("step time", *(with_interval(p.step_time_s, duration) for _, p in pairs))
    yield ("time to target", *(with_interval(p.time_to_target_s, duration) for _, p in pairs))
    yield ("examples", *(with_interval(p.examples_to_target) for _, p in pairs))
    yield ("peak memory", *(with_interval(p.peak_memory_bytes, bytes_) for _, p in pairs))
    yield (
        "stop early",
        f"when nothing improved for {number(recipe.early_stop.patience)} epochs",
        *([""] if len(pairs) > 1 else []),
    )


def _alternatives_table(alternatives: Iterable[Alternative]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("alternatives", "batch size", "rate", "time", "examples", "memory"):
        table.add_column(column, justify="left" if column == "alternatives" else "right", max_width=44)
    for other in alternatives:
        table.add_row(
            other.why,
            count(other.recipe.batch_size),
            number(other.recipe.lr),
            duration(other.predicted.time_to_target_s.value),
            number(other.predicted.examples_to_target.value),
            bytes_(other.predicted.peak_memory_bytes.value),
        )
    return table


def _cost_in_words(plan: Plan) -> str:
    cost = plan.search
    equivalents = (
        "" if cost.run_equivalents is None else f", as much as {number(cost.run_equivalents)} trainings at the recipe"
    )
    sure = plan.probability_within_5_percent
    within = "" if sure is None else f" Probability that it is within 5 % of the best: {percent(sure)}."
    return (
        f"The search made {plural(cost.runs, 'run')} in {duration(cost.seconds)}; their steps take "
        f"{duration(cost.device_seconds)} on the hardware that the answer is for{equivalents}.{within}"
    )


def bench_table(bench: Bench) -> Table:
    """Step time and memory against micro-batch size."""
    table = Table(box=None, pad_edge=False)
    for column in ("micro-batch", "step time", "examples / s", "peak memory"):
        table.add_column(column, justify="right")
    for reading in bench.readings:
        seconds = reading.step_time_s
        table.add_row(
            count(reading.micro_batch_size),
            duration(seconds) if seconds else "",
            number(reading.micro_batch_size / seconds) if seconds else "",
            bytes_(reading.peak_memory_bytes) if reading.peak_memory_bytes else "",
        )
    return table


def runs_table(runs: Iterable[StoredRun]) -> Table:
    """The runs of a results folder."""
    table = Table(box=None, pad_edge=False)
    for column in ("run", "purpose", "batch size", "rate", "seed", "status", "steps", "steps to target"):
        table.add_column(column, overflow="fold")
    for run in runs:
        result, config = run.result, run.config
        table.add_row(
            run.id,
            config.purpose,
            count(config.batch_size),
            number(config.lr),
            str(config.seed),
            result.status.value if result else "unfinished",
            count(result.steps) if result else "",
            number(result.steps_to_target) if result and result.steps_to_target else "",
        )
    return table
