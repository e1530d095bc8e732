"""Gradient competition as a study: on gradients known by hand, cut off and gone on with, and under chance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import TensorDataset

from batchscope.laboratory.records import Finding, Length, Study, StudyQuestion
from batchscope.laboratory.studies import gradient_competition, named_study
from batchscope.laboratory.studies.gradient_competition.pairs import Pairs, pairs_of
from batchscope.laboratory.study import study

Cli = Callable[..., Any]

EXAMPLES, LR = 24, 0.2
STUDY = named_study("gradient_competition")


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))


class Slopes:
    """Loss `z · w`: the gradient of an example is its z, half of them along one axis and half along the other."""

    name = "slopes"

    def model(self) -> nn.Module:
        return Point()

    def train_data(self) -> TensorDataset:
        return TensorDataset(torch.eye(2, dtype=torch.float64).repeat(EXAMPLES // 2, 1))

    def loss(self, model: Any, batch: Any) -> Tensor:
        return (batch[0] @ model.w).mean()

    def optimizer(self, params: Any, lr: float) -> SGD:
        return SGD(params, lr=lr)

    def evaluate(self, model: Any) -> Mapping[str, float]:
        return {"val_loss": float(model.w.detach().sum())}


class Bowl(Slopes):
    """Loss ½ ‖w‖²: all gradients are w, and the second is `(1 − lr) w` after a step."""

    def loss(self, model: Any, batch: Any) -> Tensor:
        return (0.5 * model.w.square().sum() + 0.0 * batch[0].sum(1)).mean()


class Noisy(Bowl):
    def loss(self, model: Any, batch: Any) -> Tensor:
        return super().loss(model, batch) * (1.0 + 0.1 * torch.rand((), dtype=torch.float64))


def question(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (1, 4, 8),
        "lrs": (LR,),
        "seeds": (0,),
        "length": Length(unit="epochs", amount=5),
        "repeats": 12,
    }
    return StudyQuestion(**{**values, **changes})


def made(out: Path, task: Any = None, asked: StudyQuestion | None = None, **how: Any) -> Study:
    return study(task or Slopes(), asked or question(), out=out, named=STUDY, **how)


def decided(found: Study) -> list[Finding]:
    return [f for f in found.findings if f.verdict is not None]


def of(found: Study, part: str, batch_size: int) -> Pairs:
    return next(p for p in pairs_of(found) if (p.part, p.batch_size) == (part, batch_size))


def test_gradients_at_right_angles_compete(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert [(p.part, p.batch_size, len(p)) for p in pairs_of(found)] == [
        (part, size, 12) for part in ("start", "early", "end") for size in (1, 4)
    ]
    pairs = of(found, "early", 1)
    assert set(pairs.cosines) <= {0.0, 1.0}
    alike = sum(pairs.cosines)
    assert 0 < alike < 12
    assert pairs.mean_cosine.value == pytest.approx(alike / 12)
    assert sorted(pairs.kept) == pytest.approx([math.sqrt(0.5)] * round(12 - alike) + [1.0] * round(alike))
    assert pairs.ratio_kept.value == pytest.approx((2 * alike + math.sqrt(2) * (12 - alike)) / 24)
    assert (pairs.ratio_of_second.value, pairs.ratio_per_step.value) == (pytest.approx(1.0), pytest.approx(1.0))
    assert pairs.ratio_of_ways.value == pytest.approx(0.5)
    assert pairs.kept == pytest.approx(pairs.kept_in_turn)
    assert pairs.share_opposed == 0.0
    for size in (1, 4):
        for p in (of(found, part, size) for part in ("start", "early", "end")):
            assert p.norms("norm_as_one") == pytest.approx([n / 2 for n in p.norms("norm_of_sum")], rel=1e-6)


def test_the_median_arrow_is_the_pair_as_it_was(tmp_path: Path) -> None:
    arrow = of(made(tmp_path, Bowl()), "start", 1).median_arrow()
    assert arrow is not None
    assert arrow.first == pytest.approx((5.0, 0.0))
    assert arrow.second == pytest.approx((5.0 * (1 - LR), 0.0), abs=1e-6)
    assert arrow.both == pytest.approx((5.0 * (2 - LR), 0.0), abs=1e-6)
    assert arrow.as_one == pytest.approx((5.0, 0.0), abs=1e-6)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in ("competition-arrows-early", "competition-sums-end", "competition-cosine", "competition-kept-size"):
        assert f'<figure id="{name}">' in page
    assert '"scaleanchor":"x"' in page


def test_parallel_gradients_are_no_competition_and_a_mean_is_no_finding(tmp_path: Path) -> None:
    found = made(tmp_path, Bowl())
    pairs = of(found, "end", 1)
    assert pairs.ratio_of_second.value == pytest.approx(1 - LR)
    assert pairs.ratio_per_step.value == pytest.approx(2 / (2 - LR))
    compete, together, each = decided(found)
    assert [f.verdict for f in (compete, together, each)] == ["not so", "so", "not so"]
    assert "of which the mean over the batch makes 0.5" in together.statement
    assert any("the triangle inequality, and no finding" in f.statement for f in found.findings)


def test_chance_in_the_loss_is_no_competition(tmp_path: Path) -> None:
    found = made(tmp_path, Noisy())
    assert [p.reason.startswith("the loss of one batch was") for p in pairs_of(found)] == [True] * 6
    assert [f.verdict for f in decided(found)] == ["left open"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "chance in it would count as competition" in page


def test_an_interrupted_measurement_keeps_its_pairs_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchscope.probes import competition

    monkeypatch.setattr(gradient_competition, "_PIECE", 5)
    whole = made(tmp_path / "whole")
    measure, calls = competition.measure_competition, 0

    def interrupted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return measure(*arguments, **named)

    monkeypatch.setattr(competition, "measure_competition", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "cut")
    kept = json.loads((tmp_path / "cut" / "measured-competition-seed-0-start-b1.json").read_text(encoding="utf-8"))
    assert len(kept["data"]["columns"]["norm_a"]) == 10
    resumed = made(tmp_path / "cut")
    assert resumed.measurements == whole.measurements
    assert calls == 3 + 6 * 3 - 2


def test_a_budget_that_ends_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from batchscope.laboratory.engine import Laboratory

    monkeypatch.setattr(gradient_competition, "_PIECE", 5)
    late = property(lambda laboratory: laboratory.read_note("competition-seed-0-start-b1") is not None)
    monkeypatch.setattr(Laboratory, "late", late)
    cut = made(tmp_path)
    assert not cut.complete
    assert "at the start, 5 of 12 pairs of batches of 1 were measured" in [f.statement for f in cut.findings]
    monkeypatch.undo()
    assert made(tmp_path).complete


def test_one_batch_size_is_trained_and_paired(tmp_path: Path) -> None:
    found = made(tmp_path, asked=question(batch_sizes=(4,), length=Length(unit="steps", amount=3)))
    assert {(p.part, p.batch_size) for p in pairs_of(found)} == {("start", 4), ("end", 4)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lrs 0.1,0.2", "at one learning rate, and --lrs has 2"),
        ("--batch-sizes 8,800,1024", "need 1600, and the training set has 1437"),
        ("--batch-sizes 8,2000", "2000 is larger than the training set of 1437"),
    ],
)
def test_what_makes_no_sense_is_one_message(cli: Cli, words: str, message: str) -> None:
    ended = cli(f"study gradient_competition digits {words}")
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err
