"""The benchmark of real trainings: its tasks train, its loop keeps its clock, its grid goes on, its figures add up."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = {
    path.stem for folder in (BENCHMARKS, BENCHMARKS / "real", BENCHMARKS / "search") for path in folder.glob("*.py")
}
TRAINED = ("images", "tables", "text", "sequences", "decoding", "evaluation")

Script = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def real() -> Iterator[Script]:
    """Imports a script of `benchmarks/real` by its bare name, and leaves no such name behind."""
    others = {each: sys.modules.pop(each) for each in NAMES if each in sys.modules}
    path = list(sys.path)
    sys.path[:0] = [str(BENCHMARKS / "real"), str(BENCHMARKS)]
    try:
        yield importlib.import_module
    finally:
        sys.path[:] = path
        for each in NAMES & set(sys.modules):
            del sys.modules[each]
        sys.modules.update(others)


class Scripted:
    """A task whose metric and clock are written down: a batch takes 2 s, a step 1 s more, an evaluation 100 s."""

    def __init__(self, values: Sequence[float], losses: Sequence[float] = ()) -> None:
        self.values, self.losses, self.now = iter(values), iter(losses), 0.0

    def clock(self) -> float:
        return self.now

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def train_data(self) -> Any:
        return self

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        self.now += 0.5
        return torch.tensor([float(index)])

    def loss(self, model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        assert model.training
        assert batch.shape == (4, 1)
        self.now += 1.0
        return model(batch).mean() * 0 + next(self.losses, 0.5)

    def optimizer(self, params: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training
        self.now += 100.0
        return {"m": next(self.values)}


def trained(real: Script, task: Scripted, **limits: Any) -> Any:
    loop = real("loop")
    asked = {"metric": "m", "value": 1.0, "rising": False, "every": 2, "max_steps": 100} | limits
    return loop.train(task, loop.Recipe(batch_size=4, lr=0.1), loop.Limits(**asked), task.clock)


def test_the_clock_has_the_next_batch_in_a_step_and_evaluations_apart(real: Script) -> None:
    found = trained(real, Scripted([9.0, 3.0, 0.0]))
    assert (found.status, found.steps, found.examples, found.evaluations) == ("reached", 4, 16, 3)
    assert (found.seconds, found.evaluation_seconds, found.wall_seconds) == (12.0, 300.0, 312.0)
    assert found.step_s["mean"] == found.step_s["median"] == found.step_s["q90"] == 3.0
    assert found.curve == {"steps": [0, 2, 4], "values": [9.0, 3.0, 0.0], "seconds": [0.0, 6.0, 12.0]}


def test_the_target_is_met_between_two_evaluations_in_log_steps(real: Script) -> None:
    found = trained(real, Scripted([9.0, 3.0, 0.0]))
    assert found.steps_to_target == pytest.approx(2 * 2 ** (2 / 3))
    assert found.seconds_to_target == pytest.approx(3.0 * found.steps_to_target)


@pytest.mark.parametrize(
    ("values", "target", "rising", "expected"),
    [
        ([9.0, 3.0, 1.0], 2.0, False, 100.0),
        ([9.0, 3.0, 1.0], 6.0, False, 5.0),
        ([9.0, math.nan, 1.0], 5.0, False, 500.0),
        ([0.1, 0.5, 0.9], 0.7, True, 100.0),
        ([0.1, 0.5, 0.9], 0.95, True, None),
        ([1.0, 2.0, 3.0], 1.5, False, 0.0),
    ],
)
def test_the_loop_finds_the_first_passage_that_the_library_finds(
    real: Script, values: list[float], target: float, rising: bool, expected: float | None
) -> None:
    from batchscope.fits.curves import first_passage

    found = real("loop").first_at_target([0, 10, 1000], values, target, rising=rising)
    assert found == (expected if expected is None else pytest.approx(expected))
    assert found == first_passage([0, 10, 1000], values, target, rising=rising)


def test_a_run_ends_at_its_limits(real: Script) -> None:
    assert trained(real, Scripted([9.0] * 9), max_steps=3).steps == 3
    slow = trained(real, Scripted([9.0] * 9), max_seconds=10.0)
    assert (slow.status, slow.steps, slow.reached) == ("out-of-time", 4, False)
    lost = trained(real, Scripted([9.0] * 9, losses=[0.5, math.nan]))
    assert (lost.status, lost.steps, lost.evaluations) == ("diverged", 2, 1)
    through = trained(real, Scripted([9.0, 0.0, 5.0]), max_steps=4, through=True)
    assert (through.status, through.steps, through.reached) == ("out-of-steps", 4, True)


def test_the_clock_at_a_step_that_is_not_whole(real: Script) -> None:
    seconds_at = real("loop").seconds_at
    assert [seconds_at([1.0, 3.0], step) for step in (0.0, 0.5, 1.0, 1.5, 2.0, 9.0)] == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_the_loop_imports_nothing_of_ours() -> None:
    lines = (BENCHMARKS / "real" / "loop.py").read_text().splitlines()
    tasks = [line for each in (BENCHMARKS / "real" / "tasks").glob("*.py") for line in each.read_text().splitlines()]
    imports = [line for line in [*lines, *tasks] if line.split(" ")[0] in ("import", "from")]
    assert not [line for line in imports if any(name in line.split()[1] for name in ("batchscope", *NAMES - {"run"}))]


def test_the_command_prints_one_object(real: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "easy.py").write_text(EASY)
    words = ["--batch-size", "8", "--lr", "0.1", "--target", "val_loss<=0.5", "--every", "2", "--at", "1.5"]
    real("loop").main([str(tmp_path / "easy.py"), *words])
    found = json.loads(capsys.readouterr().out)
    assert found["reached"]
    assert 0 < found["at"][0][1] < found["seconds_to_target"] <= found["seconds"] <= found["wall_seconds"]


EASY = """
import torch
from torch import nn

class Easy:
    def model(self): return nn.Linear(1, 1)
    def train_data(self): return [torch.ones(1)] * 16
    def loss(self, model, batch): return ((model(batch) - 3) ** 2).mean()
    def optimizer(self, params, lr): return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model): return {"val_loss": self.loss(model, torch.ones(1, 1)).item()}

def task(): return Easy()
"""


@pytest.mark.shared
@pytest.mark.parametrize("name", TRAINED)
def test_a_task_loads_and_trains_three_steps(real: Script, name: str) -> None:
    loop, training = real("loop"), real("trainings").TRAININGS[name]
    task = loop.load(training.file)
    assert len(task.train_data()) == training.examples
    metric, value, rising = loop.parse_target(training.target)
    limits = loop.Limits(metric=metric, value=value, rising=rising, every=3, max_steps=3)
    task.loader_options = {}
    one, other = (loop.train(task, loop.Recipe(batch_size=8, lr=0.01, seed=5), limits) for _ in range(2))
    assert (one.status, one.steps, one.reached) == ("out-of-steps", 3, False)
    assert one.curve["values"] == other.curve["values"]
    assert one.curve["values"][1] != one.curve["values"][0]


@pytest.mark.shared
@pytest.mark.parametrize("name", TRAINED)
def test_the_library_takes_each_task(real: Script, name: str) -> None:
    from batchscope.tasks.loading import load_task
    from batchscope.tasks.workload import Workload

    loaded = load_task(f"{real('trainings').TRAININGS[name].file}:task")
    workload = Workload(loaded.task, name=loaded.name)
    batch = workload.batch(torch.arange(6))
    assert loaded.name == name
    assert workload.count(batch) == 6
    assert math.isfinite(workload.loss(workload.model(0), batch).item())


def scripted_loop(best: tuple[float, float], taken: list[tuple[int, float, int]]) -> Callable[..., dict[str, Any]]:
    """A loop whose seconds grow from 2 at the best cell by 1.6 times a factor of 4 or 3 away from it."""

    def loop(command: Sequence[str], max_seconds: float) -> dict[str, Any]:
        given = dict(zip(command[3::2], command[4::2], strict=True))
        batch_size, lr, seed = int(given["--batch-size"]), float(given["--lr"]), int(given["--seed"])
        taken.append((batch_size, lr, seed))
        away = abs(math.log(batch_size / best[0], 4)) + abs(math.log(lr / best[1], 3))
        seconds = 2.0 * 1.6**away * (1 + 0.001 * (seed - 101))
        reached = seconds <= max_seconds
        spent = min(seconds, max_seconds)
        return {
            "status": "reached" if reached else "out-of-time",
            "steps": 10,
            "seconds": spent,
            "wall_seconds": 1.1 * spent,
            "seconds_to_target": seconds if reached else None,
            "curve": {"steps": [0, 10], "values": [2.0, None], "seconds": [0.0, spent]},
        }

    return loop


def test_a_grid_grows_to_its_best_cell_and_censors_hopeless_ones(real: Script, tmp_path: Path) -> None:
    grid, training = real("grid"), real("trainings").TRAININGS["images"]
    best = (training.batch_size / 64, training.lr * 27)
    taken: list[tuple[int, float, int]] = []
    filled = grid.fill(training, tmp_path, loop=scripted_loop(best, taken), say=lambda line: None)
    found = grid.best(training, filled)
    assert (found.batch_size, found.lr, found.runs) == (best[0], pytest.approx(best[1]), 3)
    assert found.seconds == pytest.approx(2.0 * 1.001)
    assert taken[0] == (training.batch_size, training.lr, 101)
    assert len(taken) == len(set(taken)) == len(filled.runs)
    assert {run["limit_s"] for run in filled.runs.values()} >= {grid.FIRST_LIMIT * training.seconds, 6.0}
    assert "out-of-time" in {run["status"] for run in filled.runs.values()}
    assert grid.wanted(training, filled) == []


def test_a_grid_goes_on_where_it_was_stopped(real: Script, tmp_path: Path) -> None:
    grid, training = real("grid"), real("trainings").TRAININGS["tables"]
    best = (training.batch_size, training.lr)
    whole: list[tuple[int, float, int]] = []
    grid.fill(training, tmp_path / "whole", loop=scripted_loop(best, whole), say=lambda line: None)
    parts: list[tuple[int, float, int]] = []
    working = scripted_loop(best, parts)

    def stopped(command: Sequence[str], max_seconds: float) -> Mapping[str, Any]:
        if len(parts) == 7:
            raise KeyboardInterrupt
        return working(command, max_seconds)

    with pytest.raises(KeyboardInterrupt):
        grid.fill(training, tmp_path, loop=stopped, say=lambda line: None)
    kept = grid.load(tmp_path / "tables.npz", training.fingerprint)
    assert len(kept.runs) == len(kept.curves) == 7
    curve = kept.curves[grid.key(*best, 101)]
    assert (curve["steps"], curve["values"][0], math.isnan(curve["values"][1])) == ([0, 10], 2.0, True)
    assert grid.forecast(training, kept)[0] == len(grid.wanted(training, kept)) == 18
    grid.fill(training, tmp_path, loop=working, say=lambda line: None)
    assert parts == whole


def test_a_cell_that_fails_is_tried_again_by_the_next_call(real: Script, tmp_path: Path) -> None:
    grid, training = real("grid"), real("trainings").TRAININGS["tables"]
    taken: list[tuple[int, float, int]] = []
    working = scripted_loop((training.batch_size, training.lr), taken)

    def failing(command: Sequence[str], max_seconds: float) -> Mapping[str, Any]:
        if str(16 * training.batch_size) in command:
            raise real("plain").Failed("Killed")
        return working(command, max_seconds)

    said: list[str] = []
    filled = grid.fill(training, tmp_path, loop=failing, say=said.append)
    assert sum("Killed" in line for line in said) == 5
    assert len(grid.wanted(training, filled)) == 5
    again = grid.fill(training, tmp_path, loop=working, say=said.append)
    assert grid.wanted(training, again) == []


def test_another_training_begins_a_grid_anew(real: Script, tmp_path: Path) -> None:
    grid, training = real("grid"), real("trainings").TRAININGS["tables"]
    loop = scripted_loop((training.batch_size, training.lr), [])
    grid.fill(training, tmp_path, loop=loop, say=lambda line: None)
    assert grid.load(tmp_path / "tables.npz", training.fingerprint).runs
    assert not grid.load(tmp_path / "tables.npz", "another").runs


def row(
    seed: int, *, training: str = "decoding", seconds: Sequence[float | None] = (9.0, 10.0, 11.0)
) -> dict[str, Any]:
    """A search's row: step time told 0.8 of the loop's, verified 1.2 times too long, an interval from 9.5 to 12 s."""
    return {
        "training": training,
        "seed": seed,
        "recipe": {"batch_size": 8, "lr": 0.1},
        "wall_s": 40.0,
        "forecast": {"seconds": 20.0, "low": 10.0, "high": 30.0 + 20.0 * seed},
        "step_time_s": {"value": 0.08},
        "time_to_target_s": {"value": 10.0, "low": 9.5, "high": 12.0},
        "verified": {"time_s": 12.0, "steps": 100.0},
        "verified_tries_s": [9.0, 10.0, 11.0],
        "evaluations": 80,
        "evaluation_s": 0.05,
        "fresh": [{"seconds_to_target": each, "step_s": {"mean": 0.1}} for each in seconds],
    }


def values(real: Script, rows: Sequence[Mapping[str, Any]], best_s: Mapping[str, float]) -> dict[str, Any]:
    return {figure.name: figure for figure in real("verdicts").figures(rows, best_s)}


def test_the_figures_of_made_up_rows(real: Script) -> None:
    found = values(real, [row(0), row(1), row(2, seconds=(16.0, 18.0, None))], {"decoding": 8.0})
    of = {name: figure.value for name, figure in found.items()}
    assert of["searches with a recipe, share"] == 1.0
    assert of["step time against the plain loop, largest factor"] == pytest.approx(1.25)
    assert of["verified against the plain loop, largest factor"] == pytest.approx(1.2)
    assert of["fresh runs within the interval of the time to target"] == pytest.approx(4 / 9)
    assert of["searches within their forecast"] == pytest.approx(2 / 3)
    assert of["evaluations' largest share of a search, where one is cheap"] == pytest.approx(0.1)
    assert (of["regret, median"], of["regret, worst"]) == (1.25, 2.25)
    assert of["search in trainings, median"] == 5.0
    assert found["searches with a recipe, share"].met
    assert not found["regret, worst"].met


def test_a_search_without_a_recipe_counts_as_endless_regret(real: Script) -> None:
    failed = row(1) | {"recipe": None, "fresh": [], "verified": None, "verified_tries_s": [], "evaluation_s": None}
    failed |= {"step_time_s": None, "time_to_target_s": None}
    found = values(real, [row(0), failed], {"decoding": 8.0})
    assert found["searches with a recipe, share"].value == 0.5
    assert found["regret, worst"].value == math.inf
    assert found["search in trainings, median"].n == 2
    assert "never" in real("verdicts").table([row(0), failed], {"decoding": 8.0}, {})


def test_without_a_grid_the_regret_is_left_out_and_said_to_be(real: Script) -> None:
    found = values(real, [row(0)], {})
    assert found["regret, median"].value is None
    assert found["regret, median"].met is None
    assert found["search in trainings, median"].value == 4.0
    text = real("verdicts").table([row(0)], {}, {"decoding": "slow"})
    assert "regret is left out" in text
    assert "not measured" in text


def test_evaluations_are_counted_in_the_runs_of_a_search(real: Script, tmp_path: Path) -> None:
    for name, lr, seed, status, evaluations in (("a", 0.3, 7, "behind", 2), ("b", 0.1, 8, "reached", 3)):
        folder = tmp_path / name
        folder.mkdir()
        lines = [json.dumps({"kind": "evaluation"})] * evaluations + [json.dumps({"kind": "reading"}), '{"kind": "eva']
        (folder / "rows.jsonl").write_text("\n".join(lines))
        (folder / "config.json").write_text(json.dumps({"batch_size": 8, "lr": lr, "seed": seed}))
        (folder / "result.json").write_text(json.dumps({"status": status}))
    runs = real("run").runs_of
    assert runs(tmp_path, {"recipe": {"batch_size": 8, "lr": 0.1}}, 5) == (5, 8)
    assert runs(tmp_path, {"recipe": {"batch_size": 8, "lr": 0.3}}, 5) == (5, 5)
    assert runs(tmp_path / "missing", None, 5) == (0, 5)


def test_step_times_of_a_busy_machine_against_the_quiet_ones(real: Script) -> None:
    busy = real("busy")

    def search(factor: float, message: str, batch_size: int = 16) -> dict[str, Any]:
        points = [[1, 1e-3 * factor], [64, 8e-3 * factor]]
        told = {"step_time_s": {"value": 4e-3 * factor}}
        plan = {"message": message, "recipe": {"batch_size": batch_size}, "predicted": told, "evidence": []}
        return {"plan": plan | {"bench": {"profile": {"step_time_s": points}}}, "stderr": "measuring\n"}

    quiet = [search(1.0, "the fastest recipe found"), search(1.5, "")]
    found = busy.figures(quiet, search(2.0, "the machine was busy while this was measured"))
    assert found["told_ratio"] == pytest.approx(2.0)
    assert found["measured_ratio"] == [[1, pytest.approx(2.0)], [64, pytest.approx(2.0)]]
    assert (found["said"], found["said_when_quiet"], found["met"]) == (True, [False, False], False)
    assert busy.figures(quiet, search(1.2, "other processes took half of the processor"))["met"]
    assert not busy.figures(quiet, search(1.2, "the fastest recipe found"))["met"]
    assert not busy.says_busy({"plan": None, "stderr": "run 3: busy"})
