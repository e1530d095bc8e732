"""The noise-scale estimate: unbiased by enumeration, and its interval covers what it says."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.fits.noise_scale import (
    Readings,
    effective_batch_size,
    equal_groups,
    estimate,
    estimate_layers,
    estimate_parts,
    recent,
    trace,
)

DIMENSIONS = 40


def make_row(groups: np.ndarray, group_size: int, step: int = 0) -> dict[str, Any]:
    """The row of one step, from the mean gradients of its groups, shape (groups, parameters)."""
    return {
        "kind": "noise",
        "step": step,
        "examples": step * len(groups) * group_size,
        "groups": len(groups),
        "group_size": group_size,
        "mean_square_norm": float((groups**2).sum(axis=1).mean()),
        "square_norm_of_mean": float((groups.mean(axis=0) ** 2).sum()),
    }


def simulate(
    generator: np.random.Generator,
    *,
    noise_scale: float,
    readings: int,
    groups: int = 2,
    group_size: int = 32,
    fall: float = 1.0,
    noise_fall: float = 1.0,
) -> tuple[list[dict[str, Any]], float]:
    """Rows with Gaussian noise of a falling spectrum; |G| falls by `fall` along the run, and what the truth is."""
    variance = 1 / np.arange(1, DIMENSIONS + 1)
    variance *= noise_scale / variance.sum()
    gradient = generator.standard_normal(DIMENSIONS) * np.sqrt(variance)
    gradient /= np.linalg.norm(gradient)
    when = np.linspace(0, 1, readings)
    size, deviation = fall**-when, noise_fall**-when
    draws = generator.standard_normal((readings, groups, DIMENSIONS)) * np.sqrt(variance / group_size)
    draws = draws * deviation[:, None, None] + gradient * size[:, None, None]
    rows = [make_row(draw, group_size, step=4 * i) for i, draw in enumerate(draws)]
    return rows, noise_scale * float((deviation**2).sum() / (size**2).sum())


@pytest.mark.parametrize(("groups", "group_size"), [(2, 1), (2, 2), (4, 1), (2, 3), (3, 2)])
def test_unbiased_without_replacement_by_enumeration(groups: int, group_size: int) -> None:
    population = np.random.default_rng(3).standard_normal((6, 3)) + np.array([1.0, 0.0, 0.0])
    mean = population.mean(axis=0)
    rows = [
        make_row(population[list(order)].reshape(groups, group_size, 3).mean(axis=1), group_size)
        for order in itertools.permutations(range(6), groups * group_size)
    ]
    readings = Readings.of(rows, examples=6)
    assert readings.trace.mean() == pytest.approx(((population - mean) ** 2).sum(axis=1).mean(), rel=1e-12)
    assert readings.square.mean() == pytest.approx((mean**2).sum(), rel=1e-12)
    assert Readings.of(rows).square.mean() < 0.9 * (mean**2).sum()  # what the formula for independent draws would say


def test_unbiased_with_replacement_by_enumeration() -> None:
    population = np.random.default_rng(4).standard_normal((4, 2)) + 0.5
    mean = population.mean(axis=0)
    orders = itertools.product(range(4), repeat=4)
    readings = Readings.of([make_row(population[list(o)].reshape(2, 2, 2).mean(axis=1), 2) for o in orders])
    assert readings.trace.mean() == pytest.approx(((population - mean) ** 2).sum(axis=1).mean(), rel=1e-12)
    assert readings.square.mean() == pytest.approx((mean**2).sum(), rel=1e-12)


@pytest.mark.parametrize(
    "case",
    [
        {"noise_scale": 10, "readings": 8},
        {"noise_scale": 100, "readings": 16},
        {"noise_scale": 100, "readings": 60},
        {"noise_scale": 100, "readings": 40, "groups": 8, "group_size": 8},
        {"noise_scale": 10, "readings": 40, "fall": 10.0},
        {"noise_scale": 30, "readings": 60, "fall": 5.0, "noise_fall": 3.0},
        {"noise_scale": 1000, "readings": 30},
    ],
    ids=str,
)
def test_interval_covers_nine_times_of_ten(case: dict[str, Any]) -> None:
    generator = np.random.default_rng(11)
    hits = 0
    for _ in range(400):
        rows, truth = simulate(generator, **case)
        found = estimate(rows)
        hits += (found.low or 0.0) <= truth <= (found.high or math.inf)
    assert 0.84 <= hits / 400 <= 0.95


def test_one_sided_where_the_gradient_cannot_be_told_from_noise() -> None:
    generator = np.random.default_rng(7)
    found = [estimate(simulate(generator, noise_scale=5000, readings=20)[0]) for _ in range(200)]
    open_ended = [e for e in found if e.high is None]
    assert len(open_ended) > 150
    assert all(e.low is not None and e.low > 0 for e in open_ended)
    assert np.mean([e.low <= 5000 for e in open_ended if e.low is not None]) >= 0.9
    assert np.median([e.low for e in open_ended if e.low is not None]) > 200


def test_f40_negative_readings_are_kept_and_a_negative_sum_has_no_value_but_a_bound() -> None:
    generator = np.random.default_rng(1)
    rows, truth = simulate(generator, noise_scale=300, readings=4000)
    readings = Readings.of(rows)
    assert (readings.square < 0).mean() > 0.3
    error = readings.square.std() / math.sqrt(readings.n)
    assert abs(readings.square.mean() - 1) < 3 * error
    found = estimate(rows)
    assert found.value == pytest.approx(truth, rel=0.2)
    below = estimate([row for row, square in zip(rows, readings.square, strict=True) if square < 0.5][:100])
    assert below.value is None
    assert below.high is None
    assert below.low is not None
    assert below.low > 0


def test_f50_the_grouping_does_not_move_the_estimate() -> None:
    generator = np.random.default_rng(2)
    found = []
    for groups, group_size in ((2, 32), (4, 16), (16, 4), (2, 8), (3, 100)):
        rows, truth = simulate(generator, noise_scale=50, readings=1500, groups=groups, group_size=group_size)
        readings = Readings.of(rows)
        found.append(readings.trace.mean() / readings.square.mean())
        assert readings.trace.mean() == pytest.approx(truth, rel=0.04)
    np.testing.assert_allclose(found, 50, rtol=0.15)


def test_batches_of_different_size_count_by_their_size() -> None:
    generator = np.random.default_rng(9)
    small, _ = simulate(generator, noise_scale=40, readings=300, group_size=4)
    large, truth = simulate(generator, noise_scale=40, readings=300, group_size=256)
    found = estimate([*small, *large])
    assert found.low is not None
    assert found.high is not None
    assert found.low < truth < found.high
    assert found.high / found.low < 1.3


def test_few_readings_leave_the_interval_open() -> None:
    rows, _ = simulate(np.random.default_rng(0), noise_scale=1, readings=4)
    found = estimate(rows)
    assert (found.low, found.high, found.n) == (None, None, 4)
    assert found.value is not None
    assert estimate([]).value is None
    assert trace([]) == ()


def test_other_rows_are_passed_over() -> None:
    rows, _ = simulate(np.random.default_rng(0), noise_scale=1, readings=10)
    mixed = [{"kind": "evaluation", "step": 1, "metrics": {}}, *rows]
    assert estimate(mixed) == estimate(rows)


def test_gradients_that_are_all_zero_say_nothing() -> None:
    found = estimate([make_row(np.zeros((2, 3)), 4) for _ in range(10)])
    assert (found.value, found.low, found.high) == (None, None, None)


def test_without_noise_the_scale_is_zero() -> None:
    found = estimate([make_row(np.ones((2, 3)), 4) for _ in range(10)])
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_trace_follows_a_growing_scale() -> None:
    rows, _ = simulate(np.random.default_rng(5), noise_scale=5, readings=160, fall=6.0)
    blocks = trace(rows, blocks=8)
    values = [b.value for b in blocks if b.value is not None]
    assert len(values) == 8
    assert values[-1] > 10 * values[0]
    assert [b.n for b in blocks] == [20] * 8
    assert blocks[0].step == pytest.approx(4 * 9.5)
    assert blocks[0].examples == pytest.approx(64 * 4 * 9.5)
    assert all((b.low or 0.0) <= b.value <= (b.high or math.inf) for b in blocks if b.value is not None)


def test_a_short_run_has_fewer_blocks() -> None:
    rows, _ = simulate(np.random.default_rng(5), noise_scale=5, readings=12)
    assert [b.n for b in trace(rows, blocks=8)] == [6, 6]


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 100))
def test_the_unit_of_the_loss_does_not_matter(scale: float, seed: int) -> None:
    rows, _ = simulate(np.random.default_rng(seed), noise_scale=20, readings=12)
    scaled = [row | {key: row[key] * scale for key in ("mean_square_norm", "square_norm_of_mean")} for row in rows]
    first, second = estimate(rows), estimate(scaled)
    for a, b in ((first.value, second.value), (first.low, second.low), (first.high, second.high)):
        assert (a is None) == (b is None)
        assert a is None or a == pytest.approx(b, rel=1e-6)


@pytest.mark.parametrize(
    ("shares", "sizes"), [((0.25, 0.75), (1, 3)), ((0.5, 0.5), (1, 3)), ((0.2, 0.3, 0.5), (2, 1, 1))]
)
def test_unequal_groups_are_unbiased_by_enumeration(shares: tuple[float, ...], sizes: tuple[int, ...]) -> None:
    """Over all ordered draws with replacement; in the last case shares and sizes have nothing to do with each other."""
    population = np.random.default_rng(4).standard_normal((4, 2)) + 0.5
    mean = population.mean(axis=0)
    rows = []
    for order in itertools.product(range(4), repeat=sum(sizes)):
        groups = [part.mean(axis=0) for part in np.split(population[list(order)], np.cumsum(sizes)[:-1])]
        pieces = np.array([share * group for share, group in zip(shares, groups, strict=True)])
        whole = float((pieces.sum(axis=0) ** 2).sum())
        row = make_row(pieces, 1) | {
            "square_norm_of_mean": whole,
            "mean_square_norm": equal_groups([float((piece**2).sum()) for piece in pieces], shares, whole),
            "group_size": effective_batch_size(shares, sizes) / len(shares),
        }
        rows.append(row)
    readings = Readings.of(rows)
    assert readings.trace.mean() == pytest.approx(((population - mean) ** 2).sum(axis=1).mean(), rel=1e-9)
    assert readings.square.mean() == pytest.approx((mean**2).sum(), rel=1e-9)


def test_one_group_is_no_noise() -> None:
    for shares in ([1.0], [1.0, 0.0]):
        with pytest.raises(ValueError, match="two"):
            equal_groups([1.0] * len(shares), shares, 1.0)


@pytest.mark.parametrize("case", [{"readings": 12}, {"readings": 60}, {"readings": 60, "fall": 5.0}], ids=str)
def test_intervals_of_signal_and_noise_cover_nine_times_of_ten(case: dict[str, Any]) -> None:
    generator = np.random.default_rng(12)
    size = np.linspace(0, 1, case["readings"])
    truth = float(np.mean(case.get("fall", 1.0) ** (-2 * size)))
    hits = np.zeros(2)
    for _ in range(400):
        rows, _ = simulate(generator, noise_scale=40, **case)
        for i, (part, true) in enumerate(zip(estimate_parts(rows), (truth, 40.0), strict=True)):
            assert part.low is not None
            assert part.high is not None
            hits[i] += part.low <= true <= part.high
    assert (hits / 400 >= 0.85).all()
    assert (hits / 400 <= 0.95).all()


def test_the_parts_have_the_ratio_of_the_whole() -> None:
    rows, _ = simulate(np.random.default_rng(1), noise_scale=40, readings=30)
    signal, noise = estimate_parts(rows, examples=500)
    assert signal.value is not None
    assert noise.value is not None
    assert noise.value / signal.value == pytest.approx(estimate(rows, examples=500).value)
    assert estimate_parts(rows[:4])[0].low is None
    assert estimate_parts([])[0].value is None


def test_layers_are_estimated_each_by_itself() -> None:
    first, _ = simulate(np.random.default_rng(1), noise_scale=40, readings=30)
    second, _ = simulate(np.random.default_rng(2), noise_scale=4, readings=30)
    keys = ("mean_square_norm", "square_norm_of_mean")
    rows = [
        a | {"layers": {"a": [a[key] for key in keys], "b": [b[key] for key in keys]}}
        for a, b in zip(first, second, strict=True)
    ]
    assert estimate_layers([first[0], *rows]) == {"a": estimate(rows), "b": estimate(second)}
    assert estimate_layers(first) == {}


def test_readings_far_back_do_not_dominate() -> None:
    """A noise scale that rises fiftyfold half-way: what is said at the end is the present."""
    generator = np.random.default_rng(6)
    early, _ = simulate(generator, noise_scale=5, readings=300)
    late, _ = simulate(generator, noise_scale=250, readings=300, group_size=128)
    found = estimate(recent([*early, *late]))
    assert found.low is not None
    assert found.value == pytest.approx(250, rel=0.2)
    assert found.low > 150
