"""Folders of images drawn here: their colours, their parts, their labels; and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batchscope.errors import TaskError
from batchscope.tasks.builtin.arrays import arrays

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def draw(file: Path, colour: Any, *, mode: str = "RGB", size: tuple[int, int] = (6, 9)) -> None:
    image = pytest.importorskip("PIL.Image")
    file.parent.mkdir(parents=True, exist_ok=True)
    image.new(mode, size, colour).save(file)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Cats are red, dogs are blue; the green value is the place in the order of names."""
    for place in range(12):
        draw(tmp_path / "cats" / f"{place:02}.png", (255, place, 0))
        draw(tmp_path / "dogs" / f"{place:02}.PNG", (0, place, 255), size=(8, 5))
    (tmp_path / "cats" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    return tmp_path


def test_classes(pets: Path) -> None:
    task = arrays(path=pets, model="vgg", size=4)
    parts = task.parts
    assert {part: x.shape for part, (x, _) in parts.items()} == {"train": (19, 3, 4, 4), "val": (5, 3, 4, 4)}
    seen: list[tuple[int, int]] = []
    for images, labels in parts.values():
        red, green, blue = images.mul(255).round().unbind(1)
        assert torch.equal(red[:, 0, 0], 255.0 * (labels == 0))
        assert torch.equal(blue[:, 0, 0], 255.0 * (labels == 1))
        assert all(torch.equal(green, green[:, :1, :1].expand_as(green)) for green in (red, green, blue))
        seen += zip(labels.tolist(), green[:, 0, 0].int().tolist(), strict=True)
    assert sorted(seen) == [(label, place) for label in (0, 1) for place in range(12)]  # each image once
    again = arrays(path=pets, model="vgg", size=4).parts
    assert all(torch.equal(x, again[part][0]) for part, (x, _) in parts.items())
    assert task.model()(parts["train"][0]).shape == (19, 2)
    assert arrays(path=pets, size=4).parts["train"][0].shape == (19, 48)


def test_the_side_is_128_unless_set(pets: Path) -> None:
    assert arrays(path=pets, model="cnn").parts["train"][0].shape[1:] == (3, 128, 128)


def test_an_image_keeps_its_upright_and_is_resized(tmp_path: Path) -> None:
    """Above red, below blue, twice as large as wanted."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :, 0], pixels[4:, :, 2] = 255, 255
    for name in ("a", "b"):
        for place in range(2):
            draw(tmp_path / name / f"{place}.png", RED)
            image.fromarray(pixels).save(tmp_path / name / f"{place}.png")
    x = arrays(path=tmp_path, model="cnn", size=4).parts["train"][0]
    assert torch.equal(x[0, 0, :, 0].round(), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert torch.equal(x[0, 2, 3], torch.ones(4))


def test_given_parts(tmp_path: Path) -> None:
    for part, images in {"train": 3, "val": 2, "test": 1}.items():
        for name, colour in {"a": RED, "b": GREEN, "c": BLUE}.items():
            for place in range(images if name != "b" or part == "train" else 0):
                draw(tmp_path / part / name / f"{place}.jpg", colour)
    parts = arrays(path=tmp_path, model="cnn", size=4).parts
    assert {part: y.tolist() for part, (_, y) in parts.items()} == {
        "train": [0, 0, 0, 1, 1, 1, 2, 2, 2],
        "val": [0, 0, 2, 2],
        "test": [0, 2],
    }
    for images, labels in parts.values():
        assert torch.equal(images.mean((2, 3)).argmax(1), labels)


def test_without_a_validation_part_a_fifth_is_split_off(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            for place in range(5):
                draw(tmp_path / part / name / f"{place}.jpeg", RED)
    parts = arrays(path=tmp_path, size=2).parts
    assert {part: len(x) for part, (x, _) in parts.items()} == {"train": 8, "val": 2, "test": 10}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car", "train"):
        for place in range(5):
            draw(tmp_path / name / f"{place}.png", RED)
    assert len(arrays(path=tmp_path, size=2).parts["train"][0]) == 8


@pytest.mark.parametrize(
    ("last", "seen"), [("L", (1, 4, 4)), ("1", (1, 4, 4)), ("RGB", (3, 4, 4)), ("RGBA", (3, 4, 4))]
)
def test_images_are_grey_where_all_files_are(tmp_path: Path, last: str, seen: tuple[int, ...]) -> None:
    for place in range(5):
        draw(tmp_path / "a" / f"{place}.png", 51, mode="L")
        draw(tmp_path / "b" / f"{place}.png", 0, mode=last if place == 4 else "L")
    inputs, labels = arrays(path=tmp_path, model="cnn", size=4).parts["train"]
    assert inputs.shape[1:] == seen
    torch.testing.assert_close(inputs.mean((1, 2, 3)), 0.2 * (labels == 0))


def test_images_that_cannot_be_read_are_named(pets: Path) -> None:
    broken = pets / "cats" / "03.png"
    broken.write_bytes(broken.read_bytes()[:40])
    (pets / "dogs" / "empty.jpg").touch()
    draw(pets / "dogs" / "deep.tif", 0.5, mode="F")
    with pytest.raises(TaskError, match="3 of 26 images cannot be read") as caught:
        arrays(path=pets, size=4)
    assert all(name in str(caught.value) for name in ("03.png", "empty.jpg", "deep.tif", "floating-point pixels"))
    assert "\n" not in str(caught.value)


def test_many_broken_images_are_counted(pets: Path) -> None:
    for file in (pets / "dogs").iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(
        TaskError, match=r"12 of 24 images cannot be read: .* and 7 more; convert them, or move them out"
    ):
        arrays(path=pets, size=4)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds nothing: neither MNIST's IDX files .* nor images in a sub-folder for each class"),
        (["a.png", "b.jpg"], "holds a.png, b.jpg: neither"),
        (["a/1.png"], "has one class to train on, a; at least two are needed"),
        (
            ["pets/cats/1.png", "pets/dogs/1.png"],
            r"holds one folder, pets, and the classes seem to lie in that one \(.*; write --set path=.*pets",
        ),
        (["train/a/1.png", "train/b/1.png", "extra/a/1.png"], "beside train only val and test are read: .* extra"),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], "val has the class c, which .*train lacks; .* a, b"),
        (["train/a/1.png", "train/b/1.png", "val/1.png"], "val holds 1.png: neither"),
    ],
)
def test_what_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        draw(tmp_path / name, RED)
    with pytest.raises(TaskError, match=message):
        arrays(path=tmp_path, size=4)


def test_without_pillow(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(TaskError, match=r"needs Pillow, which is not installed .* -c constraints.txt pillow"):
        arrays(path=pets)
