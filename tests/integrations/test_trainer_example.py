"""The script with the Trainer trains by itself, and as a task by its name."""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="the tests of the Trainer need transformers; install the extra integrations")

from batchscope.tasks.loading import load_task
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload

FOLDER = Path(__file__).resolve().parents[2] / "examples"
SPEC = "batchscope.integrations.transformers:task"
NAMED = f"trainer={FOLDER / 'trainer_language_model.py'}:make_trainer"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "trainer_language_model", raising=False)
    return tmp_path


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
def test_the_script_trains(capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("trainer_language_model").main(["--steps", "20"])
    said = capsys.readouterr().out
    (loss,) = re.findall(r"^eval_loss ([\d.]+)", said, re.MULTILINE)
    assert float(loss) < 3.4  # a model that knows nothing of 31 letters is at 3.43
    assert re.search(r"^gradient noise scale .*, from accumulated micro-batches$", said, re.MULTILINE)


def test_its_task_passes_the_preflight_and_writes_nothing(here: Path) -> None:
    loaded = load_task(SPEC, [NAMED, "examples=64", "steps=50"])
    found = check(Workload(loaded.task))
    assert math.isfinite(found.metrics["eval_loss"])
    assert "cosine with 5 warm-up steps of 50" in " ".join(found.notes)
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_find_answers_and_the_page_says_it_in_the_trainers_words(here: Path, cli: Callable[..., Any]) -> None:
    words = ["--target", "eval_loss<=3.2", "--budget", "25s", "--out", "out", "--json"]
    ended = cli("find", SPEC, *words, "--set", NAMED, "--set", "examples=256")
    assert ended.status == 0, ended.err
    assert ended.answer["task"] == "trainer_language_model-make_trainer"
    page = (here / "out" / "report.html").read_text(encoding="utf-8")
    size = ended.answer["recipe"]["micro_batch_size"]
    assert f"per_device_train_batch_size={size}," in page
    assert "it\u2019s/s" not in ended.err
    assert "eval_runtime" not in ended.err
