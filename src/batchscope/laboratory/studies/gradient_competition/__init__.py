"""What is lost between the gradients of two batches, in turn or as one: Shen's arrow figure and its hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....errors import UsageError
from ....store.codec import encode
from ....store.not_applicable import not_applicable
from ....store.records import Estimate
from ....wording import count, joined, percent, plural, with_interval
from ...checkpoints import KEPT, Checkpoint, checkpoints_of
from ...published import SHEN_SETTINGS, all_of, conclusion, is_above
from ...records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion, note_name
from .pairs import COLUMNS, NOTES, Pairs, pairs_of

if TYPE_CHECKING:
    from ....probes.competition import Competition
    from ....report.blocks import Section
    from ....store.runs import StoredRun
    from ...engine import Laboratory

__all__ = ["STUDY"]

_SOURCE = "Shen 2018, arrow figure and the hypothesis of gradient competition"
_CHANG = "Chang and Pathak 2020, average size of batch updates"
_RULE = "pairs drawn independently; 90 % confidence intervals over the pairs"
_PIECE = 25
"""Pairs that are kept together."""
_SEEDS_APART = 1_000_003
_COMPETING = 0.5
"""A mean cosine below it counts as competition; parallel gradients have 1."""
_SHORTER = 0.9
"""A ratio of lengths below it counts as much shorter."""


def arms(question: StudyQuestion, examples: int) -> tuple[Arm, ...]:
    """One run, at the largest batch size; pairs are measured at the others."""
    size, lr, largest = max(question.batch_sizes), question.lrs[0], _pair_sizes(question)[-1]
    if len(question.lrs) > 1:
        raise UsageError(
            f"gradient_competition trains and steps at one learning rate, and --lrs has {len(question.lrs)}; give one"
        )
    if 2 * largest > examples:
        raise UsageError(
            f"two batches of {largest} that have no example in common need {2 * largest}, and the training set has "
            f"{examples}; training is at the largest of --batch-sizes, give others of at most {examples // 2}"
        )
    return (Arm(batch_size=size, lr=lr, length=question.length, **question.course),)


def _pair_sizes(question: StudyQuestion) -> list[int]:
    """Batch sizes of the pairs: all but the largest, which is trained with; that one, if it is alone."""
    sizes = sorted(question.batch_sizes)
    return sizes[:-1] or sizes


def measure_all(laboratory: Laboratory) -> None:
    """Train, and measure pairs at the start, early and at the end."""
    question = laboratory.question
    for seed in question.seeds:
        run = laboratory.run(laboratory.arms[0], seed, keep=KEPT)
        if run is None:
            continue
        for at in checkpoints_of(run, laboratory.examples):
            weights = laboratory.weights(run, at.kept)
            for batch_size in _pair_sizes(question):
                laboratory.cut_off |= not _measure(laboratory, at, weights, batch_size)


def _measure(laboratory: Laboratory, at: Checkpoint, weights: Mapping[str, Any], batch_size: int) -> bool:
    """Measure the pairs that are not kept yet, some at a time; whether all are there now."""
    from ....probes.competition import measure_competition
    from ....store.not_applicable import NotApplicable

    question, name = laboratory.question, note_name(NOTES, f"{at.name}-b{batch_size}")
    wanted = question.repeats or _PIECE
    place = {"seed": at.seed, "part": at.part, "epoch": at.epoch, "label": at.label, "batch_size": batch_size}
    kept: dict[str, Any] = laboratory.read_note(name) or {
        **place,
        "wanted": wanted,
        "columns": {c: [] for c in COLUMNS},
    }
    if not_applicable(kept) is not None or len(kept["columns"]["norm_a"]) == wanted:
        return True
    if laboratory.late:
        return False
    laboratory.progress.stage(f"{plural(wanted, 'pair')} of batches of {count(batch_size)} {at.label}")
    model = laboratory.model(weights)
    while (done := len(kept["columns"]["norm_a"])) < wanted and not laboratory.late:
        found = measure_competition(
            laboratory.workload,
            model,
            lr=question.lrs[0],
            batch_size=batch_size,
            pairs=min(_PIECE, wanted - done),
            seed=_SEEDS_APART * at.seed + done,
        )
        if isinstance(found, NotApplicable):
            laboratory.note(name, {**place, **encode(found)})
            return True
        for pair in found:
            for column, value in _columns(pair).items():
                kept["columns"][column].append(None if value is None else float(f"{value:.7g}"))
        laboratory.note(name, kept)
    return len(kept["columns"]["norm_a"]) == wanted


def _columns(pair: Competition) -> dict[str, float | None]:
    once, turn, arrows = pair.at_once, pair.in_turn, pair.arrows
    values = (once.norm_a, once.norm_b, turn.norm_b, once.norm_of_sum, turn.norm_of_sum, pair.norm_as_one)
    others = (once.cosine, turn.cosine, *arrows.as_one, arrows.as_one_outside)
    return dict(zip(COLUMNS, (*values, *others), strict=True))


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Shen's hypotheses on pairs of the smallest batch size, at all checkpoints; then what else the pairs say."""
    found = pairs_of(study)
    measured = [p for p in found if len(p)]
    if not measured:
        reasons = list(dict.fromkeys(f"batches of {count(p.batch_size)} {p.label}: {p.reason}" for p in found))
        reason = joined(reasons) or "the budget was used up before anything was measured"
        return (
            conclusion("the examples of a batch compete: their gradients partly cancel", None, reason, source=_SOURCE),
        )
    smallest_size = min(p.batch_size for p in measured)
    smallest = [p for p in measured if p.batch_size == smallest_size]
    ids = [run.id for run in runs]
    return (*_conclusions(smallest, ids), *_measured(smallest, measured), *_missing(found))


def _conclusions(pairs: Sequence[Pairs], ids: Sequence[str]) -> Iterator[Finding]:
    decided: tuple[tuple[str, Callable[[Pairs], Estimate], float, Callable[[Pairs], str]], ...] = (
        (
            "the examples of a batch compete: their gradients partly cancel, as one step on all of them has it",
            lambda p: p.mean_cosine,
            _COMPETING,
            lambda p: (
                f"the cosine between the gradients of two batches of {count(p.batch_size)} is "
                f"{with_interval(p.mean_cosine)} on average, and below 0 in {percent(p.share_opposed)} of the pairs"
            ),
        ),
        (
            "one step on both batches is much shorter than the two steps together",
            lambda p: p.ratio_of_ways,
            _SHORTER,
            lambda p: f"{with_interval(p.ratio_of_ways)} times as long, of which the mean over the batch makes 0.5",
        ),
        (
            "it is much shorter also step by step, than the mean of the two (purple against half of black)",
            lambda p: p.ratio_per_step,
            _SHORTER,
            lambda p: f"{with_interval(p.ratio_per_step)} times as long",
        ),
    )
    for statement, value, bound, words in decided:
        values = [value(p) for p in pairs]
        answers = [is_above(v, bound) for v in values]
        yield conclusion(
            statement,
            all_of([None if above is None else not above for above in answers]),
            "; ".join(f"{_place(p, pairs)}, {words(p)}" for p in pairs),
            source=f"{_SOURCE}; {_RULE}; below {bound:g} at every checkpoint",
            effect=values[0],
            runs=ids,
        )


def _place(p: Pairs, pairs: Sequence[Pairs]) -> str:
    several = len({other.seed for other in pairs}) > 1
    return f"{p.label}{f' of seed {p.seed}' if several else ''}"


def _measured(smallest: Sequence[Pairs], measured: Sequence[Pairs]) -> Iterator[Finding]:
    size, double = count(smallest[0].batch_size), count(2 * smallest[0].batch_size)
    phrase = "; ".join(f"{_place(p, smallest)} {with_interval(p.ratio_kept)}" for p in smallest)
    yield Finding(
        statement=f"an update at batch size {double}, ‖a + b‖/2, is so many times as long as the mean of two at "
        f"{size}, (‖a‖ + ‖b‖)/2: {phrase}; that it is not longer is the triangle inequality, and no finding",
        tag="measured",
        source=f"{_CHANG}; ratio of means over the pairs",
        effect=smallest[0].ratio_kept,
    )
    phrase = "; ".join(
        f"{_place(p, smallest)} it is {with_interval(p.ratio_of_second)} times as long, and of both "
        f"{with_interval(p.ratio_kept_in_turn)} is kept instead of {with_interval(p.ratio_kept)}"
        for p in smallest
    )
    yield Finding(
        statement=f"when the second gradient is recomputed after the step on the first: {phrase}",
        tag="measured",
        source=f"{_RULE}; ratios of means",
        effect=smallest[0].ratio_of_second,
    )
    sizes = sorted({p.batch_size for p in measured})
    if len(sizes) > 1:
        largest = [p for p in measured if p.batch_size == sizes[-1]]
        phrase = "; ".join(f"{_place(p, largest)} {with_interval(p.mean_cosine)}" for p in largest)
        yield Finding(
            statement=f"between batches of {count(sizes[-1])} the mean cosine is {phrase}",
            tag="measured",
            source=_RULE,
            effect=largest[0].mean_cosine,
        )


def _missing(found: Sequence[Pairs]) -> Iterator[Finding]:
    for p in found:
        batches = f"batches of {count(p.batch_size)}"
        if p.reason:
            statement = f"{p.label}, nothing was measured on {batches}: {p.reason}"
        elif len(p) < p.wanted:
            statement = f"{p.label}, {len(p)} of {plural(p.wanted, 'pair')} of {batches} were measured"
        else:
            continue
        yield Finding(statement=statement, tag="measured", source="the probe")


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """Published beside ours, the arrows of a median pair, and the distributions over the pairs."""
    from .figures import build

    return build(study, runs, pairs_of(study))


STUDY = NamedStudy(
    name="gradient_competition",
    summary="two batches taken in turn or as one: what is lost between their gradients",
    source=f"{_SOURCE}; {_CHANG}",
    question=StudyQuestion(
        batch_sizes=(1, 8, 64, 1024),
        lrs=(0.01,),
        seeds=(0,),
        length=Length(unit="epochs", amount=30),
        repeats=200,
    ),
    quick={"batch_sizes": (1, 8, 64), "length": Length(unit="epochs", amount=3), "repeats": 4},
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
