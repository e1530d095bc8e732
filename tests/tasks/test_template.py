"""The file that `init` writes is a task: it loads, passes the preflight, trains, and takes settings."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchscope.errors import UsageError
from batchscope.probes.noise_scale import probes_of
from batchscope.store.records import RunConfig
from batchscope.tasks.loading import load_task
from batchscope.tasks.members import MEMBERS
from batchscope.tasks.preflight.check import check
from batchscope.tasks.template import FACTORY, write_task_file
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def test_it_runs_as_it_is(tmp_path: Path) -> None:
    path = write_task_file(tmp_path / "deep" / "my_model.py")
    assert path == tmp_path / "deep" / "my_model.py"
    loaded = load_task(f"{path}:{FACTORY}")
    assert (loaded.name, loaded.settings) == ("my_model", {"features": 10, "hidden": 64, "optimizer": "adamw"})
    workload = Workload(loaded.task)
    assert not workload.in_memory  # dict batches, through a DataLoader
    preflight = check(workload)
    assert preflight.independent
    assert preflight.notes == ()
    config = RunConfig(task="x", batch_size=64, micro_batch_size=64, lr=0.02, max_steps=300, evaluation_growth=1.5)
    assert train(workload, config).best["val_r2"] > 0.9


def test_its_settings(tmp_path: Path) -> None:
    path = write_task_file(tmp_path / "my_model.py")
    task = load_task(f"{path}:{FACTORY}", ["features=16", "hidden=8", "optimizer=sgd"]).task
    assert [tuple(p.shape) for p in task.model().parameters()] == [(8, 16), (8,), (1, 8), (1,)]
    assert type(task.optimizer(task.model().parameters(), 0.1)).__name__ == "SGD"


def uncommented(text: str) -> str:
    """The file with every commented member; lines of comment proper are sentences, and stay."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        code = line.removeprefix("    # ")
        if line.startswith("    # ") and (code.startswith("def ") or re.match(r"[a-z_]+ = ", code)):
            inside = True
        elif not line.startswith("    #"):
            inside = False
        kept.append(f"    {code}" if inside and line.startswith("    # ") else line)
    return "\n".join(kept)


def test_it_shows_every_member_and_runs_with_all_of_them(tmp_path: Path) -> None:
    path = write_task_file(tmp_path / "whole.py")
    path.write_text(uncommented(path.read_text(encoding="utf-8")), encoding="utf-8")
    loaded = load_task(str(path))
    assert [member.name for member in MEMBERS if not hasattr(loaded.task, member.name)] == []
    workload = Workload(loaded.task)
    preflight = check(workload)
    assert [note for note in preflight.notes if "sampler" not in note] == []
    assert "ema_val_loss" in preflight.metrics
    config = RunConfig(
        task="x",
        batch_size=64,
        micro_batch_size=16,
        grad_accum_steps=4,
        lr=0.02,
        max_steps=200,
        evaluation_growth=2.0,
        schedule="task",
        noise_scale_groups=2,
    )
    result = train(workload, config, probes=probes_of(config))
    assert result.last["val_r2"] > 0.8
    assert result.last["ema_val_r2"] > 0.8


@pytest.mark.parametrize("member", [member.name for member in MEMBERS if not member.required])
def test_each_commented_member_runs_alone(tmp_path: Path, member: str) -> None:
    """One at a time: a task without the others, so that none leans on them."""
    path = write_task_file(tmp_path / f"with_{member}.py")
    path.write_text(uncommented(path.read_text(encoding="utf-8")), encoding="utf-8")
    whole = load_task(str(path)).task
    optional = {m.name for m in MEMBERS if not m.required} - {member}
    kept = {name: value for name, value in vars(type(whole)).items() if name not in optional}
    alone = type(type(whole).__name__, (), kept)(10, 16, "sgd")
    workload = Workload(alone)
    assert check(workload).loss > 0.0
    config = RunConfig(
        task="x",
        batch_size=8,
        micro_batch_size=8,
        lr=0.01,
        max_steps=3,
        schedule="task" if member == "schedule" else "constant",
    )
    assert train(workload, config).steps == 3


def test_its_comments_name_the_file_and_fit_the_line(tmp_path: Path) -> None:
    text = write_task_file(tmp_path / "my_model.py").read_text(encoding="utf-8")
    assert "batchscope find my_model.py:task --set features=16" in text
    assert max(map(len, text.splitlines())) <= 120
    assert all(f"({i})" in text for i in range(1, 7))
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(tmp_path)], check=True, timeout=60)


def test_it_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious = True\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"mine.py exists already and is left as it is; give another name"):
        write_task_file(tmp_path / "mine.py")
    assert (tmp_path / "mine.py").read_text(encoding="utf-8") == "precious = True\n"


@pytest.mark.parametrize(
    ("name", "better"),
    [("my-model.py", "my_model.py"), ("model", "model.py"), ("3d.py", "_3d.py"), ("a b.txt", "a_b_txt.py")],
)
def test_names_that_cannot_be_imported(tmp_path: Path, name: str, better: str) -> None:
    with pytest.raises(UsageError, match=rf"cannot be imported as a Python module; write for example .*/{better}$"):
        write_task_file(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "occupied").touch()
    with pytest.raises(UsageError, match=r"mine.py cannot be written: .*; choose a folder"):
        write_task_file(tmp_path / "occupied" / "mine.py")


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        write_task_file(tmp_path / "mine.py")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", ".", "..", "/"])
def test_a_path_without_a_name_is_refused_with_one(path: str) -> None:
    with pytest.raises(UsageError, match=r"write for example .*my_task\.py$|write for example .*__\.py$"):
        write_task_file(path)
