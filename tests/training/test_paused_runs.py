"""Whole searches whose runs wait at the milestone: killed anywhere, asked within a length, for several targets, and for
the trained model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from batchscope.fits.curves import steps_to_target
from batchscope.store.records import RunStatus, Target
from batchscope.store.runs import StoredRun, read_runs
from batchscope.tasks.builtin.digits import digits
from batchscope.testing import without_clock

Cli = Callable[..., Any]

FIND = "find digits --hardware machine.json --target val_loss<=0.15 --trainings 8 --evaluation-share 100%"
pytestmark = pytest.mark.usefixtures("profile")


def answer(cli: Cli, command: str, *words: str) -> Any:
    ended = cli(f"{command} --json", *words)
    assert ended.status == 0, ended.err
    return ended.answer


def as_written(out: str) -> str:
    """plan.json, letter by letter, without the seconds that the search took here."""
    plan = json.loads(Path(out, "plan.json").read_text(encoding="utf-8"))
    for member in ("seconds", "evaluation_seconds", "training_seconds", "training_here_s"):
        plan["search"][member] = None
    return json.dumps(plan)


def courses(out: str) -> dict[str, Any]:
    """How each run went, its clock apart."""
    return {
        run.id: (
            without_clock(run.rows),
            run.result and (run.result.status, run.result.steps, run.result.last),
        )
        for run in read_runs(out)
    }


def ended_with(out: str, status: RunStatus) -> list[StoredRun]:
    return [run for run in read_runs(out) if run.result is not None and run.result.status is status]


# --- stopped, and going on ----------------------------------------------------------------------------------------


def killed(command: str, when: Callable[[Path], bool], then: float = 0.0) -> bool:
    """A search in a process of its own that is killed once its folder is as described; whether it still ran."""
    words = [sys.executable, "-m", "batchscope", *command.split(), "--out", "out"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        limit = time.monotonic() + 100
        while process.poll() is None and not when(Path("out")):
            assert time.monotonic() < limit, "the search does not begin"
            time.sleep(0.001)
        time.sleep(then)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


def has(pattern: str, least: int = 1) -> Callable[[Path], bool]:
    return lambda out: len(list(out.glob(pattern))) >= least


def test_a_search_killed_at_several_moments_ends_in_the_same_plan_letter_by_letter(cli: Cli) -> None:
    """While the pilot runs, in the middle of a probe, and while a run that was set aside goes on.

    That run has to be made anew in the next process, from its seed, and comes to the rows that it had in one go.
    """
    answer(cli, FIND, "--out", "whole")
    assert ended_with("whole", RunStatus.PAUSED), "no run was left at its milestone"
    went_on = [path.parent.name for path in Path("whole").glob("runs/*/result.interrupted-1.json")]
    assert went_on, "no run went on from its milestone"
    assert courses("whole")[went_on[0]][1][0] is RunStatus.REACHED
    moments = [
        (has("runs/*/rows.jsonl"), 0.0),
        (has("runs/*/config.json", 3), 0.01),
        (has("runs/*/result.interrupted-1.json"), 0.0),
    ]
    assert [killed(FIND, when, then) for when, then in moments].count(True) >= 2
    answer(cli, FIND, "--out", "out")
    assert courses("out") == courses("whole")
    assert as_written("out") == as_written("whole")
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("runs/*/*")}
    answer(cli, FIND, "--out", "out")
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("runs/*/*")} == before
    assert as_written("out") == as_written("whole")


# --- within a length of training ----------------------------------------------------------------------------------

EXAMPLES = 1437


def step_time(batch_size: int) -> float:
    """Of the profile."""
    return 1e-3 * (1 + batch_size / 64)


@pytest.mark.parametrize(
    ("within", "said", "spent"),
    [
        ("3epochs", "3 epochs", lambda config: config.batch_size / EXAMPLES / 3),
        ("0.15s", "0.15 seconds", lambda config: step_time(config.batch_size) / 0.15),
    ],
)
def test_within_a_length_no_run_is_longer_and_the_recipe_ends_about_best(
    cli: Cli, within: str, said: str, spent: Callable[[Any], float]
) -> None:
    command = f"find digits --hardware machine.json --trainings 4 --within {within} --out out"
    ended = cli(f"{command} --keep-model {within}.pt")
    assert ended.status == 0, ended.err
    plan = json.loads(Path("out/plan.json").read_text(encoding="utf-8"))
    runs = [run for run in read_runs("out") if run.result is not None]
    assert all(run.result.steps * spent(run.config) <= 1.02 for run in runs if run.result)
    assert max(run.result.steps * spent(run.config) for run in runs if run.result) > 0.9
    recipe = plan["recipe"]
    (last,) = [
        run.result.last["val_loss"]
        for run in runs
        if run.result and (run.config.batch_size, run.config.lr) == (recipe["batch_size"], recipe["lr"])
    ]
    ends = [run.result.last["val_loss"] for run in runs if run.result and run.result.status is RunStatus.OUT_OF_STEPS]
    end = plan["expected_end"]
    assert last / min(ends) <= end["high"] / end["low"], "no end was better by more than two runs there differ"
    assert plan["verified"]["metric"] == last
    assert end["low"] < plan["target"]["value"] < end["high"]
    assert (plan["within"], plan["status"], plan["alternatives"]) == (said, "ok", [])
    assert plan["probability_within_5_percent"] is None
    assert f"expected to end best in val_loss after {said}" in ended.out
    assert f"ended at val_loss {last:.3g}" in " ".join(ended.out.split())
    assert "to target" not in ended.out
    assert "probability" not in ended.out
    assert evaluated(f"{within}.pt")["val_loss"] == pytest.approx(last, rel=1e-6)
    before = as_written("out")
    assert cli(command).status == 0
    assert as_written("out") == before


def test_within_a_length_a_current_recipe_is_replaced_where_another_ends_better(cli: Cli) -> None:
    command = "find digits --hardware machine.json --trainings 4 --within 2epochs --evaluation-share 100%"
    replaced = answer(cli, f"{command} --current batch_size=256,lr=0.001 --out a")
    assert replaced["status"] == "ok"
    assert replaced["recipe"]["lr"] > 0.01
    assert "the current recipe" in replaced["message"]


# --- several targets ----------------------------------------------------------------------------------------------


def test_several_targets_are_answered_from_the_same_runs_and_the_kept_model_meets_the_hardest(cli: Cli) -> None:
    """One beyond the milestone, one before it: both as the runs passed them. The model is that of the recipe's run."""
    targets = [Target.parse(f"val_loss<={value}") for value in (0.25, 1.5)]
    words = " ".join(f"--target {target}" for target in [targets[1], Target.parse("val_loss<=0.15"), targets[0]])
    ended = cli(
        f"find digits --hardware machine.json --trainings 8 {words} --evaluation-share 100% --out several "
        "--keep-model models/best.pt"
    )
    assert ended.status == 0, ended.err
    assert [line.split()[0] for line in ended.out.splitlines() if line.startswith("val_loss<=")] == [
        "val_loss<=0.25",
        "val_loss<=1.5",
    ]
    plan = json.loads(Path("several/plan.json").read_text(encoding="utf-8"))
    answer(cli, FIND, "--out", "one")
    assert courses("several") == courses("one")
    assert plan["target"]["value"] == 0.15
    assert [easier["target"]["value"] for easier in plan["easier_targets"]] == [0.25, 1.5]
    runs = read_runs("several")
    hardest = plan["predicted"]["time_to_target_s"]["value"]
    for target, easier in zip(targets, plan["easier_targets"], strict=True):
        recipe, steps = easier["recipe"], easier["predicted"]["steps_to_target"]
        passed = {
            (run.config.batch_size, run.config.lr): steps_to_target(run.rows, target)
            for run in runs
            if steps_to_target(run.rows, target) is not None
        }
        seconds = {pair: passage * step_time(pair[0]) for pair, passage in passed.items() if passage is not None}
        pair = (recipe["batch_size"], recipe["lr"])
        assert seconds.get(pair, easier["predicted"]["time_to_target_s"]["value"]) <= 1.3 * min(seconds.values())
        assert pair not in passed or 0.8 * steps["low"] <= passed[pair] <= 1.25 * steps["high"]
        assert easier["predicted"]["time_to_target_s"]["value"] < hardest
        hardest = easier["predicted"]["time_to_target_s"]["value"]
    page = Path("several/report.html").read_text(encoding="utf-8")
    assert "Easier targets" in page
    assert "val_loss&lt;=1.5" in page
    assert "Easier targets" not in Path("one/report.html").read_text(encoding="utf-8")
    kept = evaluated("models/best.pt")["val_loss"]
    assert kept <= 0.15
    assert [path.name for path in Path("models").iterdir()] == ["best.pt"]


# --- the trained model --------------------------------------------------------------------------------------------


def evaluated(path: str) -> Any:
    """The metrics of the weights in a file, by the task's own measure."""
    task = digits()
    model = task.model()
    model.load_state_dict(torch.load(path, weights_only=True))
    model.eval()
    with torch.no_grad():
        return task.evaluate(model)


def test_a_model_that_was_not_kept_is_trained_again_and_the_plan_stays(cli: Cli) -> None:
    """Also that of a pilot, in which the noise scale was measured."""
    command = f"{FIND} --trainings 0.1 --out out".replace("--trainings 8 ", "")
    plan = answer(cli, command)
    runs = courses("out")
    (run,) = read_runs("out")
    assert run.config.noise_scale_groups
    before = as_written("out")
    assert answer(cli, f"{command} --keep-model kept.pt")["recipe"] == plan["recipe"]
    assert as_written("out") == before
    assert courses("out") == runs
    assert run.result is not None
    assert evaluated("kept.pt")["val_loss"] == run.result.last["val_loss"]


@pytest.mark.parametrize("damage", ["truncated", "another", "without its hash", "a FIFO"])
def test_a_kept_model_that_is_not_what_was_written_is_trained_again_and_said(cli: Cli, damage: str) -> None:
    command = f"{FIND} --trainings 0.1 --out out --keep-model kept.pt".replace("--trainings 8 ", "")
    answer(cli, command)
    whole = evaluated("kept.pt")
    content = Path("kept.pt").read_bytes()
    weights = next(path for path in Path("out").glob("runs/*/weights-*.pt") if path.read_bytes() == content)
    note = weights.with_name(f"sha256-{weights.stem}.json")
    if damage == "truncated":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "another":
        weights.write_bytes(content[:-100] + bytes(100))
    elif damage == "without its hash":
        note.unlink()
    else:
        weights.unlink()
        os.mkfifo(weights)
    if damage == "a FIFO":
        refused = cli(command)
        assert refused.status == 2
        assert "no regular file; remove" in refused.err
        weights.unlink()
    ended = cli(command)
    assert ended.status == 0, ended.err
    assert evaluated("kept.pt") == whole
    assert damage == "a FIFO" or f"{weights.name} is not what was written" in ended.err


def test_a_link_in_the_place_of_the_model_is_replaced_and_its_victim_stays(cli: Cli) -> None:
    Path("victim").write_text("theirs", encoding="utf-8")
    Path("kept.pt").symlink_to("victim")
    answer(cli, f"{FIND} --trainings 0.1 --out out --keep-model kept.pt".replace("--trainings 8 ", ""))
    assert not Path("kept.pt").is_symlink()
    assert Path("victim").read_text(encoding="utf-8") == "theirs"


def test_the_model_that_is_kept_is_that_at_the_end_of_the_length(cli: Cli) -> None:
    """Fifty examples with random labels among them: the validation loss falls, then rises."""
    Path("worse.py").write_text(WORSE, encoding="utf-8")
    plan = answer(
        cli,
        "find worse.py:Worse --hardware machine.json --trainings 0.2 --within 60epochs --keep-model kept.pt --out out",
    )
    (result,) = [
        run.result
        for run in read_runs("out")
        if run.result and (run.config.batch_size, run.config.lr) == (plan["recipe"]["batch_size"], plan["recipe"]["lr"])
    ]
    assert plan["verified"]["steps"] == result.steps
    assert plan["verified"]["metric"] == result.last["val_loss"]
    worse = sys.modules["worse"].Worse()
    model = worse.model()
    model.load_state_dict(torch.load("kept.pt", weights_only=True))
    with torch.no_grad():
        assert float(worse.evaluate(model)["val_loss"]) == pytest.approx(plan["verified"]["metric"], rel=1e-6)


WORSE = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

class Worse:
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(400, 20, generator=generator)
        self.y = (self.x[:, 0] + 1.5 * torch.randn(400, generator=generator) > 0).long()
    def model(self):
        return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    def train_data(self):
        return TensorDataset(self.x[:50], self.y[:50])
    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model):
        return {"val_loss": F.cross_entropy(model(self.x[50:]), self.y[50:])}
"""
