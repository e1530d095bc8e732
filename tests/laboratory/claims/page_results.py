"""Made-up runs and measurements with a known truth, in the shape in which real ones reach the page of the verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from batchscope.laboratory.claims.decide import decide
from batchscope.laboratory.claims.plan import FEW, FIXED, LONG, ClaimsPlan, trial_variant
from batchscope.laboratory.claims.records import Claims
from batchscope.laboratory.claims.results import TaskResults
from batchscope.laboratory.records import EXAMPLES_OF_RUN, Length, Study, StudyQuestion
from batchscope.laboratory.summary import row_of, summarise
from batchscope.report.blocks import Figure, Json, Section
from batchscope.report.blocks import Row as Figures
from batchscope.store.records import Environment, Row, Target
from batchscope.store.runs import StoredRun
from batchscope.testing import evaluation, stored_run

EXAMPLES = 1000
PLAN = ClaimsPlan(batch_sizes=(10, 40, 200), lrs=(0.01, 0.1), seeds=(0, 1, 2), epochs=8)
METRIC = Target(metric="val_loss", value=-1.0, mode="min")


def loss_at(batch_size: int, lr: float, epoch: float) -> float:
    """The best learning rate is 0.01 for the small batch, else 0.1; at one, large batches fall more slowly."""
    off = 0.2 if (batch_size == 10) == (lr == 0.1) else 0.0
    return 0.05 + off + 2.0 * math.exp(-epoch * (1.0 if not off else 10 / (batch_size + 10)))


def run_of(
    batch_size: int, lr: float, seed: int, epochs: float, variant: str = "", examples: int = EXAMPLES
) -> StoredRun:
    """An evaluation an epoch; the validation loss rises after epoch 10, the distance is the root of the steps."""
    rows: list[Row] = []
    shift = 1 + 0.01 * seed
    for epoch in range(math.ceil(epochs) + 1):
        step = round(epoch * examples / batch_size)
        train = loss_at(batch_size, lr, epoch) * shift
        val = train + 0.01 * max(0, epoch - 10)
        metrics = {"val_loss": val, "val_accuracy": 1 - val / 4, "test_loss": val + 0.01, "test_accuracy": 1 - val / 4}
        at: dict[str, Any] = {"step": step, "examples": epoch * examples}
        rows += [
            evaluation(step, metrics, examples=epoch * examples, train_loss=train),
            {"kind": "train_part", **at, "metrics": {"train_loss_eval": train, "train_accuracy_eval": 1 - train / 4}},
            {"kind": "weights", "step": step, "all": {"distance": step**0.5 * shift}, "layers": {}},
        ]
    return stored_run(
        batch_size,
        lr,
        rows,
        name=f"{variant or 'grid'}-{batch_size}-{lr}-{seed}",
        settings={"variant": variant, EXAMPLES_OF_RUN: examples} if variant else {},
        seed=seed,
        purpose="study",
    )


def all_runs() -> Iterator[StoredRun]:
    for lr in PLAN.lrs:
        for seed in PLAN.seeds:
            yield from (run_of(b, lr, seed, PLAN.epochs) for b in PLAN.batch_sizes)
            yield from (run_of(b, lr, seed, PLAN.few_epochs, FEW, PLAN.few(EXAMPLES)) for b in PLAN.few_sizes(EXAMPLES))
            for where in ("before", "after"):
                yield from (run_of(b, lr, seed, PLAN.epochs, f"norm {where}") for b in PLAN.norm_sizes)
    for seed in PLAN.seeds:
        yield from (run_of(b, 0.01, seed, PLAN.epochs, FIXED) for b in PLAN.batch_sizes)
        yield from (run_of(b, 0.01, seed, PLAN.long_epochs, LONG) for b in PLAN.long_sizes)
        for epochs in (1.0, 2.0, 4.0, 8.0):
            yield from (run_of(b, 0.01, seed, epochs, trial_variant(epochs)) for b in PLAN.batch_sizes)


def estimate(value: float, unit: str = "") -> dict[str, Any]:
    return {"value": value, "low": 0.9 * value, "high": 1.1 * value, "n": 9, "unit": unit, "method": "made up"}


def pair(cosine: float) -> dict[str, Any]:
    at_once = {"norm_a": 1.0, "norm_b": 1.0, "norm_of_sum": 1.5, "kept": 0.75, "cosine": cosine}
    arrows = {"first": [1.0, 0.0], "second": [0.0, 1.0], "both": [1.0, 1.0], "as_one": [0.5, 0.5]}
    return {"at_once": at_once, "in_turn": at_once, "norm_as_one": 0.75, "arrows": arrows}


def sharp(value: float) -> dict[str, Any]:
    box = [{"eps": e, "value": v, "loss": 0.1, "highest_loss": 0.2} for e, v in ((5e-4, value / 2), (1e-3, value))]
    return {"run": "r", "keskar": box, "relative": box, "curvature": {"sharpness": estimate(value)}}


def counted(batch_size: int, accumulate: int = 1) -> dict[str, Any]:
    updates = EXAMPLES // batch_size
    members = {"batch_size": batch_size, "accumulate": accumulate, "epochs": 1, "examples_in_set": EXAMPLES}
    members |= {"updates": updates, "batches": updates, "passes": updates * accumulate, "examples_seen": EXAMPLES}
    members |= {f"{which}_batch": batch_size for which in ("smallest", "largest")}
    members |= {f"{which}_pass": batch_size // accumulate for which in ("smallest", "largest")}
    return {**members, "least_uses": 1, "most_uses": 1}


def robust(cost: float) -> dict[str, Any]:
    def of(kind: str, strength: float, value: float) -> dict[str, Any]:
        return {"kind": kind, "strength": strength, "metrics": {"val_accuracy": value, "val_loss": 1.0}}

    kinds = ("noise", "shift", "outliers")
    return {"run": "r", "found": [of("none", 0.0, 0.9), *(of(kind, 1.0, 0.9 - cost) for kind in kinds)]}


def measured() -> dict[str, Any]:
    sizes = (1, 10, 40, 200)
    notes: dict[str, Any] = {
        "counters": {"1": counted(1), "40": counted(40), "200": counted(200), "accumulated": counted(40, 2)},
        "averaging": dict.fromkeys(("loss_twice", "gradient_twice", "loss_of_parts", "gradient_of_parts"), 1e-7),
        "timing": {"sizes": list(sizes), "seconds": [[1e-3 * k, 1e-3 * k, 2e-3 * k, 4e-3 * k] for k in (1, 1.1, 0.9)]},
        "capacity": {"free_bytes": 10**9, "device": "made up"},
        "gradients": [
            {"batch_size": b, "full_norm": 1.0, "variance": estimate(8 / b), "cosine": estimate(b / 250)} for b in sizes
        ],
        "competition": [pair(c) for c in (-0.5, 0.0, 0.5)],
        "competition-10": [pair(c) for c in (0.1, 0.3)],
        "competition-200": [pair(c) for c in (0.9, 0.95)],
        "downhill": [{"batch_size": b, "share": estimate(0.5 + b / 1000)} for b in PLAN.batch_sizes],
        "sums": {
            "norms": {"batch_sizes": [2, 8, 512], "norms": [[0.1, 0.12], [0.1, 0.11], [1.0, 1.1]], "samples": 512},
            "histograms": {
                "2": {"limit": 1.0, "counts": [0, 0, 10, 0, 0]},
                "8": {"limit": 1.0, "counts": [0, 1, 8, 1, 0]},
                "512": {"limit": 1.0, "counts": [0, 3, 4, 3, 0]},
            },
            "beyond": {"2": [0, 0], "8": [1, 1], "512": [30, 33]},
            "mark": 0.3,
        },
    }
    for seed in PLAN.seeds:
        notes |= {
            f"sharpness-10-0.01-{seed}": sharp(0.5 + 0.1 * seed),
            f"sharpness-200-0.01-{seed}": sharp(2 + 0.1 * seed),
        }
        notes |= {f"robustness-none-{seed}": robust(0.2 + 0.01 * seed)}
        notes |= {f"robustness-norm before-{seed}": robust(0.1 + 0.01 * seed)}
    return notes


def study_of(runs: Sequence[StoredRun], notes: Mapping[str, Any], task: str = "made up") -> Study:
    def memory(run: StoredRun) -> float | None:
        return None if run.config.settings.get("variant") else 1000.0 + 10 * run.config.batch_size

    rows = tuple(
        row_of(run, METRIC, int(run.config.settings.get(EXAMPLES_OF_RUN, EXAMPLES)), memory(run)) for run in runs
    )
    here = Environment(
        batchscope="0",
        python="3",
        torch=None,
        numpy="2",
        platform="p",
        device="cpu",
        device_name="",
        cpu_count=1,
        threads=1,
    )
    return Study(
        study="claims",
        task=task,
        rows=rows,
        summary=summarise(rows, METRIC),
        findings=(),
        question=StudyQuestion(
            batch_sizes=PLAN.batch_sizes,
            lrs=PLAN.lrs,
            seeds=PLAN.seeds,
            length=Length(unit="epochs", amount=PLAN.epochs),
        ),
        metric="val_loss",
        larger_is_better=False,
        examples=EXAMPLES,
        planned=len(runs),
        complete=bool(runs),
        environment=here,
        measurements=notes,
    )


@cache
def found(task: str = "made up") -> tuple[Claims, TaskResults]:
    runs = tuple(all_runs())
    study = study_of(runs, measured(), task)
    claims = decide(study, runs, PLAN)
    return claims, TaskResults(study=study, runs={run.id: run for run in runs}, plan=PLAN)


@cache
def nothing() -> tuple[Claims, TaskResults]:
    """The budget was used up before anything was made."""
    study = study_of((), {})
    return decide(study, (), PLAN), TaskResults(study=study, runs={}, plan=PLAN)


def figures_of(section: Section) -> dict[str, Figure]:
    several = [block.figures if isinstance(block, Figures) else (block,) for block in section.blocks]
    return {figure.name: figure for group in several for figure in group if isinstance(figure, Figure)}


def points_of(trace: Json) -> dict[float, float]:
    return dict(zip(trace["x"], trace["y"], strict=True))
