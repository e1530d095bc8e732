"""Characters of a text file; one in another encoding than UTF-8 is refused with the encoding that it seems to be in."""

from __future__ import annotations

import codecs
from pathlib import Path

from ...errors import TaskError
from ...wording import plural

__all__ = ["read_characters"]

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks of other encodings, by Python's name; the longer ones first, which begin as shorter ones do."""

_MAGIC = {
    b"\x1f\x8b": "is compressed by gzip; unpack it",
    b"BZh": "is compressed by bzip2; unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it",
    b"PK\x03\x04": "is a zip archive, or a document kept as one; take the plain text out of it",
    b"%PDF": "is a PDF; take the plain text out of it",
}
"""First bytes of files that are no text, and what to do with them."""

_LOOKED_AT = 4096
_ZEROS = 0.2
"""Share of zero bytes from which on a text is in UTF-16 without a mark: nearly a half where letters are Latin."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def read_characters(path: Path) -> tuple[str, tuple[str, ...]]:
    """Characters of a text in UTF-8, and what a reader should know of them.

    A byte order mark is no character of the text, and line ends become one line feed.

    Raises:
        TaskError: there is no such file, or it is in another encoding, or no text at all.
    """
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"there is no file {path}"
        raise TaskError(f"{what}; write --set path=FILE.txt or --set path=FILE.npz")
    raw = path.read_bytes()
    if magic := next((what for first, what in _MAGIC.items() if raw.startswith(first)), ""):
        raise TaskError(f"{path} {magic}, and give a UTF-8 text")
    if codec := _other_codec(raw):
        raise TaskError(f"{path} is not UTF-8 text, but seems to be {codec.upper()}; {_convert(path, codec)}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise TaskError(
            f"{path} is not UTF-8 text (byte {raw[error.start]:#04x} in line {line}: {error.reason}); where it is of "
            f"Windows and European, {_convert(path, 'cp1252')}"
        ) from error
    lost = text.count(_REPLACEMENT)
    note = f"the text holds {plural(lost, 'character')} U+FFFD, which stand for what a wrong decoding lost"
    return text.replace("\r\n", "\n").replace("\r", "\n"), (note,) if lost else ()


def _other_codec(raw: bytes) -> str:
    """Encoding that a byte order mark names, or that zero bytes at every other place tell; empty where neither does."""
    if codec := next((codec for mark, codec in _MARKS.items() if raw.startswith(mark)), ""):
        return codec
    head = raw[:_LOOKED_AT]
    if head.count(0) <= _ZEROS * len(head):
        return ""
    return "utf-16-le" if head[1::2].count(0) >= head[::2].count(0) else "utf-16-be"


def _convert(path: Path, codec: str) -> str:
    """Line of Python that writes the text anew."""
    return (
        "convert it, in Python: "
        f"open('utf8.txt', 'w', encoding='utf-8').write(open({str(path)!r}, encoding={codec!r}).read())"
    )
