"""The statements that an answer from a table rests on, each with how it is known."""

from __future__ import annotations

from ...store.records import Estimate, Evidence
from ...wording import joined, number, plural
from ..reasons import law_in_words
from .state import TableFindings, UntunedFindings

__all__ = ["evidence_of_table"]

_ALIKE = 0.02
"""A rule of rates with a smaller exponent is no rule."""


def evidence_of_table(findings: TableFindings) -> tuple[Evidence, ...]:
    """Measured first, then fitted, then assumed."""
    return (*_of_runs(findings), *_of_times(findings), *_of_law(findings), *_of_assumptions(findings))


def _of_runs(findings: TableFindings) -> list[Evidence]:
    sizes = sorted(findings.steps)
    reached = sum(s is not None for runs in findings.steps.values() for s in runs)
    total = sum(map(len, findings.steps.values()))
    return [
        Evidence(
            statement=f"{reached} of {plural(total, 'run')} reached the target, at {len(findings.reached_at)} of "
            f"{plural(len(sizes), 'batch size')} from {sizes[0]} to {sizes[-1]}",
            tag="measured",
            source=findings.table.name,
        )
    ]


def _of_times(findings: TableFindings) -> list[Evidence]:
    if not findings.times_known:
        return []
    profile = findings.bench.profile
    found = [
        Evidence(
            statement=f"a step was timed at {plural(len(profile.step_time_s), 'batch size')}; it costs the same well "
            f"below {_value(findings.step_time.hardware_knee)} examples (the hardware knee), and grows in proportion "
            "well above",
            tag="measured",
            source=profile.name,
        )
    ]
    missing = sorted(set(findings.steps) - {size for size, _ in profile.step_time_s})
    if missing:
        found.append(
            Evidence(
                statement=f"step times at {joined([str(b) for b in missing])} follow from the others",
                tag="fitted",
                source="fixed and per-example cost, through the measured times",
            )
        )
    return found


def _of_law(findings: TableFindings) -> list[Evidence]:
    if not findings.reached:
        return []
    if not isinstance(findings, UntunedFindings):
        return law_in_words(findings)
    belief = findings.belief
    return [
        Evidence(
            statement=f"examples to the target follow E_min (1 + (B/B_c)^a)^(1/a) with a critical batch size of "
            f"{_value(belief.critical_batch_size())} and a knee exponent of {_value(belief.knee_exponent())}, and rise "
            "without bound towards batch sizes that are too small or too large for their rates",
            tag="fitted",
            source="McCandlish et al. 2018, equation 2.11, with a knee exponent and two walls",
        ),
        Evidence(
            statement=f"the best batch size is {_value(findings.best_batch_size)}",
            tag="fitted",
            source="the law and the step times, for each draw of what is not known",
        ),
    ]


def _of_assumptions(findings: TableFindings) -> list[Evidence]:
    found: list[Evidence] = []
    if isinstance(findings, UntunedFindings) and findings.reached:
        slope = findings.rates.slope
        how = "they are not known" if slope is None else f"they grow as the batch size to the power {slope:.2g}"
        how = "they are alike" if slope is not None and abs(slope) < _ALIKE else how
        found.append(
            Evidence(
                statement=f"one rate for each batch size was taken as it is ({how}): whether others would do "
                "better, the table does not say",
                tag="assumption",
                source="rates that follow the square root of the batch size were found to fail last; see docs/log.md",
            )
        )
    if findings.table.counts_whole_epochs:
        found.append(
            Evidence(
                statement="the target was looked for at the end of each epoch only, so steps are known to an epoch",
                tag="assumption",
                source="all epochs in the table are whole numbers",
            )
        )
    if any(None in runs for runs in findings.steps.values()):
        found.append(
            Evidence(
                statement="a run that never reached the target was given about three times as many examples as the "
                "longest that did",
                tag="assumption",
                source="the table does not say how long those runs were",
            )
        )
    found.append(
        Evidence(
            statement="all runs of the table were after the same target, with the same data, model and optimizer",
            tag="assumption",
            source="nothing in a table says otherwise",
        )
    )
    return found


def _value(estimate: Estimate) -> str:
    low = number(estimate.low) if estimate.low is not None else ""
    high = number(estimate.high) if estimate.high is not None else ""
    return f"{number(estimate.value)} ({low}–{high})" if low or high else number(estimate.value)
