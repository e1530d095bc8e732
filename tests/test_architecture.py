"""The walks that docs/architecture.md shows exist; `cli/test_walks.py` counts them on the stack."""

from __future__ import annotations

import re
from pathlib import Path

import batchscope

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(batchscope.__file__).parent


def test_the_walks_of_the_architecture_exist() -> None:
    section = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Three walks")[2]
    walks = [line for block in re.findall(r"^```text\n(.*?)^```", section, re.M | re.S) for line in block.splitlines()]
    files = {f"{file}.py" for line in walks for file in re.findall(r"\b[a-z]+(?:/[a-z_]+)+\b(?!/)", line)}
    assert {"search/find.py", "training/loop.py", "report/sections/steps_and_examples.py"} <= files
    missing = [file for file in files if not (PACKAGE / file).exists() and not (PACKAGE / file[:-3]).is_dir()]
    assert missing == []
