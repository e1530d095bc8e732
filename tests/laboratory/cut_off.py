"""A study whose budget is used up once the task was checked and its steps were timed: before the first run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from batchscope.laboratory.engine import Laboratory
from batchscope.training.limits import Deadline

__all__ = ["no_time_for_runs"]


@contextmanager
def no_time_for_runs() -> Generator[None]:
    """Studies inside begin their runs when the budget is used up."""
    begin = Laboratory.begin

    def late(*words: Any, **more: Any) -> Laboratory:
        return begin(*words, **{**more, "deadline": Deadline(0.0)})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Laboratory, "begin", late)
        yield
