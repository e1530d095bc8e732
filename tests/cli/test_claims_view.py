"""The verdicts in a terminal: ten lines with those that say where the rest is."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from batchscope.cli.claims_view import claims_view, why_of
from batchscope.cli.terminal import show

from ..laboratory.claims.page_results import found, nothing


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("complete", [True, False])
def test_ten_lines_in_all(width: int, complete: bool) -> None:
    for claims, _ in (found(), nothing()):
        file = io.StringIO()
        cut = replace(claims, study=replace(claims.study, complete=complete))
        where = ["For programs: batchscope-runs/mine/claims.json", f"{why_of(cut)}: batchscope-runs/mine/report.html"]
        show(Console(file=file, width=width), [*claims_view(cut), *where])
        said = file.getvalue().splitlines()
        assert len(said) <= 10
