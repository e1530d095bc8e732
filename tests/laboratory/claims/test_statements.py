"""The statements: every id of the texts, unique, with what decides it."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files

import pytest

from batchscope.laboratory.claims.statements import Kind, Need, Statement, statements
from batchscope.store.codec import encode

LAST = {"S0": 21, "S1": 17, "S2": 18, "S3": 15}
IDS = [f"{text}.{number}" for text, last in LAST.items() for number in range(1, last + 1)]

DEFINITIONS = [
    *("S0.1", "S0.2", "S0.18", "S1.1", "S1.2", "S1.3", "S1.13a", "S2.1", "S2.2", "S2.3", "S2.4"),
    *("S3.1a", "S3.1b", "S3.2", "S3.3", "S3.4", "S3.5"),
]

CONTRADICTIONS = [
    {"S2.7b", "S3.7d"},
    {"S0.5a", "S3.7d"},
    {"S0.5a", "S3.9b"},
    {"S3.6b", "S1.4b"},
    {"S3.6b", "S3.9a"},
    {"S3.6b", "S0.5c"},
    {"S1.10c", "S1.15b"},
    {"S2.6c", "S1.15b"},
    {"S3.7e", "S1.15b"},
    {"S2.11b", "S1.6"},
    {"S3.6c", "S1.6"},
    {"S0.19b", "S1.14"},
]

every = pytest.mark.parametrize("entry", statements().values(), ids=lambda entry: entry.id)


def base(identifier: str) -> str:
    return identifier.rstrip("abcdefgh")


def test_every_sentence_of_the_texts_is_there_in_order() -> None:
    found = list(statements())
    assert list(dict.fromkeys(map(base, found))) == IDS
    assert found == sorted(found, key=lambda i: (i[:2], int(base(i)[3:]), i))


def test_no_member_is_written_that_is_not_read() -> None:
    written = tomllib.loads(
        files("batchscope.laboratory.claims").joinpath("statements.toml").read_text(encoding="utf-8")
    )["statement"]
    assert {member for entry in written for member in entry} == set(Statement.__dataclass_fields__)


def test_ids_are_unique_and_parts_are_lettered_without_gaps() -> None:
    written = tomllib.loads(
        files("batchscope.laboratory.claims").joinpath("statements.toml").read_text(encoding="utf-8")
    )["statement"]
    assert len(written) == len(statements())
    for sentence in IDS:
        parts = [identifier for identifier in statements() if base(identifier) == sentence]
        letters = "".join(identifier.removeprefix(sentence) for identifier in parts)
        assert letters == ("" if len(parts) == 1 else "abcdefgh"[: len(parts)])


@every
def test_an_entry_is_complete(entry: Statement) -> None:
    assert re.fullmatch(r"[A-Z][^\n]*[^\s.]\.", entry.statement)
    assert ". " not in entry.statement.replace("A. Ng", "Ng"), "one sentence"
    assert entry.source
    if entry.kind is Kind.NOT_TESTABLE:
        assert entry.reason
        assert not entry.reason.endswith(".")
        assert not entry.needs
    else:
        assert entry.test.endswith(".")
        assert entry.needs
        assert not entry.reason
    assert len(set(entry.needs)) == len(entry.needs)
    texts = {"S0": "collage page 1", "S1": "collage page 2", "S2": "SabrePC", "S3": "Batch Size Vs. Batch Count"}
    assert entry.source.startswith(texts[entry.id[:2]])


@every
def test_what_a_test_or_a_reason_refers_to_is_there(entry: Statement) -> None:
    measured = statements()
    for other in re.findall(r"S\d\.\d+[a-h]?", f"{entry.test} {entry.reason}"):
        assert other in measured or any(base(identifier) == other for identifier in measured)
    if copied := re.match(r"As (S\d\.\d+[a-h]?)", entry.test):
        original = measured[copied[1]]
        assert not original.test.startswith("As S"), "a reference leads to a test, not to another reference"
        assert original.kind == entry.kind


@every
def test_pairs_are_symmetric(entry: Statement) -> None:
    if entry.pair:
        assert statements()[entry.pair].pair == entry.id != entry.pair
    for other in entry.also_against:
        assert entry.id in statements()[other].also_against
        assert other != entry.pair


def test_the_contradictions_of_the_texts() -> None:
    found = [{entry.id, other} for entry in statements().values() for other in entry.contradicted_by]
    assert all(pair in found for pair in CONTRADICTIONS)
    assert all(pair in CONTRADICTIONS for pair in found)


def test_definitions() -> None:
    assert [entry.id for entry in statements().values() if entry.kind is Kind.DEFINITION] == DEFINITIONS


def test_how_many_can_be_tested_and_every_measurement_serves_some() -> None:
    testable = [entry for entry in statements().values() if entry.kind is Kind.MEASURABLE]
    assert len(testable) >= 30
    assert {need for entry in testable for need in entry.needs} == set(Need)
    assert all(need.meaning for need in Need)
    assert all(kind.meaning for kind in Kind)


def test_no_entry_can_be_changed_and_all_are_plain_data() -> None:
    entry = statements()["S0.5a"]
    with pytest.raises(AttributeError):
        entry.pair = None  # type: ignore[misc]
    assert encode(entry)["needs"] == ["fixed-epochs"]
    assert encode(entry)["pair"] == "S3.9b"
