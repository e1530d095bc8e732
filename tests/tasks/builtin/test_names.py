"""A built-in task is a file with a function of its own name, and nothing else lists it."""

from __future__ import annotations

import importlib

import pytest

from batchscope.tasks.builtin import BUILT_IN


def test_the_embedded_task_is_named_first() -> None:
    assert BUILT_IN == ("digits", "arrays", "text")


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_has_a_factory_of_its_own_name(name: str) -> None:
    assert callable(getattr(importlib.import_module(f"batchscope.tasks.builtin.{name}"), name))
