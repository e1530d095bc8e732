"""What a higher learning rate wins back, how the best one scales, and what is left. Numbers only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ....wording import joined, number, with_interval
from ...conclusions import best_rates, paired_difference, runs_of
from ...published import conclusion, is_above
from ...readings import end_metric_of
from ...records import Finding, Study, SummaryRow
from .cells import cells_of, difference_at_one_lr, left_share, named_arm, signed, won_back
from .scaling import scaling_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["SOURCE", "conclude"]

SOURCE = "Shen 2018, figures with the tenfold learning rate (A2); Chang and Pathak 2020, figure 23 (B7)"
_WON_BACK = 0.8
"""From this share on, what was lost counts as won back; Shen's figures give 0.96."""
_MOST = 0.5
"""Below this share of the difference at one learning rate, most of it is gone; Chang and Pathak's numbers give 0.18."""


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Shen's conclusion, and those of Chang and Pathak."""
    return (*_of_shen(study), *_scaling(study), *_remaining(study))


def _of_shen(study: Study) -> Iterator[Finding]:
    cells, outcome = cells_of(study), end_metric_of(study)
    if cells is None:
        return
    lost = paired_difference(study, f"final_{outcome.name}", cells.small, cells.large)
    share = won_back(study, f"final_{outcome.name}", cells.raised, cells)
    sign = 1.0 if outcome.larger_is_better else -1.0
    worse = is_above(signed(lost, -sign))
    changes = (
        f"from {named_arm(cells.small)} to {named_arm(cells.large)}, {outcome.name} at the end changes by "
        f"{with_interval(lost)}"
    )
    if cells.raised.diverged:
        holds = False
        by = (
            f"{changes}; at learning rate {number(cells.raised.lr)} {cells.raised.diverged} of {cells.raised.runs} "
            "runs diverged"
        )
    elif worse:
        holds = is_above(share, _WON_BACK)
        by = f"{changes}, and learning rate {number(cells.raised.lr)} wins back {with_interval(share)} of it"
    else:
        holds, by = None, f"{changes}, no clear loss that could be won back"
    yield conclusion(
        "ten times the learning rate wins back the accuracy that a large batch loses at the same learning rate",
        holds,
        by,
        source="Shen 2018, figures with the tenfold learning rate (A2); 90 % confidence interval of Fieller over the "
        f"seeds for the share won back; {_WON_BACK:g} and more counts as won back",
        effect=share,
        runs=_ids(study, *cells),
    )


def _scaling(study: Study) -> Iterator[Finding]:
    scaling = scaling_of(study)
    if scaling is None:
        return
    chosen = joined([f"{number(a.lr)} at batch size {a.batch_size:,}" for a in best_rates(study, "")])
    bound = "; learning rates at an end of the grid are bounds only" if scaling.at_least or scaling.at_most else ""
    exponent = f"the exponent over the seeds is {with_interval(scaling.exponent)}{bound}"
    how = "slope of logarithms, each seed with its own best learning rates, 90 % t interval"
    for statement, holds, by, rule in (
        (
            "a small batch does best with a small learning rate, a large one with a large",
            scaling.rises,
            chosen,
            "above 0",
        ),
        (
            "the best learning rate grows in proportion to the batch size",
            scaling.linear,
            exponent,
            "above 0.75, halfway",
        ),
    ):
        yield conclusion(
            statement,
            holds,
            f"{by}; {exponent}" if by is chosen else by,
            source=f"Chang and Pathak 2020, closing rules; {how}; so if {rule}",
            effect=scaling.exponent,
        )


def _remaining(study: Study) -> Iterator[Finding]:
    """What is left of the difference between the ends of the batch sizes, each at its best learning rate."""
    own = best_rates(study, "")
    if len(own) < 2:
        return
    small, large, name = own[0], own[-1], f"best_{study.metric}"
    left = paired_difference(study, name, small, large)
    sign = -1.0 if study.larger_is_better else 1.0
    sizes = f"from batch size {small.batch_size:,} to {large.batch_size:,}, each at its best learning rate"
    yield conclusion(
        "with learning rates of their own, a slight difference between small and large batches is left",
        is_above(signed(left, sign)),
        f"{sizes}, the best {study.metric} changes by {with_interval(left)}",
        source="Chang and Pathak 2020 (0.343 and 0.352); differences seed by seed, 90 % t interval",
        effect=left,
        runs=_ids(study, small, large),
    )
    share = left_share(study)
    if share is not None:
        yield conclusion(
            "most of the difference at one learning rate goes away with learning rates of their own",
            None if (above := is_above(share, _MOST)) is None else not above,
            f"at learning rate {number(min(study.question.lrs))} for both, the best {study.metric} changes by "
            f"{with_interval(difference_at_one_lr(study))}; with their own learning rates {with_interval(share)} times "
            "as much is left",
            source="Chang and Pathak 2020 (0.395 against 0.344 at one learning rate); 90 % confidence interval of "
            f"Fieller over the seeds; most is gone if less than {_MOST:g} is left",
            effect=share,
        )


def _ids(study: Study, *arms: SummaryRow) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.run for arm in arms for row in runs_of(study, arm)))
