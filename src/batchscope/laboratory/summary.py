"""From stored runs to the rows and the summary of a study, and what each of their numbers means. Numbers only.

A row has, for every metric `m` of `evaluate`, `final_m` (at the last evaluation) and `best_m` (at the evaluation where
the metric that choices are made by is best: the best epoch by validation). The same of the training part in evaluation
mode: `train_loss_eval`, and `train_accuracy_eval` where the task says it. Besides:

- `train_loss`: the mean over the steps since the last evaluation, as training saw it;
- `best_epoch`, `best_step`: of the best evaluation;
- `step_time_s`: the median over the stretches between evaluations, the first left out where there are others, of
  seconds per step; `epoch_time_s`: that times N / B; `train_time_s`: all of the run's steps;
- `accuracy_gap`, final and best: accuracy on the training part minus accuracy on the test part (Shen 2018);
- `loss_ratio`, final and best: validation loss over training loss, both in evaluation mode (Chang and Pathak 2020);
- `roughness`: how far the metric jumps about its course in the second half of the run. Each evaluation is compared with
  the middle of its two neighbours; for independent noise of standard deviation s about a straight course, the mean
  square of these differences is 3/2 s², so s is estimated as the root of 2/3 of it (Gasser, Sroka, Jennen-Steinmetz
  1986).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

from ..fits import intervals
from ..fits.curves import first_passage, value_at
from ..store.ranges import ANY, NOT_NEGATIVE, PERCENT, SHARE, Range, range_of
from ..store.records import RunStatus, Target
from ..store.runs import StoredRun
from .records import StudyRow, SummaryRow

__all__ = ["Evaluation", "evaluation_at", "evaluations", "range_in", "roughness", "row_of", "summarise"]

_LEAST_FOR_ROUGHNESS = 5


class Evaluation(NamedTuple):
    """One evaluation of a run, the training part's metrics among the others."""

    step: int
    epoch: float
    seconds: float
    train_loss: float | None
    metrics: Mapping[str, float]


def evaluations(run: StoredRun, examples: int) -> list[Evaluation]:
    """The course of a run; what the disk has no word for (NaN, infinities) is NaN.

    Where the training part could not be evaluated, `train_loss` is among the metrics: as training saw it.
    """
    parts: dict[int, Mapping[str, float | None]] = {
        row["step"]: row["metrics"] for row in run.rows if row.get("kind") == "train_part"
    }
    found: list[Evaluation] = []
    for row in run.rows:
        if row.get("kind") != "evaluation":
            continue
        train = parts.get(row["step"], {}) if parts else {"train_loss": row["train_loss"]}
        found.append(
            Evaluation(
                step=row["step"],
                epoch=row["examples"] / examples,
                seconds=row["device_seconds"],
                train_loss=row["train_loss"],
                metrics={k: math.nan if v is None else v for k, v in {**row["metrics"], **train}.items()},
            )
        )
    return found


def evaluation_at(course: Sequence[Evaluation], metric: str, level: float) -> Evaluation | None:
    """A run as it is at the first passage of a level by a falling metric; `None`: it never is there.

    Metrics are straight in log steps between the two evaluations (`fits.curves`), epochs and seconds in steps; the step
    is rounded. Metrics that only one of the two has are left out.

    Args:
        course: of a run.
        metric: smaller is better.
        level: to be reached.

    Example:
        >>> def at(step, train, val):
        ...     return Evaluation(step, step / 10, step / 10, None, {"train_loss_eval": train, "val_loss": val})
        >>> there = evaluation_at([at(0, 0.8, 2.0), at(10, 0.4, 1.0), at(40, 0.2, 0.5)], "train_loss_eval", 0.3)
        >>> there.step, round(there.epoch, 6), round(there.metrics["val_loss"], 6)
        (20, 2.0, 0.75)
        >>> evaluation_at([at(0, 0.8, 2.0)], "train_loss_eval", 0.3) is None
        True
    """
    steps, values = [float(e.step) for e in course], [e.metrics.get(metric, math.nan) for e in course]
    step = first_passage(steps, values, level, rising=False)
    if step is None:
        return None
    i = next(i for i, e in enumerate(course) if e.step >= step)
    before, after = course[max(0, i - 1)], course[i]
    if after.step == step or before is after:
        return after
    ends = (before.step, after.step)
    shared = {name: (before.metrics[name], v) for name, v in after.metrics.items() if name in before.metrics}
    metrics = {name: value_at(ends, values, step) for name, values in shared.items()}
    passed = (step - before.step) / (after.step - before.step)
    return Evaluation(
        step=round(step),
        epoch=before.epoch + passed * (after.epoch - before.epoch),
        seconds=before.seconds + passed * (after.seconds - before.seconds),
        train_loss=after.train_loss,
        metrics={name: math.nan if value is None else value for name, value in metrics.items()},
    )


def row_of(run: StoredRun, metric: Target, examples: int, memory_bytes: float | None = None) -> StudyRow:
    """The row of one finished run.

    Args:
        run: with a result.
        metric: which says what evaluation is the best; its value does not matter.
        examples: in the training set of this run.
        memory_bytes: of a step at its batch size, where it was measured.
    """
    assert run.result is not None
    course = evaluations(run, examples)
    diverged = run.result.status is RunStatus.DIVERGED
    values = _values(course, metric, examples / run.config.batch_size, memory_bytes)
    return StudyRow(
        run=run.id,
        variant=str(run.config.settings.get("variant", "")),
        batch_size=run.config.batch_size,
        lr=run.config.lr,
        seed=run.config.seed,
        steps=run.result.steps,
        epochs=run.result.examples / examples,
        status=run.result.status.value,
        values={name: None if diverged and name not in _OF_THE_CLOCK else value for name, value in values.items()},
    )


_OF_THE_CLOCK = ("step_time_s", "epoch_time_s", "train_time_s", "peak_memory_bytes")


def _values(
    course: Sequence[Evaluation], metric: Target, steps_per_epoch: float, memory_bytes: float | None
) -> dict[str, float | None]:
    last, best = course[-1], _best(course, metric)
    values: dict[str, float | None] = {
        f"{when}_{name}": _finite(at.metrics.get(name))
        for name in last.metrics
        for when, at in (("final", last), ("best", best))
    }
    step_time = _step_time(course)
    return {
        **values,
        "train_loss": _finite(last.train_loss),
        "best_epoch": best.epoch,
        "best_step": float(best.step),
        **_gaps("final", last),
        **_gaps("best", best),
        "roughness": roughness([e.metrics.get(metric.metric) for e in course]),
        "step_time_s": step_time,
        "epoch_time_s": None if step_time is None else step_time * steps_per_epoch,
        "train_time_s": last.seconds,
        "peak_memory_bytes": memory_bytes,
    }


def _best(course: Sequence[Evaluation], metric: Target) -> Evaluation:
    sign = 1.0 if metric.mode == "min" else -1.0
    measured = [(sign * v, i) for i, e in enumerate(course) if (v := _finite(e.metrics.get(metric.metric))) is not None]
    return course[min(measured)[1]] if measured else course[-1]


def _gaps(when: str, at: Evaluation) -> dict[str, float | None]:
    """The generalisation gap by either definition."""
    train_accuracy, test_accuracy = (_finite(at.metrics.get(m)) for m in ("train_accuracy_eval", "test_accuracy"))
    train_loss, val_loss = (_finite(at.metrics.get(m)) for m in ("train_loss_eval", "val_loss"))
    return {
        f"{when}_accuracy_gap": (
            None if train_accuracy is None or test_accuracy is None else train_accuracy - test_accuracy
        ),
        f"{when}_loss_ratio": None if not train_loss or val_loss is None else _finite(val_loss / train_loss),
    }


def _step_time(course: Sequence[Evaluation]) -> float | None:
    stretches = [
        (after.seconds - before.seconds) / (after.step - before.step) for before, after in itertools.pairwise(course)
    ]
    return median(stretches[1:] or stretches) if stretches else None


def roughness(values: Sequence[float | None]) -> float | None:
    """Standard deviation of a curve's second half about a smooth course; `None` for fewer than 5 values.

    >>> roughness([9.0, 7.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0])
    0.0
    """
    late = [v for v in values[len(values) // 2 :] if v is not None and math.isfinite(v)]
    if len(late) < _LEAST_FOR_ROUGHNESS:
        return None
    jumps = [b - (a + c) / 2 for a, b, c in zip(late, late[1:], late[2:], strict=False)]
    return math.sqrt(2 / 3 * math.fsum(j * j for j in jumps) / len(jumps))


def summarise(rows: Iterable[StudyRow], metric: Target) -> tuple[SummaryRow, ...]:
    """Summary rows of each variant, batch size and learning rate, in the order in which they first come.

    The best learning rate of a batch size (and variant) is that with the best mean of `best_<metric>`, among those at
    which no run diverged. The mean is over the seeds that all its learning rates have, so that a budget that ends in
    the middle of a seed chooses nothing; where they have none in common, over all, of those with most seeds.
    """
    arms: dict[tuple[str, int, float], list[StudyRow]] = {}
    rows = tuple(rows)
    ranges = {name: range_in(rows, name) for name in dict.fromkeys(name for row in rows for name in row.values)}
    for row in rows:
        arms.setdefault((row.variant, row.batch_size, row.lr), []).append(row)
    found = [_summary(key, runs, ranges) for key, runs in arms.items()]
    best = {_best_rate(arms, variant, size, metric) for variant, size in {(s.variant, s.batch_size) for s in found}}
    return tuple(replace(s, best_lr=s.key in best) for s in found)


def _summary(key: tuple[str, int, float], rows: Sequence[StudyRow], ranges: Mapping[str, Range]) -> SummaryRow:
    variant, batch_size, lr = key
    diverged = sum(row.status == RunStatus.DIVERGED.value for row in rows)
    names = dict.fromkeys(name for row in rows for name in row.values)
    numbers: dict[str, list[float]] = {"steps": [float(r.steps) for r in rows], "epochs": [r.epochs for r in rows]}
    numbers |= {name: [v for row in rows if (v := row.values.get(name)) is not None] for name in names}
    return SummaryRow(
        variant=variant,
        batch_size=batch_size,
        lr=lr,
        runs=len(rows),
        diverged=diverged,
        best_lr=False,
        estimates={
            name: intervals.mean(values, _unit(name), within=ranges.get(name, NOT_NEGATIVE))
            for name, values in numbers.items()
        },
    )


def range_in(rows: Sequence[StudyRow], name: str) -> Range:
    """Where a value of a study's rows can lie, by its name and by all rows; a gap of accuracies as their difference."""

    def seen(of: str) -> list[float]:
        return [v for row in rows if (v := row.values.get(of)) is not None]

    when, _, kind = name.partition("_")
    if kind != "accuracy_gap":
        return range_of(name, seen(name))
    parts = {range_of(each, seen(each)) for each in (f"{when}_train_accuracy_eval", f"{when}_test_accuracy")}
    return parts.pop().of_differences if len(parts) == 1 and parts <= {SHARE, PERCENT} else ANY


def _best_rate(
    arms: Mapping[tuple[str, int, float], Sequence[StudyRow]], variant: str, batch_size: int, metric: Target
) -> tuple[str, int, float] | None:
    own = {key: rows for key, rows in arms.items() if key[:2] == (variant, batch_size)}
    shared = set.intersection(*({row.seed for row in rows} for rows in own.values()))
    most = max(map(len, own.values()))
    name, sign = f"best_{metric.metric}", 1.0 if metric.mode == "min" else -1.0
    found: list[tuple[float, tuple[str, int, float]]] = []
    for key, rows in own.items():
        if any(row.status == RunStatus.DIVERGED.value for row in rows) or not (shared or len(rows) == most):
            continue
        counted = (row.values.get(name) for row in rows if row.seed in shared or not shared)
        value = intervals.mean(v for v in counted if v is not None).value
        if value is not None:
            found.append((sign * value, key))
    return min(found)[1] if found else None


def _unit(name: str) -> str:
    if name.endswith("_s"):
        return "s"
    if name.endswith("_bytes"):
        return "bytes"
    return {"steps": "steps", "best_step": "steps", "epochs": "epochs", "best_epoch": "epochs"}.get(name, "")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
