"""Sums of gradients as a study: against a closed form, cut off and gone on with, and what is concluded from what."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import TensorDataset

from batchscope.hardware.device import pick
from batchscope.laboratory.records import Length, Study, StudyQuestion
from batchscope.laboratory.studies import named_study
from batchscope.laboratory.studies.gradient_size.measure import measure_part, stretches
from batchscope.laboratory.studies.gradient_size.sums import Bins, gradient_sums_of
from batchscope.laboratory.study import study
from batchscope.store.runs import read_runs
from batchscope.tasks.loading import load_task
from batchscope.tasks.workload import Workload
from batchscope.training.executors.base import CountedExecutor
from batchscope.training.executors.completed import completed
from batchscope.training.executors.in_process import InProcessExecutor
from batchscope.training.executors.processes import ProcessExecutor
from batchscope.training.executors.reloadable_task import ReloadableTask

Cli = Callable[..., Any]

EXAMPLES, LR, START = 20, 0.1, 5.0
STUDY = named_study("gradient_size")
NOTES = ("gradient-sums-seed-0-early", "gradient-sums-seed-0-end")


class Bowl(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((1, 2), START, dtype=torch.float64))


class Bowls:
    """Loss ½ ‖w − z‖² with all z at 0: `g_s = (1 − lr)^s w`, whatever the samples."""

    name = "bowls"

    def __init__(self, spread: float = 0.0) -> None:
        self.z = spread * torch.randn(EXAMPLES, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def model(self) -> nn.Module:
        return Bowl()

    def train_data(self) -> TensorDataset:
        return TensorDataset(self.z)

    def loss(self, model: Any, batch: Any) -> Tensor:
        return 0.5 * (model.w - batch[0]).square().sum(1).mean()

    def optimizer(self, params: Any, lr: float) -> SGD:
        return SGD(params, lr=lr)

    def evaluate(self, model: Any) -> Mapping[str, float]:
        return {"val_loss": float(model.w.square().sum())}


def question(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (1, 3, 10),
        "lrs": (LR,),
        "seeds": (0,),
        "length": Length(unit="epochs", amount=5),
        "repeats": 4,
    }
    return StudyQuestion(**{**values, **changes})


def made(out: Path, task: Any = None, asked: StudyQuestion | None = None, **how: Any) -> Study:
    return study(task or Bowls(), asked or question(), out=out, named=STUDY, **how)


def statements(found: Study) -> list[str]:
    return [finding.statement for finding in found.findings]


def test_norms_are_on_their_closed_form(tmp_path: Path) -> None:
    found = made(tmp_path)
    early, end = gradient_sums_of(found)
    assert [(s.label, s.samples, s.repeats, s.layer) for s in (early, end)] == [
        ("after 2 epochs", 10, 4, "w"),
        ("at the end (epoch 5)", 10, 4, "w"),
    ]
    for sums, steps in ((early, 4), (end, 10)):
        weights = 2**0.5 * START * (1 - LR) ** steps
        expected = {b: b / 10 * sum(weights * (1 - LR) ** s for s in range(10 // b)) for b in (1, 3, 10)}
        assert {z.batch_size: z.norm.value for z in sums.sizes} == pytest.approx(expected)
        assert all(z.sd == pytest.approx(0.0, abs=1e-12) for z in sums.sizes)
        moved = weights - weights * (1 - LR) ** 10
        assert sums.way(sums.smallest) == pytest.approx(moved)
        assert sums.ratio_of_ways.value == pytest.approx(moved / (LR * weights))
        assert [z.bins.total for z in sums.sizes] == [8, 8, 8]
        assert [sum(z.beyond) for z in sums.sizes] == [0, 0, 8]
    said = statements(found)
    assert "larger gradient, as a mean over the steps; here it is so" in said[0]
    assert "standard deviation of that gradient" in said[1]
    assert "here it is left open" in said[1]
    assert "small batches nevertheless travel farther" in said[3]
    assert "here it is so" in said[3]
    assert any(s.startswith("1,000 repeats, as published, would take") for s in said)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in ("gradient-norm", "gradient-spread", "gradient-way", "gradient-norms-early", "gradient-values-end"):
        assert f'<figure id="{name}">' in page


def test_an_interrupted_measurement_loses_one_stretch_of_repeats_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchscope.laboratory.studies.gradient_size import measure

    whole = made(tmp_path / "whole", Bowls(0.5))
    measure_part, calls = measure.measure_part, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return measure_part(*arguments)

    monkeypatch.setattr(measure, "measure_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "cut", Bowls(0.5))
    kept = json.loads((tmp_path / "cut" / f"measured-{NOTES[0]}.json").read_text(encoding="utf-8"))
    assert kept["data"]["sums"]["repeats"] == [0, 1, 2]
    resumed = made(tmp_path / "cut", Bowls(0.5))
    assert calls == 2 + 1 + 2, "two stretches a checkpoint, of two repeats and of one"
    for name in NOTES:
        assert without_clock(resumed.measurements[name]) == without_clock(whole.measurements[name])


def without_clock(note: Any) -> Any:
    sums = {k: v for k, v in note["sums"].items() if k != "seconds"}
    return {k: v for k, v in {**note, "sums": sums}.items() if k != "published_repeats_s"}


def test_the_numbers_are_the_same_in_one_process_and_in_two() -> None:
    loaded = load_task("digits", ["hidden=16"])
    task = ReloadableTask(
        loaded=loaded, workload=Workload(loaded.task, name=loaded.name, settings=loaded.settings, device=pick("cpu"))
    )
    frame = {"batch_sizes": (1, 4, 16), "samples": 16, "lr": 0.1, "seed": 3, "limit": 0.5, "mark": 0.01}
    frame |= {"marks": (0.02,)}

    def parts(executor: CountedExecutor, seed: int) -> Any:
        function = partial(measure_part, task, task.workload.model(seed).state_dict(), frame)
        found = dict(completed(executor, function, stretches([0, 1, 2, 3, 4], 2), late=lambda: False))
        return {
            numbers: (part.norms.repeats, part.norms.norms, part.histograms, part.beyond)
            for numbers, part in found.items()
        }

    alone = [parts(InProcessExecutor(), seed) for seed in (0, 1)]
    assert [part[0] for part in alone[0].values()] == [(0, 1), (2, 3), (4,)]
    assert alone[0] != alone[1]
    with ProcessExecutor(2) as executor:
        assert [parts(executor, seed) for seed in (0, 1)] == alone
        assert executor.processes == 2


def test_a_budget_that_ends_leaves_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from batchscope.laboratory.engine import Laboratory
    from batchscope.training.progress import Silent

    told: list[str] = []

    class Told(Silent):
        def stage(self, text: str) -> None:
            told.append(text)

    monkeypatch.setattr(Laboratory, "late", property(lambda laboratory: any("4 repeats" in text for text in told)))
    cut = made(tmp_path, Bowls(0.5), progress=Told())
    assert not cut.complete
    assert [s.repeats for s in gradient_sums_of(cut)] == [1]
    assert any("4 repeats of 3 batch sizes, about" in text and "with 1 checkpoint more" in text for text in told)
    assert "after 2 epochs, 1 of 4 repeats were measured" in statements(cut)
    monkeypatch.undo()
    assert made(tmp_path, Bowls(0.5)).complete


def test_a_short_run_is_measured_at_its_start_and_its_end(tmp_path: Path) -> None:
    found = made(tmp_path, asked=question(length=Length(unit="steps", amount=2)))
    assert [(s.part, s.label) for s in gradient_sums_of(found)] == [
        ("start", "at the start"),
        ("end", "at the end (epoch 1)"),
    ]
    assert "at the start, the norm changes" in statements(found)[0]


def test_every_seed_has_a_say(tmp_path: Path) -> None:
    found = made(tmp_path, Bowls(0.5), question(seeds=(3, 4)))
    assert [(s.seed, s.part) for s in gradient_sums_of(found)] == [(3, "early"), (3, "end"), (4, "early"), (4, "end")]
    assert "after 2 epochs of seed 3" in statements(found)[0]
    assert "at the end (epoch 5) of seed 4" in statements(found)[0]


def edited(found: Study, change: Callable[[dict[str, Any]], None]) -> Study:
    notes = copy.deepcopy(dict(found.measurements))
    for name in NOTES:
        change(notes[name])
    return replace(found, measurements=notes)


def concluded(found: Study, out: Path) -> list[str]:
    runs = read_runs(out)
    assert STUDY.sections(found, runs)
    return [finding.statement for finding in STUDY.conclude(found, runs)]


def test_measurements_against_the_publication_are_said_to_be_so(tmp_path: Path) -> None:
    def reverse(note: dict[str, Any]) -> None:
        wide, narrow = [0.5, 0.7, 0.6, 0.4, 0.45, 0.65], [0.0301, 0.03, 0.0299, 0.03, 0.0301, 0.0299]
        note["sums"]["norms"] = [wide, narrow, narrow]
        note["beyond"] = [[50, 0, 10], [50, 0, 11], [51, 0, 9], [50, 0, 10], [49, 0, 10], [50, 0, 9]]

    said = concluded(edited(made(tmp_path, Bowls(0.5)), reverse), tmp_path)
    assert [s for s in said if s.startswith("published: ")] == said[:4]
    assert ["here it is not so" in s for s in said[:3]] == [True, True, True]
    assert "here it is so" in said[3]


def test_batch_sizes_whose_steps_diverge_are_left_out(tmp_path: Path) -> None:
    def blow_up(note: dict[str, Any]) -> None:
        note["sums"]["norms"][0][2] = None

    found = edited(made(tmp_path, Bowls(0.5)), blow_up)
    assert [s.diverged for s in gradient_sums_of(found)] == [(1,), (1,)]
    assert any("batch size 1 at learning rate 0.1 diverge" in s for s in concluded(found, tmp_path))


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    class Flat(Bowls):
        def model(self) -> nn.Module:
            model = Bowl()
            model.w = nn.Parameter(model.w.detach()[0])
            return model

    found = made(tmp_path, Flat())
    assert "here it is left open" in statements(found)[0]
    assert "the model has no trained weight matrix" in statements(found)[0]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "nothing was measured: the model has no trained weight matrix" in page


def test_shares_are_counted_from_the_bins() -> None:
    bins = Bins(limit=2.5, counts=(1, 2, 10, 3, 4), below=5, above=6, zeros=9)
    assert (bins.total, bins.width, bins.centres) == (40, 1.0, [-2.0, -1.0, 0.0, 1.0, 2.0])
    assert bins.share_beyond(1.5) == pytest.approx((1 + 4 + 5 + 6) / 40)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--batch-sizes 8", "compares batch sizes, and --batch-sizes has only 8"),
        ("--batch-sizes 8,64 --lrs 0.1,0.2", "at one learning rate, and --lrs has 2"),
        ("--batch-sizes 8,2000", "2000 is larger than the training set of 1437"),
    ],
)
def test_what_makes_no_sense_is_one_message(cli: Cli, words: str, said: str) -> None:
    ended = cli(f"study gradient_size digits {words}")
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.err
