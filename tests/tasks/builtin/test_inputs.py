"""What inputs are taken for, by the range of their values, and what is said of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from batchscope.errors import TaskError
from batchscope.tasks.builtin.inputs import Inputs, read_inputs

UNIT = np.random.default_rng(0).random((100, 6, 5))
UNIT.flat[:2] = 0.0, 1.0


def read(train: NDArray[Any], val: NDArray[Any] | None = None, *, images: bool = True) -> Inputs:
    x = {"train": train, "val": train if val is None else val}
    return read_inputs(x, takes_images=images, scale="unit", source="FILE")


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (UNIT, "taken as they are"),
        (UNIT.astype(np.float16), "taken as they are"),
        (np.rint(UNIT * 255).astype(np.uint8), "divided by 255"),
        (np.rint(UNIT * 255).astype(np.int64), "divided by 255"),
        (np.rint(UNIT * 255), "divided by 255"),
        (UNIT * 255, "divided by 255"),
        ((UNIT * 255).astype(np.float32), "divided by 255"),
        (np.rint(UNIT * 16).astype(np.uint8), "divided by 16"),
        (np.rint(UNIT * 4095).astype(np.uint16), "divided by 4095"),
        (np.rint(UNIT * 65535).astype(np.uint16), "divided by 65535"),
        (np.rint(UNIT * 65535).astype(np.int32), "divided by 65535"),
    ],
)
def test_pixels_come_to_the_same_whatever_they_are_stored_as(pixels: NDArray[Any], said: str) -> None:
    found = read(pixels)
    assert found.values["train"].dtype == np.float32
    np.testing.assert_allclose(found.values["train"][:, 0], UNIT, atol=0.04)
    assert said in found.notes[0]


def test_masks_keep_their_two_values() -> None:
    for mask in (UNIT > 0.5, (UNIT > 0.5).astype(np.uint8), (UNIT > 0.5).astype(np.float32)):
        assert np.unique(read(mask).values["train"]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    "pixels",
    [
        UNIT / 255,  # divided twice
        UNIT * 1000,
        UNIT + 1e6,
        np.rint(UNIT * 4000 - 1000),  # Hounsfield units
        np.rint(UNIT * 255 - 128).astype(np.int8),
        np.rint(UNIT * 1e6).astype(np.int32),
    ],
)
def test_other_ranges_are_standardised(pixels: NDArray[Any]) -> None:
    found = read(pixels)
    values = found.values["train"].astype(np.float64)
    assert (values.mean(), values.std()) == pytest.approx((0.0, 1.0), abs=1e-5)
    np.testing.assert_allclose(values[:, 0], (UNIT - UNIT.mean()) / UNIT.std(), atol=0.02)
    assert "standardised by their mean" in found.notes[0]


@pytest.mark.parametrize("pixels", [UNIT * 2 - 1, (UNIT - 0.45) / 0.25])
def test_what_is_on_a_common_scale_stays(pixels: NDArray[Any]) -> None:
    np.testing.assert_allclose(read(pixels).values["train"][:, 0], pixels, rtol=1e-6)


def test_sequences_whose_features_differ_are_standardised_each() -> None:
    """One mean and deviation for all would leave the small ones without any spread."""
    x = np.random.default_rng(1).normal(size=(100, 4, 3)) * [1e-3, 1.0, 1e3]
    values = read(x, images=False).values["train"]
    np.testing.assert_allclose(values.std(0), 1.0, rtol=1e-5)


def test_bytes_of_a_table_are_no_pixels() -> None:
    random = np.random.default_rng(2)
    ages, flags = random.integers(18, 90, (100, 1)), random.integers(0, 2, (100, 4))
    for table in (np.hstack([ages, flags]), flags, random.integers(0, 16, (100, 8))):
        found = read(table.astype(np.uint8), images=False)
        np.testing.assert_allclose(found.values["train"].std(0), 1.0, rtol=1e-5)
        assert "as a table of" in found.notes[0]
    pixels = random.integers(0, 256, (100, 8)).astype(np.uint8)
    np.testing.assert_allclose(read(pixels, images=False).values["train"], pixels / 255, rtol=1e-6)


def test_parts_on_different_scales_are_refused_or_said() -> None:
    with pytest.raises(TaskError, match=r"x_val in FILE is on another scale .* from 0 to 255 and x_val from 0 to 1;"):
        read(np.rint(UNIT * 255).astype(np.uint8), UNIT)
    table = np.random.default_rng(3).normal(size=(100, 4))
    assert "most columns of x_val spread 0.001 times as far" in " ".join(read(table, table / 1000, images=False).notes)
    assert read(UNIT, UNIT * 0).values["val"].any() is np.False_  # a part of one value is on any scale


@pytest.mark.parametrize(
    ("shape", "said", "seen"),
    [
        ((6, 5), "6 x 5 with 1 channel ", (1, 6, 5)),
        ((3, 6, 5), "6 x 5 with 3 channels, which come first", (3, 6, 5)),
        ((6, 5, 3), "6 x 5 with 3 channels, which come last", (3, 6, 5)),
    ],
)
def test_the_guess_of_channels_is_said(shape: tuple[int, ...], said: str, seen: tuple[int, ...]) -> None:
    found = read(np.random.default_rng(4).random((10, *shape)))
    assert found.values["val"].shape[1:] == seen
    assert said in found.notes[0]
