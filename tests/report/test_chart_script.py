"""The chart library: whole, of the version that the tests check figures against, and with its licence."""

from __future__ import annotations

import base64
import gzip
import re
from importlib.resources import files

import plotly.offline

from batchscope.report import chart_script


def version_in(script: str) -> str:
    found = re.search(r"plotly\.js(?: \(cartesian - minified\))? v([0-9.]+)", script[:200])
    assert found
    return found[1]


def test_what_a_page_holds_unpacks_to_the_library() -> None:
    unpacked = gzip.decompress(base64.b64decode(chart_script.packed())).decode()
    assert unpacked == chart_script.source()
    assert "plotly.js (cartesian - minified)" in unpacked[:100]
    assert len(chart_script.packed()) < 0.7e6


def test_it_reads_the_figures_that_the_tests_check() -> None:
    """The tests ask plotly's Python package which properties there are; both must mean the same plotly.js."""
    ours, checked = version_in(chart_script.source()), version_in(plotly.offline.get_plotlyjs())
    assert ours.partition(".")[0] == checked.partition(".")[0]


def test_its_licence_lies_beside_it() -> None:
    folder = files("batchscope.report")
    assert "MIT License" in (folder / "PLOTLY-LICENSE.txt").read_text(encoding="utf-8")
