"""What folders of images are taken for, what is passed over, and which layouts are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchscope.errors import TaskError
from batchscope.tasks.builtin.arrays import arrays
from batchscope.tasks.builtin.supervised import SupervisedTask

RANDOM = np.random.default_rng(0)


def image(mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> Any:
    pillow = pytest.importorskip("PIL.Image")
    pixels = RANDOM.random((size[1], size[0], 3))
    if mode == "I;16":
        return pillow.fromarray((pixels[:, :, 0] * 4000).astype(np.uint16))
    return pillow.fromarray((pixels * 255).astype(np.uint8)).convert(mode)


def draw(folder: Path, *names: str, mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (folder / name).suffix in (".heic", ".txt", ""):
            (folder / name).write_bytes(b"no image")
        else:
            image(mode, size).save(folder / name)


def several(pattern: str, number: int = 5) -> list[str]:
    return [pattern.format(place) for place in range(number)]


def read(folder: Path) -> SupervisedTask:
    return arrays(path=folder, model="cnn", size=4)


def examples(task: SupervisedTask) -> dict[str, int]:
    return {part: len(x) for part, (x, _) in task.parts.items()}


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "webp", "bmp", "gif", "tif", "tiff", "ppm", "jfif"])
def test_endings(tmp_path: Path, ending: str) -> None:
    draw(tmp_path, *several(f"cat/{{}}.{ending}"), *several("dog/{}.png"))
    task = read(tmp_path)
    assert examples(task) == {"train": 8, "val": 2}
    assert "passed over" not in "".join(task.data_notes)
    assert "classification: each sub-folder is a class, 2 classes (cat, dog)" in task.data_notes


def test_files_that_are_passed_over_are_counted_and_named(tmp_path: Path) -> None:
    draw(tmp_path, *several("cat/{}.png"), *several("dog/{}.png"), *several("cat/{}.heic", 36))
    draw(tmp_path, "labels.txt", "dog/noending", "dog/.0.png", ".git/x.png")
    (note,) = [note for note in read(tmp_path).data_notes if "passed over" in note]
    assert note.startswith("40 of 50 files passed over: 36 .heic (cat/0.heic), 2 hidden (.git/x.png), ")
    assert "1 .txt (labels.txt)" in note
    assert "1 without ending (dog/noending)" in note


@pytest.mark.parametrize(
    "names",
    [
        [*several("train/cat.{}.jpg"), *several("train/dog.{}.jpg"), *several("test/{}.jpg")],
        [*several("train/{}.jpg"), *several("val/{}.jpg"), *several("test/{}.jpg")],
        [*several("Training/cat.{}.jpg"), *several("Testing/{}.jpg")],
        several("train/cat.{}.jpg"),
        [*several("train/{}.jpg"), *several("test/{}.jpg"), *several("cat/{}.jpg")],
    ],
)
def test_parts_that_hold_images_are_no_classes_and_the_advice_works(tmp_path: Path, names: Sequence[str]) -> None:
    draw(tmp_path, *names)
    with pytest.raises(
        TaskError, match=r"rain.* hold.* images \(.*\), .* they are parts, not classes; make train/CLASS/"
    ):
        read(tmp_path)
    for folder in tmp_path.iterdir():
        for place, file in enumerate(sorted(folder.iterdir())):
            (tmp_path / "new" / "train" / ("cat", "dog")[place % 2]).mkdir(parents=True, exist_ok=True)
            file.rename(tmp_path / "new" / "train" / ("cat", "dog")[place % 2] / f"{folder.name}{file.name}")
    assert sum(examples(read(tmp_path / "new")).values()) == len(names)


def test_other_names_of_parts_are_said(tmp_path: Path) -> None:
    for name, number in {"training": 4, "validation": 2, "Testing": 1}.items():
        draw(tmp_path, *several(f"{name}/a/{{}}.png", number), *several(f"{name}/b/{{}}.png", number))
    task = read(tmp_path)
    assert examples(task) == {"train": 8, "val": 4, "test": 2}
    said = "the folders training as the train part, validation as the val part and Testing as the test part are read"
    assert said in task.data_notes


def test_a_test_folder_without_classes_is_no_test_part(tmp_path: Path) -> None:
    draw(tmp_path, *several("train/a/{}.png"), *several("train/b/{}.png"), *several("test/{}.png", 7))
    task = read(tmp_path)
    assert examples(task) == {"train": 8, "val": 2}
    assert "test holds 7 images and no classes: there is no test part" in task.data_notes


def test_images_in_folders_within_a_class(tmp_path: Path) -> None:
    draw(tmp_path, *several("cat/{}.png"), *several("dog/more/{}.png"), *several("dog/more/still/{}.png"))
    task = read(tmp_path)
    assert examples(task) == {"train": 12, "val": 3}
    assert "10 images in folders within those of the classes count too (dog/more, ...)" in task.data_notes


def test_a_class_without_images_in_the_validation_part_is_said(tmp_path: Path) -> None:
    draw(tmp_path, *several("train/a/{}.png"), *several("train/b/{}.png"), "val/a/0.png")
    (tmp_path / "val" / "b").mkdir()
    assert "val has no image of 1 class: b" in read(tmp_path).data_notes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*several("cat/{}.png"), *several("dog/{}.heic")], "1 class folder of .* dog holds 0.heic, 1.heic, .*convert"),
        (
            [*several("s1/a/{}.png"), *several("s1/b/{}.png"), *several("s2/a/{}.png")],
            "sub-folders s1, s2, each with a, b",
        ),
        ([*several("val/a/{}.png"), *several("test/a/{}.png")], "has val and test and no folder train"),
        (
            [*several("train/a/{}.png"), *several("train/b/{}.png"), "val/a/0.png", "valid/b/0.png"],
            "sub-folders val and valid, which both may be the val part",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, names: Sequence[str], message: str) -> None:
    draw(tmp_path, *names)
    with pytest.raises(TaskError, match=message):
        read(tmp_path)


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, *several("cat/{}.png"), *several("dog/{}.png"))
    (tmp_path / "bird").mkdir()
    with pytest.raises(TaskError, match=r"1 class folder of .* \(bird\): bird holds nothing"):
        read(tmp_path)


def test_arrays_in_a_folder_are_pointed_to(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros(3))
    with pytest.raises(TaskError, match=r"for the arrays in it write --set path=.*data.npz"):
        read(tmp_path)


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    draw(tmp_path, *several("a/{}.png"), *several("b/{}.png"), mode="I;16", size=(4, 4))
    task = read(tmp_path)
    inputs = task.parts["train"][0]
    assert inputs.shape[1:] == (1, 4, 4)
    assert len(inputs.unique()) > 100  # of 8 bits at most 16 levels up to 4000 of 65535 would be left
    assert inputs.max() == pytest.approx(1.0, abs=0.05)
    assert "10 images of 10 with 16 bits a channel, which are kept" in task.data_notes


def test_sixteen_bits_beside_eight(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    for name, pixels in {"a": np.full((4, 4), 51, np.uint8), "b": np.full((4, 4), 51 * 257, np.uint16)}.items():
        (tmp_path / name).mkdir()
        for place in range(5):
            pillow.fromarray(pixels).save(tmp_path / name / f"{place}.png")
    (tmp_path / "a" / "white.png").parent.mkdir(exist_ok=True)
    pillow.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / "a" / "white.png")
    values = np.concatenate([x.numpy() for x, _ in read(tmp_path).parts.values()])
    assert np.unique(values.round(3)).tolist() == pytest.approx([0.2, 1.0])


def test_frames_and_sizes_are_said(tmp_path: Path) -> None:
    draw(tmp_path, *several("a/{}.png"), *several("b/{}.png"))
    draw(tmp_path, "a/large.png", size=(30, 20))
    image().save(tmp_path / "b" / "moving.gif", save_all=True, append_images=[image(), image()])
    notes = read(tmp_path).data_notes
    assert "12 images of 7 x 9 and 1 other size stretched to 4 x 4" in notes
    assert "1 image of several frames, of which the first is read" in notes
