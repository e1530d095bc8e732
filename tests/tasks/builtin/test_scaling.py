"""Numbers keep their digits until they are on a common scale; what is constant up to rounding is constant."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchscope.errors import TaskError
from batchscope.tasks.builtin.column_notes import notes_on_columns
from batchscope.tasks.builtin.scaling import Columns, standard_columns

EXAMPLES = 200
SIGNAL = np.random.default_rng(0).normal(size=(EXAMPLES, 2))
SHARES = np.random.default_rng(1).random((EXAMPLES, 50))
ODD = np.arange(EXAMPLES) % 2 == 1


def scaled(train: NDArray[Any], val: NDArray[Any] | None = None) -> Columns:
    return standard_columns({"train": train, "val": train if val is None else val})


def column(values: NDArray[Any], dtype: Any = np.float64) -> NDArray[Any]:
    """A column beside one that varies."""
    return np.stack([SIGNAL[:, 0], values.astype(dtype)], 1).astype(dtype)


@pytest.mark.parametrize("offset", [0.0, 1.7e9, -3e12, 1e15])
def test_an_offset_changes_nothing_but_what_float64_cannot_hold(offset: float) -> None:
    expected = scaled(SIGNAL).values["val"]
    spacing = np.spacing(abs(offset)) if offset else 0.0
    np.testing.assert_allclose(scaled(SIGNAL + offset).values["val"], expected, atol=spacing + 1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("offset", [0, 2**24, 2**53, 2**62])
def test_whole_numbers_are_centred_exactly(dtype: Any, offset: int) -> None:
    """2^53 + 1 is not in float64, and an id or a time in nanoseconds is larger still."""
    small = np.arange(EXAMPLES)[:, None].astype(dtype)
    expected = (np.arange(EXAMPLES) - (EXAMPLES - 1) / 2) / np.arange(EXAMPLES).std()
    np.testing.assert_allclose(scaled(small + dtype(offset)).values["train"][:, 0], expected, rtol=1e-6)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=20, unique=True))
def test_any_whole_numbers(numbers: list[int]) -> None:
    """Against exact arithmetic."""
    mean = Fraction(sum(numbers), len(numbers))
    variance = sum((Fraction(n) - mean) ** 2 for n in numbers) / len(numbers)
    found = scaled(np.array(numbers)[:, None]).values["train"][:, 0]
    np.testing.assert_allclose(found, [float(n - mean) / float(variance) ** 0.5 for n in numbers], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e200])
def test_any_unit(size: float) -> None:
    np.testing.assert_allclose(scaled(SIGNAL * size).values["val"], scaled(SIGNAL).values["val"], rtol=1e-5, atol=1e-6)


CONSTANT = {
    "computed in two ways": column(np.where(ODD, 0.3, 0.1 * 3)),
    "in float32": column(np.where(ODD, np.float32(0.3), np.float32(0.1) * np.float32(3)), np.float32),
    "in float32, stored as float64": column(np.where(ODD, np.float32(0.3), np.float32(0.1) * np.float32(3))),
    "zero up to rounding": column(np.where(ODD, 0.0, 0.1 + 0.2 - 0.3)),
    "shares that add up to 1": column((SHARES / SHARES.sum(1, keepdims=True)).sum(1)),
    "a large one": column(np.where(ODD, 1e15 / 3, np.nextafter(1e15 / 3, 2e15))),
    "equal": column(np.full(EXAMPLES, -7.25)),
    "whole, in 64 bits": column(np.full(EXAMPLES, 2**53 + 1), np.int64),
}
VARYING = {
    "seconds on a Unix time": column(1.7e9 + ODD),
    "whole numbers next to one another": column(1e15 + ODD),
    "whole numbers in float32": column(2**24 - 2.0 + ODD, np.float32),
    "tiny units": column(np.where(ODD, 1.6e-19, 3.2e-19)),
    "rare": column(np.arange(EXAMPLES) == 5),
    "seven digits": column(100.0 + 1e-4 * ODD),
    "ids": column(2**60 + np.arange(EXAMPLES), np.int64),
    "quiet sound": column(np.where(ODD, 2.0**-15, 0.0), np.float32),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_constant_up_to_rounding_is_constant(name: str) -> None:
    """It is 0 in every part, also where another part differs: the weights of that column were never trained."""
    train = CONSTANT[name]
    other = train.copy()
    other[:, 1] += other.dtype.type(1) if train.dtype.kind == "i" else other[:, 1] * other.dtype.type(0.03) + 1
    found = scaled(train, other)
    assert found.constant.tolist() == [False, True] or train.dtype.kind == "i"
    assert not found.values["train"][:, 1].any()
    assert not found.values["val"][:, 1].any()
    (note,) = [each for each in notes_on_columns({"train": train, "val": other}, found, "x") if "constant" in each]
    assert "though not in x_val" in note


@pytest.mark.parametrize("name", VARYING)
def test_what_varies_is_kept(name: str) -> None:
    found = scaled(VARYING[name])
    assert not found.constant[1]
    assert found.values["train"][:, 1].std(dtype=np.float64) == pytest.approx(1.0, abs=1e-5)


def test_an_outlier_is_named_and_costs_the_mean_no_digits() -> None:
    train = SIGNAL.copy()
    train[0, 1] = 1e12
    (note,) = notes_on_columns({"train": train}, standard_columns({"train": train}), "x")
    assert "a few far values set the scale of column 1 of x (training example 0: 1e+12" in note
    clipped = np.clip(train, -5, 5)  # the advice
    assert notes_on_columns({"train": clipped}, standard_columns({"train": clipped}), "x") == ()


def test_a_value_far_from_the_training_part_is_named() -> None:
    val = SIGNAL.copy()
    val[3, 0] = -99999.0
    values = {"train": SIGNAL, "val": val}
    (note,) = notes_on_columns(values, standard_columns(values), "x")
    assert "x_val lies up to" in note
    assert "example 3, column 0: -1e+05" in note


def test_too_far_for_float32() -> None:
    val = SIGNAL.copy()
    val[3, 0] = 1e300
    with pytest.raises(TaskError, match="x_val, example 3, column 0 lies too far from the training part"):
        standard_columns({"train": SIGNAL * 1e-30, "val": val})


def test_chunks_change_nothing() -> None:
    whole = np.random.default_rng(1).normal(5.0, 3.0, size=(120_000, 10))
    found = scaled(whole)
    np.testing.assert_allclose(found.values["train"], (whole - whole.mean(0)) / whole.std(0), atol=1e-5)
    np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-12)
