"""Evidence of which everything is known: courses written down by hand, as if runs had made them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchscope.laboratory.claims.plan import FEW, FIXED, LONG, ClaimsPlan
from batchscope.laboratory.claims.results import TaskResults
from batchscope.laboratory.records import EXAMPLES_OF_RUN, Length, Study, StudyQuestion
from batchscope.laboratory.summary import row_of, summarise
from batchscope.store.records import Environment, Row, RunStatus, Target
from batchscope.store.runs import StoredRun
from batchscope.testing import evaluation, stored_run

EXAMPLES = 1000
PLAN = ClaimsPlan(batch_sizes=(10, 40, 200), lrs=(0.01, 0.1), seeds=(0, 1, 2), epochs=10)
TARGET = Target(metric="val_loss", value=-1e300, mode="min")

Metrics = Mapping[str, float]
CourseOf = Callable[[int, float, int, float], Metrics]
"""Metrics at an epoch: of batch size, learning rate, seed and epoch."""


def run(
    batch_size: int,
    lr: float,
    seed: int,
    course: CourseOf,
    *,
    epochs: float = 10,
    variant: str = "",
    examples: int = EXAMPLES,
    more: Sequence[Row] = (),
) -> StoredRun:
    """A finished run with an evaluation an epoch."""
    rows: list[Row] = []
    for i in range(round(epochs) + 1):
        found = dict(course(batch_size, lr, seed, float(i)))
        train = {name: found.pop(name) for name in list(found) if name.startswith("train_")}
        step = round(i * examples / batch_size)
        rows.append(evaluation(step, found, examples=i * examples, train_loss=train["train_loss_eval"] if i else None))
        rows.append({"kind": "train_part", "step": step, "examples": 100, "metrics": train})
    last = rows[-2]["metrics"]
    return stored_run(
        batch_size,
        lr,
        (*rows, *more),
        name=f"{variant or 'grid'}-{batch_size}-{lr:g}-{seed}",
        status=RunStatus.DIVERGED if math.isnan(last["val_loss"]) else RunStatus.OUT_OF_STEPS,
        settings={**({"variant": variant} if variant else {}), EXAMPLES_OF_RUN: examples},
        seed=seed,
        target=TARGET,
        purpose="study",
    )


def evidence(
    course: CourseOf,
    *,
    plan: ClaimsPlan = PLAN,
    notes: Mapping[str, Any] | None = None,
    extra: Sequence[StoredRun] = (),
) -> TaskResults:
    """The grid of a plan, its long runs, those of fixed steps and with little data, all on one course."""
    runs = [run(b, lr, s, course) for b in plan.batch_sizes for lr in plan.lrs for s in plan.seeds]
    runs += [
        run(b, lr, s, course, epochs=50, variant=LONG) for b in plan.long_sizes for lr in plan.lrs for s in plan.seeds
    ]
    runs += [run(b, lr, s, course, variant=FIXED) for b in plan.batch_sizes for lr in plan.lrs for s in plan.seeds]
    few = plan.few(EXAMPLES)
    runs += [
        run(b, lr, s, course, variant=FEW, examples=few)
        for b in plan.few_sizes(EXAMPLES)
        for lr in plan.lrs
        for s in plan.seeds
    ]
    runs += extra
    rows = tuple(row_of(r, TARGET, int(r.config.settings[EXAMPLES_OF_RUN]), 1000.0 + r.config.batch_size) for r in runs)
    study = Study(
        study="claims",
        task="made up",
        rows=rows,
        summary=summarise(rows, TARGET),
        findings=(),
        question=StudyQuestion(
            batch_sizes=plan.batch_sizes,
            lrs=plan.lrs,
            seeds=plan.seeds,
            length=Length(unit="epochs", amount=plan.epochs),
        ),
        metric="val_loss",
        larger_is_better=False,
        examples=EXAMPLES,
        planned=len(runs),
        complete=True,
        environment=Environment(
            batchscope="0",
            python="3.11",
            torch="2",
            numpy="2",
            platform="test",
            device="cpu",
            device_name="",
            cpu_count=2,
            threads=1,
        ),
        measurements=notes or {},
    )
    return TaskResults(study=study, runs={r.id: r for r in runs}, plan=plan)
