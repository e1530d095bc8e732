"""The command line. Every body is a call into the library; only this file prints.

torch is imported by the commands that measure, when they run: `--help`, `count`, `report` and `runs` never wait for it.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from .errors import BatchscopeError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from .loading import LoadedTask
    from .workload import Workload

app = App(
    name="batchscope",
    help="Which batch size, learning rate and number of steps train your PyTorch model to your target soonest.",
    help_epilogue="A task is `digits`, `arrays`, `text`, `package.module:factory` or `path/to/file.py:factory`.",
    version_flags=["--version"],
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command that measures."""

    set: Annotated[tuple[str, ...], Parameter(name="--set", negative="", consume_multiple=False)] = ()
    """KEY=VALUE for the task's factory; repeatable."""
    seed: int = 0
    """Of everything that is drawn at random."""
    out: Path | None = None
    """Results folder; default: batchscope-runs/TASK, numbered when it holds the answer to another question."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print one JSON object on stdout instead of tables."""
    budget: str = "10m"
    """Time after which no training goes on: 90s, 10m, 1.5h."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; default: the accelerator if there is one."""
    memory_limit: str | None = None
    """Memory that a training step may take: 8GiB, 500MB."""
    debug: Annotated[bool, Parameter(negative="")] = False
    """Show the traceback of an error."""


_DEFAULTS = Common()


@app.command
def find(
    task: str,
    /,
    *,
    target: str | None = None,
    objective: Literal["time", "examples"] = "time",
    current: str | None = None,
    max_batch_size: int | None = None,
    hardware: Path | None = None,
    schedule: Literal["constant", "linear", "cosine"] = "constant",
    trainings: float = 20.0,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _DEFAULTS,
) -> int:
    """Recommend batch size, rate, steps and epochs, from measurements, with a page that shows why.

    Parameters
    ----------
    task
        What to train.
    target
        When training is done: "val_loss<=0.12" or "val_accuracy>=0.97"; default: chosen from a first run.
    objective
        What is to be least.
    current
        The recipe in use, "batch_size=32,lr=0.001"; it is kept unless the gain is clear.
    max_batch_size
        No larger batch is recommended.
    hardware
        Profile of the machine that the answer is for (`bench --save`); default: this one.
    schedule
        Of the learning rate.
    trainings
        How often the recipe will be used; a further probe is bought when it saves more than it costs.
    dry_run
        Say how long it will take, and stop.
    """
    from .codec import encode
    from .profile import load_profile
    from .question import Question, parse_bytes, parse_current, parse_seconds
    from .records import Target

    question = Question(
        target=Target.parse(target) if target else None,
        objective=objective,
        current=parse_current(current) if current else None,
        schedule=schedule,
        max_batch_size=max_batch_size,
        memory_limit=parse_bytes(common.memory_limit) if common.memory_limit else None,
        seed=common.seed,
        trainings=trainings,
    )
    budget_s = parse_seconds(common.budget)
    profile = load_profile(hardware) if hardware else None
    loaded, device = _load(task, common)
    from .device import pick
    from .sweep import asked_of
    from .sweep import find as search
    from .terminal import LiveProgress, plan_view, prediction_in_words

    picked = pick(device)
    if dry_run:
        from .preparation import prediction_of, prepare
        from .workload import Workload

        workload = Workload(loaded.task, name=loaded.name, settings=loaded.settings, device=picked)
        prediction = prediction_of(prepare(workload, question, profile=profile, budget_s=budget_s), budget_s)
        _answer(common, encode(prediction), prediction_in_words(prediction))
        return 0
    out = _folder(common, loaded.name, asked_of(loaded, question, picked, profile))
    with LiveProgress(_stderr()) as progress:
        plan = search(loaded, question, out=out, device=picked, profile=profile, budget_s=budget_s, progress=progress)
    _answer(common, encode(plan), plan_view(plan, str(out)))
    return plan.status.exit_status


@app.command
def bench(
    task: str, /, *, max_batch_size: int | None = None, save: Path | None = None, common: Common = _DEFAULTS
) -> int:
    """Measure step time and memory against micro-batch size; nothing is trained.

    Parameters
    ----------
    task
        What to measure.
    max_batch_size
        No larger micro-batch is tried.
    save
        Write the hardware profile to this file, for `find --hardware`.
    """
    from .codec import encode
    from .profile import save_profile
    from .question import parse_bytes, parse_seconds

    budget_s = parse_seconds(common.budget)
    limit = parse_bytes(common.memory_limit) if common.memory_limit else None
    workload = _workload(task, common)
    from .bench import measure
    from .check import check
    from .terminal import bench_table

    preflight = check(workload, max_batch_size=max_batch_size)
    with _status("measuring step time and memory"):
        measured = measure(
            workload,
            max_batch_size=preflight.max_batch_size,
            memory_limit=limit,
            seed=common.seed,
            budget_s=min(budget_s, 60.0),
        )
    if save is not None:
        save_profile(measured.profile, save)
    from .fits.step_time import fit_step_time
    from .report.wording import number, with_interval

    knee = fit_step_time(measured.profile.step_time_s).hardware_knee
    _answer(common, {**encode(measured), "hardware_knee": encode(knee)}, bench_table(measured))
    if not common.json:
        how = "run" if measured.largest_verified else "predicted"
        _stdout().print(f"\nHardware knee: {with_interval(knee)} examples. Below it a larger batch is almost free.")
        _stdout().print(f"Largest micro-batch: {number(measured.largest_micro_batch_size)} ({how}).")
        for note in (*preflight.notes, *measured.notes):
            _stdout().print(f"Note: {note}.")
        if save is not None:
            _stdout().print(f"Saved to {save}; use it with find --hardware {save}.")
    return 0


@app.command
def noise(
    task: str,
    /,
    *,
    lr: float | None = None,
    batch_size: int | None = None,
    steps: int = 300,
    common: Common = _DEFAULTS,
) -> int:
    """Measure the gradient noise scale along a short run.

    Parameters
    ----------
    task
        What to train.
    lr
        Learning rate of the run; the noise scale depends on it. Default: found by a short test.
    batch_size
        Examples a step.
    steps
        Length of the run.
    """
    from .codec import encode
    from .question import parse_seconds

    budget_s = parse_seconds(common.budget)
    workload = _workload(task, common)
    from .noise import measure_noise
    from .report.wording import number, plural, with_interval

    with _status("training a short run"):
        report = measure_noise(workload, lr=lr, batch_size=batch_size, steps=steps, budget_s=budget_s, seed=common.seed)
    lines = [
        f"Gradient noise scale: {with_interval(report.gradient_noise_scale)} examples, "
        f"over {plural(report.steps, 'step')} at batch size {report.batch_size} "
        f"and rate {number(report.lr)} ({report.lr_source}).",
        *(
            f"  step {block.step:>6.0f}: {_block_in_words(block.value, block.low, block.high)}"
            for block in report.trace
        ),
        *(f"Note: {note}." for note in report.notes),
    ]
    _answer(common, encode(report), "\n".join(lines))
    return 0


@app.command
def count(
    *,
    examples: int,
    batch_size: int,
    epochs: float | None = None,
    steps: int | None = None,
    last_batch: Literal["keep", "drop", "stream"] = "keep",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Epochs, batches and iterations: the arithmetic, both ways.

    Parameters
    ----------

    Examples:
        In the training set.
    batch_size
        Examples a step.
    epochs
        Passes over the training set; or give --steps.
    steps
        Optimizer steps; or give --epochs.
    last_batch
        What happens to a partial last batch.
    json
        Print one JSON object.
    """
    from .codec import encode
    from .count import GLOSSARY
    from .count import count as arithmetic
    from .report.wording import number

    result = arithmetic(examples=examples, batch_size=batch_size, epochs=epochs, steps=steps, last_batch=last_batch)
    lines = [
        f"{number(result.epochs)} epochs of {result.examples:,} examples at batch size {result.batch_size:,} "
        f"are {result.steps:,} steps, {result.steps_per_epoch:,.6g} in each epoch.",
        f"Partial last batch: {result.rule}.",
        f"Examples seen: {result.examples_seen:,}.",
        *(f"Note: {note}." for note in result.notes),
        *(f"  {term}: {meaning}" for term, meaning in GLOSSARY.items()),
    ]
    _print(json, encode(result), "\n".join(lines))
    return 0


@app.command
def init(file: Path, /) -> int:
    """Write a commented task file that runs as it is.

    Parameters
    ----------
    file
        Where to; it must not exist yet.
    """
    from .init import FACTORY, write_task_file

    path = write_task_file(file)
    _stdout().print(f"Wrote {path}. Try it: batchscope find {path}:{FACTORY}", soft_wrap=True)
    return 0


@app.command
def report(folder: Path, /) -> int:
    """Rebuild the page of a results folder.

    Parameters
    ----------
    folder
        The --out of a search.
    """
    from .records import Plan
    from .report import build
    from .store import read_record, read_runs, write_text

    page = folder / "report.html"
    write_text(page, build(read_record(folder / "plan.json", Plan), read_runs(folder)))
    _stdout().print(f"Wrote {page}.", soft_wrap=True)
    return 0


@app.command
def runs(folder: Path, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """List the runs of a results folder.

    Parameters
    ----------
    folder
        The --out of a search.
    json
        Print one JSON object.
    """
    from .codec import encode
    from .store import read_runs
    from .terminal import runs_table

    found = read_runs(folder)
    listed = [{"id": r.id, "config": encode(r.config), "result": encode(r.result)} for r in found]
    _print(json, {"runs": listed}, runs_table(found))
    return 0


def _load(task: str, common: Common) -> tuple[LoadedTask, str | None]:
    with _status("loading the task"):
        from .loading import load_task

        return load_task(task, list(common.set)), common.device


def _workload(task: str, common: Common) -> Workload:
    loaded, device = _load(task, common)
    from .device import pick
    from .workload import Workload

    return Workload(loaded.task, name=loaded.name, settings=loaded.settings, device=pick(device))


def _folder(common: Common, name: str, asked: dict[str, Any]) -> Path:
    from .store import free_folder

    return common.out or free_folder(Path("batchscope-runs") / name, asked)


def _block_in_words(value: float | None, low: float | None, high: float | None) -> str:
    from .records import Estimate
    from .report.wording import with_interval

    return with_interval(Estimate(value=value, low=low, high=high, n=0, unit="examples", method=""))


def _answer(common: Common, data: Any, view: Any) -> None:
    _print(common.json, data, view)


def _print(as_json: bool, data: Any, view: Any) -> None:
    if as_json:
        sys.stdout.write(json.dumps(data, allow_nan=False) + "\n")
    else:
        _stdout().print(view, highlight=False)


def _stdout() -> Console:
    from rich.console import Console

    return Console()


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def _status(text: str) -> Iterator[None]:
    console = _stderr()
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


def main(arguments: list[str] | None = None) -> None:
    """The program: parses, calls, and turns every ending into an exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        status = app(words, result_action="return_value")
    except BatchscopeError as error:
        sys.exit(_failed(error, debug="--debug" in words))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; finished runs are kept, and the same command goes on from there\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


def _failed(error: BatchscopeError, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    else:
        sys.stderr.write(f"batchscope: {error}\n")
        if not isinstance(error, UsageError) or error.__cause__ is not None:
            sys.stderr.write("(--debug shows where)\n")
    return error.exit_status
