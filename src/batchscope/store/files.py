"""Atomic reading and writing of JSON and text files, and an operating system's refusals as messages for a user."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .codec import Record, decode, encode

__all__ = [
    "explained",
    "file_sha256",
    "json_bytes",
    "keep_interrupted",
    "of_another_schema",
    "read_json",
    "read_record",
    "reader_of",
    "unreadable",
    "write_bytes",
    "write_json",
    "write_text",
]


_WHEN_READ = "check the path and its permissions"


def read_json(path: Path, *, advice: str = "") -> Any:
    """Read the JSON in a file.

    Args:
        path: of the file.
        advice: ends the message where there is no JSON to read: what the file should be. A file that the user named
            needs one, for only a file of a results folder may be removed to be made again.

    Raises:
        StoreError: the file is missing, cannot be read, or is truncated.
    """
    with explained(path, advice or _WHEN_READ):
        content = path.read_bytes()
    try:
        return json.loads(content)
    except ValueError as error:
        raise StoreError(
            f"{path} ({len(content)} bytes) is not whole JSON: {error}; "
            f"{advice or 'it was truncated or edited: remove it, or restore it'}"
        ) from None


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
    data = json.loads(content)
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with explained(path):
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def keep_interrupted(path: Path) -> None:
    """Keep a file that an interrupted run left: `NAME.interrupted-1.SUFFIX`, or the first number that is free."""
    names = (path.with_name(f"{path.stem}.interrupted-{i}{path.suffix}") for i in itertools.count(1))
    os.replace(path, next(name for name in names if not name.exists()))


@contextlib.contextmanager
def explained(path: Path, otherwise: str = f"{_WHEN_READ}, or give another --out") -> Generator[None]:
    """Turn an `OSError` into a `StoreError` that names the path and says what to do; the original is its cause.

    Args:
        path: of the file or folder.
        otherwise: what to do, where neither the disk nor its quota is used up.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        again = "free some space and run the same command again, finished runs are kept"
        advice = {errno.ENOSPC: f"the disk is full: {again}", errno.EDQUOT: f"the disk quota is used up: {again}"}
        raise StoreError(f"{path}: {reason}; {advice.get(error.errno or 0, otherwise)}") from error


def file_sha256(path: Path) -> str:
    """SHA-256 hash of a file's content.

    Raises:
        StoreError: it cannot be read.
    """
    with explained(path, _WHEN_READ):
        return hashlib.sha256(path.read_bytes()).hexdigest()
