"""Arrays drawn at random, of any type, shape and size: a task whose numbers are finite, or one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from batchscope.errors import TaskError
from batchscope.tasks.builtin.arrays import arrays

FLOATS = ("float16", "float32", "float64", "longdouble")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
OTHERS = ("bool", "complex64", "U", "S", "datetime64[s]")


def drawn(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Numbers of a random size and offset, perhaps constant, with an outlier or a NaN."""
    if dtype in INTEGERS:
        kind = np.iinfo(dtype)
        low = [kind.min, 0, kind.max - 5][random.integers(3)]
        high = [low + 1, low + 5, kind.max][random.integers(3)]
        return random.integers(low, high, shape, dtype=dtype, endpoint=True)
    exponent = random.choice([-300, -30, -3, 0, 0, 0, 3, 30, 300]) if dtype in FLOATS[2:] else random.choice([-4, 0, 4])
    offset = random.choice([0.0, 0.0, 1.0, 1e4]) * 10.0**exponent
    with np.errstate(all="ignore"):
        values = (random.normal(size=shape) * 10.0**exponent + offset) * random.choice([0.0, 1.0, 1.0, 1.0])
        values = np.rint(values) if random.random() < 0.3 else values
        values[(0,) * len(shape)] *= random.choice([1.0, 1.0, 1.0, 1e6])
        if random.random() < 0.05:
            values[(-1,) * len(shape)] = random.choice([np.nan, np.inf])
        if dtype in ("U", "S"):
            return np.abs(np.nan_to_num(values) % 3).astype(int).astype(dtype)
        return np.nan_to_num(values).astype(dtype) if dtype in OTHERS else values.astype(dtype)


@pytest.mark.parametrize("seed", range(40))
def test_any_arrays(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    of_numbers = [*FLOATS, *INTEGERS, "bool"]
    kind_x = str(random.choice(of_numbers if random.random() < 0.9 else OTHERS))
    kind_y = str(random.choice([*of_numbers, *OTHERS]))
    examples = int(random.integers(2, 60))
    x_shape = [(3,), (1,), (6, 5), (3, 6, 5), (6, 5, 3), (2, 2, 2, 2)][random.integers(6)]
    y_shape = [(), (), (1,), (3,)][random.integers(4)]
    x, y = (drawn(random, (examples, *s), k) for s, k in ((x_shape, kind_x), (y_shape, kind_y)))
    cut = int(random.integers(1, examples))
    np.savez(tmp_path / "data.npz", x_train=x[:cut], y_train=y[:cut], x_val=x[cut:], y_val=y[cut:])
    problem: Any = random.choice(["auto", "auto", "classification", "regression"])
    message = ""
    try:
        task = arrays(path=tmp_path / "data.npz", problem=problem)
    except TaskError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 600
    if message:
        return
    inputs, targets = task.parts["train"]
    assert torch.isfinite(inputs).all()
    assert torch.isfinite(targets).all()
    assert inputs.dtype == torch.float32
    assert task.data_notes[0].startswith(("classification: ", "regression: "))
    assert all("\n" not in note and "nan" not in note and len(note) < 300 for note in task.data_notes)
    assert torch.isfinite(task.loss(task.model(), [inputs, targets]))
