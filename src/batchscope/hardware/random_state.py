"""Random state of a process: every generator that user code may draw from, seeded, captured and put back."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["RandomState", "preserved_random_state", "seed_everything"]


def seed_everything(seed: int) -> None:
    """Seed torch, NumPy and Python, which user models and data sets may draw from."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # that would put a stack trace by for each device that is not there, in ten times the time of a small step
        torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - user code may draw from the global generator
    random.seed(seed)


@dataclass(frozen=True)
class RandomState:
    """State of every generator that user code may draw from."""

    torch_state: Tensor
    numpy_state: Any
    python_state: Any
    cuda_states: list[Tensor] | None

    @classmethod
    def capture(cls) -> RandomState:
        """Capture the state now."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
        return cls(torch.get_rng_state(), np.random.get_state(), random.getstate(), cuda)  # noqa: NPY002

    def restore(self) -> None:
        """Restore the state."""
        torch.set_rng_state(self.torch_state)
        np.random.set_state(self.numpy_state)  # noqa: NPY002
        random.setstate(self.python_state)
        if self.cuda_states is not None:
            torch.cuda.set_rng_state_all(self.cuda_states)


@contextmanager
def preserved_random_state(seed: int) -> Generator[None]:
    """Seed every generator inside, and leave the caller's generators as they were."""
    before = RandomState.capture()
    seed_everything(seed)
    try:
        yield
    finally:
        before.restore()
