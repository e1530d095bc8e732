"""Results folders of small commands, made once, copied for each fault, and what may become of them."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from .case import Ended, Seen, finished_runs, lost_of, run

__all__ = ["COMMANDS", "PARTS", "TASK", "copied", "judged", "made", "words_of"]

TASK = """
import torch
import batchscope
from parts import hidden

def task(rows: int = 400):
    torch.manual_seed(1)
    x = torch.randn(rows, 6)
    y = (x[:, :1] - x[:, 1:2]).tanh()
    return batchscope.task(
        name="small",
        model=lambda: torch.nn.Sequential(torch.nn.Linear(6, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1)),
        train=torch.utils.data.TensorDataset(x, y),
        loss=lambda model, batch: torch.nn.functional.mse_loss(model(batch[0]), batch[1]),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
    )
"""
PARTS = "hidden = 8\n"
_STEP_TIMES = [[size, 1e-3 * (1 + size / 64)] for size in (1, 8, 64, 512, 4096)]
COMMANDS = {
    "find": "find small.py --hardware machine.json --target val_loss<=0.1 --trainings 1 --budget 10m --out out",
    "study": "study small.py --batch-sizes 16,64 --lrs 0.05 --seeds 2 --epochs 2 --budget 10m --out out",
    "claims": "claims small.py --batch-sizes 16,64 --lrs 0.05,0.2 --seeds 2 --epochs 2 --budget 10m --out out",
}
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|^\w*Error: ", re.MULTILINE)
_LIMIT_S = 900.0


def words_of(command: str) -> list[str]:
    """The words of one of `COMMANDS`."""
    return COMMANDS[command].split()


@cache
def made(command: str) -> Path:
    """A folder in which a command has come to its end, with its results in `out`."""
    folder = Path(tempfile.mkdtemp(prefix=f"faults-{command}-"))
    (folder / "small.py").write_text(TASK)
    (folder / "parts.py").write_text(PARTS)
    (folder / "machine.json").write_text(json.dumps({"name": "machine", "step_time_s": _STEP_TIMES}))
    ended = run(words_of(command), folder, limit_s=_LIMIT_S)
    if ended.status not in (0, 3):
        raise RuntimeError(f"`batchscope {COMMANDS[command]}` ended with {ended.status}: {ended.stderr[-500:]}")
    return folder


def copied(command: str, folder: Path) -> tuple[dict[str, tuple[int, bytes]], Any]:
    """Copy a command's folder; the finished runs in it, and its answer."""
    shutil.copytree(made(command), folder, dirs_exist_ok=True)
    return finished_runs(folder / "out"), answer_in(folder)


def answer_in(folder: Path) -> Any:
    """What a search recommends, or a study or claims say of each run or statement; `None`: there is no answer."""
    for name, members in {"plan": ("status", "recipe"), "study": ("rows",), "claims": ("claims",)}.items():
        path = folder / "out" / f"{name}.json"
        if path.exists():
            try:
                data = json.loads(path.read_text())
                return [_without_times(data[member]) for member in members]
            except (KeyError, TypeError, ValueError):
                return None
    return None


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if not k.endswith(("_s", "_seconds", "time"))}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def judged(
    ended: Ended, folder: Path, runs: Mapping[str, tuple[int, bytes]], answer: Any, *, damaged: str = ""
) -> Seen:
    """What came of a command on a damaged folder: one message, or the same answer from the same runs.

    Args:
        ended: the command.
        folder: where it ran.
        runs: the finished runs before the damage.
        answer: before the damage; `None`: it may be another, for what it rests on was to be measured again.
        damaged: the name of the run that was damaged, which may be refused or made again.
    """
    others = {name: result for name, result in runs.items() if name != damaged}
    present = {name: result for name in others if (result := _result(folder, name)) is not None}
    lost, said = lost_of(others, present), ended.stderr.strip().splitlines()
    if _TRACEBACK.search(ended.stderr):
        return Seen(held=False, lost=lost, said=f"a traceback: {said[-1][:200]}")
    if ended.status == 2:
        messages = [line for line in said if line.startswith("batchscope: ")]
        return Seen(held=len(messages) == 1, lost=lost, said=messages[0][:200] if messages else "no message")
    if ended.status not in (0, 3):
        return Seen(held=False, lost=lost, said=f"status {ended.status}: {said[-1][:200] if said else ''}")
    same = answer is None or answer_in(folder) == answer
    return Seen(held=same, lost=lost, said="the same answer" if same else "another answer, and no word of it")


def _result(folder: Path, name: str) -> tuple[int, bytes] | None:
    path = folder / "out" / "runs" / name / "result.json"
    return (path.stat().st_mtime_ns, path.read_bytes()) if path.exists() else None
