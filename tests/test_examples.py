"""The examples: each script trains, its task passes the preflight and makes the script's own steps in few lines."""

from __future__ import annotations

import ast
import importlib
import io
import math
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from batchscope.store.records import RunConfig, Target
from batchscope.tasks.loading import load_task
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload
from batchscope.training.loop import Training

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples"
SCRIPTS = {path.stem for path in FOLDER.glob("*.py")}

TASKS: dict[str, tuple[str, ...]] = {
    "image_classifier": ("loader_options",),
    "small_gpt": ("loss_weight", "before_update", "schedule", "precision"),
    "padded_sequences": ("loss_weight", "collate", "sampler"),
    "table_regression": ("ema_decay",),
    "fine_tuning": (),
}
"""Optional members that each task has beside `evaluate`."""
TARGETS = {
    "image_classifier": "val_accuracy>=0.9",
    "small_gpt": "val_loss<=3.3",
    "padded_sequences": "val_loss<=0.5",
    "table_regression": "val_rmse<=2.0",
    "fine_tuning": "val_accuracy>=0.85",
}
SCHEDULES = {"image_classifier": "cosine", "small_gpt": "task"}
STEPS = 5

each = pytest.mark.parametrize("name", TASKS)
Script = Callable[[str], ModuleType]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, the scripts can be imported by their bare names, and no such name is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in SCRIPTS & set(sys.modules):
        del sys.modules[name]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of `pretraining.py` after one epoch."""
    path = tmp_path_factory.mktemp("weights") / "pretrained.pt"
    sys.path.insert(0, str(FOLDER))
    try:
        importlib.import_module("pretraining").main(["--epochs", "1", "--save", str(path)])
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("pretraining", None)
    return path


def settings_of(name: str, weights: Path) -> dict[str, Any]:
    return {"weights": weights} if name == "fine_tuning" else {}


def words_of(name: str, weights: Path) -> list[str]:
    return ["--weights", str(weights)] if name == "fine_tuning" else []


def loaded(name: str, weights: Path) -> Any:
    return load_task(str(FOLDER / f"{name}_task.py"), settings_of(name, weights)).task


class Kept(Workload):
    """A task on its device that keeps the batches which it hands out."""

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.batches: list[Any] = []

    def micro_batches(self, *given: Any, **named: Any) -> Iterator[list[Any]]:
        for parts in super().micro_batches(*given, **named):
            self.batches += parts
            yield parts


@each
def test_the_script_trains_and_saves(name: str, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    length = ["--steps", "20", "--every", "10"] if name == "small_gpt" else ["--epochs", "2"]
    importlib.import_module(name).main([*length, *words_of(name, weights)])
    said = re.findall(r"(val_\w+) ([\d.]+)", capsys.readouterr().out)
    values = [float(value) for metric, value in said if metric in ("val_loss", "val_rmse")]
    assert values[1] < values[0]
    assert Path(f"{name}.pt").is_file()


@each
def test_the_task_passes_the_preflight(name: str, weights: Path) -> None:
    task = loaded(name, weights)
    for member in TASKS[name]:
        assert getattr(task, member) is not None
    found = check(Workload(task), target=Target.parse(TARGETS[name]))
    assert all(map(math.isfinite, found.metrics.values()))


@each
def test_a_run_makes_the_steps_of_the_script(name: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = loaded(name, weights)
    workload = Kept(task)
    made = {"batch_size": 24, "micro_batch_size": 24, "lr": 0.01, "seed": 7, "max_steps": STEPS}
    never = Target(metric=Target.parse(TARGETS[name]).metric, value=-1.0, mode="min")
    training = Training(workload, RunConfig(task=name, schedule=SCHEDULES.get(name, "constant"), target=never, **made))
    fresh = {key: value.clone() for key, value in training.model.state_dict().items()}
    training.advance()

    def loader(data: Any, *given: Any, **named: Any) -> Any:
        ordered = named.get("shuffle") or "sampler" in named
        return workload.batches[:STEPS] if ordered else DataLoader(data, *given, **named)

    script = importlib.import_module(name)
    monkeypatch.setattr(script, "DataLoader", loader)
    length = ["--steps" if name == "small_gpt" else "--epochs", str(STEPS if name == "small_gpt" else 1)]
    script.main([*length, "--batch-size", "24", "--lr", "0.01", "--seed", "7", *words_of(name, weights)])
    saved = torch.load(f"{name}.pt", weights_only=True)
    own = training.state()
    if name == "table_regression":
        averaged = {key.removeprefix("module."): value for key, value in own["update"]["averaged"].items()}
        averaged.pop("n_averaged")
        assert_same(averaged, saved["averaged"])
        saved = saved["model"]
    assert_same(own["model"], saved)
    moved = [key for key, value in own["model"].items() if not torch.equal(value, fresh[key])]
    frozen = [key for key in fresh if key.startswith(("edges", "shapes"))]
    assert sorted([*moved, *frozen]) == sorted(fresh)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=0.0, atol=1e-6, msg=key)


def test_the_data_parallel_script_trains_alike_alone_and_in_two_processes(capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("data_parallel").main(["--epochs", "2"])
    alone = capsys.readouterr().out
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(FOLDER / "data_parallel.py"), "--epochs", "2"]
    together = subprocess.run(command, capture_output=True, text=True, timeout=170, check=True).stdout

    def losses(said: str) -> list[float]:
        return [float(value) for value in re.findall(r"val_loss ([\d.]+)", said)]

    assert len(losses(alone)) == 2
    assert losses(together) == pytest.approx(losses(alone), abs=2e-4), "the same batches, shared out"
    assert re.search(r"gradient noise scale \d.* from accumulated micro-batches\n", alone), alone
    assert re.search(r"gradient noise scale \d.* from data-parallel ranks\n", together), together


def test_every_fine_tuning_begins_at_the_loaded_weights(weights: Path) -> None:
    workload = Workload(loaded("fine_tuning", weights))
    held = torch.load(weights, weights_only=True)
    for seed in (0, 1):
        model = workload.model(seed)
        with torch.no_grad():
            for key, value in model.state_dict().items():
                assert torch.equal(value, held[key]) is not key.startswith("head"), key
                value.zero_()


def test_micro_batches_of_unequal_tokens_make_the_whole_batch(weights: Path) -> None:
    from batchscope.tasks.update import Update

    task = loaded("padded_sequences", weights)
    workload = Workload(task)
    gradients = []
    for cuts in ([24], [5, 1, 18]):
        model = workload.model(0).double()
        batches = [workload.batch(part) for part in torch.arange(24).split(cuts)]
        loss = Update(workload, model, 0.01).gradients(batches)
        flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        gradients.append(torch.cat([flat, loss[None]]))
    whole, parts = gradients
    assert float((whole - parts).norm() / whole.norm()) < 1e-12


def test_batches_of_the_sampler_have_similar_lengths(weights: Path) -> None:
    task = loaded("padded_sequences", weights)
    spreads = []
    for sampler in (task.sampler, None):
        task.sampler = sampler
        stream = Workload(task).micro_batches(16, 1, 0)
        lengths = [next(stream)[0]["lengths"] for _ in range(30)]
        stream.close()
        spreads.append(sum(float(each.max() - each.min()) for each in lengths))
    assert spreads[0] < 0.5 * spreads[1]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "fine_tuning" else pytest.mark.slow) for n in TASKS])
def test_find_takes_the_task(name: str, weights: Path, cli: Callable[..., Any]) -> None:
    chosen = [f"{key}={value}" for key, value in settings_of(name, weights).items()]
    words = ["--target", TARGETS[name], "--budget", "8s", "--out", "out", "--json"]
    ended = cli("find", FOLDER / f"{name}_task.py", *words, *(["--set", *chosen] if chosen else []))
    assert ended.status in (0, 3), ended.err
    assert ended.answer["task"] == f"{name}_task"


@pytest.mark.shared
def test_a_table_of_ones_own(shared: Path) -> None:
    table = shared / "data" / "bike_sharing" / "bike_sharing.npz"
    task = load_task(str(FOLDER / "table_regression_task.py"), {"table": table}).task
    workload = Workload(task)
    metrics = check(workload, target=Target.parse("val_rmse<=60")).metrics
    assert workload.examples == 12_143
    assert 100 < metrics["val_rmse"] < 400


def code_lines(path: Path) -> list[str]:
    """Lines of a Python file that hold code: no blank lines, no comments, no docstrings."""
    text = path.read_text(encoding="utf-8")
    empty = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return [line.strip() for number, line in enumerate(text.splitlines(), 1) if number in lines]


def stated(text: str) -> dict[str, Sequence[int]]:
    """Lines of each script and of its task, by the rows of a table."""
    rows = re.findall(
        r"^\| \[?`(\w+)\.py`[^|]*\|[^|]*\| (\d+) \| \[?`\w+_task\.py`[^|]*\| (\d+) \|", text, re.MULTILINE
    )
    return {name: (int(script), int(task)) for name, script, task in rows}


def test_the_stated_lines_are_those_of_the_files() -> None:
    counted = {name: tuple(len(code_lines(FOLDER / f"{file}.py")) for file in (name, f"{name}_task")) for name in TASKS}
    assert stated((FOLDER / "README.md").read_text(encoding="utf-8")) == counted


def test_the_readme_states_the_same_lines() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    found = re.search(r"The tasks take ([\d, and]+) lines", text)
    assert found is not None
    assert [int(n) for n in re.findall(r"\d+", found[1])] == [
        len(code_lines(FOLDER / f"{name}_task.py")) for name in TASKS
    ]


def test_a_gpt_with_all_its_members_takes_sixteen_lines_at_most() -> None:
    assert len(code_lines(FOLDER / "small_gpt_task.py")) <= 16


def test_lines_are_counted_without_what_is_no_code(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text('"""Two\nlines."""\n\nx = (  # one\n    2\n)\n\n# none\ndef f():\n    """No."""\n    return x\n')
    assert code_lines(file) == ["x = (  # one", "2", ")", "def f():", "return x"]


def test_tasks_copy_nothing_of_their_scripts() -> None:
    for name in TASKS:
        script, task = (set(code_lines(FOLDER / f"{file}.py")) for file in (name, f"{name}_task"))
        assert not [line for line in script & task if len(line) > 30 and " import " not in line]
