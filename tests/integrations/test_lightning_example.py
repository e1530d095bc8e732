"""The example script in Lightning: it trains, its module and data are a task, and `--find` finds how it trains."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("lightning", reason="lightning is not installed: pip install -e '.[integrations]'")

from batchscope.store.records import Target
from batchscope.tasks.loading import load_task
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload

from .lightning_modules import QUIET

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "lightning_classifier.py"
pytestmark = QUIET


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.chdir(tmp_path)
    spec: Any = importlib.util.spec_from_file_location("lightning_classifier", SCRIPT)
    module = sys.modules["lightning_classifier"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["lightning_classifier"]


def said(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"(val_\w+) (\d\.\d+)", text)}


def test_the_script_trains(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["--epochs", "2"])
    out = capsys.readouterr().out
    assert said(out)["val_accuracy"] > 0.85
    assert re.search(r"gradient noise scale: \S", out)
    assert Path("lightning_logs/version_0/metrics.csv").is_file()


def test_the_command_of_its_docstring_makes_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SCRIPT.parents[1])
    text = " ".join(SCRIPT.read_text(encoding="utf-8").split())
    settings = re.findall(r"--set (\w+=examples/lightning_classifier.py:\w+)", text)
    assert [each.partition("=")[0] for each in settings] == ["module", "data", "trainer"]
    loaded = load_task("batchscope.integrations.lightning:task", settings)
    assert loaded.name == "lightning_classifier-Classifier"
    workload = Workload(loaded.task)
    found = check(workload, target=Target.parse("val_accuracy>=0.97"))
    assert found.metrics.keys() == {"val_loss", "val_accuracy"}
    assert workload.schedule is not None
    assert workload.schedule(0.5) == pytest.approx(0.5)
    sys.modules.pop("lightning_classifier", None)


@pytest.mark.slow
def test_it_finds_what_it_trains_with(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["--find", "val_accuracy>=0.95"])
    assert said(capsys.readouterr().out)["val_accuracy"] > 0.93
    assert Path("lightning_classifier/report.html").is_file()
