"""Statements about tuning: what a learning rate of its own does for each batch size, and what trial and error finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...fits import intervals
from ...wording import count, number, with_interval
from ..studies.trial_and_error.sequence import Advice, Choice, Followed, Next, TrialTraining, follow
from .comparisons import NO_TEST, TIME, better, called, minimum_effect, no_worse, versus
from .outcome import Outcome, above, all_of, below, undecided, within
from .plan import ClaimsPlan, trial_variant
from .results import Setting, TaskResults

__all__ = ["DECISIONS", "advice_for", "followed"]

_HALF = 0.5
_NEARLY = 0.05
"""Of the loss; published: 2.6 %."""


def tuned_range(
    e: TaskResults, quality: str, tuned: str, untuned: str, arms: Callable[[int], Setting | None]
) -> Outcome:
    """Per seed, the range of a metric over the batch sizes when tuned, over that at one learning rate."""
    sizes = e.plan.batch_sizes
    at_one = e.per_seed([e.at_one_rate(b) for b in sizes], f"{untuned}_{quality}")
    at_best = e.per_seed([arms(b) for b in sizes], f"{tuned}_{quality}")
    pairs = [
        (max(at_best[seed]) - min(at_best[seed]), max(at_one[seed]) - min(at_one[seed]))
        for seed in at_one
        if seed in at_best
    ]
    what = (
        f"the range of {quality} over the batch sizes, each at its best learning rate, over that at one learning rate"
    )
    ids = e.ids(*(arms(b) for b in sizes), *map(e.at_one_rate, sizes))
    return below(intervals.geometric_ratio(pairs), 1.0, 0.05, what, ids)


def _tuned_test(e: TaskResults) -> Outcome:
    """Learning rate and length chosen by validation, against the same learning rate for all and the end of the runs."""
    if e.test is None:
        return NO_TEST
    return tuned_range(e, e.test.metric, "best", "final", e.at_best)


def _left_of_the_gap(e: TaskResults) -> Outcome:
    """What tuning leaves of the difference between the largest and the smallest batch."""
    if e.loss is None:
        return undecided("the task reports no validation loss")
    small = e.values(e.at_one_rate(e.plan.smallest), f"best_{e.loss}")
    one, best = (e.values(arm_of(e.plan.largest), f"best_{e.loss}") for arm_of in (e.at_one_rate, e.at_best))
    tuned = e.values(e.at_best(e.plan.smallest), f"best_{e.loss}")
    seeds = [seed for seed in small if seed in one and seed in best and seed in tuned]
    within = e.range_of(e.loss)
    there = intervals.paired_difference(((one[s], small[s]) for s in seeds), within=within)
    if there.low is None or there.low <= 0:
        phrase = f"at one learning rate the largest batch is not clearly worse in {e.loss}: {with_interval(there)}"
        return undecided(f"{phrase}; there is no gap that tuning could leave")
    effect = intervals.ratio_of_paired_means((best[s] - tuned[s], one[s] - small[s]) for s in seeds)
    what = (
        f"the difference in best {e.loss} between batch size {count(e.plan.largest)} and {count(e.plan.smallest)}, "
        "each at its best learning rate, as a share of that at one learning rate"
    )
    ids = e.ids(*e.ends_at_one_rate, *e.ends_at_best)
    return below(effect, _HALF, 0.0, what, ids)


def _nearly_meet(e: TaskResults) -> Outcome:
    small, large = e.ends_at_best
    ratio = e.ratio(f"best_{e.loss or e.study.metric}", small, large)
    what = f"the best {e.loss or e.study.metric}, {versus(small, large)}, as a ratio,"
    return within(ratio, 1 - _NEARLY, 1 + _NEARLY, what, e.ids(small, large))


def _rate_makes_up(e: TaskResults) -> Outcome:
    """Share of the score lost by the largest batch at the small one's learning rate that its best one wins back."""
    small, large, best = e.at_one_rate(e.plan.smallest), e.at_one_rate(e.plan.largest), e.at_best(e.plan.largest)
    name = f"final_{e.score.metric}"
    a, b, c = (e.values(arm, name) for arm in (small, large, best))
    seeds = [seed for seed in a if seed in b and seed in c]
    sign = float(e.score.sign)
    within = e.range_of(e.score.metric).of_differences
    lost = intervals.mean((sign * (a[s] - b[s]) for s in seeds), within=within)
    if lost.low is None or lost.low <= minimum_effect(e, e.score, small) / 2:
        return undecided(
            f"at one learning rate the largest batch loses too little to be made up for: {number(lost.value)}"
        )
    effect = intervals.ratio_of_paired_means((sign * (c[s] - b[s]), sign * (a[s] - b[s])) for s in seeds)
    what = (
        f"the share of the loss in {e.score.metric} that {called(best)} wins back, against {called(large)} and "
        f"{called(small)},"
    )
    return above(effect, _HALF, 0.0, what, e.ids(small, large, best))


# --- trial and error ------------------------------------------------------------------------------------------------


def advice_for(plan: ClaimsPlan, *, larger_is_better: bool) -> Advice:
    """The advice to begin small and grow, with the numbers of a plan: an eighth of the grid's epochs first."""
    return Advice(
        batch_sizes=plan.batch_sizes,
        first_epochs=plan.epochs / 8,
        most_epochs=plan.epochs,
        larger_is_better=larger_is_better,
    )


def followed(e: TaskResults, seed: int) -> Followed:
    """The sequence of trials with one seed, as far as it was made."""

    def made(asked: Next) -> TrialTraining | None:
        arm = e.at_one_rate(asked.batch_size, trial_variant(asked.epochs))
        row = next((row for row in e.rows(arm) if row.seed == seed), None)
        if row is None:
            return None
        value = row.values.get(f"best_{e.metric.metric}")
        step_time = e.step_time_s(asked.batch_size) or 0.0
        return TrialTraining(
            batch_size=asked.batch_size, epochs=asked.epochs, value=value, seconds=row.steps * step_time
        )

    return follow(advice_for(e.plan, larger_is_better=e.study.larger_is_better), made)


def _chosen(e: TaskResults) -> dict[int, tuple[TrialTraining, float]]:
    """What each seed's sequence chose, and the seconds of all its trials."""
    found: dict[int, tuple[TrialTraining, float]] = {}
    for seed in e.plan.seeds:
        sequence = followed(e, seed)
        choice: Choice | None = sequence.choice
        if choice is not None and choice.trial is not None and choice.trial.value is not None:
            found[seed] = choice.trial, sequence.seconds
    return found


def _grid_seconds(e: TaskResults) -> float:
    """Seconds of one seed's runs of the grid."""
    return sum(
        row.steps * (e.step_time_s(row.batch_size) or 0.0)
        for arm in e.arms("")
        for row in e.rows(arm)
        if row.seed == e.plan.seeds[0]
    )


def _best_of_grid(e: TaskResults) -> Setting | None:
    arms = [arm for b in e.plan.batch_sizes if (arm := e.at_best(b)) is not None]

    def value(arm: Setting) -> float:
        found = e.values(arm, f"best_{e.metric.metric}").values()
        return e.metric.sign * sum(found) / max(1, len(found))

    return max(arms, key=value, default=None)


def _as_good_as_the_grid(e: TaskResults) -> Outcome:
    chosen, best = _chosen(e), _best_of_grid(e)
    if not chosen or best is None:
        return undecided("the trials were not made before the budget was used up")
    values = e.values(best, f"best_{e.metric.metric}")
    ids = tuple(row.run for arm in e.trials() for row in e.rows(arm))
    if e.metric.sign < 0:
        measured = {s: trial.value for s, (trial, _) in chosen.items() if trial.value is not None}
        ratios = intervals.geometric_ratio(intervals.matched(measured, values))
        what = f"the {e.metric.metric} of what the trials choose over that of the best of the grid, {called(best)},"
        return below(ratios, 1.1, 0.0, what, ids, decides="it holds where the interval lies below 1.1, the margin")
    found = [(trial.value or 0.0) - values[s] for s, (trial, _) in chosen.items() if s in values]
    changes = intervals.mean(found, within=e.range_of(e.metric.metric).of_differences)
    return no_worse(
        e, e.metric, changes, f"{better(e, e.metric)} from the best of the grid to what the trials choose", ids
    )


def _in_less_time(e: TaskResults) -> Outcome:
    chosen, whole = _chosen(e), _grid_seconds(e)
    if not chosen or not whole:
        return undecided("the trials were not made before the budget was used up")
    what = "the training seconds of all trials over those of the grid, one seed each,"
    return below(intervals.geometric_ratio((seconds, whole) for _, seconds in chosen.values()), 1.0, TIME, what)


def _balance(e: TaskResults) -> Outcome:
    """The choice of the trials against the best of the grid in the time of one training, too."""
    chosen, best = _chosen(e), _best_of_grid(e)
    if not chosen or best is None or not e.step_time_s(best.batch_size):
        return undecided("the trials were not made before the budget was used up")
    steps = {row.seed: row.values.get("best_step") for row in e.rows(best)}
    there = e.step_time_s(best.batch_size) or 0.0
    ratios = intervals.geometric_ratio(
        (trial.seconds, at * there) for s, (trial, _) in chosen.items() if (at := steps.get(s)) is not None
    )
    what = f"the training seconds of what the trials choose over those of the grid's best, {called(best)},"
    return all_of(_as_good_as_the_grid(e), below(ratios, 1.5, 0.0, what))


def _trial_and_error(e: TaskResults) -> Outcome:
    return all_of(_as_good_as_the_grid(e), _in_less_time(e))


DECISIONS: Mapping[str, Callable[[TaskResults], Outcome]] = {
    "S0.9a": lambda e: tuned_range(e, e.loss or e.study.metric, "best", "best", e.at_best),
    "S0.9c": _tuned_test,
    "S0.14b": _left_of_the_gap,
    "S0.17": _nearly_meet,
    "S1.16": _rate_makes_up,
    "S2.12": _trial_and_error,
    "S3.14a": _trial_and_error,
    "S2.13": _balance,
}
