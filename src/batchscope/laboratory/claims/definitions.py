"""Definitions: no verdict, but a check by counting, or by an identity, that the word is used so here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...store.not_applicable import not_applicable
from ...store.records import Estimate
from ...wording import count, number, plural
from .geometry import drift, sharpness_of
from .outcome import Outcome
from .plan import NORM
from .records import NOTHING, Comparison, Verdict
from .results import TaskResults

__all__ = ["CHECKS"]

_ROUNDING = 1e-4
_EXAMPLES = (10, 999)
_MEAN_OFF, _DEVIATION_OFF = 1e-3, 0.01
"""Of a channel in front of scale and shift; the layer's epsilon moves the standard deviation."""


def _checked(what: str, agrees: bool | None, value: float | None = None) -> Outcome:
    """A definition with what was counted; `None`: nothing was."""
    effect = NOTHING
    if value is not None:
        effect = Estimate(value=value, low=value, high=value, n=1, unit="", method="counted in a real run")
    answer = {True: "checked", False: "DOES NOT AGREE", None: "not checked"}[agrees]
    found = Comparison(what=f"a definition; {answer}: {what}", effect=effect)
    return Outcome(verdict=Verdict.NOT_TESTABLE, comparisons=(found,), effect=effect, agrees=agrees)


def _counted(e: TaskResults, name: str) -> Mapping[str, Any] | None:
    return (e.measured("counters") or {}).get(name)


_NO_COUNT = "no run was counted before the budget was used up"


def _batch_size(e: TaskResults) -> Outcome:
    run = _counted(e, str(e.plan.middle))
    if run is None:
        return _checked(_NO_COUNT, None)
    same = run["smallest_batch"] == run["largest_batch"] == run["batch_size"]
    agrees = same and run["updates"] * run["batch_size"] == run["examples_seen"]
    detail = (
        f"a run had {count(run['largest_batch'])} examples between any two updates, and in {count(run['updates'])} "
        f"updates {count(run['examples_seen'])} examples"
    )
    return _checked(detail, agrees, run["largest_batch"])


def _strict_sgd(e: TaskResults) -> Outcome:
    run = _counted(e, "1")
    if e.plan.least_batch_size > 1:
        return _checked("this model cannot be trained on a single example (batch normalisation)", None)
    if run is None:
        return _checked(_NO_COUNT, None)
    detail = f"at batch size 1 a run made {count(run['updates'])} updates with {count(run['examples_seen'])} examples"
    return _checked(detail, run["updates"] == run["examples_seen"], run["updates"])


def _epoch(e: TaskResults) -> Outcome:
    run = _counted(e, "1")
    if e.plan.least_batch_size > 1:
        return _checked("an epoch in steps of one example cannot be counted: this model needs more", None)
    if run is None:
        return _checked(_NO_COUNT, None)
    detail = (
        f"in {count(run['updates'])} updates of one example each, of {count(run['examples_in_set'])} in the set, every "
        f"example was used {count(run['least_uses'])} to {count(run['most_uses'])} times"
    )
    whole = run["updates"] >= run["examples_in_set"]
    return _checked(detail, run["least_uses"] == run["most_uses"] if whole else run["most_uses"] <= 1, run["most_uses"])


def _pass(e: TaskResults) -> Outcome:
    run, parted = _counted(e, str(e.plan.middle)), _counted(e, "accumulated")
    if run is None:
        return _checked(_NO_COUNT, None)
    agrees = run["smallest_pass"] == run["largest_pass"] == run["batch_size"]
    detail = f"every pass had {count(run['largest_pass'])} examples"
    if parted is not None:
        detail += f"; where a batch is accumulated from 2 passes, each has {count(parted['largest_pass'])}"
    return _checked(detail, agrees, run["largest_pass"])


def _iterations(e: TaskResults) -> Outcome:
    run = _counted(e, str(e.plan.middle))
    if run is None:
        return _checked(_NO_COUNT, None)
    quotient = run["examples_in_set"] / run["batch_size"]
    detail = (
        f"an epoch of {count(run['examples_in_set'])} examples in batches of {count(run['batch_size'])} took "
        f"{count(run['updates'])} updates from {count(run['batches'])} batches; the quotient is {number(quotient)} "
        "(batches are cut from a stream without gaps: none is partial, the next epoch goes on where one ends)"
    )
    return _checked(detail, run["updates"] == run["batches"] and abs(run["updates"] - quotient) <= 0.5, run["updates"])


def _tied(e: TaskResults) -> Outcome:
    rows = [row for b in e.plan.batch_sizes for row in e.rows(e.at_one_rate(b))]
    off = [abs(row.steps * row.batch_size / e.study.examples - e.plan.epochs) for row in rows if not e.lost(row)]
    if not off:
        return _checked(_NO_COUNT, None)
    most = max(b / e.study.examples for b in e.plan.batch_sizes)
    detail = (
        f"in {count(len(off))} runs of {e.plan.epochs:g} epochs, steps times batch size make {e.plan.epochs:g} epochs' "
        f"examples up to {number(max(off))} of an epoch, less than one batch"
    )
    return _checked(detail, max(off) <= most, max(off))


def _count_in_all(e: TaskResults) -> Outcome:
    run = _counted(e, str(e.plan.middle))
    rows = e.kept(e.at_one_rate(e.plan.middle))
    if run is None or not rows:
        return _checked(_NO_COUNT, None)
    detail = (
        f"{count(run['batches'])} batches in one epoch, {count(rows[0].steps)} in all {e.plan.epochs:g}: the text "
        "leaves open which is meant, and the second is the first times the epochs"
    )
    return _checked(detail, abs(rows[0].steps - run["batches"] * e.plan.epochs) <= e.plan.epochs, rows[0].steps)


def _tens_or_hundreds(e: TaskResults) -> Outcome:
    inside = [b for b in e.plan.batch_sizes if _EXAMPLES[0] <= b <= _EXAMPLES[1]]
    phrase = ", ".join(map(str, inside)) or "none"
    detail = f"of the batch sizes here, {phrase} fall under it ({_EXAMPLES[0]} to {_EXAMPLES[1]})"
    return _checked(detail, True, len(inside))


def _averaged(e: TaskResults) -> Outcome:
    found = e.measured("averaging")
    if found is None:
        return _checked(not_applicable(e.read_note("averaging")) or _NO_COUNT, None)
    names = ("loss_twice", "gradient_twice", "loss_of_parts", "gradient_of_parts")
    worst = max(1.0 if found[name] is None else found[name] for name in names)
    detail = (
        "a batch with every example given twice has the same loss and gradient, and the mean of the gradients of its "
        f"parts is that of the whole, up to {number(worst)} of its norm"
    )
    return _checked(detail, worst <= _ROUNDING, worst)


def _speed(e: TaskResults) -> Outcome:
    times = {b: t for b in e.plan.batch_sizes if (t := e.step_time_s(b)) is not None}
    if not times:
        return _checked("step times were not measured before the budget was used up", None)
    detail = ", ".join(f"{number(b / t)} examples a second at batch size {b}" for b, t in times.items())
    return _checked(
        f"{detail}; what they teach the model is counted apart, in epochs", True, max(b / t for b, t in times.items())
    )


def _arrows(e: TaskResults) -> Outcome:
    found = e.measured("competition")
    if found is None:
        return _checked(not_applicable(e.read_note("competition")) or _NO_COUNT, None)
    off = max(
        abs(r["arrows"]["both"][i] - r["arrows"]["first"][i] - r["arrows"]["second"][i])
        / max(r["at_once"]["norm_a"], 1e-12)
        for r in found
        for i in (0, 1)
    )
    pairs = plural(len(found), "pair")
    detail = f"in {pairs} of examples the black arrow is the sum of blue and red up to {number(off)} of blue"
    return _checked(detail, off <= _ROUNDING, off)


def _average_update(e: TaskResults) -> Outcome:
    found = e.measured("competition")
    if found is None:
        return _checked(not_applicable(e.read_note("competition")) or _NO_COUNT, None)
    ratios = [
        r["norm_as_one"] / ((r["at_once"]["norm_a"] + r["at_once"]["norm_b"]) / 2)
        for r in found
        if r["at_once"]["norm_a"] + r["at_once"]["norm_b"] > 0
    ]
    if not ratios:
        return _checked("every gradient was zero at the checkpoint", None)
    anew = [r["in_turn"]["norm_b"] / r["at_once"]["norm_b"] for r in found if r["at_once"]["norm_b"] > 0]
    detail = (
        f"over {count(len(found))} pairs, the update of both examples as one is {number(sum(ratios) / len(ratios))} of "
        "half the sum, and never above it; a second gradient taken anew has "
        f"{number(sum(anew) / len(anew))} of the norm"
    )
    return _checked(detail, max(ratios) <= 1 + _ROUNDING, sum(ratios) / len(ratios))


def _neighbourhood(e: TaskResults) -> Outcome:
    found = sharpness_of(e, e.at_one_rate(e.plan.smallest))
    boxes = [f["keskar"] for f in found.values() if not_applicable(f["keskar"]) is None]
    if not boxes:
        return _checked("sharpness was not measured", None)
    rises = all(box[0]["value"] <= box[-1]["value"] and box[0]["highest_loss"] >= box[0]["loss"] for box in boxes)
    detail = (
        f"in {count(len(boxes))} models the loss found in the box is never below that at the weights, and does not "
        f"fall from epsilon {boxes[0][0]['eps']:g} to {boxes[0][-1]['eps']:g}"
    )
    return _checked(detail, rises, len(boxes))


def _shift(e: TaskResults) -> Outcome:
    drifts = [v for row in e.rows(e.at_one_rate(e.plan.smallest)) for v in drift(e, row).values()]
    if not drifts:
        return _checked("the model has no hidden layer to look at, or no run was made", None)
    detail = (
        f"on fixed examples the means of what hidden layers receive move by {number(min(drifts))} to "
        f"{number(max(drifts))} of their first standard deviation along the runs at one learning rate; at the start by "
        "nothing"
    )
    return _checked(detail, True, max(drifts))


def _normalised(e: TaskResults) -> Outcome:
    found = e.measured("norm-check")
    if found is None:
        why = not_applicable(e.read_note(NORM)) or not_applicable(e.read_note("norm-check"))
        return _checked(why or "no model with batch normalisation was made", None)
    layers = [layer for layer in found if layer["mode"] == "training" and layer["mean"] is not None]
    if not layers:
        return _checked("no channel of a batch varies in front of batch normalisation", None)
    channels = sum(layer["channels"] - layer["flat"] for layer in layers)
    mean, deviation = (max(layer[name] for layer in layers) for name in ("mean", "deviation"))
    detail = (
        f"in front of scale and shift {count(channels)} channels of a batch have mean 0 up to {number(mean)} and "
        f"standard deviation 1 up to {number(deviation)}"
    )
    return _checked(detail, mean < _MEAN_OFF and deviation < _DEVIATION_OFF, mean)


CHECKS: Mapping[str, Callable[[TaskResults], Outcome]] = {
    "S0.1": _batch_size,
    "S0.2": _speed,
    "S0.18": _arrows,
    "S1.1": _strict_sgd,
    "S1.2": _neighbourhood,
    "S1.3": _average_update,
    "S1.13a": _averaged,
    "S2.1": _epoch,
    "S2.2": _pass,
    "S2.3": _iterations,
    "S2.4": _tied,
    "S3.1a": _batch_size,
    "S3.1b": _count_in_all,
    "S3.2": _tens_or_hundreds,
    "S3.3": _averaged,
    "S3.4": _shift,
    "S3.5": _normalised,
}
