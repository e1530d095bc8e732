"""Chang and Pathak's conclusion on minima, and the advice to stop early, each with its numbers. Numbers only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ....wording import count, number, percent, plural, times, with_interval
from ...conclusions import paired_difference, runs_of
from ...published import conclusion, is_above
from ...records import Finding, Study, SummaryRow
from .replay import Curve, by_rule, curves_of, last, minimum_training_loss, on_test_part, oracle, replayed, worse_by
from .rules import arms_at_first_lr, extreme_criteria, percent_change, usual_rule

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["SOURCE", "conclude"]

SOURCE = "Chang and Pathak 2020, figure 5 (B1); Prechelt 1998"
_MARGIN = 0.05
"""The share of a test metric that stopping may lose; fixed here, whatever the data."""


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Chang and Pathak's conclusion on minima, and the advice to stop early, each with its numbers."""
    curves = curves_of(study, runs, study.question.lrs[0])
    return (*_minima(study), *_stopping(study, curves), *_slower(study, curves), *_restored(study, runs))


def _minima(study: Study) -> Iterator[Finding]:
    arms = arms_at_first_lr(study)
    if len(arms) < 2:
        return
    small, large = arms[0], arms[-1]
    sizes = f"from batch size {small.batch_size:,} to {large.batch_size:,} at learning rate {number(small.lr)}"
    ids = [row.run for arm in (small, large) for row in runs_of(study, arm)]
    worse = "lower" if study.larger_is_better else "higher"
    late = [arm.batch_size for arm in (small, large) if _still_improving(arm)]
    ends = " and ".join(map(count, late))
    cut = f"; at batch size {ends} it still improved at the end, so longer runs have to decide" if late else ""
    for statement, name, rises in (
        (f"at equal settings a larger batch ends at a {worse} best {study.metric}", f"best_{study.metric}", worse),
        ("a larger batch takes more epochs to its best", "best_epoch", "higher"),
    ):
        change = paired_difference(study, name, small, large)
        above = is_above(change)
        yield conclusion(
            statement,
            None if above is None or late else above == (rises == "higher"),
            f"{sizes}, {name} changes by {with_interval(change)}{cut}",
            source=f"{SOURCE}; differences seed by seed, 90 % t interval",
            effect=change,
            runs=ids,
        )


def _stopping(study: Study, curves: Sequence[Curve]) -> Iterator[Finding]:
    """What stopping loses against the best epoch of the whole run, and what not stopping loses."""
    test = on_test_part(study, curves)
    if test is None:
        return
    rule = usual_rule(study)
    found = replayed(study, curves, by_rule(rule))
    if found is not None and found.excess is not None:
        above = is_above(found.excess, _MARGIN)
        yield conclusion(
            "training may stop once the validation metric no longer improves",
            None if above is None else not above,
            f"with {rule} epochs, weights of the best epoch so far have a {test} that is worse than at the best epoch "
            f"of the whole run by {with_interval(found.excess, percent_change)}, after {percent(found.spent.value)} of "
            f"its epochs; {percent(_MARGIN)} is allowed",
            source="SabrePC on early stopping; Prechelt 1998; replayed on the stored curves, means over batch sizes, "
            "90 % t interval over the seeds",
            effect=found.excess,
            runs=_ids(curves),
        )
    for statement, what, picker in (
        ("the weights of the best validation epoch are to be taken, not the last", "at the last epoch", last),
        (
            "who tunes for the training data does badly on the test part",
            "at the minimum training loss",
            minimum_training_loss,
        ),
    ):
        lost = worse_by(study, curves, picker, oracle)
        if lost.value is not None:
            yield conclusion(
                statement,
                is_above(lost),
                f"{what} {test} is worse than at the best epoch by {with_interval(lost, percent_change)}",
                source="SabrePC and others; means over batch sizes, 90 % t interval over the seeds",
                effect=lost,
                runs=_ids(curves),
            )


def _slower(study: Study, curves: Sequence[Curve]) -> Iterator[Finding]:
    """Prechelt's conclusion, between the fastest and the slowest of his criteria here."""
    ends = extreme_criteria(study, curves)
    if ends is None:
        return
    (fast, soon), (slow, late) = ends
    gained = worse_by(study, curves, by_rule(fast), by_rule(slow))
    if gained.value is None or not soon.stop_epoch.value or not late.stop_epoch.value:
        return
    ratio = late.stop_epoch.value / soon.stop_epoch.value
    yield conclusion(
        "slower stopping criteria generalise a little better, at several times the training time",
        is_above(gained),
        f"{fast} stops after {number(soon.stop_epoch.value)} epochs and {slow} takes {times(ratio)} as long; the "
        f"{on_test_part(study, curves)} of the former is worse by {with_interval(gained, percent_change)}",
        source="Prechelt 1998 (about 4 % better, about 4 times as long); 90 % t interval over the seeds",
        effect=gained,
        runs=_ids(curves),
    )


def _restored(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    """Whether the kept weights are those of the best epoch."""
    kept: Mapping[str, Mapping[str, float]] = study.measurements.get("restored", {})
    rows = {row.run: row.values for row in study.rows}
    apart = [
        abs(value - best)
        for run in runs
        for name, value in kept.get(run.id, {}).items()
        if (best := rows[run.id].get(f"best_{name}")) is not None
    ]
    if apart:
        yield Finding(
            statement=f"weights restored from the best epoch of {plural(len(kept), 'run')} evaluate as they did in the "
            f"run; the largest difference in any metric is {number(max(apart))}",
            tag="measured",
            source="the state that was kept at the best validation epoch, put into a fresh model",
            runs=tuple(run.id for run in runs if run.id in kept),
        )


def _still_improving(arm: SummaryRow) -> bool:
    best, end = arm.estimates["best_epoch"].value, arm.estimates["epochs"].value
    return best is not None and end is not None and best > 0.95 * end


def _ids(curves: Sequence[Curve]) -> tuple[str, ...]:
    return tuple(curve.run for curve in curves)
