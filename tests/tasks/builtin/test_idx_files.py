"""IDX files written by hand, as the format is described; where they are found; and what is refused."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from batchscope.errors import TaskError
from batchscope.tasks.builtin.arrays import arrays
from batchscope.tasks.builtin.idx_files import FILES, read_idx

NAMES = [name for name, _ in FILES.values()]


def idx(values: NDArray[Any]) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def mnist(train: int = 60, test: int = 7) -> dict[str, bytes]:
    """Every training image is another one: its first pixel is its place, its second its label."""
    images, labels = np.zeros((train, 4, 5), np.uint8), (np.arange(train) % 3).astype(np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(train), labels
    return dict(zip(NAMES, map(idx, (images, labels, images[:test] + 100, labels[:test])), strict=True))


def write(folder: Path, files: dict[str, bytes], rename: Callable[[str], str] = str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        written = rename(name)
        (folder / written).write_bytes(gzip.compress(content) if written.endswith(".gz") else content)
    return folder


def bytes_of(x: torch.Tensor) -> list[list[int]]:
    return x.mul(255).round().int().tolist()


@pytest.mark.parametrize(
    "rename",
    [
        str,
        lambda name: f"{name}.gz",
        lambda name: name.replace("-idx", ".idx"),
        lambda name: name.replace("-idx", ".idx") + ".gz",
    ],
)
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw", "FashionMNIST/raw"])
def test_parts(tmp_path: Path, rename: Callable[[str], str], below: str) -> None:
    write(tmp_path / below, mnist(), rename)
    task = arrays(path=tmp_path)
    assert {part: x.shape for part, (x, _) in task.parts.items()} == {
        "train": (50, 20),
        "val": (10, 20),
        "test": (7, 20),
    }
    train, val = (bytes_of(task.parts[part][0]) for part in ("train", "val"))
    assert sorted(image[0] for image in train + val) == [*range(60)]  # each image once
    assert [image[0] for image in val] != [*range(50, 60)]  # a draw, not the end of the file
    for part in ("train", "val"):
        assert [image[1] for image in bytes_of(task.parts[part][0])] == task.parts[part][1].tolist()
    assert [image[0] for image in bytes_of(task.parts["test"][0])] == [*range(100, 107)]
    assert all(
        torch.equal(a, b)
        for part in task.parts
        for a, b in zip(task.parts[part], arrays(path=tmp_path).parts[part], strict=True)
    )


def test_the_order_of_bytes_and_dimensions(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255]))
    assert read_idx(tmp_path / "file", 3).tolist() == [[[1, 2, 3], [4, 5, 255]]]


def test_models_of_images(tmp_path: Path) -> None:
    task = arrays(path=write(tmp_path, mnist()), model="cnn", scale="standard")
    inputs = task.parts["train"][0]
    assert inputs.shape == (50, 1, 4, 5)
    assert task.model()(inputs).shape == (50, 3)


def test_a_file_is_preferred_to_its_compressed_twin(tmp_path: Path) -> None:
    write(tmp_path, mnist())
    write(tmp_path, dict.fromkeys(NAMES, b"nonsense"), lambda name: f"{name}.gz")
    assert len(arrays(path=tmp_path).train_data()) == 50


def test_the_folder_itself_comes_before_those_below(tmp_path: Path) -> None:
    write(tmp_path / "MNIST" / "raw", mnist(30))
    write(tmp_path, mnist(60))
    assert len(arrays(path=tmp_path).train_data()) == 50


def test_several_data_sets_are_named(tmp_path: Path) -> None:
    for name in ("MNIST", "FashionMNIST"):
        write(tmp_path / name / "raw", mnist())
    with pytest.raises(TaskError, match=r"several data sets; write --set path=ONE of .*FashionMNIST.raw, .*MNIST.raw"):
        arrays(path=tmp_path)
    assert len(arrays(path=tmp_path / "MNIST").train_data()) == 50


IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = NAMES


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TEST_LABELS, None, "it lacks t10k-labels-idx1-ubyte"),
        (IMAGES, b"<!DOCTYPE html>", r"begins with b'<!DO', the magic number \d+; .* in 3 dimensions begins with 2051"),
        (LABELS, mnist()[IMAGES], r"the magic number 2051; an IDX file of bytes in 1 dimension begins with 2049"),
        (IMAGES, b"\0\0\x0d\3" + mnist()[IMAGES][4:], r"the magic number 3331; .* begins with 2051"),  # floats
        (IMAGES, b"", "ends within its header, after 0 of 16 bytes"),
        (IMAGES, mnist()[IMAGES][:9], "ends within its header, after 9 of 16 bytes"),
        (IMAGES, mnist()[IMAGES][:-1], r"has 1199 bytes after its header, which announces 1200 \(60 x 4 x 5\)"),
        (TEST_LABELS, mnist()[TEST_LABELS] + b"xx", r"has 9 bytes after its header, which announces 7 \(7\)"),
        (LABELS, mnist(59)[LABELS], "has 60 training examples and 59 labels; they must be equally many"),
        (TEST_LABELS, mnist(test=6)[TEST_LABELS], "x_test in .* has 7 examples, y_test has 6"),
        (
            TEST_LABELS,
            idx(np.full(7, 9, np.uint8)),
            r"7 of 7 examples of y_test .* have labels that y_train lacks \(9\)",
        ),
        (TEST_IMAGES, idx(np.zeros((7, 4, 4), np.uint8)), r"an example in x_test of .* has shape \(4, 4\), in x_train"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    files = {**mnist(), name: content}
    write(tmp_path, {key: value for key, value in files.items() if value is not None})
    with pytest.raises(TaskError, match=message) as caught:
        arrays(path=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [lambda content: content[:-12], lambda content: b"not compressed" + content])
def test_broken_compression(tmp_path: Path, cut: Callable[[bytes], bytes]) -> None:
    write(tmp_path, mnist(), lambda name: f"{name}.gz")
    broken = tmp_path / f"{IMAGES}.gz"
    broken.write_bytes(cut(broken.read_bytes()))
    with pytest.raises(TaskError, match=r"train-images-idx3-ubyte.gz cannot be read \(.*\); download it again"):
        arrays(path=tmp_path)


def test_ten_thousand_of_sixty_thousand_validate(tmp_path: Path) -> None:
    train, test = np.zeros((60_000, 1, 1), np.uint8), np.zeros((10, 1, 1), np.uint8)
    labels = np.arange(60_000).astype(np.uint8) % 10
    contents = map(idx, (train, labels, test, labels[:10]))
    task = arrays(path=write(tmp_path, dict(zip(NAMES, contents, strict=True))), evaluate_at_most=20_000)
    assert [len(task.parts[part][0]) for part in ("train", "val", "test")] == [50_000, 10_000, 10]
