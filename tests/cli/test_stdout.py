"""stdout holds the answer alone: whatever user code prints, in whatever way and whenever, is on stderr."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batchscope.cli.output import answer
from batchscope.cli.streams import answers, only_answers_on_stdout

TALKS = """
import atexit, ctypes, logging, os, subprocess, sys, warnings
KEPT = sys.stdout
logging.basicConfig(stream=sys.stdout, level=logging.INFO, force=True)

def talk(where):
    print("print", where)
    print("kept", where, file=KEPT)
    sys.__stdout__.write("dunder " + where)
    os.write(1, b"descriptor\\n")
    if sys.platform == "linux":
        ctypes.CDLL(None).printf(b"C printf\\n")
    logging.info("log")
    warnings.warn("warning")
    print('{"no": "newline"}', end="")

atexit.register(talk, "at exit")
talk("import")
subprocess.run([sys.executable, "-c", "print('a child')"])
"""

TASK = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

X = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()

class Data(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, i):
        talk("example")
        return X[i], Y[i]

class Task:
    loader_options = {"num_workers": 1}
    def model(self):
        talk("model")
        return nn.Linear(4, 2)
    def train_data(self):
        return Data()
    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        return torch.optim.SGD(params, lr=lr)
    def evaluate(self, model):
        talk("evaluate")
        return {"val_loss": float(F.cross_entropy(model(X[64:]), Y[64:]))}

def task():
    return Task()

"""


def run(folder: Path, *words: str, code: str = TALKS + TASK) -> subprocess.CompletedProcess[str]:
    (folder / "talks.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "batchscope", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def object_of(text: str) -> dict[str, Any]:
    found = json.loads(text, parse_constant=pytest.fail)
    assert isinstance(found, dict)
    return found


def test_a_search_of_a_task_that_prints(tmp_path: Path) -> None:
    profile = {"name": "machine", "step_time_s": [[1, 0.001], [64, 0.002]]}
    (tmp_path / "machine.json").write_text(json.dumps(profile), encoding="utf-8")
    words = (
        "find talks.py --target val_loss<=0.69 --max-batch-size 16 --trainings 0.1 --budget 5s --hardware machine.json"
    )
    ended = run(tmp_path, *words.split(), "--json", "--out", "out")
    assert ended.returncode in (0, 3), ended.stderr
    assert object_of(ended.stdout)["task"] == "talks"
    for said in ("print import", "print example", "print evaluate", "print at exit", "a child", "descriptor", "log"):
        assert said in ended.stderr


def test_an_error_of_a_task_that_prints_and_closes_stdout(tmp_path: Path) -> None:
    code = "import sys\nprint('loading')\ndef task():\n    sys.stdout.close()\n    raise ValueError('broken')\n"
    ended = run(tmp_path, "find", "talks.py", "--json", code=code)
    assert ended.returncode == 2
    assert object_of(ended.stdout)["status"] == "error"
    assert "Traceback" not in ended.stderr
    assert "batchscope: task() in talks.py raised ValueError: broken" in ended.stderr


LATE = """
import atexit, ctypes, sys
def late():
    print("printed", end="")
    sys.__stdout__.write("dunder")
    if sys.platform == "linux":
        ctypes.CDLL(None).printf(b"from C")
atexit.register(late)
def task():
    raise ValueError("broken")
"""


def test_what_is_in_buffers_when_the_process_ends_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    ended = run(tmp_path, "find", "talks.py", "--json", code=LATE)
    assert ended.returncode == 2
    assert object_of(ended.stdout)["status"] == "error"
    for said in ("printed", "dunder", *(["from C"] if sys.platform == "linux" else [])):
        assert ended.stderr.count(said) == 1


def test_without_json_the_answer_stands_alone_too(cli: Any) -> None:
    Path("talks.py").write_text("print('loading')\ndef task():\n    raise ValueError('broken')\n", encoding="utf-8")
    ended = cli("find talks.py")
    assert (ended.status, ended.out) == (2, "")
    assert "loading\n" in ended.err


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_no_error(tmp_path: Path, closed: str) -> None:
    command = f"{sys.executable} -m batchscope count --examples 10 --batch-size 2 --epochs 1 --json {closed}"
    ended = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stdout == "" or object_of(ended.stdout)["steps"] == 5


def test_an_answer_has_neither_nan_nor_infinities(capsys: pytest.CaptureFixture[str]) -> None:
    answer(True, {"nan": math.nan, "in": [math.inf, {"deeper": -math.inf}], "number": 1.5}, [])
    assert object_of(capsys.readouterr().out) == {"nan": None, "in": [None, {"deeper": None}], "number": 1.5}


def test_in_a_process_that_goes_on_all_is_put_back(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with only_answers_on_stdout(to_the_end=False):
        print("printed")
        os.write(1, b"written\n")
        answers().write("answer\n")
    assert sys.stdout is before
    os.write(1, b"after\n")
    out, err = capfd.readouterr()
    assert sorted(out.split()) == ["after", "answer"]
    assert sorted(err.split()) == ["printed", "written"]
