"""Made-up searches with a known truth, in the shape in which real ones reach the page."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Any

from batchscope.store.records import (
    Alternative,
    Bench,
    Curve,
    Curves,
    EarlyStop,
    EasierTarget,
    Environment,
    Estimate,
    Evidence,
    HardwareProfile,
    Measured,
    Plan,
    PlanStatus,
    Predicted,
    Reading,
    Recipe,
    RestsOn,
    Row,
    RunStatus,
    SearchCost,
    Target,
    Verified,
)
from batchscope.store.runs import StoredRun
from batchscope.testing import evaluation, stored_run
from batchscope.wording import sentence

TARGET = Target(metric="val_loss", value=0.12, mode="min")
EXAMPLES = 1437
SMALLEST, LARGEST = 8, 1024
FEWEST_STEPS, CRITICAL, EXPONENT = 120.0, 96.0, 1.3
FIXED, PER_EXAMPLE = 0.9e-3, 12e-6
UNKNOWN = Estimate(value=None, low=None, high=None, n=0, unit="", method="")


def steps_at(batch_size: float, lr_factor: float = 1.0) -> float:
    """The truth: steps to the target, for a learning rate that is `lr_factor` times the best."""
    detuned = 1 + 0.6 * math.log2(lr_factor) ** 2
    return FEWEST_STEPS * (1 + (CRITICAL / batch_size) ** EXPONENT) ** (1 / EXPONENT) * detuned


def step_time_at(batch_size: float) -> float:
    return FIXED + PER_EXAMPLE * batch_size


def lr_at(batch_size: float) -> float:
    return 0.6 / (1 + 150 / batch_size)


def about(value: float, spread: float = 1.15, unit: str = "") -> Estimate:
    return Estimate(value=value, low=value / spread, high=value * spread, n=6, unit=unit, method="fitted")


def recipe(batch_size: int = 128, lr: float | None = None, micro: int | None = None) -> Recipe:
    per_epoch = EXAMPLES / batch_size
    steps = round(steps_at(batch_size))
    return Recipe(
        batch_size=batch_size,
        micro_batch_size=micro or batch_size,
        grad_accum_steps=batch_size // (micro or batch_size),
        world_size=1,
        lr=lr or lr_at(batch_size),
        schedule="constant",
        warmup_steps=0,
        optimizer_changes={},
        steps=steps,
        steps_per_epoch=per_epoch,
        epochs=steps / per_epoch,
        early_stop=EarlyStop(best_epoch=steps / per_epoch, patience=4.0),
    )


def predicted(batch_size: int, factor: float = 1.0) -> Predicted:
    steps, step = steps_at(batch_size) * factor, step_time_at(batch_size)
    return Predicted(
        steps_to_target=about(steps, 1.12, "steps"),
        step_time_s=about(step, 1.03, "s"),
        time_to_target_s=about(steps * step, 1.15, "s"),
        examples_to_target=about(steps * batch_size, 1.12, "examples"),
        peak_memory_bytes=about(9e6 + 24e3 * batch_size, 1.05, "bytes"),
    )


def curves() -> Curves:
    sizes = tuple(2**p for p in range(3, 11))

    def curve(values: Sequence[float], spread: float) -> Curve:
        wide = [spread * (1 + 0.25 * abs(math.log2(b / 90)) / 3) for b in sizes]
        low, high = (tuple(v * w**sign for v, w in zip(values, wide, strict=True)) for sign in (-1, 1))
        return Curve(batch_size=sizes, value=tuple(values), low=low, high=high)

    steps = [steps_at(b) for b in sizes]
    return Curves(
        time_to_target_s=curve([s * step_time_at(b) for s, b in zip(steps, sizes, strict=True)], 1.12),
        steps_to_target=curve(steps, 1.1),
        examples_to_target=curve([s * b for s, b in zip(steps, sizes, strict=True)], 1.1),
        lr=curve([lr_at(b) for b in sizes], 1.2),
    )


def bench() -> Bench:
    sizes = (8, 32, 128, 512, 1024)
    return Bench(
        profile=HardwareProfile(
            name="a two-core CPU",
            step_time_s=tuple(
                (b, step_time_at(b) * f) for b, f in zip(sizes, (1.01, 0.98, 1.02, 0.99, 1.0), strict=True)
            ),
            peak_memory_bytes=tuple((b, max(11e6, 9e6 + 24e3 * b)) for b in sizes),
            capacity_bytes=8 * 1024**3,
        ),
        readings=tuple(
            Reading(micro_batch_size=b, step_time_s=step_time_at(b), gradient_time_s=0.9 * step_time_at(b))
            for b in sizes
        ),
        split=None,
        largest_micro_batch_size=1024,
        largest_verified=True,
        limit_bytes=64 * 1024**2,
        device_seconds=1.4,
    )


def run(
    batch_size: int,
    lr_factor: float = 1.0,
    *,
    seed: int = 0,
    purpose: str = "probe",
    status: RunStatus = RunStatus.REACHED,
    noise: bool = False,
    evaluations: int = 60,
    target: Target | None = TARGET,
) -> StoredRun:
    """One run whose loss falls as a power law and meets the target where the truth says."""
    chance = random.Random(f"{batch_size} {lr_factor} {seed}")
    truth = steps_at(batch_size, lr_factor) * math.exp(chance.gauss(0, 0.05))
    steps = round(truth if status is RunStatus.REACHED else truth * 0.6)
    at = sorted({0, *(round(steps ** (i / (evaluations - 1))) for i in range(evaluations))})
    slope = math.log(2.4 / TARGET.value) / math.log1p(truth)
    rows: list[Row] = []
    for step in at:
        loss = 2.4 * (1 + step) ** -slope
        if step < steps:
            loss = max(loss * math.exp(chance.gauss(0, 0.02)), 1.005 * TARGET.value)
        elif status is RunStatus.REACHED:
            loss = min(loss, TARGET.value)
        if status is RunStatus.DIVERGED:
            loss *= math.exp(12 * (step / steps) ** 4)
        metrics = {"val_loss": loss, "val_accuracy": max(0.1, 1 - loss / 2.5)}
        rows.append(
            evaluation(
                step,
                metrics,
                batch_size=batch_size,
                device_seconds=step * step_time_at(batch_size),
                train_loss=0.9 * loss if step else None,
            )
        )
    if noise:
        rows += noise_rows(steps, batch_size, chance)
    lr = lr_at(batch_size) * lr_factor
    return stored_run(
        batch_size,
        lr,
        rows,
        name=f"{purpose}-b{batch_size}-lr{lr:.3g}-s{seed}-{chance.randrange(16**6):06x}",
        status=status,
        steps_to_target=truth if status is RunStatus.REACHED and target is not None else None,
        task="digits",
        seed=seed,
        target=target,
        max_steps=10 * steps,
        purpose=purpose,
    )


def noise_rows(steps: int, batch_size: int, chance: random.Random, groups: int = 8) -> list[dict[str, Any]]:
    """Readings of a gradient noise scale that grows from 15 to 300 examples, scattered as they are in practice."""
    rows = []
    for step in range(0, steps, max(1, steps // 120)):
        scale, size = 15 * 20 ** (step / steps), batch_size / groups
        square = math.exp(-3 * step / steps) * max(0.05, 1 + chance.gauss(0, 0.5))
        trace = math.exp(-3 * step / steps) * scale * max(0.05, 1 + chance.gauss(0, 0.3))
        row = {"kind": "noise", "step": step, "examples": step * batch_size, "groups": groups, "group_size": size}
        rows.append(
            {**row, "mean_square_norm": square + trace / size, "square_norm_of_mean": square + trace / (size * groups)}
        )
    return rows


def runs() -> tuple[StoredRun, ...]:
    """A search as it usually goes: a pilot, probes at three batch sizes, the current recipe, and a check."""
    found = [run(64, 0.5, purpose="pilot", noise=True, target=None)]
    for batch_size in (32, 128, 512):
        found += [run(batch_size, 0.5), run(batch_size, 1.0), run(batch_size, 2.0, status=RunStatus.BEHIND)]
    found += [
        run(128, 8.0, status=RunStatus.DIVERGED),
        run(16, 0.3, purpose="current"),
        run(128, 1.1, seed=1, purpose="verify"),
    ]
    return tuple(found)


def measured() -> Measured:
    return Measured(
        critical_batch_size=Estimate(value=CRITICAL, low=61.0, high=150.0, n=9, unit="examples", method="joint fit"),
        gradient_noise_scale=Estimate(value=88.0, low=60.0, high=131.0, n=8, unit="examples", method="blocks"),
        knee_exponent=about(EXPONENT, 1.3),
        hardware_knee=about(FIXED / PER_EXAMPLE, 1.1, "examples"),
        largest_micro_batch_size=Estimate(
            value=1024, low=1024, high=None, n=1, unit="examples", method="one real step"
        ),
    )


EVIDENCE = (
    Evidence(statement="Step time at five micro-batch sizes, median of 20 steps each.", tag="measured", source="bench"),
    Evidence(statement="Nine tuned runs at batch sizes 32, 128 and 512.", tag="measured", source="runs"),
    Evidence(
        statement="S(B) = S_min (1 + (B_c/B)^α)^(1/α), log-residuals with a spread of 6 %.",
        tag="fitted",
        source="9 runs",
    ),
    Evidence(
        statement="The knee exponent has a log-normal prior with median 1.4.",
        tag="literature",
        source="McCandlish et al. 2018, eq. 2.11",
    ),
    Evidence(statement="A constant learning rate without warm-up.", tag="assumption", source="the default schedule"),
)
ENVIRONMENT = Environment(
    batchscope="0.1.0",
    python="3.11.7",
    torch="2.13.0",
    numpy="2.4.0",
    platform="Linux x86_64",
    device="cpu",
    device_name="a two-core CPU",
    cpu_count=2,
    threads=2,
)


def ok() -> Plan:
    return Plan(
        task="digits",
        objective="time",
        target=TARGET,
        status=PlanStatus.OK,
        message="Batch size 128 reaches the target in about a third of the current recipe's time.",
        recipe=recipe(128),
        probability_within_5_percent=0.83,
        predicted=predicted(128),
        measured=measured(),
        verified=Verified(steps=187, time_s=0.46, metric=0.1187),
        alternatives=(
            Alternative(why="fewest examples", recipe=recipe(16), predicted=predicted(16)),
            Alternative(why="least memory", recipe=recipe(128, micro=16), predicted=predicted(128, 1.4)),
            Alternative(why="largest batch at no loss of quality", recipe=recipe(512), predicted=predicted(512)),
        ),
        search=SearchCost(seconds=21.4, device_seconds=5.9, examples=310_000, runs=12, run_equivalents=7.4),
        evidence=EVIDENCE,
        environment=ENVIRONMENT,
        current=recipe(16, lr=0.02),
        current_predicted=predicted(16, 1.8),
        bench=bench(),
        curves=curves(),
        notes=("The model has no batch normalisation, so examples are independent.",),
        examples_in_training_set=EXAMPLES,
    )


def within() -> Plan:
    """The recipe that ends best after 20 epochs was asked for."""
    return dataclasses.replace(
        ok(),
        within="20 epochs",
        recipe=dataclasses.replace(recipe(128), steps=224, epochs=224 * 128 / EXAMPLES),
        message="expected to end best, at val_loss 0.12 after 20 epochs",
        expected_end=Estimate(value=0.12, low=0.11, high=0.13, n=5, unit="", method="made up"),
        curves=None,
        probability_within_5_percent=None,
        alternatives=(),
    )


def several_targets() -> Plan:
    targets = [dataclasses.replace(TARGET, value=value) for value in (0.5, 1.0)]
    passed = EasierTarget(target=targets[0], recipe=recipe(64), predicted=predicted(64, 0.4))
    return dataclasses.replace(
        ok(), easier_targets=(passed, EasierTarget(target=targets[1], recipe=None, predicted=None))
    )


def paused(found: StoredRun, value: float) -> StoredRun:
    """The run as it was when its loss first came to a value."""
    evaluations = [row for row in found.rows if row["kind"] == "evaluation"]
    last = next(i for i, row in enumerate(evaluations) if row["step"] and row["metrics"]["val_loss"] <= value)
    assert found.result is not None
    steps = evaluations[last]["step"]
    result = dataclasses.replace(found.result, status=RunStatus.PAUSED, steps=steps, steps_to_target=None)
    return dataclasses.replace(found, rows=tuple(evaluations[: last + 1]), result=result)


def keep_current() -> Plan:
    same = recipe(128, lr=0.3)
    return dataclasses.replace(
        ok(),
        status=PlanStatus.KEEP_CURRENT,
        message="The best recipe found takes 0.97 times as long (0.89–1.06): less than a clear gain of 5 %.",
        recipe=same,
        current=same,
        current_predicted=predicted(128),
        predicted=predicted(128),
        verified=None,
        alternatives=(),
    )


def unfinished() -> Plan:
    """The budget ended before the best bet came to the target; all runs were at its batch size."""
    doubt = "only batch size 128 was run: how other batch sizes compare with it is assumed, not measured"
    return dataclasses.replace(
        several_targets(),
        status=PlanStatus.UNFINISHED,
        message=f"{sentence(doubt)} Not finished: best so far batch size 128 and learning rate 0.3",
        probability_within_5_percent=None,
        verified=None,
        alternatives=(),
        rests_on=RestsOn(batch_sizes=(128,), lrs=(0.1, 0.3), runs=3, reached=0),
    )


def not_reached() -> Plan:
    return dataclasses.replace(
        ok(),
        status=PlanStatus.TARGET_NOT_REACHED,
        message="No run reached val_loss<=0.12 within the budget of 10 min. Give a larger --budget, or another target.",
        recipe=None,
        probability_within_5_percent=None,
        predicted=None,
        verified=None,
        alternatives=(),
        current=None,
        current_predicted=None,
        curves=None,
        measured=dataclasses.replace(measured(), critical_batch_size=UNKNOWN, knee_exponent=UNKNOWN),
        search=dataclasses.replace(ok().search, run_equivalents=None),
    )


def unreached_runs() -> tuple[StoredRun, ...]:
    return tuple(
        run(b, f, status=s)
        for b in (32, 128, 512)
        for f, s in ((0.5, RunStatus.STALLED), (1.0, RunStatus.OUT_OF_STEPS), (8.0, RunStatus.DIVERGED))
    )


def bare() -> Plan:
    """A plan that knows nothing at all."""
    nothing = {f.name: UNKNOWN for f in dataclasses.fields(Measured)}
    return dataclasses.replace(
        not_reached(),
        status=PlanStatus.INSUFFICIENT_DATA,
        message="Nothing was measured.",
        target=None,
        measured=Measured(**nothing),
        evidence=(),
        bench=None,
        notes=(),
        search=SearchCost(seconds=0.0, device_seconds=0.0, examples=0, runs=0, run_equivalents=None),
        examples_in_training_set=0,
    )
