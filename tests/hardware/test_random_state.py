"""The seed of every generator that user code may draw from."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from batchscope.hardware.random_state import preserved_random_state, seed_everything


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 1])
def test_a_seed_draws_what_it_draws_by_hand(seed: int) -> None:
    with preserved_random_state(1):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        expected = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        seed_everything(seed)
        found = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    assert torch.equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])
    assert found[2] == expected[2]
