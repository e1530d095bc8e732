"""What a task's optional members change, and what they cost: the six real trainings plain, and with every member.

    python benchmarks/members.py --quick          # two trainings, one repetition, nothing is written: seconds
    python benchmarks/members.py                  # a minute of processor time

Needs the data in `../shared`; one thread. Each training of `benchmarks/real/tasks` is trained five ways, from one seed
and on the same batches:

* `hand`: a loop that calls nothing of ours: loss, gradient, optimizer;
* `plain`: the task as it stands;
* `neutral`: the task with every member, none of which changes anything: clipping at infinity, `loss_weight` the number
  of terms, a schedule of 1, float32, averaged weights beside, a sampler with the order of the first epoch, and the
  collate, the loader options and the number of examples that it has anyway;
* `hand at work`, `at work`: two parameter groups, warm-up and cosine, clipping, bfloat16, averaged weights, and four
  micro-batches weighted by their terms; written by hand, and as members.

Compared are the weights after some steps (and the averaged ones), in a real run of `training.loop`; then the processor
seconds of a step on batches that are there already (loading is apart, and other work on the machine counts little),
medians over repetitions in turn; then the gradient of unequal micro-batches against that of the whole batch, in float64
and evaluation mode (batch normalisation couples examples, dropout draws). A ratio of step times below 1 says how much
longer the second takes. Raw results: `benchmarks/results/members.json`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BENCHMARKS = Path(__file__).resolve().parent
sys.path += [str(BENCHMARKS), str(BENCHMARKS / "real")]

from loop import load  # noqa: E402
from trainings import TRAININGS, Training  # noqa: E402

from batchscope.store.records import Row, RunConfig, Target  # noqa: E402
from batchscope.tasks.batches import to_device  # noqa: E402
from batchscope.tasks.update import Update  # noqa: E402
from batchscope.tasks.workload import Workload  # noqa: E402
from batchscope.training.loop import Training as Run  # noqa: E402
from members_ways import SEED, AtWork, Hand, Kept, Neutral, Ours  # noqa: E402
from record import write  # noqa: E402

__all__ = ["accumulation", "difference", "equality", "main", "step_times", "verdicts"]

STEPS, PARTS = 20, 4
TIMED_STEPS, REPETITIONS = 10, 9
QUICK = ("sequences", "tables")
SAME, ACCUMULATED, RATIO = 1e-6, 1e-6, 0.95
"""Bounds: difference of weights, relative error of a gradient, and step time plain ÷ members, which is to be larger."""


def run(task: Any, training: Training, lr: float, steps: int, parts: int) -> tuple[Run, list[Row], list[list[Any]]]:
    """A run of some steps: as it ended, its evaluations, and the batches of each step."""
    rows: list[Row] = []
    workload = Kept(task)
    size = training.batch_size - training.batch_size % parts
    config = RunConfig(
        task=training.name,
        batch_size=size,
        micro_batch_size=size // parts,
        grad_accum_steps=parts,
        lr=lr,
        seed=SEED,
        max_steps=steps,
        schedule="constant" if workload.schedule is None else "task",
        target=Target(metric="val_loss", value=-1.0, mode="min"),
    )
    made = Run(workload, config, on_row=rows.append)
    made.advance()
    return made, rows, workload.batches[:steps]


def by_hand(task: Any, lr: float, batches: Sequence[Sequence[Any]], *, at_work: bool) -> tuple[Hand, list[float]]:
    """A training by hand on given batches, and its losses."""
    hand = Hand(task, lr, len(batches), at_work=at_work)
    return hand, [float(hand.step(number, parts)) for number, parts in enumerate(batches)]


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Largest difference of two models' weights and buffers; infinite where they are not of one make."""
    if one.keys() != other.keys():
        return math.inf
    with torch.no_grad():
        return max(float((value.double() - other[key].double()).abs().max()) for key, value in one.items())


def equality(training: Training, *, steps: int = STEPS) -> dict[str, Any]:
    """Differences between the ways to train, after some steps in real runs."""
    lr = training.lr / 3
    task = load(training.file)
    plain, plain_rows, batches = run(task, training, lr, steps, 1)
    neutral, neutral_rows, _ = run(Neutral(task), training, lr, steps, 1)
    hand, losses = by_hand(task, lr, batches, at_work=False)
    working, working_rows, parted = run(AtWork(task), training, lr, steps, PARTS)
    hand_working, _ = by_hand(task, lr, parted, at_work=True)
    averaged = working.state()["update"]["averaged"]
    plain_losses = [row["train_loss"] for row in plain_rows[1:]]
    neutral_losses = [row["train_loss"] for row in neutral_rows[1:]]
    fresh = dict(plain.workload.model(SEED).named_parameters())
    moved = difference(dict(plain.model.named_parameters()), fresh)
    return {
        "steps": steps,
        "batch_size": training.batch_size,
        "lr": lr,
        "moved": moved,
        "hand_against_plain": difference(hand.model.state_dict(), plain.model.state_dict()),
        "losses_hand_against_plain": abs(statistics.fmean(losses) - _mean_loss(plain_rows)),
        "neutral_against_plain": difference(neutral.model.state_dict(), plain.model.state_dict()),
        "losses_neutral_against_plain": max(map(abs, map(float.__sub__, neutral_losses, plain_losses))),
        "at_work_against_hand": difference(working.model.state_dict(), hand_working.model.state_dict()),
        "averaged_against_hand": difference(averaged, hand_working.averaged.state_dict()),
        "metrics": {name: rows[-1]["metrics"] for name, rows in (("plain", plain_rows), ("at work", working_rows))},
    }


def _mean_loss(rows: Sequence[Row]) -> float:
    """Mean loss over all steps: of evaluations, each the mean since the one before."""
    pairs = itertools.pairwise(rows)
    return sum(row["train_loss"] * (row["step"] - before["step"]) for before, row in pairs) / rows[-1]["step"]


def step_times(
    training: Training,
    *,
    steps: int = TIMED_STEPS,
    repetitions: int = REPETITIONS,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Any]:
    """Seconds of a step each way by a clock, on batches in memory: in turn, a repetition some steps of each way."""
    task, lr = load(training.file), training.lr / 10
    whole, parted = (_first_batches(task, training, steps, parts) for parts in (1, PARTS))
    ways: dict[str, tuple[Any, list[list[Any]]]] = {
        "hand": (Hand(task, lr, steps, at_work=False), whole),
        "plain": (Ours(task, lr, steps), whole),
        "neutral": (Ours(Neutral(task), lr, steps), whole),
        "hand at work": (Hand(task, lr, steps, at_work=True), parted),
        "at work": (Ours(AtWork(task), lr, steps), parted),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        names = list(ways) if repetition % 2 else list(reversed(ways))
        for name in names:
            trained, batches = ways[name]
            began = clock()
            for number, parts in enumerate(batches):
                trained.step(number, parts)
            seconds[name].append((clock() - began) / steps)
    kept = {name: each[1:] for name, each in seconds.items()}
    return {
        "step_s": kept,
        "median_s": {name: statistics.median(each) for name, each in kept.items()},
        "plain_over_neutral": _ratio(kept["plain"], kept["neutral"]),
        "hand_over_plain": _ratio(kept["hand"], kept["plain"]),
        "hand_over_members_at_work": _ratio(kept["hand at work"], kept["at work"]),
    }


def _ratio(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Median and range of the ratio of two ways' seconds, repetition by repetition."""
    each = sorted(a / b for a, b in zip(one, other, strict=True))
    return {"median": statistics.median(each), "lowest": each[0], "highest": each[-1]}


def _first_batches(task: Any, training: Training, steps: int, parts: int) -> list[list[Any]]:
    workload = Workload(task)
    stream = workload.micro_batches(training.batch_size - training.batch_size % parts, parts, SEED)
    batches = [next(stream) for _ in range(steps)]
    stream.close()
    return batches


def accumulation(training: Training) -> dict[str, Any]:
    """Relative error of a gradient in float64, of unequal micro-batches against the whole batch: weighted, and not."""
    task = load(training.file)
    weighted, size = Neutral(task), training.batch_size
    cuts = [1, size // 4, size - size // 4 - 1 - size // 8, size // 8]
    order = torch.randperm(training.examples, generator=torch.Generator().manual_seed(SEED))[:size].tolist()
    data = task.train_data()
    examples = [data[index] for index in order]
    starts = [0, *itertools.accumulate(cuts)]
    batches = [weighted.collate(examples[a:b]) for a, b in itertools.pairwise(starts)]
    whole = _gradient(weighted, [weighted.collate(examples)])
    unweighted = copy.copy(weighted)
    unweighted.loss_weight = None
    found = {"weighted": _gradient(weighted, batches), "unweighted": _gradient(unweighted, batches)}
    return {
        "examples": cuts,
        "terms": [weighted.loss_weight(batch) for batch in batches],
        **{name: float((each - whole).norm() / whole.norm()) for name, each in found.items()},
    }


def _gradient(task: Any, batches: Sequence[Any]) -> Tensor:
    """Gradient of a step of micro-batches and its loss, in float64 and evaluation mode."""
    workload = Workload(task)
    model = workload.model(SEED).double().eval()
    update = Update(workload, model, 1e-3)
    loss = update.gradients([_doubled(to_device(batch, torch.device("cpu"))) for batch in batches])
    return torch.cat([*(p.grad.flatten() for p in model.parameters() if p.grad is not None), loss[None]])


def _doubled(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch.double() if batch.is_floating_point() else batch
    if isinstance(batch, Mapping):
        return {key: _doubled(value) for key, value in batch.items()}
    return type(batch)(map(_doubled, batch)) if isinstance(batch, list | tuple) else batch


def verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Worst of each figure over the trainings, its bound, and whether it is met."""
    same = ("hand_against_plain", "neutral_against_plain", "at_work_against_hand", "averaged_against_hand")
    figures = {name: (max(row["equality"][name] for row in rows), SAME) for name in same}
    figures["micro_batches_against_whole"] = (max(row["accumulation"]["weighted"] for row in rows), ACCUMULATED)
    found = {name: {"worst": worst, "bound": bound, "met": worst <= bound} for name, (worst, bound) in figures.items()}
    for name in ("hand_over_plain", "hand_over_members_at_work"):
        worst = min(row["times"][name]["median"] for row in rows)
        found[name] = {"worst": worst, "bound": RATIO, "met": worst >= RATIO}
    return found


def main(
    words: Sequence[str] | None = None, keep: Callable[[str, Mapping[str, Any]], object] = write
) -> dict[str, Any]:
    """Measure what the command line asks for; a whole measurement is written down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(words).quick
    torch.set_num_threads(1)
    measured: list[Callable[[Training], dict[str, Any]]] = [
        partial(equality, steps=4 if quick else STEPS),
        partial(step_times, steps=2 if quick else TIMED_STEPS, repetitions=1 if quick else REPETITIONS),
        accumulation,
    ]
    rows: list[dict[str, Any]] = []
    load_before = os.getloadavg()
    for training in (TRAININGS[name] for name in (QUICK if quick else TRAININGS)):
        found = [measure(training) for measure in measured]
        rows.append({"training": training.name, **dict(zip(("equality", "times", "accumulation"), found, strict=True))})
        print(_line(rows[-1]), flush=True)
    result = {"rows": rows, "verdicts": verdicts(rows), "load_before": load_before, "load_after": os.getloadavg()}
    for name, figure in result["verdicts"].items():
        print(f"{name}: worst {figure['worst']:.3g}, bound {figure['bound']:g}, {'met' if figure['met'] else 'MISSED'}")
    if not quick:
        write("members", result)
    return result


def _line(row: Mapping[str, Any]) -> str:
    equal, times, parts = row["equality"], row["times"], row["accumulation"]
    return (
        f"{row['training']}: neutral - plain {equal['neutral_against_plain']:.2g}, "
        f"at work - hand {equal['at_work_against_hand']:.2g} of {equal['moved']:.2g} moved; step "
        f"{1e3 * times['median_s']['hand']:.3g} ms by hand, hand / plain {times['hand_over_plain']['median']:.3f}, "
        f"plain / neutral {times['plain_over_neutral']['median']:.3f}, "
        f"by hand / members at work {times['hand_over_members_at_work']['median']:.3f}; "
        f"micro-batches {parts['weighted']:.1e}, unweighted {parts['unweighted']:.1e}"
    )


if __name__ == "__main__":
    main()
