"""Statements about gradients, measured from one checkpoint: noise, angles, competition, sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...fits import intervals
from ...store.not_applicable import not_applicable
from ...store.ranges import SHARE
from ...store.records import Estimate
from ...wording import count, number
from .comparisons import unmeasured
from .convergence import rough_per_update
from .outcome import Outcome, above, all_of, below, not_testable, undecided, within
from .plan import competition_note
from .results import TaskResults

__all__ = ["DECISIONS", "cosine_of_two_batches"]

_FACTOR = 0.1
_MANY = (10, 100, 1000)
_ABOUT_MINUS_ONE = (-1.2, -0.8)
_HALF = 0.5
_TAIL = 10.0


def _by_size(e: TaskResults) -> dict[int, Mapping[str, Any]] | Outcome:
    """The gradient statistics by batch size; why there are none."""
    if (missing := unmeasured(e, "gradients")) is not None:
        return missing
    return {record["batch_size"]: record for record in e.read_note("gradients")}


def _estimate(record: Mapping[str, Any], name: str) -> Estimate:
    return Estimate(**record[name])


def _ends(e: TaskResults, found: Mapping[int, Any]) -> tuple[int, int]:
    small, large = e.ends
    return (small, large) if {small, large} <= set(found) else (min(found), max(found))


def _variance_falls(e: TaskResults) -> Outcome:
    found = _by_size(e)
    if isinstance(found, Outcome):
        return found
    small, large = _ends(e, found)
    ratio = intervals.ratio_of_independent_means(
        _estimate(found[large], "variance"), _estimate(found[small], "variance")
    )
    expected = f"one over the batch size would be {number(small / large)}"
    what = f"the variance of the gradient at batch size {count(large)} over that at {count(small)} ({expected})"
    return below(ratio, 1.0, _FACTOR, what)


def _mini_batch_varies_less(e: TaskResults) -> Outcome:
    found = _by_size(e)
    if isinstance(found, Outcome):
        return found
    size, one = e.plan.middle, min(found)
    ratio = intervals.ratio_of_independent_means(_estimate(found[size], "variance"), _estimate(found[one], "variance"))
    what = f"the variance of the gradient at batch size {count(size)} over that at {count(one)}"
    return below(ratio, 1.0, _FACTOR, what)


def _cosine_rises(e: TaskResults) -> Outcome:
    found = _by_size(e)
    if isinstance(found, Outcome):
        return found
    small, large = _ends(e, found)
    change = intervals.difference_of_independent_means(*(_estimate(found[b], "cosine") for b in (large, small)))
    what = f"the change of the cosine to the full gradient from batch size {count(small)} to {count(large)}"
    return above(change, 0.0, 0.01, what)


def _relative_distance(record: Mapping[str, Any]) -> Estimate:
    """`sqrt(E‖g − G‖²) / ‖G‖`, from the interval of its square."""
    variance, norm = _estimate(record, "variance"), record["full_norm"]
    value, low, high = (
        None if v is None else math.sqrt(max(v, 0.0)) / norm for v in (variance.value, variance.low, variance.high)
    )
    return Estimate(value=value, low=low, high=high, n=variance.n, unit="1", method=variance.method)


def _inaccurate_picture(e: TaskResults) -> Outcome:
    found = _by_size(e)
    if isinstance(found, Outcome):
        return found
    small, large = _ends(e, found)
    near, far = _relative_distance(found[large]), _relative_distance(found[small])
    what = f"the distance of the gradient from the full one, as a share of its norm, at batch size {count(small)}"
    return all_of(
        above(far, 0.0, 0.1, what),
        above(
            intervals.ratio_of_independent_means(far, near),
            1.0,
            _FACTOR,
            f"that over the same at batch size {count(large)}",
        ),
    )


def _closer_and_closer(e: TaskResults) -> Outcome:
    found = _by_size(e)
    if isinstance(found, Outcome):
        return found
    sizes = [b for b in _MANY if b in found]
    if len(sizes) < 2:
        return undecided("the training set is too small for batches of 10 and 100")
    steps: list[Outcome] = []
    for a, b in itertools.pairwise(sizes):
        cosine = intervals.difference_of_independent_means(*(_estimate(found[x], "cosine") for x in (b, a)))
        distance = intervals.ratio_of_independent_means(_relative_distance(found[b]), _relative_distance(found[a]))
        steps.append(above(cosine, 0.0, 0.005, f"from {a} to {b} samples the cosine to the full gradient changes: it"))
        steps.append(below(distance, 1.0, _FACTOR, f"the distance from it at {b} samples over that at {a}"))
    return all_of(*steps)


def _one_over_batch_size(e: TaskResults) -> Outcome:
    """The slope of the variance in logarithms, over all batch sizes."""
    found = _by_size(e)
    if isinstance(found, Outcome):
        return found
    variances = {size: v for size in sorted(found) if (v := _estimate(found[size], "variance").value) and v > 0}
    if len(variances) < 3:
        return undecided("the variance is known at fewer than three batch sizes")
    effect = intervals.slope([math.log(size) for size in variances], [math.log(v) for v in variances.values()])
    what = f"the slope of the variance against batch size in logarithms, {count(effect.n)} sizes,"
    return within(effect, *_ABOUT_MINUS_ONE, what)


def _confident(e: TaskResults) -> Outcome:
    if (missing := unmeasured(e, "downhill")) is not None:
        return missing
    shares = {record["batch_size"]: Estimate(**record["share"]) for record in e.read_note("downhill")}
    small, large = min(shares), max(shares)
    change = intervals.difference_of_independent_means(shares[large], shares[small])
    what = f"the change of the share of steps that lower the full loss from batch size {count(small)} to {count(large)}"
    return all_of(_cosine_rises(e), above(change, 0.0, 0.02, what))


def cosine_of_two_batches(e: TaskResults) -> Outcome:
    """Whether the gradients of two small batches point less the same way than those of two large ones."""
    small, large = (e.read_note(competition_note(b)) for b in e.ends)
    for found in (small, large):
        if (why := not_applicable(found)) is not None:
            return not_testable(why)
    if small is None or large is None:
        return undecided("two batches of the largest size do not fit into the training set, or were not measured")
    cosines = [[c for r in records if (c := r["at_once"]["cosine"]) is not None] for records in (small, large)]
    change = intervals.difference_of_independent_means(*map(intervals.mean_correlation, reversed(cosines)))
    what = f"the change of the cosine between the gradients of two batches, batch size {e.ends[0]} to {e.ends[1]},"
    return above(change, 0.0, 0.02, what)


def _compete(e: TaskResults) -> Outcome:
    if (missing := unmeasured(e, "competition")) is not None:
        return missing
    sums = [record["at_once"] for record in e.read_note("competition")]
    cosines = [s["cosine"] for s in sums if s["cosine"] is not None]
    kept = intervals.mean([s["kept"] for s in sums if s["kept"] is not None], within=SHARE)
    what = f"the mean cosine between two examples' gradients (of the sum of their norms {number(kept.value)} is kept)"
    return below(intervals.mean_correlation(cosines), _HALF, 0.0, what)


def _sums(e: TaskResults) -> tuple[Sequence[int], Sequence[Sequence[float]], int] | Outcome:
    if (missing := unmeasured(e, "sums")) is not None:
        return missing
    norms = e.read_note("sums")["norms"]
    return norms["batch_sizes"], norms["norms"], norms["samples"]


def _one_step_smaller(e: TaskResults) -> Outcome:
    """The norm of one large gradient against that of the sum over small steps through the same examples."""
    found = _sums(e)
    if isinstance(found, Outcome):
        return found
    sizes, norms, samples = found
    small = sizes.index(8) if 8 in sizes else 0
    pairs = list(zip(norms[small], norms[-1], strict=True))
    per_step = intervals.geometric_ratio(pairs)
    total = intervals.geometric_ratio((samples / sizes[small] * a, b) for a, b in pairs)
    what = (
        f"the norm of the sum over steps of {sizes[small]} over that of one gradient of {sizes[-1]} "
        f"(a step of the sum has {number(per_step.value)} of it)"
    )
    return above(total, 1.0, _FACTOR, what)


def _heavy_tail(e: TaskResults) -> Outcome:
    """Entries beyond a value in the tail of the largest batch's, its count over the smallest's."""
    found = _sums(e)
    if isinstance(found, Outcome):
        return found
    counts = {int(b): values for b, values in e.read_note("sums")["beyond"].items()}
    small, large = min(counts), max(counts)
    effect = intervals.ratio_of_counts(counts[large], counts[small])
    mark, many, few = number(e.read_note("sums")["mark"]), count(sum(counts[large])), count(sum(counts[small]))
    what = f"entries beyond {mark} in size at batch size {large} ({many}) over those at {small} ({few}), a step,"
    return above(effect, _TAIL, 0.0, what)


DECISIONS: Mapping[str, Callable[[TaskResults], Outcome]] = {
    "S0.3a": _mini_batch_varies_less,
    "S0.7b": _inaccurate_picture,
    "S1.4a": lambda e: all_of(_variance_falls(e), _cosine_rises(e)),
    "S1.7a": _closer_and_closer,
    "S2.7a": lambda e: all_of(_variance_falls(e), rough_per_update(e)),
    "S3.7b": _variance_falls,
    "S3.11a": _one_over_batch_size,
    "S3.7c": _confident,
    "S3.9a": lambda e: all_of(_variance_falls(e), rough_per_update(e)),
    "S0.19a": _compete,
    "S0.19b": _one_step_smaller,
    "S1.14": _heavy_tail,
}
