"""Notes of a results folder: measurements that are found again, and only by the question that they were made for.

Each note holds the seal of the question that its folder was about when it was written, a hash of all that makes the
question another one. A note with another seal came from another folder: it is passed over, and what it would have said
is measured again. A note without a seal was written by an older version, and is taken where the folder's own
`question.json` vouches for it, as it does unless it was lost once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .codec import Record, decode, encode
from .files import of_another_schema, read_json, reader_of, write_json

__all__ = ["Notes", "seal_of"]

_SEAL, _DATA = "of_question", "data"

_WHEN_READ = "it was truncated or edited: remove it, and it is measured again"


def seal_of(about: Mapping[str, Any]) -> str:
    """Hash of what a folder is about.

    >>> seal_of({"task": "digits", "seed": 0}) == seal_of({"seed": 0, "task": "digits"})
    True
    """
    return hashlib.sha256(json.dumps(encode(about), sort_keys=True).encode()).hexdigest()[:32]


class Notes:
    """The notes of one question, wherever their files are.

    Args:
        seal: of the question.
        proven_only: whether notes without a seal are passed over too.
    """

    def __init__(self, seal: str, *, proven_only: bool = False) -> None:
        self.seal, self._taken = seal, {seal} if proven_only else {seal, None}

    def write(self, path: Path, record: Any) -> None:
        """Keep a record.

        Raises:
            StoreError: it cannot be written, or could not be read again.
        """
        read = reader_of(record)
        write_json(path, {**encode(record), _SEAL: self.seal}, lambda data: read(_without_seal(data)))

    def read(self, path: Path, cls: type[Record]) -> Record | None:
        """A record; `None`: there is none, or it is another question's.

        Raises:
            StoreError: it is truncated, or of another schema.
        """
        data = self._own(path)
        if data is None:
            return None
        try:
            return decode(cls, _without_seal(data))
        except ValueError as error:
            raise of_another_schema(path, error) from None

    def write_data(self, path: Path, data: Any, reader: Callable[[Any], object] | None = None) -> None:
        """Keep JSON types. Errors of `write`."""
        write_json(path, {_SEAL: self.seal, _DATA: encode(data)}, reader)

    def read_data(self, path: Path) -> Any:
        """JSON types; `None`: there are none, or they are another question's.

        Raises:
            StoreError: the file is truncated.
        """
        data = self._own(path)
        sealed = isinstance(data, dict) and data.keys() == {_SEAL, _DATA}
        return data[_DATA] if sealed else data

    def are_at(self, paths: Iterable[Path]) -> bool:
        """Whether one of these files is a note, of whichever question."""
        for path in paths:
            with contextlib.suppress(StoreError):
                data = read_json(path)
                if isinstance(data, dict) and _SEAL in data:
                    return True
        return False

    def _own(self, path: Path) -> Any:
        if not path.exists():
            return None
        data = read_json(path, advice=_WHEN_READ)
        seal = data.get(_SEAL) if isinstance(data, dict) else None
        return data if isinstance(seal, str | None) and seal in self._taken else None


def _without_seal(data: Any) -> Any:
    return {name: value for name, value in data.items() if name != _SEAL} if isinstance(data, dict) else data
