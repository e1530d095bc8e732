"""The study of distance on a bowl whose descent has a closed form, and what it concludes, shows, and does only once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from batchscope.errors import UsageError
from batchscope.laboratory.readings import arm_of
from batchscope.laboratory.records import Finding, Length, Study, StudyQuestion
from batchscope.laboratory.studies.distance import STUDY
from batchscope.laboratory.studies.distance.measure import histograms_of
from batchscope.laboratory.study import study
from batchscope.laboratory.travel import ALL, Group, groups_of, travel_of, travelled, update_of, with_travel
from batchscope.store.runs import read_runs

from ..cut_off import no_time_for_runs
from .bowl import CURVATURES, EXAMPLES, Bowl, shrunk


def asked(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (4, 20),
        "lrs": (0.01, 0.1),
        "seeds": (0, 1, 2),
        "length": Length(unit="epochs", amount=3),
    }
    return StudyQuestion(**{**values, **changes})


def made(tmp_path: Path, task: Any = None, **how: Any) -> Study:
    return study(task or Bowl(), asked(**how), out=tmp_path / "out", named=STUDY)


def finding_on(found: Study, words: str) -> Finding:
    return next(f for f in found.findings if words in f.statement)


# --- against the closed form --------------------------------------------------------------------------------------


def test_distance_norm_and_angles_are_on_the_closed_form(tmp_path: Path) -> None:
    found = made(tmp_path)
    runs = read_runs(tmp_path / "out")
    groups = {group.label: group for group in groups_of(runs)}
    assert list(groups) == ["all parameters", "weights", "biases", "layer first", "layer second"]
    for run in runs:
        lr, steps = run.config.lr, run.result.steps if run.result else 0
        start = {name: travel_of(run, groups[f"layer {name}"], "norm")[0] for name in CURVATURES}
        moved = {name: start[name] * (1 - shrunk(lr, steps, name)) for name in CURVATURES}
        for name, expected in moved.items():
            assert travel_of(run, groups[f"layer {name}"])[steps] == pytest.approx(expected, rel=1e-9)
            assert travel_of(run, groups[f"layer {name}"], "norm_change")[steps] == pytest.approx(
                shrunk(lr, steps, name) - 1
            )
            assert travel_of(run, groups[f"layer {name}"], "angle_degrees")[steps] == pytest.approx(180.0)
            assert travel_of(run, groups[f"layer {name}"], "turned_degrees")[steps] == pytest.approx(0.0, abs=1e-5)
        assert travel_of(run, ALL)[steps] == pytest.approx(math.hypot(*moved.values()))
        both = [travel_of(run, groups[name])[steps] for name in ("weights", "biases")]
        assert math.hypot(*both) == pytest.approx(travel_of(run, ALL)[steps])
    assert found.complete


def test_updates_of_a_step_and_of_an_epoch_are_on_the_closed_form(tmp_path: Path) -> None:
    made(tmp_path, Bowl(layers=("first",)))
    for run in read_runs(tmp_path / "out"):
        lr, per_epoch = run.config.lr, EXAMPLES // run.config.batch_size
        radius = travel_of(run, ALL, "norm")[0]
        at = [radius * shrunk(lr, per_epoch * epoch, "first") for epoch in range(4)]
        gone = [at[i] - at[i + 1] for i in range(3)]
        assert update_of(run, "norm_of_sum") == pytest.approx(sum(gone) / 3)
        assert update_of(run, "mean_norm") == pytest.approx(sum(gone) / 3 / per_epoch)
        assert update_of(run, "straightness") == pytest.approx(1.0)


def test_over_the_seeds_there_are_means_pairs_and_courses(tmp_path: Path) -> None:
    found = made(tmp_path)
    runs = read_runs(tmp_path / "out")
    arm = arm_of(found, 20, 0.1)
    assert arm is not None
    own = [run for run in runs if (run.config.batch_size, run.config.lr) == (20, 0.1)]
    ends = {run.config.seed: travel_of(run)[6] for run in own}
    mean, by_seed = travelled(found, runs, arm)
    assert by_seed == ends
    assert mean.value == pytest.approx(sum(ends.values()) / 3)
    assert travelled(found, runs, arm, moment="best")[1] == ends  # the loss falls to the end
    course = with_travel(found, runs, arm, (ALL, Group("first", ("layers", "first"))), ("distance", "angle_degrees"))
    assert course is not None
    assert course.mean["distance of all parameters"][-1] == pytest.approx(mean.value)
    assert course.low["distance of all parameters"][-1] == min(ends.values())
    assert course.high["distance of first"][0] == 0.0
    assert course.mean["angle_degrees of first"] == pytest.approx((180.0,) * 4)  # no angle before the first step


# --- what is concluded --------------------------------------------------------------------------------------------


def test_what_shen_found_is_found_where_the_number_of_steps_decides(tmp_path: Path) -> None:
    found = made(tmp_path)
    for words in (
        "a large batch at the same learning rate stays nearer",
        "so it is in every layer",
        "a higher learning rate lets a large batch go farther",
        "the best solutions lie farther out",
        "does not get as far as the best solutions lie",
    ):
        assert finding_on(found, words).verdict == "so", words
    # 30 steps against 6 at learning rate 0.01 shrink the norm by up to 15 %
    assert finding_on(found, "the norm of the weights hardly changes").verdict == "not so"
    nearer = finding_on(found, "stays nearer")
    runs = {run.id: run for run in read_runs(tmp_path / "out")}
    arms = {run.config.batch_size for run in (runs[name] for name in nearer.runs)}
    assert arms == {4, 20}
    assert nearer.effect is not None
    far = {
        (r.config.batch_size, r.config.seed): travel_of(r)[max(travel_of(r))] for r in map(runs.get, nearer.runs) if r
    }
    assert nearer.effect.value == pytest.approx(
        math.exp(sum(math.log(far[20, seed] / far[4, seed]) for seed in range(3)) / 3)
    )


def test_what_contradicts_it_is_said_as_clearly(tmp_path: Path) -> None:
    found = made(tmp_path, Bowl(power=2), lrs=(0.1,))
    assert finding_on(found, "stays nearer").verdict == "not so"
    assert finding_on(found, "so it is in every layer").verdict == "not so"
    assert finding_on(found, "does not get as far").verdict == "not so"  # the large batch is the best
    assert not any("a higher learning rate" in f.statement for f in found.findings)


def test_one_seed_leaves_it_open(tmp_path: Path) -> None:
    found = made(tmp_path, seeds=(3,))
    assert [f.verdict for f in found.findings if f.verdict] == ["left open"] * 7


def test_one_batch_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="distance compares batch sizes, and --batch-sizes has only 4"):
        made(tmp_path, batch_sizes=(4,))


# --- the weights, and the page ------------------------------------------------------------------------------------


def test_weights_are_counted_once_and_kept_only_where_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made(tmp_path, batch_sizes=(4, 10, 20))
    stored = found.measurements["weights"]
    assert [m["batch_size"] for m in stored["moments"]] == [None, 4, 20, 4, 20]
    for parameter in stored["parameters"]:
        for moment in parameter["moments"]:
            assert sum(moment["counts"]) + moment["zeros"] == parameter["size"]
    kept = sorted(path.name for path in (tmp_path / "out").glob("runs/*/weights-*"))
    assert kept == ["weights-epoch-0.pt"] * 2 + ["weights-last.pt"] * 4
    monkeypatch.setattr("batchscope.laboratory.studies.distance.measure.histograms_of", pytest.fail)
    again = made(tmp_path, batch_sizes=(4, 10, 20))
    assert again.answer() == found.answer()


def test_histograms_are_those_of_slow_counting() -> None:
    draw = torch.Generator().manual_seed(0)
    states = [{"w": torch.randn(50, 4, generator=draw), "b": torch.zeros(3)} for _ in range(2)]
    (found,) = histograms_of(states, ["w", "b"], bins=9)  # what is zero at every moment has no histogram
    width = 2 * found.limit / 9
    for state, moment in zip(states, found.moments, strict=True):
        values = state["w"].double().flatten().tolist()
        slow = [0] * 9
        for value in values:
            slow[int((value + found.limit) // width)] += 1
        assert moment.counts == tuple(slow)
        assert moment.largest == max(map(abs, values))
        assert moment.deviation**2 == pytest.approx(sum((v - moment.mean) ** 2 for v in values) / 200)


def test_a_budget_that_ends_leaves_the_rest_for_the_next_call(tmp_path: Path) -> None:
    with no_time_for_runs():
        cut = made(tmp_path)
    assert (cut.complete, cut.rows, dict(cut.measurements)) == (False, (), {})
    whole = made(tmp_path)
    assert whole.complete
    assert len(whole.rows) == 12


def test_the_page_shows_every_part_and_says_what_there_is_not(tmp_path: Path) -> None:
    made(tmp_path)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for section in ("published", "distance", "equal-steps", "layers", "sphere", "best-solutions", "weights", "updates"):
        assert f'<section id="{section}">' in page
    made(tmp_path / "one", Bowl(layers=("first",)), seeds=(0,), lrs=(0.1,), length=Length(unit="steps", amount=1))
    page = (tmp_path / "one" / "out" / "report.html").read_text(encoding="utf-8")
    assert "The model has one layer" in page
    assert '<section id="updates">' not in page  # no run lasted an epoch


def test_runs_that_diverge_are_left_out(tmp_path: Path) -> None:
    found = made(tmp_path, lrs=(0.1, 1e30), seeds=(0, 1))
    assert finding_on(found, "at learning rate 0.1, after").verdict == "so"
    assert not any("at learning rate 1e30, after" in f.statement for f in found.findings)
    lost = made(tmp_path / "all", lrs=(1e30,), seeds=(0, 1))
    assert not any(f.verdict for f in lost.findings)
    assert "No run was followed to its end" in (tmp_path / "all" / "out" / "report.html").read_text(encoding="utf-8")
    # at learning rate 20 a step of 20 examples overshoots by half, one of 4 shrinks the weights by a tenth
    half = made(tmp_path / "half", Bowl(power=2), lrs=(0.1, 20.0), seeds=(0, 1), length=Length(unit="epochs", amount=9))
    assert [s.diverged for s in half.summary] == [0, 0, 0, 2]
    assert [m["batch_size"] for m in half.measurements["weights"]["moments"]] == [None, 4, 20, 4]
    page = (tmp_path / "half" / "out" / "report.html").read_text(encoding="utf-8")
    assert '<figure id="weights-0">' in page
