"""The commands of the laboratory: studies, and what textbooks say. Every body is a call into the library."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .options import Amount, Flag, Options, Quantity, Schedule, Whole
from .output import answer
from .study_options import Numbers, StudyWords, choose, default_task, parsed_numbers

__all__ = ["claims", "study"]

_DEFAULTS = Options()


def study(
    what: str,
    task: str | None = None,
    /,
    *,
    batch_sizes: Numbers = (),
    lrs: Numbers = (),
    seeds: Whole | None = None,
    epochs: Amount | None = None,
    steps: Whole | None = None,
    time: Quantity | None = None,
    until_stopped: Flag = False,
    patience: Amount | None = None,
    schedule: Schedule | None = None,
    warmup: Quantity | None = None,
    final_lr: Quantity | None = None,
    metric: str | None = None,
    repeats: Whole | None = None,
    quick: Flag = False,
    dry_run: Flag = False,
    options: Options = _DEFAULTS,
) -> int:
    """Train a task at several batch sizes and learning rates, over several seeds, and show what each does.

    Args:
        what: A task, or the name of a published experiment.
        task: What a named study runs on; default: its own task, or `--set path=FILE.npz`.
        batch_sizes: Separated by commas, or repeated.
        lrs: Learning rates; every batch size is trained at every one.
        seeds: How many seeds each setting is run with, from --seed on; default 3.
        epochs: Length of a run, in passes over the training set; default 30. With --until-stopped: at most.
        steps: Length of a run in steps, instead.
        time: Length of a run in time spent in training steps, instead: 60s, 5m.
        until_stopped: A run ends when the metric has not improved for --patience epochs.
        patience: Epochs without improvement; default 10.
        schedule: Of the learning rate; wsd is constant for four fifths of a run, then falls. Default: the task's own
            `schedule`, else constant.
        warmup: The learning rate rises linearly at the start of a run, over 100steps, 20000examples or 5% of its steps.
        final_lr: Share of the learning rate at which a schedule that decays ends; default: 0%.
        metric: What choices are made by: val_rmse, or depth:max where the name does not say whether larger is better;
            default: a validation loss first.
        repeats: Independent draws, in studies that measure on drawn batches.
        quick: The small form of a named study: every part of it at work, on small numbers.
        dry_run: Say how long it will take, and stop.
        options: Of every command that measures.
    """
    from ..store.codec import encode
    from .study_view import study_view
    from .terminal import LiveProgress, stderr
    from .views import prediction_in_words

    named, spec = choose(what, task)
    words = StudyWords(
        batch_sizes=batch_sizes,
        lrs=lrs,
        seeds=seeds,
        first_seed=options.seed,
        epochs=epochs,
        steps=steps,
        time=time,
        until_stopped=until_stopped,
        patience=patience,
        schedule=schedule,
        warmup=warmup,
        final_lr=final_lr,
        metric=metric,
        memory_limit=options.memory_limit_bytes,
        repeats=repeats,
        quick=quick,
    )
    question, budget_s = words.question(named), options.budget_s
    with LiveProgress(stderr()) as progress:
        progress.stage("loading the task")
        settings = list(options.set)
        if named is not None and spec is None:
            spec, settings = default_task(named, settings)
        assert spec is not None
        loaded, device = replace(options, set=tuple(settings)).load(spec), options.picked()
        from ..laboratory import study as study_command

        how: dict[str, Any] = {"named": named or study_command.OWN_GRID, "device": device}
        if dry_run:
            prediction = study_command.predict(loaded, question, **how, budget_s=budget_s, progress=progress)
            answer(options.json, encode(prediction), [prediction_in_words(prediction)])
            return 0
        out = options.folder(loaded.name, study_command.question_of(loaded, question, **how))
        how |= {"budget_s": budget_s, "drops_seeds": seeds is None, "progress": progress}
        found = study_command.study(loaded, question, out=out, **how)
    answer(options.json, found.answer(), study_view(found, out))
    return 0 if found.complete else 3


def claims(
    task: str,
    /,
    *,
    batch_sizes: Numbers = (),
    lrs: Numbers = (),
    seeds: Whole | None = None,
    epochs: Amount | None = None,
    metric: str | None = None,
    dry_run: Flag = False,
    options: Options = _DEFAULTS,
) -> int:
    """Decide what textbooks say about batch size on a task: each statement with a verdict, measured.

    Args:
        task: What to train.
        batch_sizes: Separated by commas, or repeated; default: by a factor of 4, as many as the budget allows.
        lrs: Learning rates; default: by a factor of 3.16, below the one that breaks training.
        seeds: How many, from --seed on; default: up to 7.
        epochs: Length of a run of the grid; default: up to 20.
        metric: What choices are made by: val_rmse, or depth:max where the name does not say whether larger is better;
            default: a validation loss first.
        dry_run: Say how long it will take, and stop.
        options: Of every command that measures.
    """
    from ..store.codec import encode
    from .claims_view import claims_view
    from .terminal import LiveProgress, stderr
    from .views import prediction_in_words

    sizes, learning_rates, budget_s = *parsed_numbers(batch_sizes, lrs), options.budget_s
    with LiveProgress(stderr()) as progress:
        progress.stage("loading the task")
        loaded, device = options.load(task), options.picked()
        from ..laboratory.claims import run as claims_command

        question = claims_command.ClaimsQuestion(
            seed=options.seed,
            batch_sizes=sizes,
            lrs=learning_rates,
            seeds=seeds,
            epochs=epochs,
            metric=metric,
            memory_limit=options.memory_limit_bytes,
            budget_s=budget_s,
        )
        if dry_run:
            prediction = claims_command.predict(loaded, question, device=device, progress=progress)
            answer(options.json, encode(prediction), [prediction_in_words(prediction)])
            return 0
        out = options.folder(loaded.name, claims_command.question_of(loaded, question, device))
        found = claims_command.claims(loaded, question, out=out, device=device, progress=progress)
    answer(options.json, found.answer(), claims_view(found, out))
    return 0 if found.decided and found.study.complete else 3
