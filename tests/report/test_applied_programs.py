"""The program that stands on the page of a real search trains the task to the target, as the search's own run did."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..search.folders import Cli, answer

KINDS = Path(__file__).with_name("kinds.py")
RUFF = [sys.executable, "-m", "ruff"]


@dataclass(frozen=True, kw_only=True)
class Applied:
    """A search, and what the program on its page printed."""

    plan: Any
    program: str
    course: dict[int, float]
    """Metric by step."""

    @property
    def reached(self) -> bool:
        value, target = self.course[max(self.course)], self.plan["target"]["value"]
        return bool(value <= target)

    def of_the_search(self) -> dict[int, float]:
        """Metric by step of the search's run at exactly the recipe."""
        recipe, metric = self.plan["recipe"], self.plan["target"]["metric"]
        decays = recipe["schedule"] != "constant"
        for path in Path("out/runs").glob("*/config.json"):
            config = json.loads(path.read_text())
            same = all(config[name] == recipe[name] for name in ("batch_size", "lr", "schedule"))
            if same and (not decays or config["max_steps"] == recipe["steps"]):
                rows = map(json.loads, path.with_name("rows.jsonl").read_text().splitlines())
                return {row["step"]: row["metrics"][metric] for row in rows if row["kind"] == "evaluation"}
        raise AssertionError("no run at the recipe")


def program_on(page: Path) -> str:
    return html.unescape(re.findall(r"<pre><code>(.*?)</code></pre>", page.read_text(encoding="utf-8"), re.DOTALL)[-1])


@pytest.fixture
def apply(cli: Cli, profile: Path) -> Any:
    def run(kind: str, *words: str, executions: int = 1) -> Applied:
        Path("kinds.py").write_text(KINDS.read_text(encoding="utf-8"), encoding="utf-8")
        how = "--hardware machine.json --evaluation-share 100% --trainings 1 --out out"
        plan = answer(cli, f"find kinds.py:{kind} {how}", *words)
        program = program_on(Path("out/report.html"))
        Path("train.py").write_text(f"{program}\n", encoding="utf-8")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "error", "train.py"]
        printed = list[str]()
        for _ in range(executions):
            ended = subprocess.run(command, capture_output=True, text=True, env=environment)
            assert ended.returncode == 0, ended.stderr
            printed.append(ended.stdout)
        assert len(set(printed)) == 1, printed
        course = re.findall(r"step (\d+): \S+ (\S+)", printed[0])
        assert printed[0].splitlines()[-1] == f"target reached at step {course[-1][0]}"
        return Applied(plan=plan, program=program, course={int(step): float(value) for step, value in course})

    return run


def assert_same_course(done: Applied) -> None:
    """At every step at which both were evaluated, both have the same loss, up to rounding."""
    ours, theirs = done.course, done.of_the_search()
    common = sorted(ours.keys() & theirs.keys())
    assert len(common) > 2
    assert max(ours) - max(theirs) < done.plan["evaluations"]["every_steps"]
    assert [ours[step] for step in common] == pytest.approx([theirs[step] for step in common], rel=1e-4)


def assert_clean(program: str) -> None:
    for command in (["check", "--select", "E,F,W,B,UP,SIM,C4,RUF"], ["format", "--check"]):
        words = [*RUFF, command[0], "--isolated", "--line-length", "100", *command[1:], "-"]
        done = subprocess.run(words, input=f"{program}\n", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_tensors_in_memory(apply: Any) -> None:
    done = apply("Tensors", "--target", "val_loss<=0.012", "--set", "bias=false")
    assert done.reached
    assert_same_course(done)
    assert_clean(done.program)
    assert "task = make_task(bias=False)" in done.program
    assert "DataLoader" not in done.program
    assert "batchscope" not in done.program


@pytest.mark.slow
def test_dicts_with_a_collate_of_its_own(apply: Any) -> None:
    done = apply("Dicts", "--target", "val_loss<=0.012")
    assert done.reached
    assert_same_course(done)
    assert_clean(done.program)


@pytest.mark.slow
def test_padded_sequences_with_weighted_micro_batches(apply: Any, profile: Path) -> None:
    data = json.loads(profile.read_text(encoding="utf-8"))
    peaks = [[size, 100_000 + 16_384 * size] for size in (1, 4, 16, 32)]
    little = {**data, "peak_memory_bytes": peaks, "capacity_bytes": 190_000}
    profile.write_text(json.dumps(little), encoding="utf-8")
    done = apply("Padded", "--target", "val_loss<=1.2", "--current", "batch_size=16,lr=0.8")
    assert (done.plan["recipe"]["batch_size"], done.plan["recipe"]["grad_accum_steps"]) == (16, 4)
    assert done.reached
    assert_same_course(done)
    assert_clean(done.program)
    assert done.plan["program"]["tokens_per_example"] == pytest.approx(5.5, rel=0.2)


@pytest.mark.slow
def test_bfloat16_with_clipping_groups_and_a_schedule(apply: Any) -> None:
    done = apply("Groups", "--target", "val_loss<=0.02", "--schedule", "linear")
    assert done.reached
    assert_same_course(done)
    assert_clean(done.program)
    assert done.plan["recipe"]["precision"] == "bfloat16"


@pytest.mark.slow
def test_workers_with_augmentation(apply: Any) -> None:
    """What workers draw is another on each machine, so only the end is the same."""
    done = apply("Workers", "--target", "val_loss<=0.012")
    assert done.reached
    assert_clean(done.program)
    assert "**task.loader_options" in done.program


def test_averaged_weights_without_an_evaluate(apply: Any) -> None:
    done = apply("Averaged", "--target", "val_loss<=0.012")
    assert done.reached
    assert_same_course(done)
    assert_clean(done.program)
    assert Path("averaged.pt").exists()


def test_a_target_on_averaged_weights_of_a_model_with_a_method(apply: Any) -> None:
    done = apply("Predicting", "--target", "ema_val_loss<=0.012")
    assert done.reached
    assert_same_course(done)
    assert_clean(done.program)


@pytest.mark.slow
def test_chance_is_that_of_the_search_in_every_execution(apply: Any) -> None:
    """Dropout and augmentation from all generators."""
    done = apply("Chance", "--target", "val_loss<=0.5", executions=2)
    assert_same_course(done)
    assert_clean(done.program)


def test_a_stream(apply: Any) -> None:
    done = apply("Stream", "--target", "val_loss<=0.012")
    assert done.reached
    assert_same_course(done)
    assert_clean(done.program)
    assert done.plan["recipe"]["epochs"] is None
