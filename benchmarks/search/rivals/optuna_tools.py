"""Optuna with its defaults: TPE, alone, with the median pruner, and with Hyperband.

The batch size is an ordered integer (the index in the table's sizes), the rate log-uniform. The objective is the
seconds to target; trials that do not reach it rank after all that do, by their last metric. Pruners see the target
metric at the same times for every batch size, so that what is compared has cost the same.
"""

from __future__ import annotations

from typing import Any

from replay import REPORTS, Game, rate_bounds

__all__ = ["tpe", "tpe_hyperband", "tpe_median"]


def tpe(game: Game) -> None:
    """Tree-structured Parzen estimator; every trial goes to its end."""
    import optuna

    _search(game, optuna.pruners.NopPruner())


def tpe_median(game: Game) -> None:
    """TPE; a trial worse than the median of the finished ones at the same time is stopped."""
    import optuna

    _search(game, optuna.pruners.MedianPruner())


def tpe_hyperband(game: Game) -> None:
    """TPE; brackets of successive halving by 3."""
    import optuna

    _search(game, optuna.pruners.HyperbandPruner(min_resource=1, max_resource=REPORTS, reduction_factor=3))


def _search(game: Game, pruner: Any) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=game.random.getrandbits(32))
    study = optuna.create_study(sampler=sampler, pruner=pruner, study_name=f"{game.table.task.name}-{game.seed}")
    low, high = rate_bounds(game.optimizer)
    sizes = game.table.batch_sizes
    while game.open:
        asked = study.ask()
        size = sizes[asked.suggest_int("batch_size_index", 0, len(sizes) - 1)]
        trial = game.trial(size, asked.suggest_float("lr", low, high, log=True))
        stopped = None if isinstance(pruner, optuna.pruners.NopPruner) else _stopped(asked, game.reports(trial))
        game.pay(trial, stopped)
        if stopped is None:
            study.tell(asked, trial.objective)
        else:
            study.tell(asked, state=optuna.trial.TrialState.PRUNED)


def _stopped(asked: Any, reports: list[tuple[int, float, float]]) -> float | None:
    for unit, seconds, value in reports:
        asked.report(value, unit)
        if asked.should_prune():
            return seconds
    return None
