"""An exception of the user's becomes one message with its line; batchscope's own and a lack of memory pass."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch.nn import functional as F

from batchscope.errors import TargetError, TaskError
from batchscope.tasks.user_code import explained


def message_of(error: BaseException, advice: str = "") -> str:
    with pytest.raises(TaskError) as caught, explained("loss(model, batch)", advice):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


def test_the_line_is_named() -> None:
    said = message_of(ValueError("two\nlines"))
    assert re.fullmatch(
        r"loss\(model, batch\) raised ValueError: two lines \(test_user_code.py, line \d+: raise error\)", said
    )
    assert message_of(KeyError("x"), "write y").endswith("; write y")
    assert message_of(AssertionError()).startswith("loss(model, batch) raised AssertionError (test_user_code.py")
    assert message_of(SystemExit(3)).startswith("loss(model, batch) raised SystemExit: 3")


def test_the_line_is_the_users_not_the_librarys() -> None:
    with (
        pytest.raises(TaskError, match=r"raised ValueError: .*\(test_user_code.py, line \d+: F.cross_entropy"),
        explained("x"),
    ):
        F.cross_entropy(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
    with (
        pytest.raises(TaskError, match=r"raised JSONDecodeError: .*\(test_user_code.py, line \d+: json.loads"),
        explained("x"),
    ):
        json.loads("{")


def test_code_without_a_file() -> None:
    with (
        pytest.raises(TaskError, match=r"x raised ZeroDivisionError: division by zero \(<typed>, line 1\)$"),
        explained("x"),
    ):
        exec(compile("1 / 0", "<typed>", "exec"))


@pytest.mark.parametrize(
    "error",
    [
        TargetError("t"),
        TaskError("t"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_what_passes_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, explained("x"):
        raise error
    assert caught.value is error
