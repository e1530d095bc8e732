"""How large the gradients of the same samples are, in small steps or in one: Shen's A4, with his histograms (A5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ....errors import UsageError
from ....store.records import Estimate
from ....wording import count, duration, joined, number, plural, times, with_interval
from ...checkpoints import KEPT, checkpoints_of
from ...published import SHEN_SETTINGS, all_of, conclusion, is_above
from ...records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion
from .sums import GradientSums, gradient_sums_of

if TYPE_CHECKING:
    from ....report.blocks import Section
    from ....store.runs import StoredRun
    from ...engine import Laboratory

__all__ = ["STUDY"]

_SOURCE = "Shen 2018, norms and histograms of summed gradients by batch size (A4, A5)"
_RULE = "repeats of the same samples for every batch size; 90 % confidence intervals over the repeats"
_SHARES = {"early": 2.26e5 / 1.024e7, "end": 1.01e5 / 1.024e7}
"""Share of the largest batch's values at or beyond the published marks (counts read off the figures)."""
_MARKS = {"early": 0.0082, "end": 0.00702}
_HEAVIER = 10.0
"""Times as many values beyond the mark: less is no much heavier tail. About a thousand were published."""


def arms(question: StudyQuestion, examples: int) -> tuple[Arm, ...]:
    """The study's one run, at the largest batch size."""
    del examples
    size, lr = max(question.batch_sizes), question.lrs[0]
    if len(question.batch_sizes) < 2:
        raise UsageError(
            f"gradient_size compares batch sizes, and --batch-sizes has only {size}; give at least two, for example "
            "1,64,1024"
        )
    if len(question.lrs) > 1:
        raise UsageError(
            f"gradient_size trains and measures at one learning rate, and --lrs has {len(question.lrs)}; give one"
        )
    return (Arm(batch_size=size, lr=lr, length=question.length, **question.course),)


def measure_all(laboratory: Laboratory) -> None:
    """Train, and measure at the early checkpoint and at the end."""
    from .measure import Asked, measure_gradient_sums

    question = laboratory.question
    runs = [laboratory.run(laboratory.arms[0], seed, keep=KEPT) for seed in question.seeds]
    asked: list[Asked] = []
    for run in filter(None, runs):
        for checkpoint in checkpoints_of(run, laboratory.examples)[-2:]:
            part = "end" if checkpoint.part == "end" else "early"
            asked.append(
                Asked(
                    run=run,
                    checkpoint=checkpoint,
                    batch_sizes=tuple(sorted(question.batch_sizes)),
                    lr=question.lrs[0],
                    repeats=question.repeats or 2,
                    share=_SHARES[part],
                    published_mark=_MARKS[part],
                )
            )
    laboratory.cut_off |= not measure_gradient_sums(laboratory, asked)


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Shen's conclusions, each at all checkpoints; then how precise they are, and what more repeats would take."""
    found = gradient_sums_of(study)
    known = [s for s in found if not s.reason]
    if not known:
        reason = (
            joined([f"{s.label}, {s.reason}" for s in found]) or "nothing was measured before the budget was used up"
        )
        return (conclusion("a larger batch makes a larger gradient of the same samples", None, reason, source=_SOURCE),)
    return (*_conclusions(known, [run.id for run in runs]), *_precision(found, known))


def _conclusions(known: Sequence[GradientSums], ids: Sequence[str]) -> Iterator[Finding]:
    decided: tuple[tuple[str, Callable[[GradientSums], Estimate], float, Callable[[GradientSums], str]], ...] = (
        (
            "of the same samples, a larger batch makes a larger gradient, as a mean over the steps",
            lambda s: s.change_of_norm,
            0.0,
            _norms,
        ),
        (
            "the standard deviation of that gradient's norm grows with the batch size, all scaled to one mean",
            lambda s: s.ratio_of_spreads,
            1.0,
            _spreads,
        ),
        (
            "the gradient values of the largest batch have a much heavier tail",
            lambda s: s.ratio_of_tails,
            _HEAVIER,
            _tails,
        ),
        (
            "through the same samples, small batches nevertheless travel farther: fewer steps limit a large batch",
            lambda s: s.ratio_of_ways,
            1.0,
            _ways,
        ),
    )
    for statement, value, bound, words in decided:
        values = [value(s) for s in known]
        yield conclusion(
            statement,
            all_of([is_above(v, bound) for v in values]),
            "; ".join(f"{_place(s, known)}, {words(s)}" for s in known),
            source=f"{_SOURCE}; {_RULE}; it must hold at every checkpoint",
            effect=values[0],
            runs=ids,
        )


def _place(sums: GradientSums, known: Sequence[GradientSums]) -> str:
    several = len({s.seed for s in known}) > 1
    return f"{sums.label}{f' of seed {sums.seed}' if several else ''}"


def _norms(s: GradientSums) -> str:
    return (
        f"the norm changes by {with_interval(s.change_of_norm)} from {number(s.smallest.norm.value)} at batch size "
        f"{count(s.smallest.batch_size)} to {number(s.largest.norm.value)} at {count(s.largest.batch_size)}"
    )


def _spreads(s: GradientSums) -> str:
    return (
        f"the standard deviation is {_share(s.smallest.relative_sd)} of the mean at batch size "
        f"{count(s.smallest.batch_size)} and {_share(s.largest.relative_sd)} at {count(s.largest.batch_size)}, "
        f"{with_interval(s.ratio_of_spreads)} times as much"
    )


def _tails(s: GradientSums) -> str:
    return (
        f"{count(sum(s.largest.beyond))} of {count(s.largest.bins.total)} values lie at or beyond {number(s.mark)} at "
        f"batch size {count(s.largest.batch_size)} and {count(sum(s.beside.beyond))} at "
        f"{count(s.beside.batch_size)}, {with_interval(s.ratio_of_tails)} times as many"
    )


def _ways(s: GradientSums) -> str:
    return (
        f"the layer moves by {number(s.way(s.smallest))} at batch size {count(s.smallest.batch_size)} and by "
        f"{number(s.way(s.largest))} at {count(s.largest.batch_size)}, {with_interval(s.ratio_of_ways)} times as far"
    )


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{number(100 * value)} %"


def _precision(found: Sequence[GradientSums], known: Sequence[GradientSums]) -> Iterator[Finding]:
    for s in known:
        errors = [(size.relative_error, size.batch_size) for size in s.sizes if size.relative_error is not None]
        most, size = max(errors, default=(None, 0))
        error = f"; the standard error of the mean norm is {_share(most)} at most, at batch size {count(size)}"
        yield Finding(
            statement=f"{_place(s, known)}, {s.repeats} of {plural(s.wanted, 'repeat')} were measured"
            + (error if errors else ""),
            tag="measured",
            source="standard deviation over repeats ÷ the root of their number ÷ the mean",
        )
        if s.diverged:
            yield Finding(
                statement=f"{_place(s, known)}, steps of batch size {joined([count(b) for b in s.diverged])} at "
                f"learning rate {number(s.lr)} diverge on the way through {count(s.samples)} samples: these sizes are "
                "left out",
                tag="measured",
                source="a norm is no number in one of the repeats",
            )
    for s in found:
        if s.reason:
            yield Finding(statement=f"{s.label}, nothing was measured: {s.reason}", tag="measured", source="the probe")
    yield from _published_repeats(known[-1])


def _published_repeats(s: GradientSums) -> Iterator[Finding]:
    """Finding: what as many repeats as were published would take."""
    time = s.published_repeats_s
    if time is None or time.value is None:
        return
    shared = f", {duration(time.value / s.processes)} in {s.processes} processes" if s.processes > 1 else ""
    yield Finding(
        statement=f"1,000 repeats, as published, would take {duration(time.value)} in one process at each checkpoint"
        f"{shared} (--repeats 1000), and make the standard errors {times((s.repeats / 1000) ** 0.5)} as large",
        tag="fitted",
        source=f"the mean time of a repeat over {plural(s.repeats, 'repeat')}, times 1,000",
        effect=time,
    )


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """Published values beside ours, norms, spreads and ways by batch size, and the histograms."""
    from .figures import build

    return build(study, runs, gradient_sums_of(study))


STUDY = NamedStudy(
    name="gradient_size",
    summary="the gradient of the same samples in small steps or in one, from one checkpoint",
    source=_SOURCE,
    question=StudyQuestion(
        batch_sizes=(1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256, 512, 1024),
        lrs=(0.01,),
        seeds=(0,),
        length=Length(unit="epochs", amount=30),
        repeats=100,
    ),
    quick={"batch_sizes": (1, 8, 64), "length": Length(unit="epochs", amount=3), "repeats": 3},
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
