"""What deferring updates gains in the sums of gradients over small steps: paired with the same steps updated at once.

    python benchmarks/deferred_sgd.py        # about two minutes

The study `gradient_size` goes through the same samples in steps of every batch size, on a network with two hidden
layers of 1,024. Measured with its quick batch sizes and its published ones on `digits` (64 inputs), and with the latter
on 784 inputs, as published (random data, which time does not depend on). A pair is the same repeats of
`measure_sequential_gradients` in both ways, one after the other, the first of them alternating; its ratio is of CPU
seconds of this process on one thread, so that other work on the machine counts for little. The script prints the median
ratio over the pairs, and by how much the norms differ; all numbers go to `benchmarks/results/deferred_sgd.json`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from batchscope.laboratory.published import SHEN_SETTINGS
from batchscope.laboratory.studies import named_study
from batchscope.probes.sequential_gradients import SequentialNorms, measure_sequential_gradients
from batchscope.tasks.loading import load_task
from batchscope.tasks.workload import Workload
from probes import workload
from record import write

LR = 0.01
STUDY = named_study("gradient_size")
PUBLISHED, QUICK = STUDY.question.batch_sizes, STUDY.quick["batch_sizes"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured in both ways."""

    name: str
    ready: Workload
    batch_sizes: Sequence[int]
    repeats: int
    pairs: int


def cases() -> list[Case]:
    digits = Workload(load_task("digits", SHEN_SETTINGS).task)
    return [
        Case(name="quick sizes, 64 inputs", ready=digits, batch_sizes=QUICK, repeats=3, pairs=41),
        Case(name="published sizes, 64 inputs", ready=digits, batch_sizes=PUBLISHED, repeats=1, pairs=5),
        Case(name="published sizes, 784 inputs", ready=workload("shen"), batch_sizes=PUBLISHED, repeats=1, pairs=5),
    ]


def measured(case: Case, model: torch.nn.Module, first: int, *, defer: bool) -> tuple[float, SequentialNorms]:
    """CPU seconds of some repeats in one way, and their norms."""
    started = time.process_time()
    found = measure_sequential_gradients(
        case.ready,
        model,
        batch_sizes=case.batch_sizes,
        repeats=case.repeats,
        first_repeat=first,
        samples=max(case.batch_sizes),
        lr=LR,
        defer=defer,
    )
    seconds = time.process_time() - started
    assert isinstance(found, SequentialNorms)
    return seconds, found


def compared(case: Case) -> dict[str, Any]:
    model = case.ready.model(0)
    pairs: list[dict[str, float]] = []
    differences: list[float] = []
    for i in range(-1, case.pairs):
        order = (True, False) if i % 2 else (False, True)
        found = {defer: measured(case, model, max(0, i) * case.repeats, defer=defer) for defer in order}
        if i < 0:
            continue  # it warms up
        (deferred_s, deferred), (at_once_s, at_once) = found[True], found[False]
        pairs.append({"deferred_s": deferred_s, "at_once_s": at_once_s})
        differences += [
            abs(a / b - 1)
            for row, other in zip(deferred.norms, at_once.norms, strict=True)
            for a, b in zip(row, other, strict=True)
        ]
    gains = sorted(pair["at_once_s"] / pair["deferred_s"] for pair in pairs)
    return {
        "batch_sizes": case.batch_sizes,
        "repeats_a_pair": case.repeats,
        "pairs": pairs,
        "median_gain": statistics.median(gains),
        "smallest_gain": gains[0],
        "largest_gain": gains[-1],
        "median_deferred_s": statistics.median(pair["deferred_s"] for pair in pairs),
        "median_at_once_s": statistics.median(pair["at_once_s"] for pair in pairs),
        "median_difference_of_norms": statistics.median(differences),
        "largest_difference_of_norms": max(differences),
    }


def main() -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for case in cases():
        results[case.name] = row = compared(case)
        print(
            f"{case.name}: {row['median_gain']:.2f} times as fast ({row['smallest_gain']:.2f} to "
            f"{row['largest_gain']:.2f} in {case.pairs} pairs), {row['median_deferred_s']:.3g} s instead of "
            f"{row['median_at_once_s']:.3g}; norms differ by {row['median_difference_of_norms']:.1g} in the median, "
            f"{row['largest_difference_of_norms']:.1g} at most",
            flush=True,
        )
    print(write("deferred_sgd", results))


if __name__ == "__main__":
    main()
