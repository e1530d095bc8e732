"""Atomic reading and writing of JSON and text files, and an operating system's refusals as messages for a user.

What is read is a regular file of bounded size: a FIFO, a device or an endless file is refused, and never waited for.
What is written comes to its place whole, by renaming: a link that stands there is replaced, and where it led stays as
it was. Temporary names cannot be guessed, and are never those of a file that is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any

from ..errors import StoreError
from .codec import Record, decode, encode
from .json_text import MOST_BYTES, parse

__all__ = [
    "explained",
    "file_sha256",
    "json_bytes",
    "keep_interrupted",
    "of_another_schema",
    "open_regular",
    "read_json",
    "read_record",
    "reader_of",
    "regular_bytes",
    "remove_leftovers",
    "replaced",
    "to_make_anew",
    "unreadable",
    "write_bytes",
    "write_json",
    "write_text",
]


_WHEN_READ = "check the path and its permissions"
_WHEN_WRITTEN = f"{_WHEN_READ}, or give another --out"
_LINK = {errno.ELOOP: "it is a link, and links are not followed for writing", errno.ENXIO: "it is no regular file"}
_TEMPORARY = re.compile(r"\.batchscope-[0-9a-f]{16}\.part")
_PART = 2**20
_OLD_S = 3600.0
"""Age from which a temporary file is that of a process that was killed."""


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file without ever waiting for it; what is made takes its permissions from the umask.

    Args:
        path: of the file.
        flags: as those of `os.open`; with `os.O_NOFOLLOW`, a link is refused.

    Returns:
        Its descriptor, to be closed.

    Raises:
        OSError: it cannot be opened, or is a FIFO, a device, a socket or a folder.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO
    raise OSError(number, os.strerror(number))


def regular_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Content of a regular file.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than `most` bytes.
    """
    descriptor, parts, left = open_regular(path), list[bytes](), most + 1
    try:
        while left and (part := os.read(descriptor, min(left, _PART))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(descriptor)
    if not left:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_json(path: Path, *, advice: str = "") -> Any:
    """Read the JSON in a file.

    Args:
        path: of the file.
        advice: ends the message where there is no JSON to read: what the file should be. A file that the user named
            needs one, for only a file of a results folder may be removed to be made again.

    Raises:
        StoreError: the file is missing, cannot be read, is truncated, or is beyond the bounds of `json_text`.
    """
    with explained(path, advice or _WHEN_READ):
        content = regular_bytes(path)
    try:
        return parse(content)
    except ValueError as error:
        raise StoreError(
            f"{path} ({len(content)} bytes) is not whole JSON: {error}; "
            f"{advice or f'it was truncated or edited: {to_make_anew(path)}'}"
        ) from None


def to_make_anew(path: Path) -> str:
    """What to do where a file of a results folder cannot be used: what the same command makes again can be removed."""
    parent = path.parent
    if parent.parent.name in ("runs", "questions"):  # one file of several that belong together
        return f"remove the folder {parent} and run the same command again, or restore the file"
    if path.name == "question.json":
        return "restore it, or give another --out"
    return "remove it and run the command that made the folder again, or restore it"


def read_record(path: Path, cls: type[Record]) -> Record:
    """Read the record in a file.

    Raises:
        StoreError: the file is truncated or of another schema.
    """
    data = read_json(path)
    try:
        return decode(cls, data)
    except ValueError as error:
        raise of_another_schema(path, error) from None


def of_another_schema(path: Path, error: Exception) -> StoreError:
    """What is said of a file of a results folder whose members are not those of its record."""
    return StoreError(
        f"{path} is of another schema: {error}; it was written by another version of batchscope, or edited: give "
        "another --out, or remove the folder"
    )


def write_json(path: Path, value: Any, reader: Callable[[Any], object] | None = None) -> None:
    """Write JSON (never NaN) under a temporary name, then rename, so that no reader sees half a file.

    Args:
        path: of the file.
        value: a record, or JSON types.
        reader: what will be made of the JSON; default: a record of the same kind.

    Raises:
        StoreError: the file cannot be written, or nobody could read it again; the old one, if any, is as it was.
    """
    write_bytes(path, json_bytes(value, reader, named=str(path)))


def json_bytes(value: Any, reader: Callable[[Any], object] | None = None, *, named: str = "the answer") -> bytes:
    """JSON (never NaN) as it stands in a file, which was read again on trial.

    Raises:
        StoreError: nobody could read it.
    """
    try:
        encoded = encode(value)
        content = (json.dumps(encoded, indent=1, allow_nan=False) + "\n").encode()
        _read_on_trial(content, encoded, reader or (reader_of(value) if dataclasses.is_dataclass(value) else None))
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise unreadable(named, error) from None
    return content


def unreadable(named: str, error: Exception) -> StoreError:
    """What is said of values that were not written because no reader would take them."""
    return StoreError(
        f"{named} was not written, since it could not be read again: {error}; look at the numbers and names that the "
        "task returned, and with none of them to blame report this as a fault"
    )


def reader_of(record: Any) -> Callable[[Any], object]:
    """Reader of a record's JSON, which makes sure that the record comes back."""

    def read(data: Any) -> None:
        if encode(decode(type(record), data)) != data:
            raise ValueError(f"{type(record).__name__} is read as another one")

    return read


def _read_on_trial(content: bytes, encoded: Any, reader: Callable[[Any], object] | None) -> None:
    """Make sure that a file's content is read as what was to be written.

    Raises:
        KeyError, RecursionError, TypeError, ValueError: it is not.
    """
    data = parse(content)
    if data != encoded:
        raise ValueError("a name in it is no text, or stands there twice")
    if reader is not None:
        reader(data)


def write_text(path: Path, text: str) -> None:
    """Write text under a temporary name, then rename.

    Raises:
        StoreError: the file cannot be written; the old one, if any, is as it was.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes under a temporary name, then rename. Errors of `write_text`."""
    with replaced(path) as file:
        file.write(content)


@contextlib.contextmanager
def replaced(path: Path) -> Generator[IO[bytes]]:
    """A new file that takes the place of `path` once it is written; with an error nothing has changed.

    A link there is replaced, and what it led to stays.

    Raises:
        StoreError: the file cannot be written, or a device or a FIFO is in its place.
    """
    temporary = path.with_name(f".batchscope-{secrets.token_hex(8)}.part")
    try:
        with explained(path):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_IFMT(path.stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                    raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            descriptor = open_regular(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed process left in a folder: by their name, our own, and over an hour old."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                seen = entry.stat(follow_symlinks=False)
                if seen.st_uid == os.geteuid() and time.time() - seen.st_mtime > _OLD_S:
                    os.unlink(entry.path)


def keep_interrupted(path: Path) -> None:
    """Keep a file that an interrupted run left: `NAME.interrupted-1.SUFFIX`, or the first number that is free."""
    names = (path.with_name(f"{path.stem}.interrupted-{i}{path.suffix}") for i in itertools.count(1))
    os.replace(path, next(name for name in names if not name.exists()))


@contextlib.contextmanager
def explained(path: Path, otherwise: str = _WHEN_WRITTEN) -> Generator[None]:
    """Turn an `OSError` into a `StoreError` that names the path and says what to do; the original is its cause.

    Args:
        path: of the file or folder.
        otherwise: what to do, where neither the disk nor its quota is used up.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        reason = _LINK.get(number) or error.strerror or str(error)
        again = "free some space and run the same command again, finished runs are kept"
        advice = {errno.ENOSPC: f"the disk is full: {again}", errno.EDQUOT: f"the disk quota is used up: {again}"}
        if otherwise in (_WHEN_READ, _WHEN_WRITTEN):
            advice |= dict.fromkeys((*_LINK, errno.EFBIG, errno.EISDIR), to_make_anew(path))
        raise StoreError(f"{path}: {reason}; {advice.get(number, otherwise)}") from error


def file_sha256(path: Path) -> str:
    """SHA-256 hash of a file's content.

    Raises:
        StoreError: it cannot be read, or is no regular file.
    """
    with explained(path, _WHEN_READ), os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
