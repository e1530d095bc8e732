"""Every command, as it is typed: answers on stdout, progress on stderr, files where they belong, the exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

FIND = "find digits --trainings 0.5 --target val_loss<=0.6"
COMMANDS = ("init", "find", "bench", "noise", "count", "study", "claims", "fit", "report", "runs")


def batchscope(*words: str, script: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; a script runs before it there."""
    program = f"{script}\nimport sys\nfrom batchscope.cli import main\nmain(sys.argv[1:])"
    command = [sys.executable, "-c", program, *words] if script else [sys.executable, "-m", "batchscope", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


# --- help, and what is not understood -----------------------------------------------------------------------------


def test_help_lists_what_works_and_imports_next_to_nothing() -> None:
    at_exit = """
import atexit, sys
atexit.register(lambda: print({"torch", "numpy", "scipy", "plotly", "jinja2"} & set(sys.modules), file=sys.stderr))"""
    ended = batchscope("--help", script=at_exit)
    assert (ended.returncode, ended.stderr) == (0, "set()\n")
    listed = [line.split()[1] for line in ended.stdout.splitlines() if line.startswith("│ ") and line[2] != " "]
    assert set(listed) == {*COMMANDS, "--help", "--version"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(cli: Cli, command: str) -> None:
    ended = cli(f"{command} --help")
    assert ended.status == 0
    options = [line for line in ended.out.splitlines() if line.startswith("│ --")]
    assert all(len(line.strip("│ ").split(maxsplit=1)) == 2 for line in options)
    measures = command in ("find", "bench", "noise", "study")
    for option in ("--set", "--seed", "--out", "--json", "--budget", "--device", "--memory-limit", "--debug"):
        assert not measures or any(option in line for line in options), option


def test_version(cli: Cli) -> None:
    import batchscope as package

    assert cli("--version").out.strip() == package.__version__


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("find digits --targt val_loss<=1", "Unknown option: --targt. Did you mean --target?"),
        ("fnd digits", 'Unknown command "fnd". Did you mean "find"?'),
        ("find digits --objective speed", 'Choose from: "time", "examples"'),
        ("find digits --seed -1", "--seed is -1; it must be at least 0"),
        ("find digits --seed x", "must be a whole number"),
        ("find digits --set", "requires an argument"),
        ("find digits letters", "Unused Tokens"),
        ("bench digits --max-batch-size many", "must be a whole number"),
        ("count --examples 100", "--batch-size is not given"),
    ],
)
def test_what_is_not_understood(cli: Cli, command: str, said: str) -> None:
    ended = cli(command)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("batchscope: ")
    assert said in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("command", ["find digits --targt 1 --json", "find digit --json", "runs nowhere --json"])
def test_json_of_an_error(cli: Cli, command: str) -> None:
    ended = cli(command)
    assert ended.status == 2
    assert set(ended.answer) == {"status", "error", "message"}
    assert ended.answer["message"] in ended.err


# --- find ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, cli_in: Cli, machine: str) -> tuple[Path, Any]:
    """One search for the tests that only look at it: its folder, and how it ended."""
    folder = tmp_path_factory.mktemp("found")
    (folder / "machine.json").write_text(machine, encoding="utf-8")
    return folder, cli_in(folder, f"{FIND} --hardware machine.json")


def test_find(found: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(found[0])
    ended = found[1]
    assert ended.status == 0
    folder = Path("batchscope-runs/digits")
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    lines = ended.out.splitlines()
    recipe = plan["recipe"]
    assert f"Train with batch size {recipe['batch_size']} and learning rate {recipe['lr']:.3g}." in lines
    for shown in ("batch size", "learning rate", "steps", "epochs", "step time", "time to target", "peak memory"):
        assert any(line.startswith(shown) for line in lines), shown
    assert {f"Why, with figures: {folder}/report.html", f"For programs: {folder}/plan.json"} <= set(lines)
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sum(path.name == "result.json" for path in folder.glob("runs/*/*")) == plan["search"]["runs"]


def test_the_duration_is_said_before_anything_is_trained(found: tuple[Path, Any]) -> None:
    lines = found[1].err.splitlines()
    said = next(i for i, line in enumerate(lines) if re.match("This search (will|would) take about ", line))
    first = next(i for i, line in enumerate(lines) if "range test" in line or line.startswith("run 1"))
    assert said < first
    assert "No training goes on after 10 min (--budget)." in lines[said]


def test_progress_in_a_log_has_a_line_for_each_event(found: tuple[Path, Any]) -> None:
    """What runs, why, and what is left; sentences are not broken where a terminal would end."""
    lines = found[1].err.splitlines()
    begun = [line for line in lines if line.startswith("run ")]
    assert begun
    assert all(
        "batch size" in line and "learning rate" in line and line.endswith(" of the budget left") for line in begun
    )
    ended = [line for line in lines if line.startswith("  run ")]
    assert len(ended) == len(begun)
    assert max(map(len, lines)) > 100


def test_json_of_find(cli: Cli, profile: Path) -> None:
    ended = cli(f"{FIND} --json", "--hardware", profile)
    assert ended.status == 0
    assert ended.out.count("\n") == 1
    assert ended.answer == json.loads(Path("batchscope-runs/digits/plan.json").read_text(encoding="utf-8"))
    assert ended.answer["schema"] == 1
    assert ended.answer["status"] == "ok"
    assert "run 1: batch size " in ended.err


def test_a_target_out_of_reach(cli: Cli, profile: Path) -> None:
    ended = cli(
        "find digits --target val_loss<=0.0001 --trainings 0.5 --max-batch-size 512 --budget 4s --json",
        "--hardware",
        profile,
    )
    plan = ended.answer
    assert (ended.status, plan["status"], plan["recipe"]) == (3, "target-not-reached", None)
    assert plan == json.loads(Path("batchscope-runs/digits/plan.json").read_text(encoding="utf-8"))
    told = cli(
        "find digits --target val_loss<=0.0001 --trainings 0.5 --max-batch-size 512 --budget 4s", "--hardware", profile
    )
    assert told.status == 3
    closest = min(
        json.loads(path.read_text(encoding="utf-8"))["best"]["val_loss"] for path in Path().glob("**/result.json")
    )
    assert f"the closest was val_loss {closest:.4g}" in told.out
    assert "run 1" not in told.err


def test_dry_run(cli: Cli, profile: Path) -> None:
    ended = cli("find digits --dry-run --budget 20s", "--hardware", profile)
    assert ended.status == 0
    assert re.match("This search (will|would) take about ", ended.out)
    assert "No training goes on after 20 s" in ended.out
    assert list(Path().iterdir()) == [Path(profile.name)]
    prediction = cli("find digits --dry-run --budget 20s --json", "--hardware", profile).answer
    assert 0 < prediction["low"] <= prediction["seconds"] <= prediction["high"]
    assert prediction["budget_s"] == 20
    assert prediction["training_s"]["low"] < prediction["training_s"]["value"] < prediction["training_s"]["high"]
    assert 0 < prediction["spent_s"] < prediction["low"]


def test_the_duration_is_of_this_machine_not_of_the_profile_s(cli: Cli, profile: Path) -> None:
    slow = {"name": "slow", "step_time_s": [[1, 600.0], [64, 1200.0]]}
    profile.write_text(json.dumps(slow), encoding="utf-8")
    assert cli("find digits --dry-run --budget 100h --json", "--hardware", profile).answer["low"] < 600


def test_dry_run_measures_this_machine_where_no_profile_is_given(cli: Cli) -> None:
    ended = cli("find digits --dry-run --max-batch-size 32")
    assert ended.status == 0
    assert "step time" in ended.err
    assert not list(Path().iterdir())


def test_folders_are_numbered_by_question(cli: Cli, profile: Path) -> None:
    command = f"{FIND} --hardware {profile.name} --json"
    answers = [cli(command).answer, cli(f"{command} --seed 1").answer, cli(command).answer]
    assert sorted(path.name for path in Path("batchscope-runs").iterdir()) == ["digits", "digits-2"]
    assert answers[0] == answers[2]
    assert cli(f"{command} --seed 1 --out here").status == 0
    assert Path("here/plan.json").exists()


def test_names_are_no_markup(cli: Cli, profile: Path) -> None:
    ended = cli(f"{FIND} --out [bold]:smile:", "--hardware", profile)
    assert "For programs: [bold]:smile:/plan.json" in ended.out.splitlines()


# --- bench and noise ----------------------------------------------------------------------------------------------


def test_bench_keeps_what_it_measured_and_find_can_use_it(cli: Cli) -> None:
    ended = cli("bench digits --max-batch-size 64 --budget 2s --save here.json")
    assert ended.status == 0
    folder = Path("batchscope-runs/digits")
    kept = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    assert kept["largest_micro_batch_size"] == 64
    assert json.loads((folder / "question.json").read_text(encoding="utf-8"))["command"] == "bench"
    assert "Largest micro-batch considered: 64 examples (a step of it was run)." in ended.out
    assert "Hardware knee: " in ended.out
    assert f"For programs: {folder}/bench.json" in ended.out
    assert json.loads(Path("here.json").read_text(encoding="utf-8")) == kept["profile"] | {"schema": 1}
    searched = cli(f"{FIND} --hardware here.json --max-batch-size 64 --json")
    assert searched.answer["bench"]["profile"]["step_time_s"] == kept["profile"]["step_time_s"]
    assert Path("batchscope-runs/digits-2/plan.json").exists()


def test_json_of_bench(cli: Cli) -> None:
    ended = cli("bench digits --max-batch-size 16 --budget 1s --json --out there")
    assert ended.status == 0
    assert ended.answer["hardware_knee"]["unit"] == "examples"
    assert {"readings", "profile", "split", "largest_micro_batch_size"} <= set(ended.answer)
    assert Path("there/bench.json").exists()


def test_noise_keeps_what_it_measured(cli: Cli) -> None:
    ended = cli("noise digits --steps 30 --lr 0.1")
    assert ended.status == 0
    assert ended.out.startswith("Gradient noise scale: ")
    assert "a hint at the critical batch size" in ended.out
    kept = json.loads(Path("batchscope-runs/digits/noise.json").read_text(encoding="utf-8"))
    assert (kept["steps"], kept["lr"]) == (30, 0.1)
    again = cli("noise digits --steps 30 --lr 0.1 --json")
    assert again.answer["gradient_noise_scale"] == kept["gradient_noise_scale"]
    assert [path.name for path in Path("batchscope-runs").iterdir()] == ["digits"]


def test_noise_is_refused_where_it_has_no_meaning(cli: Cli) -> None:
    ended = cli("noise digits --set model=cnn --set norm=batch --lr 0.1 --steps 5")
    assert (ended.status, ended.out) == (2, "")
    assert "batch normalisation" in ended.err


# --- commands without torch ---------------------------------------------------------------------------------------


def test_count(cli: Cli) -> None:
    there = cli("count --examples 1437 --batch-size 32 --epochs 3 --json").answer
    assert (there["steps"], there["steps_per_epoch"]) == (135, 1437 / 32)
    assert {entry["term"]: entry["counted"] for entry in there["glossary"]}["steps per epoch"] == 1437 / 32
    assert all(entry["agrees"] and entry["definition"] and entry["formula"] for entry in there["glossary"])
    back = cli("count --examples 1437 --batch-size 32 --steps 135 --last-batch drop --json").answer
    assert back["epochs"] == pytest.approx(135 / 44)
    told = cli("count --examples 1437 --batch-size 32 --epochs 3")
    assert "are 135 steps, 44.9062 in each epoch." in told.out
    assert "Partial last batch, rule stream: " in told.out
    assert "the rule of find, of study and of the programs that they write" in told.out
    kept = cli("count --examples 1437 --batch-size 32 --epochs 3 --last-batch keep")
    assert "Partial last batch, rule keep: " in kept.out
    assert "counted batch by batch: 135." in told.out
    once = cli("count --examples 8 --batch-size 8 --epochs 1").out
    assert once.startswith("1 epoch of 8 examples at batch size 8 is 1 step, 1 in each epoch.")
    refused = cli("count --examples 1437 --batch-size 32")
    assert refused.status == 2
    assert "epochs" in refused.err
    refused = cli("count")
    assert refused.status == 2
    assert "--examples and --batch-size are not given" in refused.err
    assert "batchscope count --examples 60000 --batch-size 256 --epochs 30" in refused.err


def test_init_writes_a_file_that_can_be_searched(cli: Cli, profile: Path) -> None:
    ended = cli("init mine.py")
    command = ended.out.partition("Try it: batchscope ")[2].strip()
    assert command == "find mine.py:task"
    assert cli(f"{command} --dry-run", "--hardware", profile).status == 0
    assert cli("init mine.py").status == 2


def test_runs_and_report_without_torch(cli: Cli, profile: Path) -> None:
    made = cli(f"{FIND} --json --out here", "--hardware", profile).answer
    page = Path("here/report.html").read_text(encoding="utf-8")
    Path("here/report.html").unlink()
    without_torch = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NotInstalled())"""
    ended = batchscope("report", "here", script=without_torch)
    assert (ended.returncode, ended.stdout) == (0, "Wrote here/report.html.\n"), ended.stderr
    assert Path("here/report.html").read_text(encoding="utf-8") == page
    listed = batchscope("runs", "here", "--json", script=without_torch)
    assert listed.returncode == 0, listed.stderr
    runs = json.loads(listed.stdout)["runs"]
    assert len(runs) == made["search"]["runs"]
    assert all(run["result"]["status"] == "reached" for run in runs)
    table = cli("runs here").out
    assert all(f" {run['result']['steps']} " in table for run in runs)


def test_runs_shows_the_steps_to_the_target_of_the_search(cli: Cli, profile: Path) -> None:
    """A pilot runs without a target; the search chooses one that it reached."""
    assert cli("find digits --trainings 0.5 --json --out here --hardware", profile).answer["status"] == "ok"
    runs = cli("runs here --json").answer["runs"]
    lines = cli("runs here").out.splitlines()
    assert any(run["result"]["steps_to_target"] is None for run in runs)
    shown = [
        re.search(rf" {run['config']['seed']} +{run['result']['steps']} +([\d.]+) ", " ".join(lines)) for run in runs
    ]
    assert all(found and float(found[1]) <= run["result"]["steps"] for found, run in zip(shown, runs, strict=True))
    Path("here/plan.json").unlink()
    assert cli("runs here").out.splitlines() != lines


# --- endings ------------------------------------------------------------------------------------------------------


def test_an_error_has_one_message_and_its_traceback_only_when_asked(cli: Cli) -> None:
    Path("broken.py").write_text("def task():\n    return 1 / 0\n", encoding="utf-8")
    ended = cli("find broken.py:task")
    assert (ended.status, ended.out) == (2, "")
    assert "Traceback" not in ended.err
    assert "batchscope: task() in broken.py raised ZeroDivisionError: division by zero (broken.py, line 2" in ended.err
    assert ended.err.endswith("(--debug shows where)\n")
    traced = cli("find broken.py:task --debug")
    assert traced.status == 2
    assert "Traceback" in traced.err
    assert "return 1 / 0" in traced.err


def test_interrupted(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("batchscope.search.runs.measure_rate_range", interrupt)
    ended = cli("find digits --max-batch-size 16 --budget 5s")
    assert (ended.status, ended.out) == (130, "")
    assert "the same command goes on from there" in ended.err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_error(form: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    words = ["count", "--examples", "9", "--batch-size", "2", "--epochs", "1", *form]
    command = [sys.executable, "-m", "batchscope", *words]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")
