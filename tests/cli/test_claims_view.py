"""The verdicts in a terminal: ten lines, and where the page is."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from batchscope.cli.claims_view import claims_view
from batchscope.cli.terminal import show

from ..laboratory.claims.page_results import found, nothing


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("complete", [True, False])
def test_ten_lines_that_point_to_the_page(width: int, complete: bool) -> None:
    for claims, _ in (found(), nothing()):
        file = io.StringIO()
        cut = replace(claims, study=replace(claims.study, complete=complete))
        show(Console(file=file, width=width), claims_view(cut, Path("out")))
        said = file.getvalue().splitlines()
        assert len(said) <= 10
        assert any("out/report.html" in line for line in said)
