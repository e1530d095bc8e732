"""The figures on the page of the verdicts: they show what was measured."""

from __future__ import annotations

import re

import pytest

from batchscope.laboratory.claims import lengths
from batchscope.laboratory.claims.page.sections import (
    convergence,
    distance,
    gradients,
    learning_rate,
    length,
    noise,
    normalisation,
    speed,
    trials,
)
from batchscope.laboratory.claims.plan import LONG
from batchscope.report.blocks import Table

from .page_results import EXAMPLES, PLAN, figures_of, found, loss_at, points_of


def test_curves_of_both_rates_share_their_axes() -> None:
    claims, evidence = found()
    figure = figures_of(convergence.build(claims, evidence))["loss-curves"]
    up = next(switch for switch in figure.switches if switch.axis == "y")
    labels = [option.label for option in up.options]
    assert labels[:2] == ["training loss, one for all", "training loss, best of each"]
    assert up.options[0].layout == up.options[1].layout
    assert evidence.one_rate == 0.01
    assert up.options[0].data[2][-1] == pytest.approx(loss_at(200, 0.01, 8) * 1.01, rel=1e-4)
    assert up.options[1].data[2][-1] == pytest.approx(loss_at(200, 0.1, 8) * 1.01, rel=1e-4)
    across = next(switch for switch in figure.switches if switch.axis == "x")
    assert [option.data[2][-1] for option in across.options] == [8, 40]


def test_scores_and_gaps_by_batch_size() -> None:
    claims, evidence = found()
    figures = figures_of(convergence.build(claims, evidence))
    one, best = figures["final-score"].data[1], figures["final-score"].data[3]
    assert points_of(one)[200] == pytest.approx(1 - loss_at(200, 0.01, 8) * 1.01 / 4, rel=1e-4)
    assert points_of(best)[200] == pytest.approx(1 - loss_at(200, 0.1, 8) * 1.01 / 4, rel=1e-4)
    assert all(abs(gap) < 1e-9 for trace in figures["gap"].data for gap in trace["y"])


def test_step_times_and_memory() -> None:
    claims, evidence = found()
    figures = figures_of(speed.build(claims, evidence))
    assert points_of(figures["step-time"].data[1]) == pytest.approx({1: 1e-3, 10: 1e-3, 40: 2e-3, 200: 4e-3}, rel=5e-3)
    assert points_of(figures["examples-a-second"].data[1])[200] == pytest.approx(50000, rel=5e-3)
    assert "come at batch size 200" in figures["examples-a-second"].caption
    assert points_of(figures["memory"].data[1]) == {10: 1100, 40: 1400, 200: 3000}


def test_long_runs_mark_the_minimum_and_the_stop() -> None:
    claims, evidence = found()
    figures = figures_of(length.build(claims, evidence))
    marks = figures["long-runs"].data[-4:]
    assert [trace["marker"]["symbol"] for trace in marks] == ["circle", "triangle-up-open"] * 2
    arm = evidence.at_one_rate(PLAN.long_sizes[0], LONG)
    courses = [evidence.course(row) for row in evidence.rows(arm)]
    best = [min(course, key=lambda x: x.metrics["val_loss"]).epoch for course in courses]
    assert marks[0]["x"] == pytest.approx([sum(best) / len(best)], rel=1e-4)
    assert marks[1]["x"][0] >= marks[0]["x"][0] + lengths.patience_of(evidence) - 1e-9
    epochs, steps = figures["equal-steps"].data[1], figures["equal-steps"].data[3]
    assert points_of(epochs)[200] == pytest.approx(loss_at(200, 0.01, 8) * 1.01, rel=1e-4)
    assert set(points_of(steps)) == set(PLAN.batch_sizes)


def test_the_grid_frames_the_best_rates() -> None:
    claims, evidence = found()
    figure = figures_of(learning_rate.build(claims, evidence))["rates"]
    assert figure.data[0]["x"] == ["0.01", "0.1"]
    assert figure.data[0]["y"] == ["10", "40", "200"]
    centres = [((s["x0"] + s["x1"]) / 2, (s["y0"] + s["y1"]) / 2) for s in figure.layout["shapes"]]
    assert [(round(x), round(y)) for x, y in centres] == [(0, 0), (1, 1), (1, 2)]
    assert "0.01 at batch size 10" in figure.caption
    assert "10 times the learning rate for 20 times the batch" in figure.caption


def test_gradient_figures_show_what_was_noted() -> None:
    claims, evidence = found()
    figures = figures_of(gradients.build(claims, evidence))
    assert points_of(figures["gradient-variance"].data[1]) == pytest.approx({1: 8, 10: 0.8, 40: 0.2, 200: 0.04})
    assert points_of(figures["gradient-variance"].data[3]) == pytest.approx({1: 8, 10: 0.8, 40: 0.2, 200: 0.04})
    assert points_of(figures["cosine"].data[1])[200] == pytest.approx(0.8)
    shares = [sum(trace["y"]) for trace in figures["competition"].data]
    assert shares == pytest.approx([1, 1, 1], rel=1e-3)
    assert figures["entries"].data[2]["y"] == [None, 0.3, 0.4, 0.3, None]
    assert figures["entries"].layout["xaxis"]["range"] == pytest.approx([-0.8, 0.8])
    assert "63 at steps of 512" in figures["entries"].caption


def test_distances_and_sharpness() -> None:
    claims, evidence = found()
    figures = figures_of(distance.build(claims, evidence))
    far = points_of(figures["distances"].data[1])
    assert far[10] / far[200] == pytest.approx((800 / 40) ** 0.5, rel=1e-4)
    keskar = figures["sharpness-keskar"]
    assert sorted(keskar.data[0]["y"]) == pytest.approx([0.5, 0.6, 0.7, 2.0, 2.1, 2.2])
    assert "times" in keskar.caption


def test_robustness_is_the_cost_of_the_strongest_disturbance() -> None:
    claims, evidence = found()
    figures = figures_of(normalisation.build(claims, evidence))
    assert [trace["y"] for trace in figures["disturbed"].data] == [
        pytest.approx([0.21, 0.21, 0.21]),
        pytest.approx([0.11, 0.11, 0.11]),
    ]
    assert len(figures["norm-curves"].data) == 6


def test_the_gap_on_little_data_is_taken_at_one_training_loss() -> None:
    claims, evidence = found()
    figures = figures_of(noise.build(claims, evidence))
    assert set(points_of(figures["gap-few"].data[1])) == set(PLAN.few_sizes(EXAMPLES))
    assert "gap-few" in figures
    assert re.search(r"Where the training loss is 0\.\d+, the gap is", figures["gap-few"].caption)


def test_trials_are_listed_until_the_choice() -> None:
    claims, evidence = found()
    blocks = trials.build(claims, evidence).blocks
    table = next(block for block in blocks if isinstance(block, Table))
    assert table.rows[0][1:3] == ("10", "1")
    assert table.emphasised is not None
    assert "stays" in table.rows[-1][0] or "no larger batch" in table.rows[-1][0]
