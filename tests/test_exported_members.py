"""The public names: complete, sorted, documented, and never hidden by a submodule of the same name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import batchscope


def test_all_is_sorted_and_resolves() -> None:
    assert batchscope.__all__ == sorted(batchscope.__all__)
    assert set(batchscope.__all__) <= set(dir(batchscope))
    undocumented = [name for name in batchscope.__all__ if not getattr(batchscope, name).__doc__]
    assert not undocumented


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(batchscope.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        (node.module, alias.name) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert sorted(name for _, name in seen) == batchscope.__all__
    for module, name in seen:
        assert getattr(batchscope, name) is getattr(sys.modules[f"batchscope.{module}"], name)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'batchsize'"):
        _ = batchscope.batchsize  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("before", ["", "import batchscope.tasks.protocol", "import batchscope.training.count"])
def test_no_submodule_hides_a_public_function(before: str) -> None:
    script = f"{before}\nimport batchscope\nfrom batchscope import task, count\n"
    script += "assert batchscope.task is task and callable(task) and callable(count), task"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
