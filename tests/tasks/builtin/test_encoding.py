"""Encodings of a text: what is read, what is refused, and whether the line that is offered works."""

from __future__ import annotations

import gzip
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from batchscope.errors import TaskError
from batchscope.tasks.builtin.encoding import read_characters
from batchscope.tasks.builtin.text import text

WORDS = "naïve cafés, one after another: " * 20 + "\nend\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_mark_and_line_ends_are_no_characters(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(WORDS.replace("\n", end).encode(encoding))
    assert read_characters(path) == (WORDS, ())


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", "seems to be UTF-16;"),
        ("utf-16-le", "seems to be UTF-16-LE;"),
        ("utf-16-be", "seems to be UTF-16-BE;"),
        ("utf-32", "seems to be UTF-32;"),
        ("cp1252", r"\(byte 0xef in line 1: .* where it is of Windows"),
    ],
)
def test_other_encodings_are_named_and_the_line_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_bytes(WORDS.encode(encoding))
    with pytest.raises(TaskError, match=f"words.txt is not UTF-8 text.*{said}") as caught:
        text(path=Path("words.txt"))
    line = re.search(r"in Python: (open\(.*\))$", str(caught.value))
    assert line is not None
    with ExitStack() as files:
        exec(line.group(1), {"open": lambda *a, **k: files.enter_context(open(*a, **k))})
    assert read_characters(Path("utf8.txt"))[0] == WORDS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(WORDS.encode(), mtime=0), "is compressed by gzip; unpack it"),
        (b"PK\x03\x04 and more", "is a zip archive"),
        (b"%PDF-1.7", "is a PDF"),
        (b"a" * 500, "holds nothing but 'a': there is nothing to learn"),
        (b"", "holds no character: there is nothing to learn"),
    ],
)
def test_what_is_no_text(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(TaskError, match=message):
        text(path=tmp_path / "words.txt")


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"is a folder; write --set path=FILE.txt"):
        text(path=tmp_path)


def test_what_is_taken_for_what_is_said(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("to be or not to be, \ufffd " * 40 + "§", encoding="utf-8")
    notes = text(path=tmp_path / "words.txt", context=4).data_notes
    assert notes[0].startswith("the text holds 40 characters U+FFFD")
    assert notes[1].startswith("a code is a character, 10 different ones; the first 90 % train, ")
    assert notes[1].endswith("1 character does not occur in training")
