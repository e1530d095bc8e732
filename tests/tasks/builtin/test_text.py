"""A user's own text: windows, metrics, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batchscope.errors import TaskError
from batchscope.store.records import RunConfig
from batchscope.tasks.builtin.text import text
from batchscope.tasks.workload import Workload, mean_loss
from batchscope.training.loop import train

WORDS = "naïve cafés: " * 200


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "words.txt").write_text(WORDS, encoding="utf-8")
    return tmp_path / "words.txt"


def test_parts_follow_the_text(path: Path) -> None:
    task = text(path=path, context=8)
    symbols = sorted(set(WORDS))
    assert task.vocab == len(symbols)
    assert "".join(symbols[i] for part in ("train", "val", "test") for i in task.parts[part]) == WORDS
    assert [len(task.parts[part]) for part in ("train", "val", "test")] == [2340, 130, 130]


@pytest.mark.parametrize(("stride", "windows"), [(None, (2340 - 9) // 8 + 1), (1, 2340 - 8)])
def test_windows_share_the_memory_of_the_codes(path: Path, stride: int | None, windows: int) -> None:
    task = text(path=path, context=8, stride=stride)
    workload = Workload(task)
    assert workload.in_memory
    assert workload.examples == windows
    assert workload.tensors[0].data_ptr() == task.parts["train"].data_ptr()
    batch = workload.batch(torch.tensor([0, windows - 1]))[0]
    step = stride or 8
    start = (windows - 1) * step
    assert torch.equal(batch[1], task.parts["train"][start : start + 9])


def test_by_default_an_epoch_predicts_each_code_once(path: Path) -> None:
    task = text(path=path, context=13)
    predicted = task.train_data().tensors[0][:, 1:].flatten()
    assert torch.equal(predicted, task.parts["train"][1 : 1 + len(predicted)])


def test_metrics(path: Path) -> None:
    task = text(path=path, context=8)
    model = task.model()
    with torch.no_grad():
        metrics = task.evaluate(model)
        windows = task.parts["val"].unfold(0, 9, 8)
        expected = mean_loss(model, task.loss, torch.utils.data.TensorDataset(windows))
        right = (model(windows[:, :-1].long()).argmax(-1) == windows[:, 1:]).float().mean().item()
        assert metrics["val_loss"] == pytest.approx(expected, rel=1e-5)
        assert metrics["val_accuracy"] == pytest.approx(right)
        for parameter in model.parameters():
            parameter.zero_()
        assert task.loss(model, [windows]).item() == pytest.approx(math.log(task.vocab), rel=1e-6)


def test_an_evaluation_is_bounded(path: Path) -> None:
    task = text(path=path, context=8, evaluate_at_most=3)
    held_out = task._held_out(torch.device("cpu"))  # pyright: ignore[reportPrivateUsage]
    assert {part: windows.shape for part, windows in held_out.items()} == {"val": (3, 9), "test": (3, 9)}
    assert torch.equal(held_out["val"][0], task.parts["val"][:9])


def test_it_learns(path: Path) -> None:
    workload = Workload(text(path=path, context=8, width=32, depth=1))
    result = train(workload, RunConfig(task="text", batch_size=16, micro_batch_size=16, lr=3e-3, max_steps=150))
    assert result.best["val_loss"] < 0.5 < result.first["val_loss"]


def test_codes_of_an_npz(tmp_path: Path) -> None:
    codes = np.arange(300) % 300
    np.savez(tmp_path / "codes.npz", train=codes, val=codes[:50], vocab=np.arange(300).astype(str))
    task = text(path=tmp_path / "codes.npz", context=4)
    assert (task.vocab, task.parts["train"].dtype) == (300, torch.int32)  # more than a byte holds
    assert sorted(task.evaluate(task.model())) == ["val_accuracy", "val_loss"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"val": np.arange(20)}, "lacks train"),
        ({"train": np.arange(60) % 7, "val": np.arange(20)}, "val in .* has codes from 0 to 19; vocab has 7: 0 to 6"),
        ({"train": np.arange(60) % 7, "val": np.zeros(20)}, "val in .* dtype float64; codes are integers in a row"),
        (
            {"train": np.arange(60) % 7, "val": np.arange(3)},
            "the val part of .* has 3 codes, a window of context=8 needs 9",
        ),
    ],
)
def test_bad_codes(tmp_path: Path, data: Any, message: str) -> None:
    np.savez(tmp_path / "codes.npz", vocab=np.arange(7).astype(str), **data)
    with pytest.raises(TaskError, match=message):
        text(path=tmp_path / "codes.npz", context=8)


def test_bad_texts(tmp_path: Path, path: Path) -> None:
    with pytest.raises(TaskError, match=r"no file .*nothing.txt"):
        text(path=tmp_path / "nothing.txt")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1") * 100)
    with pytest.raises(TaskError, match=r"latin.txt is not UTF-8 text"):
        text(path=tmp_path / "latin.txt")
    with pytest.raises(TaskError, match="context=0 must be at least 1"):
        text(path=path, context=0)
    with pytest.raises(TaskError, match=r"has 130 codes, a window of context=200 needs 201"):
        text(path=path, context=200)


@pytest.mark.shared
def test_shakespeare_is_learnt(shared: Path) -> None:
    """Below 3.36 nats, the entropy of single characters that the data set's documentation gives (4.85 bits)."""
    path = shared / "data" / "tinyshakespeare" / "tinyshakespeare.npz"
    workload = Workload(text(path=path, context=16, width=32, depth=1, evaluate_at_most=100))
    assert workload.examples == (1_003_854 - 17) // 16 + 1
    config = RunConfig(task="text", batch_size=32, micro_batch_size=32, lr=1e-2, max_steps=120, evaluation_growth=1.5)
    result = train(workload, config)
    assert result.best["val_loss"] < 2.9
    assert result.first["val_loss"] == pytest.approx(math.log(65), abs=0.15)
