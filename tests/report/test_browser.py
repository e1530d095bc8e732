"""The page in a real browser, where there is one: every chart is drawn, and no name becomes code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from batchscope.report import build

from . import plans
from .test_page import Reader, hostile

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; there is none")
def test_every_chart_is_drawn_and_nothing_else_runs(tmp_path: Path) -> None:
    page = build(*hostile(plans.ok(), plans.runs()))
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command += [
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        "--dump-dom",
        f"file://{tmp_path}/report.html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    drawn = [a for tag, a in Reader(done.stdout).elements if tag == "svg" and a.get("class") == "main-svg"]
    assert len(drawn) == 3 * page.count('<div class="plot"')
    assert "<img" not in re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
