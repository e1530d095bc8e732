"""A plain training loop that takes the time of a recipe; it imports torch and the task, and nothing of batchscope.

    python benchmarks/real/loop.py benchmarks/real/tasks/tables.py --batch-size 64 --lr 0.003 --target "val_loss<=0.1"

It trains as people write it: epochs of a shuffled `DataLoader` (what is left of an epoch is dropped), with the task's
`collate` and `loader_options`, one optimizer, an evaluation every so many steps and before the first. It stops at the
first evaluation at the target, or at a limit, and prints one JSON object:

* `seconds` of all steps, each from asking for its batch to the end of the optimizer's step; `evaluation_seconds` apart;
  `wall_seconds` of both, and `processor_seconds` of this process in the meantime;
* `step_s`: mean, median and quantiles of the steps' seconds, the first left out (a loader starts its workers there);
* `reached`: whether the target was, `steps_to_target` and `seconds_to_target`. The metric is taken as straight in the
  logarithm of the step between two evaluations (in the step itself after step 0), and so is the clock in the step;
* `curve`: steps, values and seconds at the evaluations.

Runs of one seed are the same on one machine. It takes as long as the training; a bad recipe is bounded by
`--max-seconds`, which evaluations do not count against.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

__all__ = ["Limits", "Recipe", "Timing", "first_at_target", "load", "parse_target", "quantiles", "train"]

QUANTILES = (0.1, 0.25, 0.75, 0.9)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained.

    `changes` are set on every parameter group after the task's optimizer was made; `loader` are further arguments of
    the `DataLoader`.
    """

    batch_size: int
    lr: float
    seed: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)
    loader: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a training ends: at the target, or here.

    Attributes:
        metric: of the task's `evaluate`.
        value: of the target.
        rising: whether the metric must rise to it.
        every: steps between evaluations.
        max_seconds: of steps, evaluations apart.
        max_steps: likewise, in steps.
        through: go on to `max_steps` when the target has been reached.
    """

    metric: str
    value: float
    rising: bool
    every: int
    max_seconds: float = math.inf
    max_steps: float = math.inf
    through: bool = False


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One training as its clock had it; the members are explained above."""

    status: str
    """`reached`, `out-of-time`, `out-of-steps` or `diverged`."""
    steps: int
    examples: int
    seconds: float
    evaluation_seconds: float
    evaluations: int
    wall_seconds: float
    processor_seconds: float
    reached: bool
    steps_to_target: float | None
    seconds_to_target: float | None
    last: float
    step_s: dict[str, float]
    curve: dict[str, list[float]]
    ends: list[float]
    """Seconds at the end of each step, from the first."""


def load(path: Path) -> Any:
    """The task that the factory `task` of a file makes."""
    spec = importlib.util.spec_from_file_location(f"real_{path.stem}", path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    return module.task()


def parse_target(text: str) -> tuple[str, float, bool]:
    """Metric, value, and whether it must rise: of `METRIC<=VALUE` or `METRIC>=VALUE`."""
    rising = ">=" in text
    metric, _, value = text.partition(">=" if rising else "<=")
    return metric.strip(), float(value), rising


def train(task: Any, recipe: Recipe, limits: Limits, clock: Callable[[], float] = time.perf_counter) -> Timing:
    """Train once.

    Args:
        task: with the members that a task has.
        recipe: batch size, learning rate, seed.
        limits: target, spacing of the evaluations, when to give up.
        clock: seconds; another one in tests.
    """
    torch.manual_seed(recipe.seed)
    model = task.model().train()
    optimizer = task.optimizer(model.parameters(), recipe.lr)
    for group in optimizer.param_groups:
        group.update(recipe.changes)
    began, processor = clock(), time.process_time()
    steps, values, clocks = [0], [_value_of(task, model, limits.metric)], [0.0]
    evaluation_s = clock() - began
    ends: list[float] = []
    status, sign = "", 1.0 if limits.rising else -1.0
    batches = _batches(task, recipe)
    while not status:
        start = clock()
        loss = _step(task, model, optimizer, next(batches))
        spent = clock()
        ends.append((ends[-1] if ends else 0.0) + spent - start)
        status = _status(loss, len(ends), ends[-1], limits)
        if status == "diverged" or (not status and len(ends) % limits.every):
            continue
        steps.append(len(ends))
        clocks.append(ends[-1])
        values.append(_value_of(task, model, limits.metric))
        evaluation_s += clock() - spent
        if sign * values[-1] >= sign * limits.value and not limits.through:
            status = "reached"
    wall_s, processor_s = clock() - began, time.process_time() - processor
    reached = first_at_target(steps, values, limits.value, rising=limits.rising)
    return Timing(
        status=status,
        steps=len(ends),
        examples=len(ends) * recipe.batch_size,
        seconds=ends[-1],
        evaluation_seconds=evaluation_s,
        evaluations=len(steps),
        wall_seconds=wall_s,
        processor_seconds=processor_s,
        reached=reached is not None,
        steps_to_target=reached,
        seconds_to_target=None if reached is None else seconds_at(ends, reached),
        last=values[-1],
        step_s=quantiles(ends),
        curve={"steps": steps, "values": values, "seconds": clocks},
        ends=ends,
    )


def _batches(task: Any, recipe: Recipe) -> Iterator[Any]:
    data = task.train_data()
    if recipe.batch_size > len(data):
        raise SystemExit(f"batch size {recipe.batch_size} is larger than the {len(data)} training examples")
    loader = DataLoader(
        data,
        batch_size=recipe.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=getattr(task, "collate", None),
        generator=torch.Generator().manual_seed(recipe.seed),
        **{**getattr(task, "loader_options", {}), **recipe.loader},
    )
    while True:
        yield from loader


def _step(task: Any, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> float:
    loss: Tensor = task.loss(model, batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def _status(loss: float, steps: int, seconds: float, limits: Limits) -> str:
    if not math.isfinite(loss):
        return "diverged"
    if steps >= limits.max_steps:
        return "out-of-steps"
    return "out-of-time" if seconds >= limits.max_seconds else ""


def _value_of(task: Any, model: nn.Module, metric: str) -> float:
    model.eval()
    with torch.no_grad():
        value = float(task.evaluate(model)[metric])
    model.train()
    return value


def first_at_target(steps: Sequence[float], values: Sequence[float], target: float, *, rising: bool) -> float | None:
    """The step at which a curve is first at its target; none, where it never is.

    The value is straight in log(step) between the evaluation there and the finite one before; from step 0, in the step.
    """
    sign = 1.0 if rising else -1.0
    before: tuple[float, float] | None = None
    for step, value in zip(steps, values, strict=True):
        if not math.isfinite(value):
            continue
        if sign * value >= sign * target:
            if before is None:
                return float(step)
            share = (target - before[1]) / (value - before[1])
            return share * step if before[0] == 0 else before[0] * (step / before[0]) ** share
        before = (step, value)
    return None


def seconds_at(ends: Sequence[float], step: float) -> float:
    """The clock at a step, which need not be whole: straight between the ends of two steps."""
    whole = min(math.floor(step), len(ends))
    before = ends[whole - 1] if whole else 0.0
    return before + (step - whole) * (ends[whole] - before) if whole < len(ends) else before


def quantiles(ends: Sequence[float]) -> dict[str, float]:
    """Mean, median and quantiles of the steps' seconds, the first left out where there are others."""
    pairs = itertools.pairwise(ends if len(ends) > 1 else [0.0, *ends])
    each = sorted(after - before for before, after in pairs)
    found = {"mean": statistics.fmean(each), "median": statistics.median(each)}
    return found | {f"q{round(100 * q)}": each[min(int(q * len(each)), len(each) - 1)] for q in QUANTILES}


def main(words: Sequence[str] | None = None) -> None:
    """Train what the command line asks for, and print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="with a factory `task`")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of weights and order")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--target", required=True, help='"val_loss<=0.3" or "val_accuracy>=0.9"')
    parser.add_argument("--every", type=int, default=10, help="steps between evaluations")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="of steps, evaluations apart")
    parser.add_argument("--max-steps", type=float, default=math.inf)
    parser.add_argument("--through", action="store_true", help="go on to --max-steps beyond the target")
    parser.add_argument("--changes", type=json.loads, default={}, help="JSON: set on every parameter group")
    parser.add_argument("--loader", type=json.loads, default={}, help="JSON: further arguments of the DataLoader")
    parser.add_argument("--at", type=float, action="append", default=[], help="say the clock at this step; repeatable")
    asked = parser.parse_args(words)
    torch.set_num_threads(asked.threads)
    metric, value, rising = parse_target(asked.target)
    found = train(
        load(asked.file),
        Recipe(batch_size=asked.batch_size, lr=asked.lr, seed=asked.seed, changes=asked.changes, loader=asked.loader),
        Limits(
            metric=metric,
            value=value,
            rising=rising,
            every=asked.every,
            max_seconds=asked.max_seconds,
            max_steps=asked.max_steps,
            through=asked.through,
        ),
    )
    printed = asdict(found)
    ends = printed.pop("ends")
    printed["at"] = [[step, seconds_at(ends, step) if step <= len(ends) else None] for step in asked.at]
    print(json.dumps(_finite(printed), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
