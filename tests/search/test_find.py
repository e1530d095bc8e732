"""Whole searches on small tasks: what stops them, how they go on, and what each option does to the answer."""

from __future__ import annotations

import functools
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

Cli = Callable[..., Any]

DIGITS = "find digits --hardware machine.json --target val_loss<=0.3"


def answer(cli: Cli, command: str, *words: str) -> Any:
    """The plan of a search that gives a recipe."""
    ended = cli(f"{command} --json", *words)
    assert ended.status == 0, ended.err
    return ended.answer


def without_clock(plan: Any) -> Any:
    """A plan without the seconds that the search took here."""
    return {**plan, "search": {**plan["search"], "seconds": None}}


def files_of(out: str) -> dict[Path, tuple[int, bytes]]:
    """Every file of every run, with the time of its last change."""
    files = (path for path in Path(out).glob("runs/*/*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def curves_of(out: str) -> dict[str, list[tuple[int, Any]]]:
    """The evaluations of each finished run."""
    return {
        path.parent.name: [
            (r["step"], r["metrics"]) for r in map(json.loads, path.read_text().splitlines()) if "metrics" in r
        ]
        for path in Path(out).glob("runs/*/rows.jsonl")
    }


def configs_of(out: str) -> list[Any]:
    """The configurations of the runs in a folder, first started first."""
    paths = sorted(Path(out).glob("runs/*/config.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


@pytest.fixture
def memory_profile(profile: Path) -> Path:
    """The machine with a memory of 1 MiB, 16 KiB for an example of `digits`."""
    data = json.loads(profile.read_text(encoding="utf-8"))
    table = [[size, 100_000 + 16_384 * size] for size in (1, 4, 16, 32)]
    profile.write_text(json.dumps({**data, "peak_memory_bytes": table, "capacity_bytes": 2**20}), encoding="utf-8")
    return profile


# --- stopped, and going on ----------------------------------------------------------------------------------------


def stopped(command: str, how: signal.Signals, runs: int) -> subprocess.CompletedProcess[str]:
    """A search in a process of its own that gets a signal once it has finished a number of runs and begun another."""
    words = [sys.executable, "-m", "batchscope", *command.split()]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, text=True, preexec_fn=heard) as process:
        limit = time.monotonic() + 100
        while len(list(Path("out").glob("runs/*/config.json"))) <= runs and process.poll() is None:
            assert time.monotonic() < limit, "the search does not begin"
            time.sleep(0.002)
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.usefixtures("profile")
def test_f31_a_search_that_was_stopped_goes_on_and_repeats_nothing(cli: Cli, how: signal.Signals) -> None:
    command = f"{DIGITS} --trainings 8"
    whole = answer(cli, f"{command} --out whole")
    assert whole["search"]["runs"] >= 2
    ended = stopped(f"{command} --out out", how, runs=1)
    assert ended.returncode == (-9 if how is signal.SIGKILL else 130), ended.stderr
    assert ended.stdout == ""
    if how is signal.SIGINT:
        assert ended.stderr.endswith("finished runs are kept, and the same command goes on from there\n")
    finished = {path.parent for path in Path("out").glob("runs/*/result.json")}
    before = {path: state for path, state in files_of("out").items() if path.parent in finished}
    assert finished
    resumed = answer(cli, f"{command} --out out")
    after = files_of("out")
    assert {path: after[path] for path in before} == before
    assert curves_of("out") == curves_of("whole")
    assert without_clock(resumed) == without_clock(whole)


@pytest.mark.usefixtures("profile")
def test_the_same_command_again_reads_the_answer(cli: Cli) -> None:
    first = answer(cli, f"{DIGITS} --trainings 2 --out out")
    before, plan = files_of("out"), Path("out/plan.json").read_bytes()
    ended = cli(f"{DIGITS} --trainings 2 --out out --json")
    assert ended.answer == first
    assert files_of("out") == before
    assert Path("out/plan.json").read_bytes() == plan
    assert f"going on from what out holds: {first['search']['runs']} finished runs" in ended.err
    assert "run 1" not in ended.err


@pytest.mark.usefixtures("profile")
def test_the_same_seed_gives_the_same_plan_and_another_seed_another(cli: Cli) -> None:
    plans = [
        answer(cli, f"{DIGITS} --trainings 2 --out {out} --seed {seed}") for out, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert without_clock(plans[0]) == without_clock(plans[1])
    assert curves_of("a") == curves_of("b")
    assert curves_of("a").keys() != curves_of("c").keys()


@pytest.mark.usefixtures("profile")
def test_a_larger_budget_goes_on_where_a_small_one_ended(cli: Cli) -> None:
    cut = cli(f"{DIGITS} --trainings 2 --out out --json --budget 0.02s")
    assert (cut.status, cut.answer["recipe"]) == (3, None)
    assert cli(f"{DIGITS} --trainings 2 --out out --json --budget 0.02s").answer == cut.answer
    longer = answer(cli, f"{DIGITS} --trainings 2 --out out --budget 5m")
    assert longer["status"] == "ok"
    assert without_clock(answer(cli, f"{DIGITS} --trainings 2 --out out --budget 5m")) == without_clock(longer)


@pytest.mark.usefixtures("profile")
def test_a_budget_bounds_the_search(cli: Cli) -> None:
    started = time.monotonic()
    ended = cli("find digits --hardware machine.json --target val_loss<=1e-6 --budget 2s --max-batch-size 64 --json")
    assert ended.status == 3
    assert time.monotonic() - started < 30
    assert ended.answer["search"]["seconds"] < 10


# --- what is the user's stays the user's --------------------------------------------------------------------------

OWN = '''
import copy
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

class Own:
    """Keeps a prototype of its own, counts calls, and notes the size of every batch that it trains on."""
    made = []
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(300, 4, generator=generator)
        self.y = (self.x[:, 0] > 0).long()
        self.prototype = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 2)).eval()
        self.prototype.counter = 19
        self.sizes = []
        Own.made.append(self)
    def model(self):
        return copy.deepcopy(self.prototype)
    def train_data(self):
        return TensorDataset(self.x[:200], self.y[:200])
    def loss(self, model, batch):
        if torch.is_grad_enabled():
            assert model.training
            self.sizes.append(len(batch[0]))
        return F.cross_entropy(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model):
        assert not model.training
        return {"val_loss": F.cross_entropy(model(self.x[200:]), self.y[200:])}
'''
OWN_FIND = "find own.py:Own --hardware machine.json --target val_loss<=0.15 --trainings 8 --out out"


def random_state() -> tuple[bytes, bytes, Any]:
    """Of the three generators that a user's code may draw from."""
    torch_state = torch.get_rng_state().numpy().tobytes()
    return torch_state, np.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002


@pytest.fixture
def own(cli: Cli, profile: Path) -> Any:
    """The task above after a search: its object, the plan, and the random states before and after."""
    Path("own.py").write_text(OWN, encoding="utf-8")
    cli("count --examples 2 --batch-size 1 --epochs 1")  # imports rich, which draws a number when it is imported
    before = random_state()
    plan = answer(cli, OWN_FIND)
    return sys.modules["own"].Own.made[-1], plan, before, random_state()


def test_f24_the_callers_random_state_is_left_as_it_was(own: Any) -> None:
    _, _, before, after = own
    assert after == before


@pytest.mark.usefixtures("profile")
@pytest.mark.parametrize("command", ["bench digits --max-batch-size 4 --budget 1s", "noise digits --lr 0.1 --steps 3"])
def test_f24_of_bench_and_noise(cli: Cli, command: str) -> None:
    cli("count --examples 2 --batch-size 1 --epochs 1")
    before = random_state()
    assert cli(command).status == 0
    assert random_state() == before


def test_f25_f26_the_users_model_keeps_its_weights_attributes_and_mode(own: Any) -> None:
    task = own[0]
    assert task.prototype.counter == 19
    assert not any(module.training for module in task.prototype.modules())
    assert all(p.grad is None for p in task.prototype.parameters())


def test_f28_every_run_is_fed_batches_of_its_own_size(own: Any) -> None:
    """Of all batches since the range test: as many of each size as steps of it were made; smaller ones for noise."""
    task, _, _, _ = own
    expected: Counter[int] = Counter()
    for path in Path("out").glob("runs/*/result.json"):
        config, result = (json.loads((path.parent / name).read_text()) for name in ("config.json", "result.json"))
        rows = map(json.loads, (path.parent / "rows.jsonl").read_text().splitlines())
        noise = [row for row in rows if row["kind"] == "noise"]
        for row in noise:
            expected[row["group_size"]] += row["groups"]
        expected[config["micro_batch_size"]] += (result["steps"] - len(noise)) * config["grad_accum_steps"]
    assert len(expected) > 2
    assert Counter(task.sizes[-expected.total() :]) == expected


def test_f29_nothing_temporary_is_left_behind(own: Any, cli: Cli) -> None:
    source = OWN.replace("return F.cross_entropy(model(batch[0]), batch[1])", "return self.stop(model, batch)")
    source += """
    def stop(self, model, batch):
        from pathlib import Path
        if list(Path("broken").glob("runs/*/result.json")):
            raise ValueError("no more")
        return F.cross_entropy(model(batch[0]), batch[1])
"""
    Path("own.py").write_text(source, encoding="utf-8")
    assert cli(OWN_FIND.replace("--out out", "--out broken")).status == 2
    for out in ("out", "broken"):
        names = {path.name for path in Path(out).rglob("*") if path.is_file()}
        assert names <= {
            *("question.json", "bench.json", "timing.json", "rate-range.json", "plan.json", "report.html", "lock"),
            *("config.json", "rows.jsonl", "result.json"),
        }


def test_f30_a_step_that_does_not_fit_is_said_and_its_run_made_anew_in_parts(cli: Cli, profile: Path) -> None:
    """The profile says that all fits; here, half of it does."""
    source = OWN.replace(
        "            assert model.training\n",
        "            assert model.training\n"
        "            if len(batch[0]) > 20:\n"
        "                raise torch.OutOfMemoryError('scripted: no memory for more than 20 examples')\n",
    )
    Path("own.py").write_text(source, encoding="utf-8")
    ended = cli(f"{OWN_FIND} --json --current batch_size=64,lr=0.3")
    assert ended.status == 0, ended.err
    assert "did not fit" in ended.err
    made = [json.loads(path.read_text(encoding="utf-8")) for path in Path("out").glob("runs/*/config.json")]
    finished = [
        json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        for path in Path("out").glob("runs/*/result.json")
    ]
    assert all(config["micro_batch_size"] <= 20 for config in finished)
    assert any(config["batch_size"] == 64 and config["grad_accum_steps"] == 4 for config in finished)
    assert len(made) > len(finished)
    for path in Path("out").glob("runs/*/result.json"):
        rows = [json.loads(line) for line in (path.parent / "rows.jsonl").read_text().splitlines()]
        assert rows[0]["step"] == 0
        assert json.loads(path.read_text(encoding="utf-8"))["steps"] == rows[-1]["step"]


def test_f32_the_chosen_size_is_shown(cli: Cli, own: Any) -> None:
    plan = own[1]
    shown = cli(OWN_FIND).out.splitlines()
    assert any(
        line.split()[:2] == ["batch", "size"] and line.split()[2] == str(plan["recipe"]["batch_size"]) for line in shown
    )


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("profile")
def test_no_target_one_is_chosen_and_said(cli: Cli) -> None:
    plan = answer(cli, "find digits --hardware machine.json --trainings 1 --out out")
    assert plan["target"]["metric"] == "val_loss"
    assert any("was chosen" in item["statement"] for item in plan["evidence"])


@pytest.mark.usefixtures("profile")
def test_a_target_on_a_score(cli: Cli) -> None:
    plan = answer(cli, "find digits --hardware machine.json --trainings 1 --target val_accuracy>=0.9")
    assert plan["target"] == {"metric": "val_accuracy", "value": 0.9, "mode": "max"}
    assert plan["recipe"]["steps"] >= 1


@pytest.mark.usefixtures("profile")
def test_the_objective_decides(cli: Cli) -> None:
    time_, examples = (answer(cli, f"{DIGITS} --objective {o} --trainings 8 --out {o}") for o in ("time", "examples"))
    assert examples["objective"] == "examples"
    assert examples["recipe"]["batch_size"] < time_["recipe"]["batch_size"]
    fewest, fastest = (p["predicted"]["examples_to_target"]["value"] for p in (examples, time_))
    assert fewest < fastest
    assert any(a["why"].startswith("fewest examples") for a in time_["alternatives"])
    assert any(a["why"].startswith("shortest training time") for a in examples["alternatives"])


@pytest.mark.usefixtures("profile")
def test_the_largest_batch_allowed(cli: Cli) -> None:
    plan = answer(cli, f"{DIGITS} --trainings 2 --max-batch-size 24 --out out")
    assert plan["recipe"]["batch_size"] <= 24
    assert max(config["batch_size"] for config in configs_of("out")) <= 24
    assert all(a["recipe"]["batch_size"] <= 24 for a in plan["alternatives"])


@pytest.mark.usefixtures("profile")
def test_a_good_recipe_is_kept_and_a_bad_one_is_not(cli: Cli) -> None:
    found = answer(cli, f"{DIGITS} --trainings 8")["recipe"]
    own = f"batch_size={found['batch_size']},lr={found['lr']}"
    kept = answer(cli, f"{DIGITS} --trainings 2 --current {own}")
    assert kept["status"] == "keep-current"
    assert (kept["recipe"]["batch_size"], kept["recipe"]["lr"]) == (found["batch_size"], found["lr"])
    told = cli(f"{DIGITS} --trainings 2 --current batch_size=4,lr=0.001 --out slow")
    plan = json.loads(Path("slow/plan.json").read_text(encoding="utf-8"))
    assert (told.status, plan["status"]) == (0, "ok")
    assert plan["predicted"]["time_to_target_s"]["value"] < plan["current_predicted"]["time_to_target_s"]["value"] / 2
    assert "It replaces batch size 4 with learning rate 0.001" in told.out
    assert [line.split() for line in told.out.splitlines() if "current" in line.split()] == [["recipe", "current"]]


@pytest.mark.usefixtures("profile")
def test_a_rate_that_decays(cli: Cli) -> None:
    plan = answer(cli, f"{DIGITS} --trainings 2 --schedule linear --out out")
    assert plan["recipe"]["schedule"] == "linear"
    horizons = [config for config in configs_of("out") if config["schedule"] == "linear"]
    assert horizons
    assert plan["recipe"]["steps"] in {config["max_steps"] for config in horizons}
    assert all((c["batch_size"], c["lr"]) == (plan["recipe"]["batch_size"], plan["recipe"]["lr"]) for c in horizons)


@pytest.mark.usefixtures("memory_profile")
def test_memory_sets_the_micro_batch(cli: Cli) -> None:
    """A limit of 300 kB holds 9 examples; a batch of 32 is put together from parts, and memory is said to bind."""
    limited = f"{DIGITS} --trainings 2 --memory-limit 300kB"
    plan = answer(cli, limited)
    assert plan["measured"]["largest_micro_batch_size"]["value"] < 16
    recipe = plan["recipe"]
    assert recipe["micro_batch_size"] <= plan["measured"]["largest_micro_batch_size"]["value"]
    assert recipe["micro_batch_size"] * recipe["grad_accum_steps"] == recipe["batch_size"]
    assert plan["status"] == "memory-bound"
    assert "memory sets the batch size" in plan["message"]
    assert plan["predicted"]["peak_memory_bytes"]["value"] <= 300_000
    kept = cli(f"{limited} --current batch_size=32,lr=0.25 --out kept")
    current = json.loads(Path("kept/plan.json").read_text(encoding="utf-8"))["current"]
    assert current["grad_accum_steps"] >= 4
    assert f"{current['grad_accum_steps']} x {current['micro_batch_size']}" in kept.out


# --- examples that depend on one another --------------------------------------------------------------------------

BATCH_NORM = (
    "find digits --set model=cnn --set norm=batch --hardware machine.json --target val_loss<=0.6 --trainings 0.5"
)


@pytest.mark.usefixtures("profile")
def test_batch_normalisation_switches_the_noise_scale_off_and_says_so(cli: Cli) -> None:
    plan = answer(cli, f"{BATCH_NORM} --max-batch-size 128 --out out")
    assert plan["measured"]["gradient_noise_scale"]["value"] is None
    assert not any(config["noise_scale_groups"] for config in configs_of("out"))
    assert any("batch normalisation" in note and "switched off" in note for note in plan["notes"])
    assert "switched off" in Path("out/report.html").read_text(encoding="utf-8")
    assert "Note: " in cli(f"{BATCH_NORM} --max-batch-size 128 --out out").out


@pytest.mark.usefixtures("memory_profile")
def test_f35_accumulation_under_batch_normalisation_is_said_to_be_something_else(cli: Cli) -> None:
    command = f"{BATCH_NORM} --memory-limit 300kB --current batch_size=32,lr=0.1"
    ended = cli(f"{command} --json --out out")
    assert ended.answer["current"]["grad_accum_steps"] > 1
    assert any(
        "accumulated micro-batches are not the same as one large batch" in note for note in ended.answer["notes"]
    )


# --- tasks of all kinds -------------------------------------------------------------------------------------------

DICTIONARIES = '''
import time
import torch
from torch import nn
from torch.nn import functional as F

class Examples:
    """Costs enough for an example that the loader takes workers."""
    def __init__(self, first, last):
        self.first, self.last = first, last
    def __len__(self):
        return self.last - self.first
    def __getitem__(self, index):
        time.sleep(0.0004)
        x = torch.randn(4, generator=torch.Generator().manual_seed(self.first + index))
        return {"inputs": x, "label": int(x[0] > 0)}

class Task:
    def model(self):
        return nn.Linear(4, 2)
    def train_data(self):
        return Examples(0, 200)
    def loss(self, model, batch):
        assert set(batch) == {"inputs", "label"}
        return F.cross_entropy(model(batch["inputs"]), batch["label"])
    def optimizer(self, params, lr):
        return torch.optim.AdamW(params, lr=lr)
'''


def test_dictionaries_through_a_loader_with_workers_and_without_evaluate(cli: Cli, profile: Path) -> None:
    from batchscope.tasks.loading import load_task
    from batchscope.tasks.workload import Workload

    Path("dictionaries.py").write_text(DICTIONARIES, encoding="utf-8")
    assert Workload(load_task("dictionaries.py:Task").task).loader_workers > 0
    plan = answer(
        cli,
        "find dictionaries.py:Task --target val_loss<=0.6 --trainings 0.5 --max-batch-size 32 --hardware machine.json",
    )
    assert plan["target"]["metric"] == "val_loss"
    assert any("held back" in note for note in plan["notes"])
    assert plan["examples_in_training_set"] == 180


@pytest.mark.usefixtures("profile")
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_arrays(cli: Cli, kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64) if kind == "classes" else (2 * x[:, 0] + 1).astype(np.float32)
    np.savez("mine.npz", x_train=x[:300], y_train=y[:300], x_val=x[300:], y_val=y[300:])
    plan = answer(
        cli,
        "find arrays --set path=mine.npz --set hidden=8 --set optimizer=sgd --target val_loss<=0.45 --trainings 0.5 "
        "--hardware machine.json",
    )
    assert plan["task"] == "arrays"
    assert plan["verified"]["metric"] <= 0.45


@pytest.mark.usefixtures("profile")
def test_text(cli: Cli) -> None:
    Path("mine.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60, encoding="utf-8")
    plan = answer(
        cli,
        "find text --set path=mine.txt --set context=16 --set width=16 --set depth=1 --target val_loss<=2.3 "
        "--trainings 0.5 --max-batch-size 32 --hardware machine.json",
    )
    assert plan["verified"]["metric"] <= 2.3
