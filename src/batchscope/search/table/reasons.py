"""The statements that an answer from a table rests on, each with its tag and its source."""

from __future__ import annotations

from ...store.records import Evidence
from ...wording import joined, number, plural, with_interval
from .state import TableState

__all__ = ["evidence_of_table"]

_ALIKE = 0.02
"""A rule of learning rates with a smaller exponent is no rule."""


def evidence_of_table(answered: TableState) -> tuple[Evidence, ...]:
    """Statements that the answer from a table rests on: measured, fitted, assumed."""
    return (*_of_runs(answered), *_of_times(answered), *_of_law(answered), *_of_assumptions(answered))


def _of_runs(answered: TableState) -> list[Evidence]:
    sizes = sorted(answered.runs.steps)
    reached = sum(s is not None for runs in answered.runs.steps.values() for s in runs)
    total = sum(map(len, answered.runs.steps.values()))
    return [
        Evidence(
            statement=f"{reached} of {plural(total, 'run')} reached the target, at {len(answered.runs.reached_at)} of "
            f"{plural(len(sizes), 'batch size')} from {sizes[0]} to {sizes[-1]}",
            tag="measured",
            source=answered.table.name,
        )
    ]


def _of_times(answered: TableState) -> list[Evidence]:
    if not answered.state.recorded.step_times:
        return []
    profile, knee = answered.state.bench.profile, with_interval(answered.state.step_time.hardware_knee)
    found = [
        Evidence(
            statement=f"a step was timed at {plural(len(profile.step_time_s), 'batch size')}; its time hardly depends "
            f"on the batch size well below {knee} examples (the hardware knee), and grows in proportion to it well "
            "above",
            tag="measured",
            source=profile.name,
        )
    ]
    missing = sorted(set(answered.runs.steps) - {size for size, _ in profile.step_time_s})
    if missing:
        found.append(
            Evidence(
                statement=f"step times at {joined([str(b) for b in missing])} follow from the others",
                tag="fitted",
                source="fixed and per-example cost, through the measured times",
            )
        )
    return found


def _of_law(answered: TableState) -> list[Evidence]:
    if not answered.state.reached:
        return []
    found = list(answered.state.law.statements)
    if answered.untuned is not None:
        best = answered.untuned.best_batch_size(answered.state.choices())
        found.append(
            Evidence(
                statement=f"the best batch size is {with_interval(best)}",
                tag="fitted",
                source="the law and the step times, for each draw of the posterior; 90 % credible interval",
            )
        )
    return found


def _of_assumptions(answered: TableState) -> list[Evidence]:
    found: list[Evidence] = []
    if answered.untuned is not None:
        slope = answered.runs.lrs.slope
        how = "they are not known" if slope is None else f"they grow as the batch size to the power {number(slope)}"
        how = "they are alike" if slope is not None and abs(slope) < _ALIKE else how
        found.append(
            Evidence(
                statement=f"one learning rate for each batch size was taken as it is ({how}): whether others would do "
                "better, the table does not say",
                tag="assumption",
                source="learning rates that follow the square root of the batch size fail last; see docs/log.md",
            )
        )
    if answered.table.counts_whole_epochs:
        found.append(
            Evidence(
                statement="the target was looked for at the end of each epoch only, so steps are known to an epoch",
                tag="assumption",
                source="all epochs in the table are whole numbers",
            )
        )
    if any(None in runs for runs in answered.runs.steps.values()):
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
