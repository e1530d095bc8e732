"""The tree-structured Parzen estimator of Optuna 5: the rival that most people would take.

Optuna is asked for one trial at a time, of a study made anew from what has been seen; its storage is not used, the
results folder is the truth. A run that did not reach the target is told as pruned, with its metric on the way: Optuna
ranks it behind all that reached the target, those that went further first. (Told as failed, it would be ignored and the
like of it proposed again; a value that is no number is refused.)
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UsageError
from .space import Offer, Pair, Request, Space, Trial, cut_off, trial_at

if TYPE_CHECKING:
    import optuna

__all__ = ["OFFER", "TreeParzen", "require_optuna"]

_RUNGS = tuple(2.0**-k for k in (4, 3, 2, 1, 0))
"""Where runs are compared on their way, as shares of the cost at which they are cut off."""
_EXACT = 1.0 - 1e-9
_MOST_REPEATS = 20


def require_optuna() -> None:
    """Make sure that Optuna is there.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import optuna  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise UsageError(
            f"this search needs Optuna 5, which is not installed here ({error}); "
            'install the extra: pip install -c constraints.txt ".[optuna]", or "batchscope[optuna]"'
        ) from error


@dataclass(frozen=True, kw_only=True)
class TreeParzen:
    """Searches as `optuna.samplers.TPESampler` does (Bergstra et al. 2011; multivariate: Falkner, Klein & Hutter 2018).

    The first ten trials are drawn at random, the others where good trials are denser than the rest. The batch size is
    the place in the list of sizes, the learning rate is uniform in its logarithm.

    Cost: `trials` trainings; one that has taken `slower` times as long as the best so far is cut off. A proposal takes
    a hundredth of a second.

    Attributes:
        trials: in all, those that were there before it began included.
        slower: than the best so far by this factor, and a run is cut off.
        prune: stop a run also where `optuna.pruners.MedianPruner` would, at a sixteenth, an eighth, ... of that cost:
            when its metric is worse than the median of those that reached the target (from five of them on).
    """

    trials: int = 20
    slower: float = 2.0
    prune: bool = False

    def __call__(self, space: Space, trials: Sequence[Trial], seed: int) -> Request | None:
        """The next run.

        Raises:
            UsageError: Optuna is not installed.
        """
        require_optuna()
        if self.prune and trials and (limit := self._further(space, trials)) is not None:
            return self._asked(trials[-1].pair, limit, "goes on", len(trials))
        if len(trials) >= self.trials:
            return None
        limits = _limits(trials, self.slower)
        pair = _proposed(space, trials, limits, seed)
        if pair is None:
            return None
        return self._asked(pair, limits[0] if self.prune else limits[-1], "proposed", len(trials) + 1)

    def _further(self, space: Space, trials: Sequence[Trial]) -> float | None:
        """How far the last run goes on; `None` if it has ended or is pruned."""
        *before, last = trials
        limits = _limits(before, self.slower)
        if last.status != "stopped" or last.cost >= _EXACT * limits[-1] or not space.holds(last.pair):
            return None
        if _is_pruned(space, before, last, limits):
            return None
        return next(limit for limit in limits if last.cost < _EXACT * limit)

    def _asked(self, pair: Pair, limit: float, what: str, number: int) -> Request:
        why = f"{what} by Optuna, trial {number} of {self.trials}"
        return Request(batch_size=pair[0], lr=pair[1], limit=limit if math.isfinite(limit) else None, why=why)


def _limits(trials: Sequence[Trial], slower: float) -> tuple[float, ...]:
    """Costs at which runs are compared, ascending; the last is where they are cut off. Infinite while none is known."""
    most = cut_off(trials, slower)
    return tuple(share * (math.inf if most is None else most) for share in _RUNGS)


def _proposed(space: Space, trials: Sequence[Trial], limits: Sequence[float], seed: int) -> Pair | None:
    """A pair that is not among the trials; `None` where the sampler knows no other any more."""
    (drawn,) = np.random.SeedSequence([seed, len(trials)]).generate_state(1)
    study = _study(space, trials, limits, int(drawn))
    for _ in range(_MOST_REPEATS):
        params = study.ask(_distributions(space)).params
        lr = float(f"{params['lr']:.3g}")
        pair = space.batch_sizes[params["size"]], min(max(lr, space.lr_low), space.lr_high)
        if trial_at(trials, pair) is None:
            return pair
    return None


def _is_pruned(space: Space, before: Sequence[Trial], last: Trial, limits: Sequence[float]) -> bool:
    study = _study(space, before, limits, 0)
    study.enqueue_trial(_params(space, last))
    trial = study.ask(_distributions(space))
    for number, value in _on_the_way(last, limits).items():
        trial.report(value, number)
    return trial.should_prune()


def _study(space: Space, trials: Sequence[Trial], limits: Sequence[float], seed: int) -> optuna.Study:
    import optuna

    with _quiet():
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True), pruner=optuna.pruners.MedianPruner()
        )
    longest = max((trial.cost for trial in trials), default=0.0)
    scale = limits if math.isfinite(limits[-1]) else [share * longest for share in _RUNGS]
    for trial in filter(lambda trial: space.holds(trial.pair), trials):
        reached = trial.cost_to_target is not None
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE if reached else optuna.trial.TrialState.PRUNED,
                value=trial.cost_to_target,
                params=_params(space, trial),
                distributions=_distributions(space),
                intermediate_values=_on_the_way(trial, scale),
            )
        )
    return study


def _on_the_way(trial: Trial, limits: Sequence[float]) -> dict[int, float]:
    """The metric, as a loss, at each limit that the run came to; at all of them where it reached the target before."""
    far = math.inf if trial.cost_to_target is not None else trial.cost
    passed = {k: trial.loss_at(limit) for k, limit in enumerate(limits) if _EXACT * limit <= far}
    return {k: value for k, value in passed.items() if math.isfinite(value)}


def _params(space: Space, trial: Trial) -> dict[str, Any]:
    return {"size": space.batch_sizes.index(trial.batch_size), "lr": trial.lr}


def _distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    import optuna

    return {
        "size": optuna.distributions.IntDistribution(0, len(space.batch_sizes) - 1),
        "lr": optuna.distributions.FloatDistribution(space.lr_low, space.lr_high, log=True),
    }


@contextmanager
def _quiet() -> Generator[None]:
    """Without the line that Optuna writes to stderr for each new study."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


OFFER = Offer(
    words="Optuna's tree-structured Parzen estimator",
    typical_runs=35.0,
    build=lambda first: TreeParzen(),
    require=require_optuna,
)
