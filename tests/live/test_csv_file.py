"""Readings in a CSV file: what is written is read back, a resumed training goes on, another file is left alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import StoreError
from batchscope.live.csv_file import COLUMNS, CsvFile
from batchscope.live.reading import Reading
from batchscope.store.records import Estimate


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=3, unit="examples", method="")


def reading(step: int, **changed: Any) -> Reading:
    made: dict[str, Any] = {
        "gradient_noise_scale": estimate(120.5, 80.25, None),
        "signal": estimate(0.1, 0.05, 0.2),
        "noise": estimate(12.0, 11.0, 13.0),
        "source": "accumulated micro-batches",
        "overhead": 0.004,
        "step": step,
        "examples": 32 * step,
        "batch_size": 32,
    }
    return Reading(**{**made, **changed})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "noise.csv"
    write = CsvFile(path)
    write(reading(10, layers={"net.0, first": estimate(7.5), "head": estimate(None)}))
    write(reading(20, gradient_noise_scale=estimate(None), reason='a batch of one has no "pairs",\nso nothing is read'))
    first, second = rows(path)
    assert tuple(first) == COLUMNS
    assert (first["step"], first["examples"], first["batch_size"]) == ("10", "320", "32")
    assert [float(first[f"gradient_noise_scale{end}"]) for end in ("", "_low")] == [120.5, 80.25]
    assert first["gradient_noise_scale_high"] == "", "an open end is empty"
    assert json.loads(first["layers"]) == {"net.0, first": 7.5, "head": None}
    assert (second["gradient_noise_scale"], second["layers"]) == ("", "")
    assert second["reason"] == 'a batch of one has no "pairs",\nso nothing is read'


def test_a_resumed_training_goes_on_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "noise.csv"
    CsvFile(path)(reading(10))
    CsvFile(path)(reading(20))
    assert [row["step"] for row in rows(path)] == ["10", "20"]


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "noise.csv"
    CsvFile(path)(reading(10))
    path.write_bytes(path.read_bytes() + b"20,640,32,11")
    CsvFile(path)(reading(30))
    assert [row["step"] for row in rows(path)] == ["10", "20", "30"]


def test_a_header_that_was_cut_off_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "noise.csv"
    path.write_text("step,examp")
    with pytest.raises(StoreError, match="give another file"):
        CsvFile(path)


def test_another_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("step,loss\n1,0.5\n")
    with pytest.raises(StoreError, match=r"losses\.csv begins with 'step,loss'.*give another file"):
        CsvFile(path)
    assert path.read_text() == "step,loss\n1,0.5\n"
    CsvFile(tmp_path / "other.csv")(reading(1))


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="check the path"):
        CsvFile(tmp_path / "none" / "noise.csv")
