"""One optimizer in three modes: one example a step, a mini-batch, and all examples at once.

Every mode is trained at every learning rate for equally many epochs, the full batch, which makes one step an epoch, for
20 times as many; each is then shown at its own best learning rate. The common target is the best value of the metric
that every run of these arms came to, so that all reach it; times to it are first passages, interpolated in log steps.

How a step varies is measured twice: at given weights, as the variance of the gradient of a drawn batch about the
gradient over the training set (at the start, and where a mini-batch run ended); and along the runs, as the straightness
of an epoch: how far its updates carry the weights together, over the sum of their lengths.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ....errors import UsageError
from ....fits import intervals
from ....report.blocks import Block, Row, Section, Text
from ....store.records import Estimate, RunStatus
from ....wording import joined, number, with_interval
from ...conclusions import how_tuned, runs_of
from ...demands import needs_length_in
from ...published import SHEN, Value, conclusion, is_above, published_section
from ...records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion
from .figures import noise_figure, paths_figure, straightness_figure, target_row, target_table
from .gradient_spread import MOMENTS, less, measurement_name, refusal_of, spread_of
from .passages import Axis, Passages, passages_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun
    from ...engine import Laboratory

__all__ = ["STUDY"]

_SOURCE = "Shen 2018, opening; answers to Cross Validated 164876"
_MORE_EPOCHS = 20
"""The full batch makes one step an epoch, and gets so many times the epochs."""
_REPEATS = 30
_READINGS_AN_EPOCH = 50
"""Updates whose size is measured in an epoch, at most about."""
_MARGINALLY = 2.0
"""Below this factor, a step costs only marginally more; fixed beforehand."""
_STATEMENTS_OF_FULL: tuple[tuple[str, Axis, str, str], ...] = (
    (
        "the full batch converges more slowly than small ones, which begin to learn before all data were seen",
        "epoch",
        "epochs",
        "Shen 2018, opening",
    ),
    (
        "for a given quality, a smaller batch may take a shorter total time, not a longer one",
        "seconds",
        "seconds of training steps",
        "an answer to Cross Validated 164876",
    ),
)


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """Every batch size and the full batch at every learning rate; lengths in steps: evaluations come within epochs."""
    needs_length_in("modes", question, "epochs", "compares batch sizes by epochs")
    sizes = sorted({*question.batch_sizes, examples})
    if len(sizes) < 2:
        raise UsageError(
            f"modes compares batch sizes with the full batch, and --batch-sizes has only {examples}, all examples; "
            "give a smaller one too, for example --batch-sizes 1,32"
        )
    return tuple(
        Arm(batch_size=size, lr=lr, length=_length(question, size, examples), **question.course)
        for size in sizes
        for lr in question.lrs
    )


def _length(question: StudyQuestion, size: int, examples: int) -> Length:
    epochs = replace(question.length, amount=question.length.amount * (_MORE_EPOCHS if size == examples else 1))
    return Length(unit="steps", amount=epochs.steps(examples, size) or 1)


def measure_all(laboratory: Laboratory) -> None:
    """Every run with its update sizes, then the spread of the gradient at two moments."""
    from ....probes.update_size import UpdateSize

    mini, seeds = _mini(laboratory.question.batch_sizes, laboratory.examples), laboratory.question.seeds
    ended: list[StoredRun] = []
    for seed, arm in itertools.product(seeds, laboratory.arms):
        every = max(1, laboratory.examples // arm.batch_size // _READINGS_AN_EPOCH)
        how = {"examples": laboratory.examples, "batch_size": arm.batch_size, "every": every}
        first = seed == seeds[0] and arm.batch_size == mini
        run = laboratory.run(arm, seed, observers=[UpdateSize(**how)], keep=("last",) if first else ())
        if run is not None and first:
            ended.append(run)
    for moment in MOMENTS:
        if laboratory.read_note(measurement_name(moment)) is None:
            _measure(laboratory, moment, ended)


def _measure(laboratory: Laboratory, moment: str, ended: Sequence[StoredRun]) -> None:
    """Measure the spread of gradients at the initial weights, or where the best mini-batch run ended."""
    from ....probes.gradient_statistics import measure_gradients
    from ....store.not_applicable import NotApplicable

    question, best = laboratory.question, _best_of(ended, laboratory.target.metric, laboratory.target.mode == "max")
    if laboratory.late or best is None:
        laboratory.cut_off |= laboratory.late
        return
    seed = question.seeds[0]
    model = laboratory.workload.model(seed)
    if moment == "end":
        model = laboratory.model(laboratory.weights(best, "last"))
    sizes = [size for size in sorted(question.batch_sizes) if size < laboratory.examples]
    found = measure_gradients(
        laboratory.workload, model, batch_sizes=sizes, repeats=question.repeats or _REPEATS, seed=seed
    )
    laboratory.note(
        measurement_name(moment), found if isinstance(found, NotApplicable) else {"run": best.id, "records": found}
    )


def _best_of(ended: Sequence[StoredRun], metric: str, larger: bool) -> StoredRun | None:
    sign = -1.0 if larger else 1.0
    measured = [
        (sign * run.result.best[metric], i)
        for i, run in enumerate(ended)
        if run.result and run.result.status is not RunStatus.DIVERGED and metric in run.result.best
    ]
    return ended[min(measured)[1]] if measured else None


def _mini(sizes: Sequence[int], examples: int) -> int:
    """The batch size that stands for mini-batches: nearest by factor to the root of the training set's size.

    >>> _mini((1, 8, 32, 512), 1437)
    32
    """
    smaller = [size for size in sizes if size < examples]
    return min(smaller, key=lambda size: max(size**2 / examples, examples / size**2))


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """What is said of the three modes, decided at the common target and by the spread of gradients."""
    passages = passages_of(study, runs)
    if passages is None or len(passages.arms) < 2:
        return tuple(_varies(study))
    return (*_slower(study, passages), *_marginally(study, passages), *_varies(study))


def _slower(study: Study, passages: Passages) -> Iterator[Finding]:
    """The full batch against a mini-batch."""
    mini, full = _mini(study.question.batch_sizes, study.examples), study.examples
    if not {mini, full} <= set(passages.arms):
        return
    for statement, axis, unit, source in _STATEMENTS_OF_FULL:
        ratio = passages.ratio(axis, full, mini)
        yield conclusion(
            statement,
            is_above(ratio, 1.0),
            f"to {_target(study, passages)}, the full batch takes {with_interval(ratio)} times as many {unit} as batch "
            f"size {mini:,}, {how_tuned(study)}",
            source=f"{source}; the best value that all runs came to; ratio seed by seed, 90 % t interval of logarithms",
            effect=ratio,
            runs=_ids(study, passages, mini, full),
        )


def _target(study: Study, passages: Passages) -> str:
    return f"{study.metric} {number(passages.target)}"


def _marginally(study: Study, passages: Passages) -> Iterator[Finding]:
    """A mini-batch against one example."""
    mini = _mini(study.question.batch_sizes, study.examples)
    if mini == 1 or not {1, mini} <= set(passages.arms):
        return
    steps, cost = passages.ratio("step", mini, 1), _step_cost(study, passages, mini)
    fewer = _not(is_above(steps, 1.0))
    cheap = _not(is_above(cost, _MARGINALLY))
    yield conclusion(
        "averages over tens of examples need fewer steps than single examples, and a step costs only marginally more",
        _all((fewer, cheap)),
        f"to {_target(study, passages)}, batch size {mini:,} takes {with_interval(steps)} times as many steps as batch "
        f"size 1, and a step takes {with_interval(cost)} times as long",
        source="an answer to Cross Validated 164876; ratios seed by seed, 90 % t interval of logarithms; marginally is "
        f"less than {_MARGINALLY:g} times",
        effect=steps,
        runs=_ids(study, passages, 1, mini),
    )


def _step_cost(study: Study, passages: Passages, mini: int) -> Estimate:
    """Seconds of a step, of a mini-batch over those of one example."""
    one, many = (
        {r.seed: s for r in runs_of(study, passages.arms[size]) if (s := r.values.get("step_time_s")) is not None}
        for size in (1, mini)
    )
    return intervals.geometric_ratio(intervals.matched(many, one))


def _varies(study: Study) -> Iterator[Finding]:
    """A mini-batch against the smallest batch, in the variance of the gradient."""
    found = {label: spread for moment, label in MOMENTS.items() if (spread := spread_of(study, moment))}
    mini = _mini(study.question.batch_sizes, study.examples)
    smallest = min(study.question.batch_sizes)
    if mini == smallest:
        return
    pairs = {label: (spread[mini].variance, spread[smallest].variance) for label, spread in found.items()}
    verdicts = [less(many, few) for many, few in pairs.values()]
    phrases = [f"{with_interval(many)} against {with_interval(few)} {label}" for label, (many, few) in pairs.items()]
    yield conclusion(
        "the update of a mini-batch varies less than that of one example",
        _all(verdicts) if verdicts else None,
        f"for batch size {mini:,} against {smallest:,}, the variance of the gradient is {joined(phrases)}"
        if phrases
        else f"the spread of gradients is not measured: {refusal_of(study) or 'no time was left'}",
        source="common account of mini-batches; mean squared distance of drawn batches from the full gradient, "
        "Student's 90 % t interval; less if the intervals do not meet; for plain SGD, the update's variance is the "
        "learning rate squared times this",
        effect=next((many for many, _ in pairs.values()), None),
    )


def _all(verdicts: Sequence[bool | None]) -> bool | None:
    """True if all are, false if one is not."""
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _not(verdict: bool | None) -> bool | None:
    return None if verdict is None else not verdict


def _ids(study: Study, passages: Passages, *sizes: int) -> tuple[str, ...]:
    return tuple(row.run for size in sizes for row in runs_of(study, passages.arms[size]))


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """What was published in words, the paths, the target, and how steps vary."""
    passages = passages_of(study, runs)
    found = [published_section(study, runs, SHEN, _values(study, passages))]
    if passages is not None:
        paths = paths_figure(study, runs, passages, _MORE_EPOCHS)
        found.append(Section("paths", "The path of each mode", (paths,)))
        blocks = (target_row(study, passages), target_table(study, passages))
        found.append(Section("target", f"Until {_target(study, passages)}", blocks))
    found.append(Section("variance", "How a step varies", _variance(study, runs)))
    return found


def _values(study: Study, passages: Passages | None) -> list[Value]:
    """Nothing was published in numbers."""
    mini, full = _mini(study.question.batch_sizes, study.examples), study.examples
    if passages is None:
        return []
    values: list[Value] = []
    there, until = set(passages.arms), f"until {_target(study, passages)}"
    if {mini, full} <= there:
        more, time = (passages.ratio(axis, full, mini) for axis in ("epoch", "seconds"))
        over = f"{until}, full batch over {mini:,}"
        values.append(Value(what=f"epochs {over}", published="more (in words)", ours=more))
        values.append(Value(what=f"seconds {over}", published="may be more (Cross Validated)", ours=time))
    if mini != 1 and {1, mini} <= there:
        steps, cost = passages.ratio("step", mini, 1), _step_cost(study, passages, mini)
        values.append(Value(what=f"steps {until}, {mini:,} over 1", published="fewer (Cross Validated)", ours=steps))
        what = f"seconds of a step, batch size {mini:,} over 1"
        values.append(Value(what=what, published="little more (Cross Validated)", ours=cost))
    return values


def _variance(study: Study, runs: Sequence[StoredRun]) -> tuple[Block, ...]:
    """The figures that there are, and why others are not."""
    figures = tuple(f for f in (noise_figure(study), straightness_figure(study, runs)) if f is not None)
    blocks: list[Block] = [Row(figures)] if figures else []
    refused = refusal_of(study)
    if refused is not None:
        blocks.append(Text((f"The spread of gradients is not measured here: {refused}.",), tone="note"))
    elif not all(spread_of(study, moment) for moment in MOMENTS):
        phrase = "The spread of gradients is not measured yet; the same command goes on with it."
        blocks.append(Text((phrase,), tone="note"))
    return tuple(blocks)


STUDY = NamedStudy(
    name="modes",
    summary="one optimizer with one example a step, a mini-batch, and all examples at once",
    source=_SOURCE,
    question=StudyQuestion(
        batch_sizes=(1, 32), lrs=(0.01, 0.03, 0.1, 0.3, 1.0), length=Length(unit="epochs", amount=10)
    ),
    quick={
        "batch_sizes": (1, 32),
        "lrs": (0.03, 0.3),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=1),
        "repeats": 5,
    },
    settings={"optimizer": "sgd", "momentum": 0},
    array_settings={"optimizer": "sgd", "momentum": 0, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
