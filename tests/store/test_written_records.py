"""Nothing that is written is unreadable: what no reader would take is refused before it is on the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from batchscope.errors import StoreError
from batchscope.store.codec import encode
from batchscope.store.files import read_json, read_record, write_json
from batchscope.store.records import Timing, Verified
from batchscope.store.runs import Store, read_runs

from .drawn import ANYTHING, NAMES, Kinds, drawn, records_that_are_read
from .samples import CONFIG, QUESTION, RESULT

RECORDS = records_that_are_read()
SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example)
MANY = settings(max_examples=6, suppress_health_check=SLOW, phases=[Phase.generate])


@pytest.fixture(scope="module")
def file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "record.json"


def test_the_records_are_found() -> None:
    names = {kind.__name__ for kind in RECORDS}
    assert {"Plan", "RunConfig", "RunResult", "Bench", "RateRange", "Timing", "Asked", "Planning", "Claim"} <= names


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
@MANY
@given(data=st.data())
def test_what_the_code_can_make_is_written_and_read(kind: Any, data: st.DataObject, file: Path) -> None:
    record = data.draw(drawn(kind))
    write_json(file, record)
    again = read_record(file, kind)
    assert encode(again) == encode(record)
    assert signs(encode(again)) == signs(encode(record))
    write_json(file, again)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
@MANY
@given(data=st.data())
def test_any_other_number_is_read_or_refused_when_it_is_written(kind: Any, data: st.DataObject, file: Path) -> None:
    record = data.draw(drawn(kind, Kinds.WILD))
    file.unlink(missing_ok=True)
    with contextlib.suppress(StoreError):
        write_json(file, record)
    if file.exists():
        assert encode(read_record(file, kind)) == encode(record)


def signs(encoded: Any) -> list[float]:
    """The sign of every 0.0 in JSON types, which `==` does not see."""
    if isinstance(encoded, dict | list):
        parts = encoded.values() if isinstance(encoded, dict) else encoded
        return [sign for part in parts for sign in signs(part)]
    return [math.copysign(1.0, encoded)] if isinstance(encoded, float) else []


@MANY
@given(row=st.dictionaries(NAMES, ANYTHING, max_size=3), name=NAMES, setting=ANYTHING)
def test_rows_and_configurations_of_any_content_are_read_again(row: dict[str, Any], name: str, setting: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(CONFIG, task=name, settings={name: setting})
        with Store(Path(folder), QUESTION) as store:
            writer = store.start(config)
            writer.append(row)
            writer.finish(dataclasses.replace(RESULT, last={name: math.nan}))
            made = store.finished(config)
        assert made is not None
        [read] = read_runs(Path(folder))
        assert encode(read.rows) == encode((row,))
        assert encode(read) == encode(made)


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


UNREADABLE: dict[str, Any] = {"deep": deep(5_000), "long": 10**5_000, "pair": "\ud83d\ude00"}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=list(UNREADABLE))
def test_what_json_cannot_say_is_refused_and_the_old_file_stays(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "note.json"
    write_json(path, {"old": 1})
    with pytest.raises(StoreError, match="was not written"):
        write_json(path, {"new": value})
    assert read_json(path) == {"old": 1}
    with Store(tmp_path / "out", QUESTION) as store:
        writer = store.start(CONFIG)
        with pytest.raises(StoreError, match="was not written"):
            writer.append({"value": value})
    [run] = read_runs(tmp_path / "out")
    assert run.rows == ()


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize(
    "record",
    [
        Timing(evaluation_s=1.0, budget_s=1.0, step_s=1.0),
        Verified(steps=1.0, time_s=1.0, metric=0.1),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_number_that_is_none_is_named(tmp_path: Path, record: Any, number: float) -> None:
    first = dataclasses.fields(record)[0].name
    with pytest.raises(StoreError, match=rf"{type(record).__name__}\.{first} is None, not float"):
        write_json(tmp_path / "record.json", dataclasses.replace(record, **{first: number}))
    assert not (tmp_path / "record.json").exists()


@pytest.mark.parametrize("number", [math.nan, math.inf, -0.1])
@pytest.mark.parametrize("member", ["lr", "final_lr", "evaluation_growth"])
def test_a_run_at_a_number_that_is_none_cannot_be_made(member: str, number: float) -> None:
    with pytest.raises(ValueError, match=f"{member} is {number}, not a finite number"):
        dataclasses.replace(CONFIG, **{member: number})


def test_an_integer_that_no_float_holds_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "timing.json"
    digits = "9" * 400
    path.write_text(f'{{"evaluation_s": {digits}, "budget_s": 1, "step_s": 1}}', encoding="utf-8")
    with pytest.raises(StoreError, match="a number has 400 digits, more than 300"):
        read_record(path, Timing)
