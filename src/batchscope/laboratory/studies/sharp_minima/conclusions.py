"""What a study of sharp and flat minima concludes: Keskar's sentences, and what speaks against making much of them.

The large batch's sharpness is divided by the small one's, seed by seed, at one learning rate and each at its best, as
sharpness follows the learning rate. Numbers only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ....fits import intervals
from ....store.records import Estimate
from ....wording import count, joined, number, percent, with_interval
from ...conclusions import paired_difference, runs_of
from ...published import conclusion, is_above
from ...readings import end_metric_of, over_seeds
from ...records import Finding, Study, SummaryRow
from .sharpness import (
    BOXES,
    EIGENVALUE,
    KESKAR,
    RELATIVE,
    SizePair,
    late_change,
    mean_of_box,
    of_seeds,
    ratio_of,
    size_pairs,
)

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["SOURCE", "sharpness_findings"]

SOURCE = "Keskar et al. 2017, metric 2.1"
_RATIO = "the ratio is a geometric mean over the seeds with a 90 % t interval of its logarithm"
_STILL = 0.05
"""A training loss that falls by more than this share over the last tenth of a run has not stopped improving."""


def sharpness_findings(study: Study, runs: Sequence[StoredRun]) -> tuple[Finding, ...]:
    """Keskar's conclusions; whether another box and the Hessian agree; the learning rate; whether these are minima."""
    found: list[Finding] = []
    for comparison in size_pairs(study):
        found += [*_sharper(study, comparison), *_agreement(study, comparison), *_worse(study, comparison)]
    return (*found, *_edge(study), *_by_rate(study), *_minima(study, runs))


def _sharper(study: Study, comparison: SizePair) -> Iterator[Finding]:
    ratio = ratio_of(study, comparison, KESKAR)
    if ratio.value is None:
        return
    values = [mean_of_box(study, a, KESKAR) for a in (comparison.small, comparison.large)]
    others = [(m, ratio_of(study, comparison, m)) for m in BOXES if m.kind == "keskar" and m != KESKAR]
    beside = joined([f"{number(e.value)} at ε = {number(m.eps)}" for m, e in others if e.value is not None])
    yield conclusion(
        "a large batch ends in a sharper minimum",
        is_above(ratio, 1.0),
        f"{comparison.how}, φ in Keskar's box of ε = {number(KESKAR.eps)} is {with_interval(values[0])} % with batch "
        f"size {count(comparison.small.batch_size)} and {with_interval(values[1])} % with "
        f"{count(comparison.large.batch_size)}, {with_interval(ratio)} times as much"
        f"{f' ({beside})' if beside else ''}",
        source=f"{SOURCE}; {_RATIO}, so if it lies above 1",
        effect=ratio,
        runs=_ids(study, comparison.small, comparison.large),
    )


def _agreement(study: Study, comparison: SizePair) -> Iterator[Finding]:
    """Not published: the same with the scale taken out, and by the Hessian."""
    ratios = [(m, ratio_of(study, comparison, m)) for m in (KESKAR, RELATIVE, EIGENVALUE)]
    measured = [(measure, ratio) for measure, ratio in ratios if ratio.value is not None]
    if len(measured) < 2:
        return
    phrase = joined([f"{with_interval(ratio)} by the {measure.name}" for measure, ratio in measured])
    boxes = [is_above(ratio, 1.0) for measure, ratio in measured if measure.kind != "curvature"]
    yield Finding(
        statement=f"{comparison.how}, batch size {count(comparison.large.batch_size)} is, against "
        f"{count(comparison.small.batch_size)}, so many times as sharp: {phrase}; {_verdict(boxes)}",
        tag="measured",
        source="rescaling ReLU layers against each other leaves the function as it is, and changes every measure but "
        f"the relative box (Dinh et al. 2017; Kwon et al. 2021); {_RATIO}",
        effect=dict(measured).get(RELATIVE),
        runs=_ids(study, comparison.small, comparison.large),
    )


def _verdict(boxes: Sequence[bool | None]) -> str:
    if len(boxes) < 2:
        return "one of the two boxes was not measured"
    if None in boxes:
        return "at least one of the boxes leaves open which is sharper"
    if boxes[0] != boxes[1]:
        return "the two boxes disagree: which is sharper depends on the scale of the weights"
    return "the two boxes agree"


def _worse(study: Study, comparison: SizePair) -> Iterator[Finding]:
    outcome = end_metric_of(study)
    change = paired_difference(study, f"final_{outcome.name}", comparison.small, comparison.large)
    if change.value is None:
        return
    above = is_above(change)
    gap = paired_difference(study, "final_accuracy_gap", comparison.small, comparison.large)
    beside = f", and training minus test accuracy by {with_interval(gap)}" if gap.value is not None else ""
    yield conclusion(
        "a large batch ends at a lower test accuracy",
        None if above is None else above != outcome.larger_is_better,
        f"{comparison.how}, from batch size {count(comparison.small.batch_size)} to "
        f"{count(comparison.large.batch_size)} {outcome.name} at the end changes by {with_interval(change)}{beside}",
        source="Keskar et al. 2017, test accuracies; differences seed by seed, 90 % t interval",
        effect=change,
        runs=_ids(study, comparison.small, comparison.large),
    )


def _edge(study: Study) -> Iterator[Finding]:
    """Cohen et al.: full-batch gradient descent ends with the eigenvalue at 2 over the learning rate, SGD below."""
    measured = [(arm, mean) for arm in study.summary if (mean := _of_edge(study, arm)).value is not None]
    if not measured:
        return
    above = [is_above(mean, 1.0) for _, mean in measured]
    phrase = joined([f"{with_interval(mean)} with {_named(arm)}" for arm, mean in measured])
    yield conclusion(
        "the largest Hessian eigenvalue stays below 2 over the learning rate",
        False if True in above else None if None in above else True,
        f"as a share of 2 over the learning rate it is {phrase}",
        source="Cohen et al. 2021, who find gradient descent on all data at this edge, and SGD below it; means over "
        "the seeds with a 90 % t interval",
        effect=max((mean for _, mean in measured), key=lambda e: e.value or 0.0),
        runs=_ids(study, *(arm for arm, _ in measured)),
    )


def _of_edge(study: Study, arm: SummaryRow) -> Estimate:
    return intervals.mean([value * arm.lr / 2 for value in of_seeds(study, arm, EIGENVALUE).values()])


def _by_rate(study: Study) -> Iterator[Finding]:
    """Whether a higher learning rate alone is flatter: then batch sizes at learning rates of their own differ by it."""
    low, high = min(study.question.lrs), max(study.question.lrs)
    for size in dict.fromkeys((min(study.question.batch_sizes), max(study.question.batch_sizes))):
        own = {arm.lr: arm for arm in study.summary if arm.batch_size == size and not arm.diverged}
        if low == high or low not in own or high not in own:
            continue
        ratios = [
            (
                m,
                intervals.geometric_ratio(
                    intervals.matched(of_seeds(study, own[high], m), of_seeds(study, own[low], m))
                ),
            )
            for m in (KESKAR, RELATIVE, EIGENVALUE)
        ]
        measured = [(measure, ratio) for measure, ratio in ratios if ratio.value is not None]
        if measured:
            phrase = joined([f"{with_interval(ratio)} by the {measure.name}" for measure, ratio in measured])
            yield Finding(
                statement=f"from learning rate {number(low)} to {number(high)} at batch size {count(size)}, sharpness "
                f"goes to so many times as much: {phrase}",
                tag="measured",
                source="sharpness follows the learning rate more than it does the gap (Andriushchenko et al. 2023); "
                f"{_RATIO}",
                effect=measured[0][1],
                runs=_ids(study, own[low], own[high]),
            )


def _minima(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    """The words speak of minima: whether the training loss had stopped improving."""
    found = [
        (arm, over_seeds(study, runs, arm, lambda run: late_change(study, run))[0])
        for arm in study.summary
        if not arm.diverged
    ]
    measured = [(arm, change) for arm, change in found if change.value is not None]
    if not measured:
        return
    falling = [arm for arm, change in measured if (change.value or 0.0) < -_STILL]
    phrase = joined(
        [
            f"{with_interval(arm.estimates.get('final_train_loss_eval'))} with {_named(arm)} "
            f"({number(100.0 * (change.value or 0.0))} % over the last tenth)"
            for arm, change in measured
        ]
    )
    verdict = (
        f"it was still falling with {joined([_named(arm) for arm in falling])}, whose weights are no minima yet"
        if falling
        else "it had all but stopped falling"
    )
    yield Finding(
        statement=f"the training loss that was reached is {phrase}: {verdict}",
        tag="measured",
        source=f"Keskar et al. trained until the loss had stopped improving; here that is a change of less than "
        f"{percent(_STILL)} over the last tenth of a run",
        runs=_ids(study, *(arm for arm, _ in measured)),
    )


def _named(arm: SummaryRow) -> str:
    return f"batch size {count(arm.batch_size)} at learning rate {number(arm.lr)}"


def _ids(study: Study, *arms: SummaryRow) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.run for arm in arms for row in runs_of(study, arm)))
