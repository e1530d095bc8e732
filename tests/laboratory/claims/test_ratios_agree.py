"""A ratio over the seeds is the same estimate wherever it is taken, zeros or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from batchscope.fits import intervals
from batchscope.laboratory.claims.geometry import distance
from batchscope.laboratory.claims.outcome import below
from batchscope.laboratory.claims.records import Verdict
from batchscope.laboratory.claims.results import TaskResults
from batchscope.laboratory.studies.batch_norm.effects import Tolerance, higher
from batchscope.laboratory.studies.distance.conclusions import travel_findings
from batchscope.laboratory.studies.modes.passages import Passages
from batchscope.laboratory.studies.sharp_minima.sharpness import KESKAR, measurement_name, ratio_of, size_pairs
from batchscope.store.records import Estimate

from .made_results import PLAN, Metrics, evidence

Seeds = Mapping[int, float]

SMALL, LARGE, LR = PLAN.smallest, PLAN.largest, PLAN.lrs[0]


def falling(batch_size: int, lr: float, seed: int, epoch: float) -> Metrics:
    loss = 2.0 / (1.0 + epoch)
    return {"val_loss": loss, "train_loss_eval": loss}


def with_distances(small: Seeds, large: Seeds) -> TaskResults:
    """Runs whose distance from the initial weights, at the end, is as given."""
    e = evidence(falling)
    runs = dict(e.runs)
    for size, values in ((SMALL, small), (LARGE, large)):
        for seed, value in values.items():
            run = runs[f"grid-{size}-{LR:g}-{seed}"]
            groups = {name: {"distance": value} for name in ("all", "weights", "biases")}
            row = {"kind": "weights", "step": run.result.steps, **groups, "layers": {}}
            runs[run.id] = replace(run, rows=(*run.rows, row))
    return replace(e, runs=runs)


def distance_in_a_study(small: Seeds, large: Seeds) -> Estimate:
    e = with_distances(small, large)
    found = travel_findings(e.study, tuple(e.runs.values()))
    effect = next(f.effect for f in found if "a large batch at the same learning rate" in f.statement)
    assert effect is not None
    return effect


def distance_in_the_claims(small: Seeds, large: Seeds) -> Estimate:
    e = with_distances(small, large)
    arms = [next(a for a in e.arms("") if (a.batch_size, a.lr) == (size, LR)) for size in (SMALL, LARGE)]
    return e.compared(*arms, lambda row: distance(e, row), ratio=True)


def sharpness_in_a_study(small: Seeds, large: Seeds) -> Estimate:
    notes = {
        measurement_name("keskar", f"grid-{size}-{LR:g}-{seed}"): {"boxes": [{"eps": KESKAR.eps, "value": value}]}
        for size, values in ((SMALL, small), (LARGE, large))
        for seed, value in values.items()
    }
    study = replace(evidence(falling).study, measurements=notes)
    return ratio_of(study, next(c for c in size_pairs(study) if c.small.lr == c.large.lr == LR), KESKAR)


def passages_in_a_study(small: Seeds, large: Seeds) -> Estimate:
    return Passages(target=0.0, arms={}, times={"step": {1: small, 8: large}}).ratio("step", 8, 1)


def top_rates_in_a_study(small: Seeds, large: Seeds) -> Estimate:
    one, other = (Tolerance(decades={}, highest=seeds, at_top=False, at_bottom=False) for seeds in (small, large))
    return higher(one, other)


CALLERS = [
    distance_in_a_study,
    distance_in_the_claims,
    sharpness_in_a_study,
    passages_in_a_study,
    top_rates_in_a_study,
]
VALUES: list[tuple[Seeds, Seeds]] = [
    ({0: 1.0, 1: 2.0, 2: 4.0}, {0: 3.0, 1: 5.0, 2: 9.0}),
    ({0: 1.0, 1: 2.0, 2: 4.0}, {0: 3.0, 1: 0.0, 2: 9.0}),
    ({0: 1.0, 1: 2.0, 2: 1.5}, {0: 0.0, 1: 0.0, 2: 0.0}),
    ({0: 0.0, 1: 2.0, 2: 4.0}, {0: 3.0, 1: 5.0, 2: 9.0}),
]


@pytest.mark.parametrize(("small", "large"), VALUES)
@pytest.mark.parametrize("caller", CALLERS)
def test_a_ratio_is_the_same_everywhere(caller: Callable[[Seeds, Seeds], Estimate], small: Seeds, large: Seeds) -> None:
    expected = intervals.geometric_ratio(intervals.matched(large, small))
    assert expected.value is not None
    assert caller(small, large) == expected


def test_a_quantity_that_vanished_is_decided() -> None:
    effect = distance_in_the_claims({0: 1.0, 1: 2.0, 2: 1.5}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert below(effect, 1.0, 0.05, "it").verdict is Verdict.HELD
