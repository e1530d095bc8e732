"""Readings of a monitor as lines of a CSV file, which later runs of the same training go on with."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import StoreError
from ..store.files import explained, open_regular
from ..store.records import Estimate
from .reading import Reading

__all__ = ["COLUMNS", "CsvFile"]

_ESTIMATES = ("gradient_noise_scale", "signal", "noise")

COLUMNS = (
    "step",
    "examples",
    "batch_size",
    *(f"{name}{end}" for name in _ESTIMATES for end in ("", "_low", "_high")),
    "source",
    "overhead",
    "reason",
    "layers",
)
"""Columns of the file: an estimate has its value and the ends of its 90 % interval, empty where there are none;
`layers` is a JSON object of the layers' noise scales."""

_OTHERWISE = "check the path and its permissions, or give another file"


class CsvFile:
    """File to which every reading is appended; hand it to a monitor as `on_reading`.

    The header is written once. An existing file of the same columns is gone on with, so that a training which is
    resumed adds to it: lines are never taken away, and one that was cut off when a run was killed gets its line end and
    nothing else. Each reading is one write at the end of the file, about 0.1 ms, and is there at once to be read.

    Args:
        path: of the file; its folder must exist.

    Raises:
        StoreError: the file has other columns, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with explained(self.path, _OTHERWISE):
            descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            with os.fdopen(descriptor, "r+b") as file:
                first = file.readline()
                if not first:
                    file.write(_line(COLUMNS))
                    return
                found = tuple(first.decode("utf-8", "replace").strip().split(","))
                if found != COLUMNS:
                    raise StoreError(
                        f"{self.path} begins with {first[:60].decode('utf-8', 'replace').strip()!r}, which is not "
                        f"the header of readings ({len(COLUMNS)} columns from {COLUMNS[0]} to {COLUMNS[-1]}); "
                        "give another file"
                    )
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    def __call__(self, reading: Reading) -> None:
        """Append a reading.

        Raises:
            StoreError: the file cannot be written.
        """
        scales = {name: scale.value for name, scale in reading.layers.items()}
        cells: list[float | str] = [reading.step, reading.examples, reading.batch_size]
        cells += [cell for name in _ESTIMATES for cell in _three(getattr(reading, name))]
        cells += [reading.source, reading.overhead, reading.reason, json.dumps(scales) if scales else ""]
        with explained(self.path, _OTHERWISE):
            descriptor = open_regular(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with os.fdopen(descriptor, "ab", buffering=0) as file:
                file.write(_line(cells))


def _three(estimate: Estimate) -> list[float | str]:
    return ["" if number is None else number for number in (estimate.value, estimate.low, estimate.high)]


def _line(cells: Iterable[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
