"""Whole searches on small tasks: what stops them, how they go on, and what each option does to the answer."""

from __future__ import annotations

import functools
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .folders import DIGITS, Cli, answer, configs_of, curves_of, files_of, without_clock

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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cli_in: Cli, machine: str) -> Path:
    """The folder of one search for 8 trainings, for the tests that compare with it."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "machine.json").write_text(machine, encoding="utf-8")
    assert cli_in(folder, f"{DIGITS} --trainings 8 --out out").status == 0
    return folder / "out"


def plan_in(folder: Path) -> Any:
    return json.loads((folder / "plan.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.usefixtures("profile")
def test_f31_a_search_that_was_stopped_goes_on_and_repeats_nothing(cli: Cli, whole: Path, how: signal.Signals) -> None:
    command = f"{DIGITS} --trainings 8"
    assert plan_in(whole)["search"]["runs"] >= 2
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
    assert curves_of("out") == curves_of(str(whole))
    assert without_clock(resumed) == without_clock(plan_in(whole))


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
    again = cli(f"{DIGITS} --trainings 2 --out out --json --budget 0.02s")
    assert (again.status, again.answer["recipe"], again.answer["status"]) == (3, None, cut.answer["status"])
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


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("profile")
def test_no_target_one_is_chosen_and_said(cli: Cli) -> None:
    plan = answer(cli, "find digits --hardware machine.json --trainings 1 --out out")
    assert plan["target"]["metric"] == "val_loss"
    assert any("was chosen" in item["statement"] for item in plan["evidence"])


@pytest.mark.usefixtures("profile")
def test_a_target_on_a_score(cli: Cli) -> None:
    plan = answer(cli, "find digits --hardware machine.json --trainings 1 --target val_accuracy>=0.9")
    confirm = plan["target"]["confirm"]
    assert plan["target"] == {"metric": "val_accuracy", "value": 0.9, "mode": "max", "confirm": confirm}
    assert plan["recipe"]["steps"] >= 1


@pytest.mark.usefixtures("profile")
def test_the_objective_decides(cli: Cli) -> None:
    asked = f"{DIGITS} --confirm 1 --trainings 8"
    time_, examples = (answer(cli, f"{asked} --objective {o} --out {o}") for o in ("time", "examples"))
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
def test_a_good_recipe_is_kept_and_a_bad_one_is_not(cli: Cli, whole: Path) -> None:
    found = plan_in(whole)["recipe"]
    own = f"batch_size={found['batch_size']},lr={found['lr']}"
    shutil.copytree(whole, "out")
    kept = answer(cli, f"{DIGITS} --trainings 2 --current {own} --out out")
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
    assert "Memory sets the batch size" in plan["message"]
    assert plan["predicted"]["peak_memory_bytes"]["value"] <= 300_000
    kept = cli(f"{limited} --current batch_size=32,lr=0.25 --out kept")
    current = json.loads(Path("kept/plan.json").read_text(encoding="utf-8"))["current"]
    assert current["grad_accum_steps"] >= 4
    assert f"{current['grad_accum_steps']} x {current['micro_batch_size']}" in kept.out


# --- its clock ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("profile")
def test_the_budget_counts_earlier_commands_and_says_so(cli: Cli) -> None:
    command = f"{DIGITS} --trainings 2 --out out --json"
    cut = cli(f"{command} --budget 0.02s")
    assert "used by earlier commands" not in cut.err
    again = cli(f"{command} --budget 5m")
    used = " of the budget of 5 min were used by earlier commands with this question; --budget 10m gives 5 min more"
    assert used in again.err
    assert again.answer["search"]["seconds"] > cut.answer["search"]["seconds"] > 0
    assert not any("budget" in note for note in again.answer["notes"])
    read = cli(f"{command} --budget 5m")
    assert read.answer == again.answer
    assert "assuming that nothing is left to train" in read.err


@pytest.mark.usefixtures("profile")
def test_an_answer_that_is_read_again_within_less_time_is_the_same(cli: Cli) -> None:
    first = answer(cli, f"{DIGITS} --out out --budget 5m")
    again = cli(f"{DIGITS} --out out --budget 0.1s --json")
    assert again.status == 0
    assert without_clock(again.answer) == without_clock(first)


@pytest.mark.usefixtures("profile")
def test_the_price_has_parts_within_the_wall_time(cli: Cli) -> None:
    cost = answer(cli, f"{DIGITS} --trainings 1")["search"]
    assert 0 < cost["training_seconds"] + cost["evaluation_seconds"] <= cost["seconds"]
    assert cost["training_here_s"] > 0
