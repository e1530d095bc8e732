"""What was measured on the layers and the inputs of models with and without batch normalisation, by seed. Numbers only.

The measurements are those that the study `batch_norm` noted for its runs, and the rows of the observer of activations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....store.not_applicable import not_applicable
from ...conclusions import runs_of
from ...records import Study, SummaryRow, note_name
from .effects import runs_by_seed

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = [
    "disturbed_metric",
    "drift_course",
    "final_drift",
    "lost_to",
    "mean_drift",
    "measured_of",
    "robustness_of",
    "shift_of",
]


def measured_of(study: Study, what: str, run: str) -> Any:
    """A measurement that was noted for a run; `None`: there is none, or it did not apply."""
    found = study.measurements.get(note_name(what, run))
    return None if not_applicable(found) is not None else found


def disturbed_metric(study: Study) -> tuple[str, bool]:
    """What disturbed inputs are judged by, and whether larger is better: validation accuracy, where there is one.

    A loss is no fair measure of it: the surer a model is of its answers, the more a wrong one costs.
    """
    measured = any("final_val_accuracy" in row.values for row in study.rows)
    return ("val_accuracy", True) if measured else (study.metric, study.larger_is_better)


def robustness_of(study: Study, arm: SummaryRow) -> dict[tuple[str, float], dict[int, float]]:
    """Metric under each kind and strength of disturbance (`none` and 0 among them), by seed."""
    name, _ = disturbed_metric(study)
    found: dict[tuple[str, float], dict[int, float]] = {}
    for row in runs_of(study, arm):
        for record in measured_of(study, "robustness", row.run) or ():
            if (value := record["metrics"].get(name)) is not None:
                found.setdefault((record["kind"], record["strength"]), {})[row.seed] = value
    return found


def lost_to(study: Study, arm: SummaryRow) -> dict[tuple[str, float], dict[int, float]]:
    """Loss in the metric under each disturbance against none, by seed."""
    metrics = robustness_of(study, arm)
    clean = metrics.get(("none", 0.0), {})
    sign = 1.0 if disturbed_metric(study)[1] else -1.0
    return {
        key: {seed: sign * (clean[seed] - value) for seed, value in by_seed.items() if seed in clean}
        for key, by_seed in metrics.items()
        if key[0] != "none"
    }


def shift_of(study: Study, arm: SummaryRow, when: str) -> dict[int, float]:
    """Santurkar's relative shift of a layer's gradient by seed, as the mean over the layers that have weights.

    Layers that batch normalisation brings along are left out, so that the same layers count in all variants.
    """
    found: dict[int, float] = {}
    own = _own_layers(study)
    for row in runs_of(study, arm):
        layers = measured_of(study, note_name("shift", when), row.run) or {}
        values = [s["relative"] for name, s in layers.items() if name in own and s["relative"] is not None]
        if values:
            found[row.seed] = math.fsum(values) / len(values)
    return found


def _own_layers(study: Study) -> set[str]:
    """Those that every measurement has."""
    measured = [set[str](layers) for layers in study.read_note("shift").values() if not_applicable(layers) is None]
    return set.intersection(*measured) if measured else set()


def final_drift(study: Study, runs: Sequence[StoredRun], arm: SummaryRow) -> dict[str, dict[int, float]]:
    """Drift of the means of each hidden layer's inputs from where they began, at the last look, by seed."""
    found: dict[str, dict[int, float]] = {}
    for seed, run in runs_by_seed(study, runs, arm).items():
        looks = _looks(run)
        for layer, seen in (looks[-1]["layers"] if looks else {}).items():
            if seen["drift"] is not None:
                found.setdefault(layer, {})[seed] = seen["drift"]
    return found


def mean_drift(layers: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """Drift by seed, the mean over the layers."""
    seeds = set[int]().union(*(by_seed for by_seed in layers.values()))
    return {
        seed: math.fsum(by_seed[seed] for by_seed in layers.values() if seed in by_seed)
        / sum(seed in by_seed for by_seed in layers.values())
        for seed in sorted(seeds)
    }


def drift_course(study: Study, runs: Sequence[StoredRun], arm: SummaryRow) -> tuple[list[float], list[float]] | None:
    """Epochs, and the drift as a mean over layers and seeds."""
    courses: list[list[float]] = []
    epochs: list[float] = []
    for run in runs_by_seed(study, runs, arm).values():
        course: list[float] = []
        looks = _looks(run)
        for look in looks:
            values = [s["drift"] for s in look["layers"].values() if s["drift"] is not None]
            course.append(math.fsum(values) / len(values) if values else math.nan)
        courses.append(course)
        epochs = [look["step"] * run.config.batch_size / study.examples_of(run) for look in looks]
    if not courses or not epochs:
        return None
    means = [math.fsum(at) / len(at) for at in zip(*courses, strict=False)]
    return epochs[: len(means)], means


def _looks(run: StoredRun) -> list[Any]:
    return [row for row in run.rows if row.get("kind") == "activations" and not_applicable(row) is None]
