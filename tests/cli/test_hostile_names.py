"""What users, their tasks, files and tables call things steers neither a terminal nor a page nor a log."""

from __future__ import annotations

import html
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from batchscope.cli.streams import say
from batchscope.cli.terminal import show, stderr
from batchscope.report.blocks import Code, Column, Facts, Figure, Section, Tagged, Text
from batchscope.report.blocks import Table as Cells
from batchscope.report.page import Contents, Head, draw
from batchscope.wording import plain, quoted, showable

from .hostile import HOSTILE, NASTY, harmful

Cli = Callable[..., Any]

anything = st.text(st.characters(codec=None), max_size=40) | st.just(NASTY)


# --- the few places that everything passes ------------------------------------------------------------------------


@given(anything)
def test_showable_and_plain_lose_nothing_and_are_stable(text: str) -> None:
    shown = showable(text)
    assert not harmful(shown) - {"\u200c", "\u200d", "\u202f", "\u2009"}
    assert "\n" not in shown
    assert showable(shown) == shown
    shown.encode()
    assert plain(shown).isascii()
    assert text.isprintable() <= (shown == text)
    assert eval(quoted(text)) == text
    assert "\n" not in quoted(text)


@given(anything)
def test_messages_and_tables(text: str) -> None:
    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stderr", screen)
        say(f"batchscope: {text}", text)
        assert len(screen.getvalue().splitlines()) == 2
        table = Table(box=None, title=text)
        table.add_column(text)
        table.add_row(text)
        show(stderr(), [text, table])
    shown = screen.getvalue()
    assert not harmful(shown) - {"\u200c", "\u200d", "\u202f", "\u2009"}
    assert showable(text).rstrip() in shown


@given(anything)
def test_pages(text: str) -> None:
    blocks = (
        Text((text,)),
        Text((text,), tone="status", badge=text),
        Facts(((text, text),)),
        Cells((Column(text),), ((text,),)),
        Tagged(((text, text, text),)),
        Code(f"a = 1\n{text}"),
        Figure("figure", text, ({"text": [text], "x": [1.0, None]},), {"height": 9, "title": {"text": text}}, text),
    )
    page = draw(
        Contents(
            head=Head(task=text, status="ok", question=(text, text, text), version="1"),
            sections=(Section("a", text, blocks),),
        )
    )
    assert not harmful(page) - {"\u200c", "\u200d", "\u202f", "\u2009"}
    page.encode()
    assert "<img" not in page
    drawn = re.search(r'<script type="application/json">(.*?)</script>', page, re.S)
    assert drawn is not None
    assert json.loads(drawn[1])["data"][0]["text"] == [showable(text)]


# --- commands -----------------------------------------------------------------------------------------------------


def clean(ended: Any, *statuses: int) -> str:
    """All that a command printed, which steers nothing."""
    assert ended.status in statuses, ended.err
    assert not harmful(ended.out + ended.err)
    assert "Traceback" not in ended.err
    assert "internal error" not in ended.err
    return ended.out + ended.err


@pytest.fixture
def file(cli: Cli, tmp_path: Path) -> str:
    """A task file with a name that is not UTF-8, in the current folder."""
    name = os.fsdecode(b"t\x1b[31m\xff\xc2\x9b.py")
    (tmp_path / name).write_text(HOSTILE, encoding="utf-8")
    return name


def test_find_and_what_it_leaves(cli: Cli, file: str, profile: Path) -> None:
    out = os.fsdecode(b"o\x1b[2J\n\xffut")
    words = ("--metric", f"{NASTY}:min", "--max-batch-size", "16", "--trainings", "0.1", "--hardware", profile)
    ended = cli("find", file, *words, "--out", out, "--set", f"{NASTY.partition('<')[0]}={NASTY}")
    said = clean(ended, 0, 3)
    assert showable(NASTY) in said
    assert f"For programs: {showable(out)}/plan.json" in ended.out
    page = Path(out, "report.html").read_text(encoding="utf-8")
    assert not harmful(page)
    assert "<img" not in page
    program = re.search(r"<pre><code>(.*?)</code>", page, re.S)
    assert program is not None
    compile(html.unescape(program[1]), "program", "exec")
    assert not re.search(r"^import os", html.unescape(program[1]), re.M)
    clean(cli("runs", out), 0)
    assert json.loads(cli("runs", out, "--json").out)["runs"]
    assert clean(cli("report", out), 0) == f"Wrote {showable(out)}/report.html.\n"
    again = cli("find", file, *words, "--out", out, "--set", f"{NASTY.partition('<')[0]}={NASTY}", "--json")
    assert again.answer["target"]["metric"] == NASTY
    assert again.out.isascii()


@pytest.mark.parametrize(
    "words",
    [
        ("find", NASTY),
        ("find", f"{NASTY}.py:{NASTY}"),
        ("find", "digits", "--set", f"{NASTY}=1"),
        ("find", "digits", "--set", f"optimizer={NASTY}"),
        ("find", "digits", "--target", NASTY),
        ("find", "digits", "--current", NASTY),
        ("find", "digits", "--hardware", NASTY),
        ("find", "digits", "--device", NASTY),
        ("find", "digits", "--budget", NASTY),
        ("find", f"--{NASTY}"),
        ("study", NASTY, "--quick"),
        ("study", "digits", "--batch-sizes", NASTY),
        ("fit", NASTY),
        ("report", NASTY),
        ("runs", NASTY),
        ("count", "--examples", NASTY),
        (NASTY,),
    ],
)
def test_arguments(cli: Cli, words: tuple[str, ...]) -> None:
    ended = cli("", *words)
    clean(ended, 2)
    answered = cli("", *words, "--json")
    assert answered.answer["status"] == "error"
    assert answered.out.isascii()


def test_exceptions_of_a_task(cli: Cli, file: str) -> None:
    ended = cli("find", f"{file}:Raises")
    assert "import os #" in clean(ended, 2)
    debugged = cli("find", f"{file}:Raises", "--debug")
    assert debugged.status == 2
    assert "Traceback" in debugged.err
    assert not harmful(debugged.err)


def test_a_table(cli: Cli) -> None:
    column = NASTY[:-1].replace('"', '""')  # all but what is not UTF-8
    head = f'batch_size,step,loss,run,"{column}",step_time_s'
    losses = ((size, step, 1 / (1 + step * size**0.5 / 300)) for size in (16, 64, 256) for step in range(0, 600, 30))
    rows = [f"{size},{step},{loss},r{size}\x1b[2J\x9b,x\u202e,0.001" for size, step, loss in losses]
    table = Path("t\x1b[2J\u202e.csv")
    table.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8", newline="")
    clean(cli("fit", table, "--target", "loss<=0.3", "--out", "out"), 0, 3)
    assert not harmful(Path("out/report.html").read_text(encoding="utf-8"))
    clean(cli("fit", table, "--target", "other<=0.3", "--out", "none"), 2)
    for cell in (NASTY[:-1], NASTY):
        bad = f"batch_size,steps_to_target,step_time_s\n16,{cell},0.001\n"
        table.write_text(bad, encoding="utf-8", errors="surrogateescape", newline="")
        clean(cli("fit", table, "--out", "bad"), 2)


def test_a_profile(cli: Cli) -> None:
    table = "batch_size,steps_to_target,lr\n16,900,0.01\n64,300,0.02\n256,150,0.04\n"
    Path("runs.csv").write_text(table, encoding="utf-8")
    times = {"step_time_s": [[1, 0.001], [64, 0.002]]}
    for content, status in (({"name": NASTY, **times}, 0), ({"name": "x", NASTY: 1, **times}, 2), ({"name": NASTY}, 2)):
        Path("machine.json").write_text(json.dumps(content), encoding="utf-8")
        ended = cli(f"fit runs.csv --hardware machine.json --out out-{len(content)}")
        clean(ended, status)
    assert not harmful(Path("out-2/report.html").read_text(encoding="utf-8"))
