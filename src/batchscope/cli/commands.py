"""The command line. Every body is a call into the library; only here and in `output` something is printed.

torch is imported by the commands that measure, when they run: `--help`, `count`, `report` and `runs` never wait for it.
"""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cyclopts import App, CycloptsError

from ..errors import BatchscopeError
from ..fits.schedules import WarmUp
from ..search.question import Question, hardest_first, parse_at, parse_current, parse_share, parse_within
from ..search.strategies import SearchName
from ..tasks.interruption import Interruption
from . import program
from .choices import choices_for
from .failures import explain, failed, split_quantity, unforeseen
from .laboratory import claims, study
from .options import Amount, Columns, Flag, Options, Quantity, ResultOptions, Schedule, Targets, Whole
from .output import UNWRITTEN, answer, hand_over
from .signals import give_way, in_words
from .streams import answer_lost, answers, only_answers_on_stdout, say
from .unmeasured import count, init, report, runs

app = App(
    name="batchscope",
    help="Which batch size, learning rate and number of steps train your PyTorch model to your target soonest.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)

_OF_TASKS = (
    "A task is built in (`digits`, `arrays`, `text`) or your own: `path/to/file.py:factory` or "
    "`package.module:factory`, where `:factory` may be left out if its name is `task`. "
    "`batchscope init FILE.py` writes a first one."
)

app.command(count)
app.command(init)
app.command(report)
app.command(runs)
app.command(study, help_epilogue=_OF_TASKS)
app.command(claims, help_epilogue=_OF_TASKS)

_DEFAULTS, _RESULT_DEFAULTS = Options(), ResultOptions()


@app.command(help_epilogue=_OF_TASKS)
def find(
    task: str,
    /,
    *,
    target: Targets = (),
    within: Quantity | None = None,
    metric: str | None = None,
    objective: Literal["time", "examples"] = "time",
    current: str | None = None,
    max_batch_size: Whole | None = None,
    hardware: Path | None = None,
    schedule: Schedule | None = None,
    warmup: Quantity | None = None,
    final_lr: Quantity | None = None,
    search: SearchName = "anchors",
    trainings: Amount = Question.trainings,
    evaluation_share: Quantity = "10%",
    confirm: Whole | None = None,
    at: Quantity | None = None,
    keep_model: Path | None = None,
    dry_run: Flag = False,
    options: Options = _DEFAULTS,
) -> int:
    """Recommend batch size, learning rate, steps and epochs, from measurements, with a page that shows why.

    Args:
        task: The task to train; see below.
        target: The metric value to reach, "val_loss<=0.12" or "val_accuracy>=0.97". Default: chosen from a first run.
            Repeat it for other values of the same metric: each gets its recipe, from the same runs.
        within: Instead of a target, a length of training: 300s, 10m, 20epochs or 5000steps. The recipe is the one that
            ends at the best metric.
        metric: The metric to compare runs by with --within or without a target, for example val_rmse; write depth:max
            or depth:min where the name does not say which is better. Default: the validation loss.
        objective: Minimise the training time to the target, or the number of training examples.
        current: The recipe that you use now, "batch_size=32,lr=0.001". It is kept unless another is clearly better.
        max_batch_size: Largest batch size to recommend.
        hardware: Profile of the machine that the answer is for, from `bench --save`. Default: this machine.
        schedule: Learning-rate schedule. wsd is constant for four fifths of a run, then falls. Default: the task's own
            `schedule`, else constant.
        warmup: Linear warm-up of the learning rate, as 100steps, 20000examples or 5% of a run. Default: none.
        final_lr: Where a decaying schedule ends, as a share of the learning rate. Default: 0%.
        search: Search strategy: anchors is batchscope's own; the others are there to compare with.
        trainings: How many trainings you will make with the recipe. The more, the longer the search goes on.
        evaluation_share: Share of a run's time to spend on evaluations; at least 8 are made in any case.
        confirm: How many evaluations in a row must meet the target. Default: chosen from how noisy they are.
        at: Batch sizes to say of what training would take there, "64,512,4096"; also far from those that are run.
        keep_model: Save the state_dict of a model trained with the recipe to this file.
        dry_run: Print how long it will take, and stop before any training.
        options: Of every command that measures.
    """
    from ..hardware.profile import load_profile
    from ..store.answers import PLAN
    from ..store.codec import encode
    from ..store.records import Metric, Target
    from ..training.unwritten import MODEL, NO_TIME
    from .terminal import LiveProgress, stderr
    from .views import WHY, plan_view, prediction_in_words

    goals = hardest_first([Target.parse(text) for text in target])
    question = Question(
        target=goals[0] if goals else None,
        easier_targets=goals[1:],
        within=parse_within(within) if within else None,
        metric=Metric.parse(metric) if metric else None,
        confirm=confirm,
        objective=objective,
        current=parse_current(current) if current else None,
        schedule=schedule,
        warmup=WarmUp.parse(warmup) if warmup is not None else None,
        final_lr=parse_share(final_lr, "--final-lr") if final_lr is not None else None,
        search=search,
        max_batch_size=max_batch_size,
        memory_limit=options.memory_limit_bytes,
        seed=options.seed,
        trainings=trainings,
        evaluation_share=parse_share(evaluation_share, "--evaluation-share"),
        at=parse_at(at) if at is not None else (),
    )
    how: dict[str, Any] = {"profile": load_profile(hardware) if hardware else None, "budget_s": options.budget_s}
    with LiveProgress(stderr()) as progress, options.watching():
        progress.stage("loading the task")
        from ..search import find as search_command

        how |= {"progress": progress, "started": options.started()}
        loaded, device = options.load(task), options.picked()
        if dry_run:
            prediction = search_command.predict(loaded, question, device=device, **how)
            answer(options.json, encode(prediction), [prediction_in_words(prediction)])
            return 0
        out = options.folder(loaded.name, search_command.identity_of(loaded, question, device))
        how |= {"keep_model": keep_model, "keep_checkpoints": options.keep_checkpoints}
        unwritten = dict[str, str]()
        how |= {"page": False, "unwritten": unwritten.__setitem__}
        plan = search_command.find(loaded, question, out=out, device=device, **how)
    has_model = keep_model is not None and plan.has_model and not {MODEL, NO_TIME} & unwritten.keys()
    view = [*plan_view(plan), *([f"The trained model: {keep_model}"] if has_model else [])]
    where: dict[str, Any] = {"file": out / PLAN, "unwritten": unwritten, "why": WHY}
    return hand_over(options.json, encode(plan), view, **where, status=plan.status.exit_status)


@app.command(help_epilogue=_OF_TASKS)
def bench(
    task: str, /, *, max_batch_size: Whole | None = None, save: Path | None = None, options: Options = _DEFAULTS
) -> int:
    """Measure step time and memory against micro-batch size; nothing is trained.

    Args:
        task: The task to measure; see below.
        max_batch_size: Largest micro-batch to try.
        save: Write the hardware profile to this file, for `find --hardware`.
        options: Of every command that measures.
    """
    from ..hardware.profile import save_profile
    from ..report.loading import waiting_in_words
    from ..store.codec import encode
    from ..training.unwritten import if_possible
    from .terminal import LiveProgress, stderr
    from .views import bench_view

    budget_s, memory_limit = options.budget_s, options.memory_limit_bytes
    with LiveProgress(stderr()) as progress, options.watching():
        progress.stage("loading the task")
        from ..training import measurements

        how: dict[str, Any] = {"started": options.started(), "budget_s": budget_s, "progress": progress}
        loaded, device = options.load(task), options.picked()
        limits = measurements.BenchLimits(max_batch_size=max_batch_size, memory_limit=memory_limit, seed=options.seed)
        out = options.folder(loaded.name, measurements.question_of("bench", loaded, device, limits))
        unwritten = dict[str, str]()
        how["unwritten"] = unwritten.__setitem__
        measured = measurements.keep_bench(loaded, limits, out=out, device=device, **how)
    knee, saved = measurements.hardware_knee(measured), list[str]()
    if save is not None:
        with if_possible(unwritten.__setitem__, "profile"):
            save_profile(measured.profile, save)
            saved = [f"Saved to {save}; use it with find --hardware {save}."]
    waiting = waiting_in_words(measured, measured.largest_micro_batch_size)
    data = {**encode(measured), "hardware_knee": encode(knee), "message": waiting}
    view = [*bench_view(measured, knee), *saved]
    return hand_over(options.json, data, view, file=out / "bench.json", unwritten=unwritten)


@app.command(help_epilogue=_OF_TASKS)
def noise(
    task: str,
    /,
    *,
    lr: Amount | None = None,
    batch_size: Whole | None = None,
    steps: Whole = 300,
    options: Options = _DEFAULTS,
) -> int:
    """Measure the gradient noise scale along a short run.

    Args:
        task: The task to train; see below.
        lr: Learning rate of the run; the noise scale depends on it. Default: from a range test.
        batch_size: Batch size of the run. Default: 64, less on a small training set.
        steps: Number of steps of the run.
        options: Of every command that measures.
    """
    from ..store.codec import encode
    from ..store.records import RunStatus
    from .terminal import LiveProgress, stderr
    from .views import noise_view

    budget_s = options.budget_s
    with LiveProgress(stderr()) as progress, options.watching():
        progress.stage("loading the task")
        from ..training import measurements

        how: dict[str, Any] = {"started": options.started(), "budget_s": budget_s, "progress": progress}
        loaded, device = options.load(task), options.picked()
        run = measurements.NoiseRun(lr=lr, batch_size=batch_size, steps=steps, seed=options.seed)
        out = options.folder(loaded.name, measurements.question_of("noise", loaded, device, run))
        unwritten = dict[str, str]()
        how["unwritten"] = unwritten.__setitem__
        found = measurements.keep_noise(loaded, run, out=out, device=device, **how)
    where: dict[str, Any] = {"file": out / "noise.json", "unwritten": unwritten}
    return hand_over(
        options.json, encode(found), noise_view(found), **where, status=3 if found.status is RunStatus.DIVERGED else 0
    )


@app.command
def fit(
    table: Path,
    /,
    *,
    examples: Whole | None = None,
    objective: Literal["time", "examples"] = "time",
    current: str | None = None,
    max_batch_size: Whole | None = None,
    hardware: Path | None = None,
    target: str | None = None,
    at: Quantity | None = None,
    column: Columns = (),
    options: ResultOptions = _RESULT_DEFAULTS,
) -> int:
    """Recommend a batch size from measurements that you already have; nothing is trained.

    Args:
        table: One row a run: batch_size, steps_to_target (or epochs_to_target, examples_to_target; empty: never
            reached), step_time_s (or epoch_time_s), and, if known, lr and seed. Or one row an evaluation: batch_size,
            step (or epoch), a metric, run; with --target. Names as W&B, Optuna, MLflow, Lightning and Keras write them
            are found, too.
        examples: Number of training examples; needed where the table counts in epochs.
        objective: Minimise the training time to the target, or the number of training examples.
        current: The recipe that you use now, "batch_size=32,lr=0.001" or "batch_size=32". It is kept unless another is
            clearly better.
        max_batch_size: Largest batch size to recommend.
        hardware: Profile of the machine that the answer is for, from `bench --save`. Default: the times of the table.
        target: The target that the runs of the table had, "val_accuracy>=0.97": what is looked for where each row is an
            evaluation, else to name it on the page.
        at: Batch sizes to say of what training would take there, "64,512,4096"; also far from those of the table.
        column: Which column is meant, ROLE=NAME, such as "lr=config.optimizer.lr"; repeatable.
        options: Of every command that leaves results.
    """
    from ..hardware.profile import load_profile
    from ..search.table.fit import fit as fitted
    from ..search.table.fit import question_of
    from ..search.table.names import chosen_of
    from ..store.answers import PLAN
    from ..store.codec import encode
    from ..store.records import TARGET_OF_TABLE, Target
    from .terminal import LiveProgress, stderr
    from .views import WHY, plan_view

    recipe = parse_current(current, default_lr=1.0) if current else None
    how: dict[str, Any] = {
        "target": Target.parse(target) if target else TARGET_OF_TABLE,
        "objective": objective,
        "max_batch_size": max_batch_size,
        "seed": options.seed,
        "examples": examples,
        "current": recipe if recipe is None or "lr" in (current or "") else recipe.batch_size,
        "profile": load_profile(hardware) if hardware else None,
    }
    if column:
        how["columns"] = chosen_of(column)
    asked_at = parse_at(at) if at is not None else ()
    out = options.folder(table.stem, question_of(table, how)) if table.is_file() else options.out
    with LiveProgress(stderr()) as progress:
        unwritten = dict[str, str]()
        how |= {"at": asked_at, "tell": progress.stage, "page": False, "unwritten": unwritten.__setitem__}
        plan = fitted(table, **how, out=out)
    assert out is not None
    where: dict[str, Any] = {"file": out / PLAN, "unwritten": unwritten, "why": WHY}
    return hand_over(options.json, encode(plan), plan_view(plan), **where, status=plan.status.exit_status)


def main(arguments: Sequence[str] | None = None) -> None:
    """A command line inside another program, whose signals and stdout stay its own; `SystemExit` has the status.

    Args:
        arguments: of the command line; `None`: this process is the program.
    """
    if arguments is None:
        program()
    with only_answers_on_stdout(to_the_end=False):
        status = status_of(arguments)
    sys.exit(status)


def status_of(words: Sequence[str]) -> int:
    """Exit status of a command line, after its answer or one message."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return _carried_out(words)
    except CycloptsError as error:
        hint = split_quantity(words) or "(--help lists what there is)"
        said = choices_for(error) or f"{' '.join(str(error).split())} {hint}"
        say(*f"batchscope: {said}".split("\n"))
        return failed(error, words, 2, said)
    except BatchscopeError as error:
        give_way()
        explain(error, debug="--debug" in words)
        return failed(error, words, error.exit_status)
    except Exception as error:
        give_way()
        return unforeseen(error, words)
    except Interruption:
        raise
    except KeyboardInterrupt as error:
        said, _ = in_words(signal.SIGINT)
        say(said)
        return failed(error, words, 130, said)


def _carried_out(words: Sequence[str]) -> int:
    """Exit status of a command that ran to its end; a stdout that took less than all of the answer is an error."""
    from rich.console import Console

    status = app(
        words, result_action="return_value", exit_on_error=False, print_error=False, console=Console(file=answers())
    )
    answers().flush()
    lost, status = answer_lost(), status if isinstance(status, int) else 0
    if lost is None or lost.errno == errno.EPIPE:  # whoever read it has seen enough
        return status
    if lost.errno == errno.EBADF:
        say("stdout is closed: nothing was printed there")
        return status
    say(f"batchscope: stdout: {lost.strerror}; what was to be printed there is not whole")
    return UNWRITTEN
