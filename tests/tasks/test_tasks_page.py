"""`docs/tasks.md` tells of every member as it is declared, and each of its tasks trains."""

from __future__ import annotations

import copy
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from batchscope.errors import TaskError
from batchscope.probes.noise_scale import probes_of
from batchscope.store.records import Row, RunConfig
from batchscope.tasks.members import MEMBERS
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload
from batchscope.testing import without_clock
from batchscope.training.checkpoint import Checkpoint
from batchscope.training.loop import Training, train
from batchscope.training.stopping import StepLimitRule

from .preflight.parts import Parts

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
CODE = "".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
NAMES = [name for name in re.findall(r"^class (\w+)(?:\(Regression\)|\(Tokens\))?:", CODE, re.MULTILINE)]


@cache
def namespace(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = {"__name__": "tasks_page"}
    exec(CODE, made)
    return made


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the page's blocks define, run in a folder of their own."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return namespace(folder)


@pytest.fixture(autouse=True)
def _in_the_pages_folder(page: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(torch.nn.Linear(8, 32).state_dict(), "pretrained.pt")


def test_the_table_is_the_declaration() -> None:
    rows = [
        f"| {f'**`{m.name}`**' if m.required else f'`{m.name}`'} | `{m.signature}` | {m.meaning} |" for m in MEMBERS
    ]
    assert [line for line in PAGE.splitlines() if line.startswith(("| **`", "| `"))] == rows


def test_every_member_has_a_section_with_an_example() -> None:
    sections = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert set(sections) == {member.name for member in MEMBERS}
    assert [name for name, text in sections.items() if "```python" not in text] == []
    assert [m.name for m in MEMBERS if m.name not in CODE] == []


def configuration(**changes: Any) -> RunConfig:
    given: dict[str, Any] = {"batch_size": 32, "grad_accum_steps": 2, "lr": 0.02, "max_steps": 40, **changes}
    parts = given["grad_accum_steps"]
    return RunConfig(task="page", micro_batch_size=given["batch_size"] // parts, noise_scale_groups=2, **given)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Several"] + ["parts"])
def test_each_task_of_the_page_passes_the_preflight_and_trains(name: str, page: dict[str, Any]) -> None:
    made = page["parts"] if name == "parts" else page[name]()
    if name == "Streamed" and importlib.util.find_spec("batchscope.tasks.streams") is None:
        with pytest.raises(TaskError, match="can only be iterated"):
            Workload(made)
        return
    workload = Workload(made)
    assert check(workload).independent
    config = configuration(schedule="task" if name == "Scheduled" else "constant")
    result = train(workload, config, probes=probes_of(config))
    assert result.steps == 40
    assert result.last["val_loss"] < 0.95 * result.first["val_loss"]


@pytest.mark.parametrize("name", ["MuonAndAdamW", "Compiled", "FineTuned"])
def test_a_run_goes_on_from_its_checkpoint(name: str, page: dict[str, Any]) -> None:
    """Several optimizers as one, a compiled model, pretrained weights: with averaged weights, to the last bit."""

    class Averaged(page[name]):
        ema_decay = 0.9

    one_go, rows, more = list[Row](), list[Row](), list[Row]()
    Training(Workload(Averaged()), configuration(), on_row=one_go.append).advance()
    first = Training(Workload(Averaged()), configuration(), on_row=rows.append)
    first.advance([StepLimitRule(steps=5)])
    state = Checkpoint(rows=tuple(rows), state=first.state())
    Training(Workload(Averaged()), configuration(), on_row=more.append, goes_on=state).advance()
    assert without_clock([*rows, *more]) == without_clock(one_go)
    assert "ema_val_loss" in one_go[-1]["metrics"]


def test_a_model_that_is_returned_again_is_refused_and_a_copy_is_not() -> None:
    kept = torch.nn.Linear(4, 3)
    with pytest.raises(TaskError, match=r"model\(\) returned the same parameters twice \(weight, ...\)"):
        check(Workload(Parts(make_model=lambda: kept)))
    assert check(Workload(Parts(make_model=lambda: copy.deepcopy(kept)))).parameters == 15
