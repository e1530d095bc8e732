"""The published pages: small together, and what their records are drawn to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from batchscope.report.page import draw

from ..conftest import Cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "pages"
NAMES = sorted(path.stem for path in PAGES.glob("*.html"))

pytestmark = pytest.mark.skipif(not NAMES, reason="needs docs/pages, which a source distribution lacks")


def test_pages_and_their_records_are_under_8_mb_together() -> None:
    results = ROOT / "benchmarks" / "results"
    folders = (PAGES, results / "pages", results / "contents")
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) < 8e6


def test_every_page_has_its_record(script: Callable[[str], ModuleType]) -> None:
    assert sorted(script("pages").PAGES) == NAMES
    assert sorted(path.stem for path in script("page_contents").FOLDER.glob("*.json")) == NAMES


def test_pages_are_what_their_records_are_drawn_to(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = script("pages")
    monkeypatch.setattr(pages, "DRAWN", tmp_path)
    monkeypatch.setattr(sys, "argv", ["pages.py", "--redraw"])
    pages.main()
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in PAGES.iterdir()}
    assert sorted(drawn) == sorted(kept)
    other = [name for name in drawn if drawn[name] != kept[name]]
    assert not other, "python benchmarks/pages.py --redraw"


def test_a_measured_study_becomes_a_record_and_the_same_page(
    cli: Cli, script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, records = tmp_path / "out", script("page_contents")
    settings = "--epochs 1 --batch-sizes 64,512 --lrs 0.1 --seeds 1 --budget 60s"
    assert cli(f"study fixed_epochs digits {settings} --out {out}").status == 0
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    records.write("study", records.contents_of(out))
    assert draw(records.read("study")) == (out / "report.html").read_text(encoding="utf-8")
