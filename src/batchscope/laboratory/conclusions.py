"""What a study says in sentences: each with its numbers, the rule behind it, and the runs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..fits import intervals
from ..store.records import Estimate
from ..wording import duration, joined, number, plural, times, with_interval
from .pace import budget_for
from .records import Finding, Study, StudyRow, SummaryRow
from .summary import range_in

__all__ = ["best_arm", "best_rates", "findings_of", "how_tuned", "paired_difference"]

_EDGE = "the best learning rate lies at an end of the grid"


def findings_of(study: Study) -> tuple[Finding, ...]:
    """The findings that every study has, as far as its runs allow."""
    best = best_arm(study)
    if best is None:
        return (*_missing(study), *_diverged(study))
    return (
        *_missing(study),
        *_choice(study, best),
        *_rates(study, best.variant),
        *_across_sizes(study, best.variant),
        *_gaps(study, best.variant),
        *_speeds(study, best.variant),
        *_roughness(study, best.variant),
        *_train_optimised(study, best),
        *_diverged(study),
    )


def best_arm(study: Study) -> SummaryRow | None:
    """The arm with the best mean of the metric at the best epoch; test metrics have no say."""
    sign = -1.0 if study.larger_is_better else 1.0
    values = [
        (sign * value, i)
        for i, s in enumerate(study.summary)
        if s.best_lr and (value := s.estimates[f"best_{study.metric}"].value) is not None
    ]
    return study.summary[min(values)[1]] if values else None


def best_rates(study: Study, variant: str) -> list[SummaryRow]:
    """Each batch size at its best learning rate, the smallest first."""
    return sorted((s for s in study.summary if s.best_lr and s.variant == variant), key=lambda s: s.batch_size)


def how_tuned(study: Study, *variants: str) -> str:
    """How arms at their best learning rates are called: where only one was tried, that is said.

    Args:
        study: its arms.
        variants: whose arms are compared; default: all.
    """
    tried = {variant: {s.lr for s in study.summary if s.variant == variant} for variant in variants} or {
        s.variant: {r.lr for r in study.summary if r.variant == s.variant} for s in study.summary
    }
    if any(len(lrs) > 1 for lrs in tried.values()):
        return "each at its best learning rate"
    lrs = set[float]().union(*tried.values())
    return f"at learning rate {number(lrs.pop())}, the only one tried" if len(lrs) == 1 else "each at the one tried"


def runs_of(study: Study, arm: SummaryRow) -> list[StudyRow]:
    """The rows of an arm, by seed."""
    return sorted((r for r in study.rows if (r.variant, r.batch_size, r.lr) == arm.key), key=lambda r: r.seed)


def paired_difference(study: Study, name: str, arm: SummaryRow, other: SummaryRow, unit: str = "") -> Estimate:
    """Paired difference of a value, `other` minus `arm`, over the seeds, which draw the same in both."""
    first = {r.seed: r.values.get(name) for r in runs_of(study, arm)}
    second = {r.seed: r.values.get(name) for r in runs_of(study, other)}
    pairs = [(a, b) for seed, a in first.items() if a is not None and (b := second.get(seed)) is not None]
    return intervals.paired_difference(((b, a) for a, b in pairs), unit, within=range_in(study.rows, name))


def _ids(study: Study, *arms: SummaryRow) -> tuple[str, ...]:
    return tuple(row.run for arm in arms for row in runs_of(study, arm))


def _named(arm: SummaryRow) -> str:
    variant = f"{arm.variant}, " if arm.variant else ""
    return f"{variant}batch size {arm.batch_size:,} at learning rate {number(arm.lr)}"


def _missing(study: Study) -> Iterator[Finding]:
    if not study.complete:
        yield Finding(
            statement=f"{len(study.rows)} of {study.planned} runs were made before the budget was used up; "
            f"{_goes_on(study)}",
            tag="measured",
            source="count of runs",
        )


def _goes_on(study: Study) -> str:
    if study.needed_s is None:
        return "the same command goes on from there"
    return (
        f"the others take about {duration(study.needed_s)} more, and the same command with --budget "
        f"{budget_for(1.2 * study.needed_s)} goes on from there"
    )


def _choice(study: Study, best: SummaryRow) -> Iterator[Finding]:
    name, seeds = f"best_{study.metric}", plural(best.runs, "seed")
    value = best.estimates[name]
    epoch = number(best.estimates["best_epoch"].value)
    yield Finding(
        statement=f"{_named(best)} has the best {study.metric}, {with_interval(value)}, at epoch {epoch}",
        tag="measured",
        source=f"chosen by the mean over {seeds} of {study.metric} at its best epoch; its being the best of "
        f"{len(study.summary)} makes it look a little better than it is",
        effect=value,
        runs=_ids(study, best),
    )
    tests = [m for m in best.estimates if m.startswith("best_test_")]
    if tests:
        phrase = joined([f"{m.removeprefix('best_')} {with_interval(best.estimates[m])}" for m in tests])
        own = f"best_{study.metric.replace('val_', 'test_', 1)}"
        yield Finding(
            statement=f"at that epoch, on the test part: {phrase}",
            tag="measured",
            source="looked at once, after the choice was made on validation data",
            effect=best.estimates.get(own),
            runs=_ids(study, best),
        )


def _rates(study: Study, variant: str) -> Iterator[Finding]:
    arms = best_rates(study, variant)
    phrase = joined([f"{number(a.lr)} at batch size {a.batch_size:,}" for a in arms])
    rates = sorted({s.lr for s in study.summary if s.variant == variant})
    if len(rates) < 2:
        return
    at_end = [a for a in arms if a.lr in (rates[0], rates[-1])]
    edge = (
        f"; {_EDGE} at batch size {joined([f'{a.batch_size:,}' for a in at_end])}: a wider grid may find a better one"
        if at_end
        else ""
    )
    yield Finding(
        statement=f"the best learning rate is {phrase}{edge}",
        tag="measured",
        source=f"best mean of {study.metric} at its best epoch among {len(rates)} learning rates; no seed diverged",
        runs=_ids(study, *arms),
    )
    if len(arms) >= 3 and len({a.lr for a in arms}) > 1:
        slope = intervals.slope([math.log(a.batch_size) for a in arms], [math.log(a.lr) for a in arms]).value
        yield Finding(
            statement="over these batch sizes the best learning rate goes as the batch size to the power "
            f"{number(slope)}",
            tag="fitted",
            source="least squares on logarithms, of learning rates that are only known up to the steps of the grid; "
            "1 is linear scaling, 0.5 the square root",
            effect=Estimate(value=slope, low=None, high=None, n=len(arms), unit="", method="slope of the logarithms"),
            runs=_ids(study, *arms),
        )


def _across_sizes(study: Study, variant: str) -> Iterator[Finding]:
    """The largest against the smallest batch, at the smallest's best learning rate and each at its own."""
    arms = best_rates(study, variant)
    if len(arms) < 2:
        return
    small, large = arms[0], arms[-1]
    same = next((s for s in study.summary if s.key == (variant, large.batch_size, small.lr)), None)
    name = f"best_{study.metric}"
    pairs = [(same, f"at learning rate {number(small.lr)} for both"), (large, how_tuned(study, variant))]
    for other, how in pairs if same is not None and same.key != large.key else pairs[1:]:
        if other is None or other.diverged:
            continue
        change = paired_difference(study, name, small, other)
        yield Finding(
            statement=f"from batch size {small.batch_size:,} to {large.batch_size:,}, {how}, the best {study.metric} "
            f"changes by {with_interval(change)}{_verdict(change)}",
            tag="measured",
            source=f"differences seed by seed over {plural(change.n, 'seed')}",
            effect=change,
            runs=_ids(study, small, other),
        )


def _verdict(change: Estimate) -> str:
    if change.low is None or change.high is None:
        return ", from a single seed: its spread is not known"
    return ", no clear difference" if change.low <= 0.0 <= change.high else ""


def _gaps(study: Study, variant: str) -> Iterator[Finding]:
    arms = best_rates(study, variant)
    for name, what, source in (
        (
            "accuracy_gap",
            "training accuracy minus test accuracy",
            "Shen 2018; both in evaluation mode, the training part on a fixed subset; test metrics choose nothing",
        ),
        ("loss_ratio", "validation loss over training loss", "Chang and Pathak 2020; both in evaluation mode"),
    ):
        ends = arms if len(arms) < 2 else [arms[0], arms[-1]]
        measured = [a for a in ends if _value(a, f"final_{name}") is not None]
        if not measured:
            continue
        phrase = joined(
            [
                f"{with_interval(a.estimates[f'final_{name}'])} at the end and "
                f"{with_interval(a.estimates[f'best_{name}'])} at the best epoch for batch size {a.batch_size:,}"
                for a in measured
            ]
        )
        yield Finding(
            statement=f"generalisation gap as {what}: {phrase}",
            tag="measured",
            source=source,
            effect=measured[-1].estimates[f"final_{name}"],
            runs=_ids(study, *measured),
        )


def _value(arm: SummaryRow, name: str) -> float | None:
    return arm.estimates[name].value if name in arm.estimates else None


def _speeds(study: Study, variant: str) -> Iterator[Finding]:
    arms = best_rates(study, variant)
    small, large = arms[0], arms[-1]
    first, last = _value(small, "epoch_time_s"), _value(large, "epoch_time_s")
    if len(arms) < 2 or not first or not last:
        return
    yield Finding(
        statement=f"an epoch takes {duration(first)} at batch size {small.batch_size:,} and {duration(last)} at "
        f"{large.batch_size:,}: the former takes {times(first / last)} as long",
        tag="measured",
        source="medians of seconds per step between evaluations, times N / B; evaluation excluded",
        effect=Estimate(
            value=first / last, low=None, high=None, n=small.runs, unit="", method="ratio of means over seeds"
        ),
        runs=_ids(study, small, large),
    )


def _roughness(study: Study, variant: str) -> Iterator[Finding]:
    arms = [a for a in best_rates(study, variant) if _value(a, "roughness") is not None]
    if len(arms) < 2:
        return
    small, large = arms[0], arms[-1]
    yield Finding(
        statement=f"the course of {study.metric} jumps by {with_interval(small.estimates['roughness'])} from one "
        f"evaluation to the next at batch size {small.batch_size:,}, by {with_interval(large.estimates['roughness'])} "
        f"at {large.batch_size:,}",
        tag="measured",
        source="difference of each evaluation from the middle of its neighbours in the second half of a run, scaled to "
        "the standard deviation of independent noise (Gasser, Sroka, Jennen-Steinmetz 1986)",
        effect=large.estimates["roughness"],
        runs=_ids(study, small, large),
    )


def _train_optimised(study: Study, best: SummaryRow) -> Iterator[Finding]:
    """What would have been chosen on training data."""
    name = "final_train_loss_eval"
    measured = [s for s in study.summary if not s.diverged and s.runs == best.runs and _value(s, name) is not None]
    if not measured:
        return
    by_train = min(measured, key=lambda s: _value(s, name) or 0.0)
    if by_train.key == best.key:
        return
    there, here = by_train.estimates[f"final_{study.metric}"], best.estimates[f"best_{study.metric}"]
    yield Finding(
        statement=f"chosen on training data alone, it would have been {_named(by_train)}, whose {study.metric} at the "
        f"end is {with_interval(there)} instead of {with_interval(here)}",
        tag="measured",
        source="minimum of the mean training loss at the end of the runs",
        runs=_ids(study, by_train, best),
    )


def _diverged(study: Study) -> Iterator[Finding]:
    lost = [s for s in study.summary if s.diverged]
    if lost:
        phrase = joined([f"{s.diverged} of {s.runs} at {_named(s)}" for s in lost])
        yield Finding(
            statement=f"runs diverged: {phrase}",
            tag="measured",
            source="the loss left the range of numbers; these runs have no metrics, and their learning rates are not "
            "chosen",
            runs=tuple(row.run for s in lost for row in runs_of(study, s) if row.status == "diverged"),
        )
