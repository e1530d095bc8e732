"""Arrays of a file by names that others give them, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchscope.errors import TaskError
from batchscope.tasks.builtin.array_names import found_names
from batchscope.tasks.builtin.arrays import arrays

X = np.random.default_rng(0).normal(size=(60, 3))
Y = np.arange(60) % 2


def write(folder: Path, **data: Any) -> Path:
    np.savez(folder / "data.npz", **data)
    return folder / "data.npz"


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_val", "y_val"),
        ("X_train", "y_train", "X_valid", "y_valid"),
        ("train_images", "train_labels", "val_images", "val_labels"),
        ("Xtr", "ytr", "Xdev", "ydev"),
        ("trainX", "trainY", "validationX", "validationY"),
        ("training.features", "training.targets", "validation.features", "validation.targets"),
        ("inputs-train", "labels-train", "inputs-val", "labels-val"),
    ],
)
def test_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays_of = dict(zip(names, (X[:40], Y[:40], X[40:], Y[40:]), strict=True))
    task = arrays(path=write(tmp_path, **arrays_of, ids=Y))
    assert [len(task.parts[part][1]) for part in ("train", "val")] == [40, 20]
    assert task.parts["val"][1].tolist() == Y[40:].tolist()
    said = "\n".join(task.data_notes)
    assert "1 array of data.npz passed over: ids" in said
    assert (f"x_train is {names[0]}" in said) == (names[0] != "x_train")


@pytest.mark.parametrize(
    "names", [("x", "y"), ("X", "Y"), ("data", "target"), ("images", "labels"), ("arr_0", "arr_1")]
)
def test_without_parts_a_fifth_validates(tmp_path: Path, names: tuple[str, str]) -> None:
    task = arrays(path=write(tmp_path, **dict(zip(names, (X, Y), strict=True))))
    assert [len(task.parts[part][1]) for part in ("train", "val")] == [48, 12]
    assert "data.npz has no validation part: 12 of 60 training examples, drawn at random, validate" in task.data_notes


def test_a_test_part_does_not_validate(tmp_path: Path) -> None:
    task = arrays(path=write(tmp_path, x_train=X, y_train=Y, x_test=X[:7], y_test=Y[:7]))
    assert [len(task.parts[part][1]) for part in ("train", "val", "test")] == [48, 12, 7]


@pytest.mark.parametrize(
    "name", ["feature_names", "class_names", "ids", "x_mean", "xylophone", "train", "test", "vocab"]
)
def test_names_that_mean_nothing_here(name: str) -> None:
    assert found_names([name], "FILE") == {}


def test_a_name_as_the_contract_has_it_comes_first() -> None:
    assert found_names(["X_train", "x_train", "train_x"], "FILE") == {"x_train": "x_train"}
    with pytest.raises(
        TaskError, match="FILE holds X_train and train_x, which both may be x_train; call the right one"
    ):
        found_names(["X_train", "train_x"], "FILE")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"foo": X, "bar": Y}, "lacks x_train, y_train, x_val, y_val; it holds foo, bar"),
        ({"x": X}, "lacks x_train, y_train, x_val, y_val; it holds x"),
        ({"x_train": X, "y_train": Y, "x_val": X}, "lacks y_val; it holds"),
        ({"x": X, "y": np.array(3)}, "y_train in .* is a single value; it needs one target for each of 60 examples"),
        ({"x": X[:, 0], "y": Y}, r"x_train in .* has shape \(60,\).* store x_train\[:, None\]"),
        ({"x": X[:, :0], "y": Y}, r"x_train in .* has shape \(60, 0\), which holds no value"),
        ({"x": X, "y": Y[:9]}, "x_train in .* has 60 examples, y_train has 9"),
        ({"x": X, "y": Y * 1j}, r"dtype complex128; it must hold numbers: its parts are y_\w+.real"),
        ({"x": X, "y": np.datetime64("2026-01-01") + Y}, r"datetime64\[D\]; .* y_\w+.astype\('datetime64\[s\]'\)"),
        ({"x": X.astype(str), "y": Y}, r"it must hold numbers: where they are .*, x_\w+.astype\(float\)"),
        (
            {"x": np.where(X > 9, 0, np.nan), "y": Y},
            "in columns 0, 1, 2 of 3; drop column 0, 1 and 2, which holds nothing",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        arrays(path=write(tmp_path, **data))


def test_advice_on_types_works(tmp_path: Path) -> None:
    times = np.datetime64("2026-01-01") + np.arange(60)
    assert not isinstance(arrays(path=write(tmp_path, x=X.astype(str).astype(float), y=Y)), TaskError)
    task = arrays(path=write(tmp_path, x=X, y=times.astype("datetime64[s]").astype("int64")), problem="regression")
    assert task.parts["train"][1].std().item() == pytest.approx(1.0, abs=0.1)
    mixed = np.array(["yes", 1] * 30, dtype=object)
    with pytest.raises(TaskError, match=r"y in .* holds Python objects; .* y.astype\(str\) for names of classes"):
        arrays(path=write(tmp_path, x=X, y=mixed))
    assert "y holds texts, 2 classes (1, yes)" in arrays(path=write(tmp_path, x=X, y=mixed.astype(str))).data_notes[-2]


@pytest.mark.parametrize(
    ("name", "said"), [("d.csv", "pandas"), ("d.npy", "numpy.load"), ("d.pt", "torch.load"), ("d.zip", "unpack")]
)
def test_files_of_other_kinds(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"a,b\n1,2\n")
    with pytest.raises(TaskError, match=f"{name} cannot be read as an .npz .* {said}"):
        arrays(path=tmp_path / name)
