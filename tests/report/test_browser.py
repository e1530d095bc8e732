"""The page in a real browser, where there is one: every chart is drawn or said to be missing; no name becomes code."""

from __future__ import annotations

import base64
import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from batchscope.report import build, page
from batchscope.report.chart_script import packed, source
from batchscope.report.page import contents, draw

from . import plans
from .test_page import Reader, hostile

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; there is none")


def opened(path: Path) -> tuple[str, str]:
    """The document after its scripts ran, opened from the disk, and what the browser logged."""
    profile = path.parent / "profile"
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", f"file://{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def charts_in(document: str) -> int:
    """How many charts are drawn; each consists of three drawings, one above the other."""
    drawn = [a for tag, a in Reader(document).elements if tag == "svg" and a.get("class") == "main-svg"]
    assert len(drawn) % 3 == 0
    return len(drawn) // 3


def says_that_charts_are_missing(document: str) -> bool:
    """Whether the sentence that the style hides otherwise is shown."""
    return any(tag == "body" and a.get("class") == "without-charts" for tag, a in Reader(document).elements)


def test_every_chart_is_drawn_and_nothing_else_runs(tmp_path: Path) -> None:
    text = build(*hostile(plans.ok(), plans.runs()))
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    document, logged = opened(tmp_path / "report.html")
    assert charts_in(document) == text.count('<div class="plot"')
    assert "<img" not in re.sub(r"<script.*?</script>", "", document, flags=re.DOTALL)
    assert not logged
    assert not says_that_charts_are_missing(document)


def test_pages_in_one_folder_share_the_library(tmp_path: Path) -> None:
    text = draw(contents(*hostile(plans.ok(), plans.runs())), shared_script="charts.js")
    assert len(text.encode()) < 0.2e6
    (tmp_path / "charts.js").write_text(source(), encoding="utf-8")
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    document, logged = opened(tmp_path / "report.html")
    assert charts_in(document) == text.count('<div class="plot"')
    assert not logged
    assert not says_that_charts_are_missing(document)


def test_a_page_without_the_shared_library_says_so(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(
        draw(contents(plans.ok(), plans.runs()), shared_script="charts.js"), encoding="utf-8"
    )
    document, _ = opened(tmp_path / "report.html")
    assert says_that_charts_are_missing(document)
    assert "the file charts.js, which draws them, is not beside this page" in Reader(document).visible


def test_a_browser_that_cannot_unpack_the_library_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = page._source("page.js")
    older = "delete globalThis.DecompressionStream;\n" + drawing
    monkeypatch.setattr(page, "_source", lambda name: older if name == "page.js" else "")
    (tmp_path / "report.html").write_text(build(plans.ok(), plans.runs()), encoding="utf-8")
    document, logged = opened(tmp_path / "report.html")
    assert says_that_charts_are_missing(document)
    assert charts_in(document) == 0
    assert not logged
    assert "this browser did not unpack the script" in Reader(document).visible


def test_no_other_script_runs_in_place_of_the_library(tmp_path: Path) -> None:
    """The policy names the one content that may run: whatever else unpacks is refused, and the page says so."""
    other = base64.b64encode(gzip.compress(b"document.title = 'it ran'; window.Plotly = {};")).decode()
    changed = build(plans.ok(), plans.runs()).replace(packed(), other)
    (tmp_path / "report.html").write_text(changed, encoding="utf-8")
    document, logged = opened(tmp_path / "report.html")
    assert "it ran</title>" not in document
    assert "Content Security Policy" in logged
    assert says_that_charts_are_missing(document)
