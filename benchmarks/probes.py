"""What a use of each probe costs, in the training steps or passes of the same model at the same batch size.

    python benchmarks/probes.py

Two models: `small` (64-32-10, of which a step is all overhead) and `shen` (784-1024-1024-10, Shen 2018). CPU seconds of
this process on one thread, so that other work on the machine counts for little; the data are random, which time does
not depend on. For an observer, a `use` is one call; its factor is in training steps (batch 64, SGD) without it. For a
function, its factor is its time ÷ that of the forward and backward passes that its documentation names. For the sums of
gradients over small steps: milliseconds a step at some batch sizes, held back and with an optimizer, and from two
repeats the time of a hundred. The result goes to `benchmarks/results/probes.json`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from batchscope.probes.activation_drift import ActivationDrift
from batchscope.probes.competition import measure_competition
from batchscope.probes.covariate_shift import measure_covariate_shift
from batchscope.probes.deferred_sgd import DeferredSGD
from batchscope.probes.distance import DistanceFromInit
from batchscope.probes.gradient_histogram import measure_histograms
from batchscope.probes.gradient_statistics import measure_gradients
from batchscope.probes.sequential_gradients import SequentialNorms, measure_sequential_gradients
from batchscope.probes.update_size import UpdateSize
from batchscope.store.codec import encode
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload
from record import write

BATCH, SAMPLES, REPEATS = 64, 1024, 2
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256, 512, 1024)
WIDTHS: Mapping[str, Sequence[int]] = {"small": (64, 32, 10), "shen": (784, 1024, 1024, 10)}


def perceptron(widths: Sequence[int]) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def workload(name: str) -> Workload:
    widths = WIDTHS[name]
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(
        torch.randn(4096, widths[0], generator=generator), torch.randint(widths[-1], (4096,), generator=generator)
    )
    return Workload(
        task(
            model=lambda: perceptron(widths),
            train=data,
            val=data,
            loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )


def cpu_seconds(use: Callable[[], object], times: int = 15) -> float:
    """The median of a call, after two that warm up."""
    taken: list[float] = []
    for _ in range(times + 2):
        started = time.process_time()
        use()
        taken.append(time.process_time() - started)
    return statistics.median(taken[2:])


class Steps:
    """Plain training steps and passes, to measure against."""

    def __init__(self, ready: Workload, size: int = BATCH) -> None:
        self.ready, self.model = ready, ready.model(0)
        self.optimizer = ready.optimizer(self.model, 0.01)
        self.batch = ready.batch(torch.arange(size))

    def one_pass(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.ready.loss(self.model, self.batch).backward()

    def one_step(self) -> None:
        self.one_pass()
        self.optimizer.step()


def observers(ready: Workload) -> list[dict[str, Any]]:
    steps = Steps(ready)
    step = cpu_seconds(steps.one_step, 40)
    distance = DistanceFromInit()
    updates = UpdateSize(examples=ready.examples, batch_size=BATCH)
    drift = ActivationDrift(ready, ready.batch(torch.arange(256)))
    for observer in (distance, updates, drift):
        observer.begin(steps.model, steps.optimizer)
    uses: dict[str, Callable[[], object]] = {
        "DistanceFromInit, an evaluation": lambda: distance.at_evaluation(1),
        "UpdateSize, a step": lambda: updates.after_update(1),
        "ActivationDrift with 256 examples, an evaluation": lambda: drift.at_evaluation(1),
    }
    rows = [{"use": name, "cpu_seconds": cpu_seconds(use, 40)} for name, use in uses.items()]
    return [{**row, "unit": f"training steps of {BATCH}", "factor": row["cpu_seconds"] / step} for row in rows]


def functions(ready: Workload) -> list[dict[str, Any]]:
    steps = Steps(ready)
    one_pass = cpu_seconds(steps.one_pass, 40)
    layers = sum(isinstance(module, nn.Linear) for module in steps.model.modules())
    uses: dict[str, tuple[Callable[[], object], float]] = {
        "measure_gradients": (
            lambda: measure_gradients(
                ready, steps.model, batch_sizes=[BATCH], repeats=10, sample=10 * BATCH, at_once=BATCH
            ),
            20,
        ),
        "measure_histograms": (
            lambda: measure_histograms(ready, steps.model, batch_sizes=[BATCH], repeats=10),
            11,
        ),
        "measure_competition": (
            lambda: measure_competition(ready, steps.model, lr=0.01, batch_size=BATCH, pairs=4),
            20,
        ),
        "measure_covariate_shift": (
            lambda: measure_covariate_shift(ready, steps.model, steps.batch, lr=0.01),
            layers,
        ),
    }
    rows: list[dict[str, Any]] = []
    for name, (use, passes) in uses.items():
        seconds = cpu_seconds(use, 5)
        unit = f"the {passes:g} forward and backward passes over {BATCH} examples that it makes"
        rows.append({"use": name, "cpu_seconds": seconds, "unit": unit, "factor": seconds / (passes * one_pass)})
    return rows


def small_steps(ready: Workload) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for size in (1, 2, 4, 8, 64):
        steps = Steps(ready, size)
        model = ready.model(0)
        watched = model.get_parameter([name for name, _ in model.named_parameters()][-2])
        deferred = DeferredSGD(ready, model, lr=0.01, watched=watched, trial=steps.batch)
        plain, mine = (
            cpu_seconds(lambda take=take: [take() for _ in range(32)], 3) / 32
            for take in (steps.one_step, lambda deferred=deferred, steps=steps: deferred.step(steps.batch))
        )
        rows.append({"batch_size": size, "optimizer_s": plain, "held_back_s": mine, "factor": mine / plain})
    found = measure_sequential_gradients(ready, ready.model(0), batch_sizes=SIZES, repeats=1, lr=0.01, samples=SAMPLES)
    assert isinstance(found, SequentialNorms)
    started = time.process_time()
    found = measure_sequential_gradients(
        ready, ready.model(0), batch_sizes=SIZES, repeats=REPEATS, lr=0.01, samples=SAMPLES
    )
    assert isinstance(found, SequentialNorms)
    a_repeat = (time.process_time() - started) / REPEATS
    return {
        "steps": rows,
        "cpu_seconds_a_repeat": a_repeat,
        "predicted_minutes_of_100_repeats_on_two_cores": 100 * a_repeat / 2 / 60,
        "predicted_wall_seconds_of_100_repeats_in_one_process": encode(found.predicted_seconds(100)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name in WIDTHS:
        ready = workload(name)
        results[name] = [*observers(ready), *functions(ready)]
        for row in results[name]:
            print(f"{name}: {row['use']}: {row['factor']:.2f} of {row['unit']} ({1e3 * row['cpu_seconds']:.2f} ms)")
    results["sequential"] = small_steps(workload("shen"))
    for row in results["sequential"]["steps"]:
        print(
            f"a step of {row['batch_size']}: {1e3 * row['held_back_s']:.2f} ms held back, "
            f"{1e3 * row['optimizer_s']:.2f} ms with an optimizer"
        )
    print(
        f"a repeat of {len(SIZES)} batch sizes: {results['sequential']['cpu_seconds_a_repeat']:.2f} CPU seconds; "
        f"100 on two cores: {results['sequential']['predicted_minutes_of_100_repeats_on_two_cores']:.1f} minutes"
    )
    print(write("probes", results))


if __name__ == "__main__":
    main()
