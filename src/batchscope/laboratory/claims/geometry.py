"""Statements about where training goes: distance from the initial weights, sharpness, drift of activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from ...fits import intervals
from ...store.not_applicable import not_applicable
from ..records import StudyRow
from .comparisons import TIME, log_roughness, loss_ratio_above, versus
from .outcome import Outcome, above, all_of, below, not_testable, parts, undecided
from .plan import FIXED, sharpness_note
from .results import Setting, TaskResults

__all__ = ["DECISIONS"]

_FARTHEST = 0.1
_MISSING = undecided("the runs that it rests on were not made before the budget was used up")


def _last_row(e: TaskResults, row: StudyRow, kind: str) -> Mapping[str, Any] | None:
    """The last row of an observer in a run, where it has numbers."""
    rows = [r for r in e.runs[row.run].rows if r.get("kind") == kind and not_applicable(r) is None]
    return rows[-1] if rows else None


def distance(e: TaskResults, row: StudyRow, layer: str | None = None) -> float | None:
    """Distance from the initial weights at the end of a run."""
    found = None if e.lost(row) else _last_row(e, row, "weights")
    if found is None:
        return None
    return found["all"]["distance"] if layer is None else found["layers"].get(layer, {}).get("distance")


def _small_farther(e: TaskResults, variant: str = "") -> Outcome:
    small, large = (e.at_one_rate(b, variant) for b in e.ends)
    ratio = e.compared(large, small, lambda row: distance(e, row), ratio=True)
    length = "equally many steps" if variant else "equally many epochs"
    what = f"the distance from the initial weights, {length}, {versus(large, small)}, as a ratio,"
    return above(ratio, 1.0, TIME, what, e.ids(small, large))


def _explores(e: TaskResults) -> Outcome:
    if not e.rows(e.at_one_rate(e.plan.largest, FIXED)):
        return _MISSING
    return parts(
        "the number of updates",
        {"at equally many epochs": _small_farther(e), "at equally many steps": _small_farther(e, FIXED)},
    )


def _in_every_layer(e: TaskResults) -> Outcome:
    """The small batch goes farther, or less far, in every layer as in all of them."""
    small, large = e.ends_at_one_rate
    row = next((found for r in e.rows(small) if (found := _last_row(e, r, "weights")) is not None), None)
    if row is None:
        return _MISSING
    whole = _small_farther(e)
    outcomes = [
        above(
            e.compared(large, small, lambda r, layer=layer: distance(e, r, layer), ratio=True),
            1.0,
            TIME,
            f"in layer {layer}",
            e.ids(small, large),
        )
        for layer in row["layers"]
    ]
    if whole.effect.high is not None and whole.effect.high < 1.0:
        outcomes = [
            below(
                e.compared(large, small, lambda r, layer=layer: distance(e, r, layer), ratio=True),
                1.0,
                TIME,
                f"in layer {layer}",
            )
            for layer in row["layers"]
        ]
        return all_of(*outcomes)
    return all_of(whole, *outcomes)


def _best_lie_far(e: TaskResults) -> Outcome:
    """Distance of the best tenth of the grid's runs by validation against the median run, seed by seed."""
    by_seed: dict[int, list[tuple[float, float]]] = {}
    for arm in e.arms(""):
        for row in e.rows(arm):
            value, far = row.values.get(f"best_{e.metric.metric}"), distance(e, row)
            if value is not None and far is not None:
                by_seed.setdefault(row.seed, []).append((e.metric.sign * value, far))
    pairs: list[tuple[float, float]] = []
    for runs in by_seed.values():
        best = sorted(runs, reverse=True)[: max(2, round(_FARTHEST * len(runs)))]
        distances = sorted(far for _, far in runs)
        pairs.append((fmean(far for _, far in best), distances[len(distances) // 2]))
    what = "the distance from the initial weights of the best tenth of the runs over that of the median run"
    return above(intervals.geometric_ratio(pairs), 1.0, TIME, what, e.ids(*e.arms("")))


def _large_cannot_get_there(e: TaskResults) -> Outcome:
    large = e.at_one_rate(e.plan.largest)
    rates = [arm for b in e.plan.batch_sizes if (arm := e.at_best(b)) is not None]

    def value(arm: Setting) -> float:
        found = e.values(arm, f"best_{e.metric.metric}").values()
        return e.metric.sign * fmean(found) if found else float("-inf")

    best = max(rates, key=value, default=None)
    if best is None:
        return _MISSING
    ratio = e.compared(best, large, lambda row: distance(e, row), ratio=True)
    what = f"the distance from the initial weights, {versus(best, large)}, the best run, as a ratio,"
    return all_of(
        below(ratio, 1.0, TIME, what, e.ids(best, large)),
        loss_ratio_above(e, f"final_{e.train_loss}", best, large, "the training loss"),
    )


# --- sharpness ------------------------------------------------------------------------------------------------------


def sharpness_of(e: TaskResults, arm: Setting) -> dict[int, Mapping[str, Any]]:
    """Sharpness records at the end of an arm's runs, by seed."""
    names = {seed: sharpness_note(arm.batch_size, arm.lr, seed) for seed in e.plan.seeds}
    return {seed: found for seed, name in names.items() if (found := e.read_note(name)) is not None}


def _box(found: Mapping[str, Any], box: str) -> float | None:
    return found[box][-1]["value"] if not_applicable(found[box]) is None else None


def _flatter(e: TaskResults) -> Outcome:
    small, large = (sharpness_of(e, e.at_one_rate(b)) for b in e.ends)
    if not small or not large:
        return _MISSING
    first = next(iter(small.values()))
    for box in ("keskar", "relative"):
        if (why := not_applicable(first[box])) is not None:
            return not_testable(why)
    outcomes: dict[str, Outcome] = {}
    for box, name in (("keskar", "in Keskar's box"), ("relative", "in the relative box")):
        pairs = [(_box(small[s], box), _box(large[s], box)) for s in small if s in large]
        ratio = intervals.geometric_ratio((b, a) for a, b in pairs if a is not None and b is not None)
        detail = _eigenvalue(small, large)
        what = f"the sharpness at batch size {e.ends[1]} over that at {e.ends[0]}, both at one learning rate,{detail}"
        outcomes[name] = above(ratio, 1.0, 0.1, what, e.ids(*e.ends_at_one_rate))
    return parts("the scale of the weights", outcomes)


def _eigenvalue(small: Mapping[int, Any], large: Mapping[int, Any]) -> str:
    """Ratio of the largest Hessian eigenvalues, in words."""

    def value(found: Mapping[str, Any]) -> float | None:
        return found["curvature"].get("sharpness", {}).get("value")

    pairs = [(value(small[s]), value(large[s])) for s in small if s in large]
    ratio = intervals.geometric_ratio((b, a) for a, b in pairs if a is not None and b is not None)
    if ratio.value is None:
        missing = not_applicable(next(iter(small.values()))["curvature"]) or (
            ratio.method if ratio.n else "it was not measured"
        )
        return f" (largest Hessian eigenvalue: {missing})"
    return f" (the same of the largest Hessian eigenvalue is {ratio.value:.2g})"


# --- drift of activations -------------------------------------------------------------------------------------------


def drift(e: TaskResults, row: StudyRow) -> dict[str, float]:
    """Shift of the mean input of each hidden layer by the end of a run, in standard deviations at the start."""
    found = None if row.status == "diverged" else _last_row(e, row, "activations")
    if found is None:
        return {}
    return {name: layer["drift"] for name, layer in found["layers"].items() if layer["drift"]}


def _no_layer(e: TaskResults) -> Outcome | None:
    for run in e.runs.values():
        for row in run.rows:
            if row.get("kind") == "activations":
                return None if (why := not_applicable(row)) is None else not_testable(why)
    return _MISSING


def _large_drifts_more(e: TaskResults) -> Outcome:
    if (why := _no_layer(e)) is not None:
        return why

    def more(variant: str) -> Outcome:
        small, large = (e.at_one_rate(b, variant) for b in e.ends)

        def middle(row: StudyRow) -> float | None:
            values = sorted(drift(e, row).values())
            return values[len(values) // 2] if values and not e.lost(row) else None

        ratio = e.compared(small, large, middle, ratio=True)
        what = f"the drift of the activations (median over layers), {versus(small, large)}, as a ratio,"
        return above(ratio, 1.0, 0.1, what, e.ids(small, large))

    return parts("the number of updates", {"at equally many epochs": more(""), "at equally many steps": more(FIXED)})


def _drift_unsettles(e: TaskResults) -> Outcome:
    """Rank correlation of drift and roughness over each seed's runs of the grid."""
    if (why := _no_layer(e)) is not None:
        return why
    by_seed: dict[int, tuple[list[float], list[float]]] = {}
    for arm in e.arms(""):
        for row in e.rows(arm):
            values, rough = drift(e, row).values(), log_roughness(e.course(row), e.train_loss)
            if values and rough is not None and row.status != "diverged":
                drifts, roughnesses = by_seed.setdefault(row.seed, ([], []))
                drifts.append(fmean(values))
                roughnesses.append(rough)
    found = [r for d, s in by_seed.values() if (r := intervals.rank_correlation(d, s)) is not None]
    what = "the rank correlation of activation drift and roughness of the log training loss over the runs of the grid"
    return above(intervals.mean_correlation(found), 0.0, 0.1, what, e.ids(*e.arms("")))


DECISIONS: Mapping[str, Callable[[TaskResults], Outcome]] = {
    "S0.4c": _small_farther,
    "S0.5b": _explores,
    "S1.5a": _explores,
    "S0.20": _in_every_layer,
    "S1.15a": _best_lie_far,
    "S1.15b": _large_cannot_get_there,
    "S0.4b": _flatter,
    "S3.8a": _large_drifts_more,
    "S3.8b": _drift_unsettles,
}
