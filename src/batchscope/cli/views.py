"""Answers as a person reads them in a terminal: sentences and small tables. Numbers only, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..fits.targets import passage_of
from ..report.basis import doubts, in_sentences, rest_of_message
from ..report.cost import cost_in_words
from ..report.loading import waiting_in_words
from ..report.summary import (
    course_in_words,
    length_s,
    patience_in_words,
    summary,
    threads_in_words,
    tokens_to_target,
    what_it_rests_on,
    what_to_set,
)
from ..store.endings import ending_of
from ..store.records import Bench, EasierTarget, Estimate, Plan, PlanStatus, Predicted, Recipe, Target, WhatIf
from ..store.runs import StoredRun
from ..training.count import Count
from ..training.glossary import CheckedTerm
from ..training.progress import Prediction
from ..wording import (
    about,
    bytes_,
    count,
    duration,
    epochs_in_words,
    number,
    plural,
    sentence,
    target_in_words,
    whole,
    with_interval,
)
from .lines import Lines

if TYPE_CHECKING:
    from ..training.noise import NoiseReport

__all__ = [
    "SIZE_AND_RATE",
    "WHY",
    "bench_view",
    "count_view",
    "noise_view",
    "plan_view",
    "prediction_in_words",
    "renewed_in_words",
    "runs_view",
]

SIZE_AND_RATE = (Text("batch\nsize"), Text("learning\nrate"))
"""Heads of columns, on two lines."""
WHY = "Why, with figures"
"""What a page shows, before its path."""
_COMMANDS = {"search": "This search", "study": "This study", "claims": "Deciding the claims"}
_UNKNOWN = 200.0
"""Factor between the ends of an interval from which on its upper end says nothing."""
_SPEAKS_FOR_ITSELF = (PlanStatus.OK, PlanStatus.TARGET_NOT_REACHED, PlanStatus.INSUFFICIENT_DATA)


def prediction_in_words(prediction: Prediction) -> str:
    """Prediction of how long a command will take, what that is made of, and whether its budget ends it before."""
    length = _about(prediction.low, prediction.seconds, prediction.high)
    would = "would" if prediction.too_long else "will"
    said = [f"{_COMMANDS[prediction.what]} {would} take about {length}, assuming {prediction.assumption}"]
    training = prediction.training_s
    if training is not None and prediction.trainings:
        few = plural(max(1, prediction.trainings), "training")
        each = _about(training.low, training.value, training.high)
        said.append(f"Its runs are as long as about {few} of {each} each, evaluations included")
    said.append("The budget is likely to end it before that" if prediction.too_long else "")
    end = f"No training goes on after {about(prediction.budget_s)} (--budget)"
    if prediction.earlier_s:
        end += f", of which earlier commands with this question used {about(prediction.earlier_s)}"
    return " ".join(f"{part}." for part in (*said, end) if part)


def renewed_in_words(prediction: Prediction) -> str:
    """Forecast that was renewed: what is left, and how long one training takes."""
    low, middle, high = (
        max(0.0, seconds - prediction.spent_s) for seconds in (prediction.low, prediction.seconds, prediction.high)
    )
    said = f"about {_about(low, middle, high)} left of the {prediction.what}"
    if prediction.too_long:
        said += f", but its budget is likely to end in {about(prediction.budget_left_s)}"
    training = prediction.training_s
    if training is None:
        return said
    return f"{said} (one training: about {_about(training.low, training.value, training.high)})"


def _about(low: float | None, value: float | None, high: float | None) -> str:
    assert low is not None
    assert value is not None
    assert high is not None
    said = [about(seconds) if seconds >= 1 else duration(float(f"{seconds:.1g}")) for seconds in (low, value, high)]
    if said[0] == said[2]:
        return said[1]
    return f"{said[1]} ({f'{said[0]} to {said[2]}' if high <= _UNKNOWN * low else f'at least {said[0]}'})"


def plan_view(plan: Plan) -> list[RenderableType]:
    """Answer of a search, to be read in ten seconds."""
    sentences = summary(plan)
    waits = plan.recipe is not None and bool(waiting_in_words(plan.bench, plan.recipe.batch_size))
    message_first = waits or plan.status is PlanStatus.UNFINISHED
    parts: list[RenderableType] = ["", sentences[0]]
    if plan.recipe is not None:
        first = sentence(plan.message) if message_first else in_sentences(doubts(plan))
        parts = ["", *([first, ""] if first else []), what_to_set(plan, plan.recipe)]
    if plan.recipe is not None and plan.predicted is not None:
        table = _recipe_table(plan, plan.recipe, plan.predicted)
        parts += ["", table, _intervals(plan.predicted), "", *what_it_rests_on(plan)]
    else:
        parts += sentences[1:]
    if plan.status not in _SPEAKS_FOR_ITSELF and not message_first:
        parts.append(rest_of_message(plan))
    if plan.easier_targets:
        parts += ["", _easier_table(plan.easier_targets)]
    if plan.alternatives:
        parts += ["", _alternatives_table(plan)]
    if plan.what_if:
        parts += ["", _what_if_table(plan), *_doubts_of(plan.what_if)]
    return [*parts, "", *(f"Note: {sentence(note)}" for note in plan.notes), cost_in_words(plan)]


def _intervals(predicted: Predicted) -> str:
    memory = ", for memory a margin of at least 5 % either way" if predicted.peak_memory_bytes.value is not None else ""
    return f"In parentheses: 90 % credible intervals{memory}."


def _recipe_table(plan: Plan, recipe: Recipe, predicted: Predicted) -> Table:
    table = Table(box=None, pad_edge=False)
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
    if plan.within is None:
        yield ("target", target_in_words(plan.target) if plan.target else "", *([""] if len(pairs) > 1 else []))
    yield ("batch size", *(count(r.batch_size) for r, _ in pairs))
    if any(r.grad_accum_steps > 1 for r, _ in pairs):
        yield ("  in micro-batches", *(f"{r.grad_accum_steps} x {r.micro_batch_size}" for r, _ in pairs))
    if recipe.lr is not None:
        yield ("learning rate", *(number(r.lr) for r, _ in pairs))
    if any(threads := [threads_in_words(plan, r) for r, _ in pairs]):
        yield ("threads", *(words or f"{plan.environment.threads}" for words in threads))
    if any(r.schedule != "constant" or r.warmup_steps for r, _ in pairs):
        yield ("schedule", *(course_in_words(r) for r, _ in pairs))
    yield from _length_rows(plan, pairs)
    if plan.table is None or predicted.peak_memory_bytes.value is not None:
        yield ("peak memory", *(with_interval(p.peak_memory_bytes, bytes_) for _, p in pairs))
    if patience := patience_in_words(plan, recipe):
        yield ("early stopping", f"when nothing improved for {patience}", *([""] if len(pairs) > 1 else []))


def _length_rows(plan: Plan, pairs: Sequence[tuple[Recipe, Predicted]]) -> Iterable[tuple[str, ...]]:
    """Rows on the length of training: up to the target, or as long as was asked."""
    asked = plan.within is not None
    if asked:
        yield ("steps", *(count(r.steps) for r, _ in pairs))
    else:
        yield ("steps to target", *(with_interval(p.steps_to_target, whole) for _, p in pairs))
    if any(r.epochs is not None and r.epochs >= 1 for r, _ in pairs):
        yield ("epochs", *(number(r.epochs) for r, _ in pairs))
    yield ("step time", *(with_interval(p.step_time_s, duration) for _, p in pairs))
    if asked:
        yield ("time", *(duration(length_s(r, p)) for r, p in pairs))
        yield ("examples", *(number(r.steps * r.batch_size) for r, _ in pairs))
        if plan.program is not None and (each := plan.program.tokens_per_example) is not None:
            yield ("tokens", *(number(r.steps * r.batch_size * each) for r, _ in pairs))
    else:
        yield ("time to target", *(with_interval(p.time_to_target_s, duration) for _, p in pairs))
        yield ("examples", *(with_interval(p.examples_to_target) for _, p in pairs))
        tokens = [found for _, p in pairs if (found := tokens_to_target(plan, p)) is not None]
        if tokens:
            yield ("tokens", *map(with_interval, tokens))


def _easier_table(targets: Iterable[EasierTarget]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("easier targets")
    for column in (*SIZE_AND_RATE, "steps", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for easier in targets:
        recipe, predicted = easier.recipe, easier.predicted
        if recipe is None or predicted is None:
            table.add_row(str(easier.target), "not reached")
            continue
        steps = with_interval(predicted.steps_to_target, whole)
        time = with_interval(predicted.time_to_target_s, duration)
        table.add_row(str(easier.target), count(recipe.batch_size), number(recipe.lr), steps, time)
    return table


def _alternatives_table(plan: Plan) -> Table:
    """The recommended recipe and the others, numbers first: what each is for may be long."""
    memory = any(other.predicted.peak_memory_bytes.value is not None for other in plan.alternatives)
    table = Table(box=None, pad_edge=False)
    for column in (*SIZE_AND_RATE, "time", "examples", *(("memory",) if memory else ())):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    if plan.recipe is not None and plan.predicted is not None:
        table.add_row(*_alternative_cells(plan.recipe, plan.predicted, memory), "recommended", style="bold")
    for other in plan.alternatives:
        table.add_row(*_alternative_cells(other.recipe, other.predicted, memory), other.why)
    return table


def _what_if_table(plan: Plan) -> Table:
    """What training would take at the batch sizes that were asked about."""
    table = Table(box=None, pad_edge=False)
    timed = any(asked.predicted and asked.predicted.step_time_s.value is not None for asked in plan.what_if)
    for column in (*SIZE_AND_RATE, "steps", *(("time",) if timed else ()), "examples"):
        table.add_column(column, justify="right", no_wrap=True)
    for asked in plan.what_if:
        if (predicted := asked.predicted) is None or predicted.steps_to_target.value is None:
            table.add_row(count(asked.batch_size), "" if asked.lr is None else number(asked.lr), "not predicted")
            continue
        table.add_row(
            count(asked.batch_size),
            number(asked.lr) if asked.lr is not None else "",
            with_interval(predicted.steps_to_target, whole),
            *((with_interval(predicted.time_to_target_s, duration),) if timed else ()),
            number(predicted.examples_to_target.value),
        )
    return table


def _doubts_of(answers: Iterable[WhatIf]) -> list[str]:
    """Why answers at other batch sizes are to be doubted, a sentence each."""
    return [f"At {count(asked.batch_size)}: {sentence(asked.doubt)}" for asked in answers if asked.doubt]


def _alternative_cells(recipe: Recipe, predicted: Predicted, memory: bool) -> tuple[str, ...]:
    return (
        count(recipe.batch_size),
        number(recipe.lr),
        duration(predicted.time_to_target_s.value),
        number(predicted.examples_to_target.value),
        *((bytes_(predicted.peak_memory_bytes.value),) if memory else ()),
    )


def bench_view(bench: Bench, knee: Estimate) -> list[RenderableType]:
    """Table of step time and memory against micro-batch size, and what follows from it."""
    loads = any(reading.loading_time_s for reading in bench.readings)
    table = Table(box=None, pad_edge=False)
    parts = ("computing", "loading") if loads else ()
    for column in ("micro-batch", "step time", *parts, "examples / s", "peak memory"):
        table.add_column(column, justify="right")
    for reading in bench.readings:
        seconds, compute, loading = reading.step_time_s, reading.compute_time_s, reading.loading_time_s
        table.add_row(
            count(reading.micro_batch_size),
            *(duration(s) if s else "" for s in ((seconds, compute, loading) if loads else (seconds,))),
            number(reading.micro_batch_size / seconds) if seconds else "",
            bytes_(reading.peak_memory_bytes) if reading.peak_memory_bytes else "",
        )
    how = "a step of it was run" if bench.largest_verified else "predicted from smaller steps"
    largest = "Largest micro-batch that fits into memory" if bench.memory_bound else "Largest micro-batch considered"
    waiting = waiting_in_words(bench, bench.largest_micro_batch_size)
    return [
        *([sentence(waiting), ""] if waiting else []),
        table,
        *([_how_it_loads(bench)] if loads else []),
        "",
        f"Hardware knee: {with_interval(knee)} examples. Well below it, a larger batch hardly makes a step slower.",
        f"{largest}: {count(bench.largest_micro_batch_size)} examples ({how}).",
        *(f"Note: {sentence(note)}" for note in bench.notes),
    ]


def _how_it_loads(bench: Bench) -> str:
    if not bench.loader_workers:
        return "A step waits for its batch, then computes: its time is the sum of both."
    workers = plural(bench.loader_workers, "worker loads", "workers load")
    return f"{workers} the next batches while a step computes: its time is the longer of the two."


def noise_view(report: NoiseReport) -> list[RenderableType]:
    """Gradient noise scale of a run, and its course."""
    return [
        f"Gradient noise scale: {with_interval(report.gradient_noise_scale)} examples, over "
        f"{plural(report.steps, 'step')} at batch size {count(report.batch_size)} and learning rate "
        f"{number(report.lr)} ({report.lr_source}).",
        *(
            f"  step {block.step:>6.0f}: {with_interval(_estimate(block.value, block.low, block.high))}"
            for block in report.trace
        ),
        *(f"Note: {sentence(note)}" for note in report.notes),
    ]


def _estimate(value: float | None, low: float | None, high: float | None) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=0, unit="examples", method="")


def count_view(result: Count, glossary: Iterable[CheckedTerm]) -> list[RenderableType]:
    """Arithmetic of steps and epochs in words, and the glossary with its numbers."""
    epochs, steps = epochs_in_words(result.epochs), plural(result.steps, "step")
    are = "is" if epochs == "1 epoch" else "are"
    return [
        f"{epochs} of {plural(result.examples, 'example')} at batch size {result.batch_size:,} {are} "
        f"{steps}, {result.steps_per_epoch:,.6g} in each epoch.",
        f"Partial last batch, rule {result.last_batch}: {result.rule}.",
        f"Examples seen: {result.examples_seen:,}.",
        *(f"Note: {sentence(note)}" for note in result.notes),
        *(line for entry in glossary for line in _term(entry)),
    ]


def _term(entry: CheckedTerm) -> tuple[str, str]:
    counted = entry.note if entry.counted is None else f"counted batch by batch: {entry.counted:,.12g}"
    also = f" ({', '.join(entry.also)})" if entry.also else ""
    return f"  {entry.term}{also}: {entry.definition}.", f"      {entry.formula} = {entry.value:,.12g}; {counted}."


def runs_view(runs: Iterable[StoredRun], target: Target | None = None) -> list[RenderableType]:
    """Table of the runs of a results folder, a line each, however many they are.

    Args:
        runs: of the folder.
        target: of the search that they belong to; `None`: each run has its own.
    """
    table = Lines(("batch\nsize", "learning\nrate", "seed", "steps", "steps to\ntarget"), ("ended", "folder in runs/"))
    for run in runs:
        result, config = run.result, run.config
        steps = result.steps_to_target if result and target is None else None
        if result and target is not None:
            steps = passage_of(run, target)
        table.add(
            count(config.batch_size),
            number(config.lr or None),
            str(config.seed),
            count(result.steps) if result else "",
            number(steps) if steps else "",
            ending_of(run) or "unfinished",
            run.id if run.id.isprintable() else ascii(run.id),
        )
    return [table]
