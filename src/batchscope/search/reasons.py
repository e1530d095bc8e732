"""The statements a plan rests on, each with how it is known. Numbers only, no torch."""

from __future__ import annotations

from collections import Counter

from ..fits.curves import steps_to_target
from ..store.records import Estimate, Evidence
from .follow import NAMES
from .state import Findings

__all__ = ["evidence_of", "law_in_words"]


def evidence_of(findings: Findings) -> tuple[Evidence, ...]:
    """Measured first, then fitted, then what was taken from the literature or assumed."""
    return (
        *_of_hardware(findings),
        *_of_rates(findings),
        *_of_runs(findings),
        *law_in_words(findings),
        *_of_choices(findings),
    )


def _of_hardware(findings: Findings) -> list[Evidence]:
    bench, readings = findings.bench, len(findings.bench.profile.step_time_s)
    source = f"{readings} step times on {bench.profile.name}"
    found = [
        Evidence(
            statement="a step costs the same for any batch well below "
            f"{_value(findings.step_time.hardware_knee)} examples (the hardware knee), and grows in proportion "
            "well above it",
            tag="measured" if findings.bench_counts else "assumption",
            source=source if findings.bench_counts else f"{source}, read from the given profile",
        )
    ]
    largest = bench.largest_micro_batch_size
    if bench.memory_bound:
        found.append(
            Evidence(
                statement=f"at most {largest} examples fit into memory at once",
                tag="measured" if bench.largest_verified else "fitted",
                source="one real step at that size" if bench.largest_verified else "memory fitted to smaller steps",
            )
        )
    return found


def _of_rates(findings: Findings) -> list[Evidence]:
    test = findings.rate_range
    if test is None:
        return []
    end = f"breaks at {test.ceiling_lr:.3g}" if test.broke else f"still holds at {test.ceiling_lr:.3g}"
    rule = "the square root of the batch size" if test.normalised else "the batch size"
    return [
        Evidence(
            statement=f"training at batch size {test.batch_size} {end} when the rate doubles every step; the "
            "best rate was looked for below that",
            tag="measured",
            source=f"range test of {test.steps} steps (after Smith 2017; used as a ceiling only)",
        ),
        Evidence(
            statement=f"before the runs, the best rate was expected to grow with {rule} below the critical batch size",
            tag="literature",
            source="Malladi et al. 2022 for optimizers that normalise the gradient; McCandlish et al. 2018, "
            "equation 2.6, for SGD",
        ),
    ]


def _of_runs(findings: Findings) -> list[Evidence]:
    if findings.target is None:
        return []
    reached = sum(len(steps) for steps in findings.reached.values())
    without = [run for run in findings.finished if steps_to_target(run.rows, findings.target) is None]
    ends = Counter(run.result.status for run in without if run.result)
    lost = [f"{number} {status.ending}" for status, number in ends.items()]
    others = f"; of the others, {', '.join(lost)}" if lost else ""
    within = findings.question.within
    found = [
        Evidence(
            statement=f"{reached} of {len(findings.finished)} runs reached {findings.target}{others}",
            tag="measured",
            source="every run was evaluated whenever it had grown by a twentieth, and is kept in the results folder",
        )
    ]
    if within is not None:
        found.append(
            Evidence(
                statement=f"recipes are compared by when they come to {findings.target}, the best value that a run "
                f"of {within} reached",
                tag="assumption",
                source="where one recipe comes to a value sooner, it has more time left to get further",
            )
        )
    elif findings.question.target is None:
        found.append(
            Evidence(
                statement=f"the target {findings.target} was chosen: there the pilot had 5 % of its whole "
                "improvement left",
                tag="assumption",
                source="the pilot run; give --target to set your own",
            )
        )
    noise = findings.noise_scale
    if noise.n:
        found.append(
            Evidence(
                statement=f"the gradient noise scale of the pilot is {_value(noise)} examples; it was a weak hint "
                "at the critical batch size, which was looked for around three times it, give or take a factor of 6",
                tag="measured",
                source="unbiased estimates from micro-batch groups (McCandlish et al. 2018, appendix A.1)",
            )
        )
    return found


def law_in_words(findings: Findings) -> list[Evidence]:
    """The joint law of steps against batch size and rate, where it was fitted."""
    if findings.target is None or not findings.reached:
        return []
    belief = findings.belief
    return [
        Evidence(
            statement=f"steps to target follow S_min (1 + (B_c/B)^a)^(1/a) with a critical batch size of "
            f"{_value(belief.critical_batch_size())} and a knee exponent of {_value(belief.knee_exponent())}",
            tag="fitted",
            source="McCandlish et al. 2018, equation 2.11, with a knee exponent; fitted together with the rate",
        ),
        Evidence(
            statement="steps grow as 1/rate far below the best rate, and without bound soon above it",
            tag="fitted",
            source="McCandlish et al. 2018, equation 2.5, with a free shape",
        ),
    ]


def _of_search(findings: Findings) -> Evidence:
    if findings.question.search != "anchors":
        return Evidence(
            statement=f"the runs were chosen by {NAMES[findings.question.search]}, and the recipe is the best of "
            "them; the fitted law gives the intervals and the curves, and chose nothing",
            tag="measured",
            source=f"{len(findings.finished)} runs, one at each pair: the best of many was luckier than most",
        )
    return Evidence(
        statement=f"the recipe is worth as much searching as {findings.question.trainings:g} trainings at it can save",
        tag="assumption",
        source="a further run is bought while it is expected to save more than it costs; --trainings changes it",
    )


def _of_choices(findings: Findings) -> list[Evidence]:
    return [
        _of_search(findings),
        Evidence(
            statement="momentum, betas and weight decay were left as the task sets them: "
            "every rate was tuned with them in place",
            tag="assumption",
            source="no change was measured; at very small batches a longer second moment can help (Marek et al. 2025)",
        ),
    ]


def _value(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"at least {estimate.low:.3g}" if estimate.low is not None else "unknown"
    low = "" if estimate.low is None else f"{estimate.low:.3g}"
    high = "" if estimate.high is None else f"{estimate.high:.3g}"
    return f"{estimate.value:.3g} ({low}–{high})" if low or high else f"{estimate.value:.3g}"
