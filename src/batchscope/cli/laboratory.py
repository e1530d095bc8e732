"""The commands of the laboratory: studies, and what textbooks say. Every body is a call into the library."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .options import Amount, Flag, Options, Quantity, Schedule, Whole
from .output import answer, hand_over
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
    """Compare batch sizes and learning rates over several seeds, or repeat a published experiment.

    Args:
        what: A published experiment, or a task. `batchscope study` alone lists both.
        task: The task to run a published experiment on. Default: its own, or your data with `--set path=FILE.npz`.
        batch_sizes: Batch sizes, separated by commas: 16,64,256.
        lrs: Learning rates, separated by commas: 0.03,0.1. Every batch size is trained at each.
        seeds: Number of seeds of each setting, from --seed on. Default: 3.
        epochs: Length of a run in epochs; with --until-stopped the most. Default: 30.
        steps: Length of a run in steps, instead of epochs.
        time: Length of a run in training time, instead of epochs: 60s, 5m. Evaluations do not count.
        until_stopped: Early stopping: a run ends when the metric has not improved for --patience epochs.
        patience: Epochs without improvement after which a run ends. Default: 10.
        schedule: Learning-rate schedule. wsd is constant for four fifths of a run, then falls. Default: the task's own
            `schedule`, else constant.
        warmup: Linear warm-up of the learning rate, as 100steps, 20000examples or 5% of a run. Default: none.
        final_lr: Where a decaying schedule ends, as a share of the learning rate. Default: 0%.
        metric: The metric that choices are made by, for example val_rmse; write depth:max or depth:min where the name
            does not say which is better. Default: the validation loss.
        repeats: Number of independent draws, in studies that measure gradients on drawn batches.
        quick: Run a published experiment with small numbers, in about a minute, to see what it shows.
        dry_run: Print how long it will take, and stop before any training.
        options: Of every command that measures.
    """
    from ..store.codec import encode
    from .study_view import study_view, why_of
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
    with LiveProgress(stderr()) as progress, options.watching():
        progress.stage("loading the task")
        from ..laboratory import study as study_command

        started = options.started()
        settings = list(options.set)
        if named is not None and spec is None:
            spec, settings = default_task(named, settings)
        assert spec is not None
        loaded, device = replace(options, set=tuple(settings)).load(spec), options.picked()
        how: dict[str, Any] = {"named": named or study_command.OWN_GRID, "device": device}
        clock: dict[str, Any] = {"budget_s": budget_s, "started": started, "progress": progress}
        if dry_run:
            prediction = study_command.predict(loaded, question, **how, **clock)
            answer(options.json, encode(prediction), [prediction_in_words(prediction)])
            return 0
        out = options.folder(loaded.name, study_command.question_of(loaded, question, **how))
        how |= {**clock, "drops_seeds": seeds is None}
        unwritten = dict[str, str]()
        found = study_command.study(loaded, question, out=out, **how, page=False, unwritten=unwritten.__setitem__)
    where: dict[str, Any] = {"file": out / "study.json", "unwritten": unwritten, "why": why_of(found)}
    status = 0 if found.complete and not found.all_diverged else 3
    return hand_over(options.json, found.answer(), study_view(found), **where, status=status)


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
    """Test what textbooks say about batch size on a task, each statement with a measured verdict.

    Args:
        task: The task to test them on; see below.
        batch_sizes: Batch sizes, separated by commas. Default: a factor of 4 apart, as many as the budget allows.
        lrs: Learning rates, separated by commas. Default: a factor of 3.16 apart, below where training diverges.
        seeds: Number of seeds, from --seed on. Default: up to 7.
        epochs: Length of a run in epochs. Default: up to 20.
        metric: The metric that choices are made by, for example val_rmse; write depth:max or depth:min where the name
            does not say which is better. Default: the validation loss.
        dry_run: Print how long it will take, and stop before any training.
        options: Of every command that measures.
    """
    from ..store.codec import encode
    from .claims_view import claims_view, why_of
    from .terminal import LiveProgress, stderr
    from .views import prediction_in_words

    sizes, learning_rates, budget_s = *parsed_numbers(batch_sizes, lrs), options.budget_s
    with LiveProgress(stderr()) as progress, options.watching():
        progress.stage("loading the task")
        from ..laboratory.claims import run as claims_command

        started = options.started()
        loaded, device = options.load(task), options.picked()
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
        how: dict[str, Any] = {"device": device, "started": started, "progress": progress}
        if dry_run:
            prediction = claims_command.predict(loaded, question, **how)
            answer(options.json, encode(prediction), [prediction_in_words(prediction)])
            return 0
        out = options.folder(loaded.name, claims_command.question_of(loaded, question, device))
        unwritten = dict[str, str]()
        found = claims_command.claims(loaded, question, out=out, **how, page=False, unwritten=unwritten.__setitem__)
    where: dict[str, Any] = {"file": out / "claims.json", "unwritten": unwritten, "why": why_of(found)}
    status = 0 if found.decided and found.study.complete and not found.study.all_diverged else 3
    return hand_over(options.json, found.answer(), claims_view(found), **where, status=status)
