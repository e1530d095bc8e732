"""Which problem targets are, why, and what is said of it; advice is followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from batchscope.errors import TaskError
from batchscope.tasks.builtin.targets import Problem, Targets, read_targets

K = np.arange(300)


def read(y: NDArray[Any], problem: Problem = "auto", val: NDArray[Any] | None = None) -> Targets:
    return read_targets({"train": y[:200], "val": y[200:] if val is None else val}, problem, "FILE")


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (K % 3, "y holds integers, 3 classes (0, 1, 2)"),
        ((K % 3).astype(np.uint8), "y holds integers, 3 classes (0, 1, 2)"),
        ((K % 3)[:, None], "y holds integers, 3 classes (0, 1, 2)"),
        (K % 3 + 1, "3 classes (1, 2, 3), numbered from 0 to 2 in this order"),
        (K % 3 - 1, "3 classes (-1, 0, 1), numbered from 0 to 2 in this order"),
        (np.array([0, 5, 1000])[K % 3], "3 classes (0, 5, 1000), numbered from 0 to 2 in this order"),
        (K % 3 + 2**60, "numbered from 0 to 2 in this order"),
        (np.array(["ant", "bee", "cow"])[K % 3], "y holds texts, 3 classes (ant, bee, cow)"),
        (np.array([b"ant", b"bee", b"cow"])[K % 3], "y holds texts, 3 classes (ant, bee, cow)"),
        (np.eye(3)[K % 3], "each row of y has a single 1 among 3 columns"),
        (np.eye(3, dtype=np.uint8)[K % 3], "each row of y has a single 1 among 3 columns"),
        (np.eye(3, dtype=bool)[K % 3], "each row of y has a single 1 among 3 columns"),
    ],
)
def test_classes_however_they_are_written(y: NDArray[Any], said: str) -> None:
    found = read(y)
    assert found.classes == 3
    assert found.values["train"].dtype == np.int64
    assert found.values["train"].tolist() == (K[:200] % 3).tolist()
    assert found.values["val"].tolist() == (K[200:] % 3).tolist()
    assert found.notes[0].startswith("classification: ")
    assert said in found.notes[0]


@pytest.mark.parametrize("y", [np.where(K % 2, 1, -1), K % 2 == 1, np.array(["no", "yes"])[K % 2]])
def test_two_classes(y: NDArray[Any]) -> None:
    found = read(y)
    assert found.classes == 2
    assert found.values["val"].tolist() == (K[200:] % 2).tolist()


@pytest.mark.parametrize("y", [(K % 3).astype(float), (K % 3 + 1.0).astype(np.float32), np.where(K % 2, 1.0, -1.0)])
def test_whole_floats_are_numbers_and_the_advice_makes_classes_of_them(y: NDArray[Any]) -> None:
    found = read(y)
    assert found.classes == 0
    assert found.notes[0].startswith("regression: y holds float")
    assert "all of them whole" in found.notes[0]
    assert found.notes[0].endswith("for classes write --set problem=classification")
    again = read(y, "classification")
    assert again.classes == len(np.unique(y))
    assert again.notes[0].startswith("classification: y holds whole numbers")


def test_large_whole_floats_are_no_labels() -> None:
    for y in (1e7 * (K % 3), np.rint(1e304 + 1e300 * (K % 50)), K.astype(float)):
        assert read(y).notes[0] == "regression: y holds float64 numbers"
    assert len(read(1e300 * (K % 3), "classification").notes[0]) < 200
    assert len(read(np.array(["a" * 500, "b"])[K % 2]).notes[0]) < 100


def test_many_whole_numbers_are_classes_and_the_advice_makes_numbers_of_them() -> None:
    y = 18 + K % 60
    found = read(y)
    assert found.classes == 60
    assert found.notes[0].endswith("if they are amounts, write --set problem=regression")
    again = read(y, "regression")
    assert again.classes == 0
    assert again.values["train"].std(dtype=np.float64) == pytest.approx(1.0)
    assert "for classes" not in " ".join(again.notes)  # it was asked for


def test_thousands_of_classes() -> None:
    y = np.random.default_rng(0).integers(0, 3000, 9000)
    found = read_targets({"train": y[:8000], "val": y[8000:]}, "auto", "FILE")
    assert found.classes == len(np.unique(y))
    assert "of y_val with" in " ".join(found.notes)  # a few are in the validation part alone


@pytest.mark.parametrize("offset", [0, 2**24, 2**53, 2**62])
def test_whole_targets_keep_their_digits(offset: int) -> None:
    found = read(offset + K % 50, "regression")
    np.testing.assert_allclose(found.values["train"], read(K % 50, "regression").values["train"], rtol=1e-6)


def test_a_number_for_each_class_of_ids_beyond_float64() -> None:
    """2^53 and 2^53 + 1 are one number in float64."""
    assert read(K % 2 + 2**53).classes == 2
    val = (K[200:] % 2 + 2**53).astype(np.uint64)
    assert read(K % 2 + 2**53, val=val).values["val"].tolist() == (K[200:] % 2).tolist()


def test_a_unix_time_is_standardised_and_said() -> None:
    signal = np.random.default_rng(0).normal(0.0, 40.0, 300)
    found, plain = read(1.7e9 + signal), read(signal)
    np.testing.assert_allclose(found.values["val"], plain.values["val"], atol=1e-5)
    assert found.notes[1].startswith("y is standardised (mean 1.7e9, standard deviation ")
    assert found.notes[1].endswith("predicting the mean has a loss of about 1")


@pytest.mark.parametrize(("mark", "several"), [(-1, [-1, 0, 1, 2]), (255, [0, 1, 2, 255])])
def test_a_label_that_may_mark_none_is_said(mark: int, several: list[int]) -> None:
    notes = read(np.array(several)[K % 4]).notes
    assert f"label {mark} counts as a class; where it marks examples without a label, drop them" in notes


def test_a_label_of_the_validation_part_alone_is_said() -> None:
    y = K % 3
    y[250] = 7
    found = read(y)
    assert found.classes == 4
    assert "1 example of y_val with a label that y_train lacks: 7" in found.notes


@pytest.mark.parametrize(
    ("y", "problem", "message"),
    [
        (K * 0 + 4, "auto", "all 200 labels of y_train in FILE are 4: with one class there is nothing to learn"),
        (np.array(["a"] * 300), "auto", "all 200 labels of y_train in FILE are a"),
        (np.eye(3)[K * 0], "auto", "all 200 labels of y_train in FILE are 0"),
        (K * 0 + 0.3, "auto", "y_train in FILE is 0.3 in all 200 examples, up to rounding .* nothing to learn"),
        (np.where(K % 2, 0.3, 0.1 * 3), "auto", "y_train in FILE is 0.3 in all 200 examples"),
        (K + 2**60, "auto", "200 different whole numbers in 200 examples, too many .* --set problem=regression"),
        (K.astype(str), "auto", r"200 different texts in 200 examples, .* y.astype\(float\)"),
        (K[:, None] >> np.arange(4) & 1, "auto", r"shape \(200, 4\); one label .* problem=regression"),
        (K / 7, "classification", r"y_train in FILE holds 0.143 \(example 1\), and classes are whole numbers"),
        (K.astype(str), "regression", r"y_train in FILE holds texts; store numbers, .*astype\(float\)"),
    ],
)
def test_what_is_refused(y: NDArray[Any], problem: Problem, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        read(y, problem)


def test_the_advice_on_refused_targets_works() -> None:
    assert read(K + 2**60, "regression").classes == 0
    assert read(K + 2**60, "classification", val=K[:100] + 2**60).classes == 200
    assert read(K.astype(str).astype(float)).classes == 0
    assert read(K[:, None] >> np.arange(4) & 1, "regression").values["train"].shape == (200, 4)


def test_parts_that_do_not_belong_together() -> None:
    with pytest.raises(TaskError, match=r"y_val in FILE holds 0.5 \(example 0\)"):
        read(K % 3, val=K[:100] % 3 + 0.5)
    assert read(K % 3, val=(K[:100] % 3).astype(float)).classes == 3
    with pytest.raises(TaskError, match="y_train in FILE holds texts, the other parts do not"):
        read((K % 3).astype(str), val=K[:100] % 3)
    with pytest.raises(TaskError, match=r"a target in y_val of FILE has shape \(3,\), in y_train \(2,\)"):
        read(np.random.default_rng(0).normal(size=(300, 2)), val=np.random.default_rng(0).normal(size=(9, 3)))
    with pytest.raises(TaskError, match=r"100 of 100 examples of y_val .* that y_train lacks \(10, 11, 12\)"):
        read(K % 3, val=K[:100] % 3 + 10)
