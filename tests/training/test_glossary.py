"""The glossary of `batchscope count`: formulas and counters agree, also with those of torch's own loader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.store.codec import encode
from batchscope.training.count import LastBatch, count
from batchscope.training.glossary import GLOSSARY, CheckedTerm, check_glossary, walk


def checked(**run: object) -> dict[str, CheckedTerm]:
    return {entry.term: entry for entry in check_glossary(count(**run))}  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("examples", "batch_size", "per_epoch", "in_30_epochs"),
    [
        (60_000, 64, 938, 28_140),
        (60_000, 256, 235, 7050),
        (60_000, 1024, 59, 1770),
        (18_610, 8, 2327, 69_810),
        (18_610, 32, 582, 17_460),
        (18_610, 64, 291, 8730),
        (18_610, 128, 146, 4380),
        (18_610, 256, 73, 2190),
        (18_610, 512, 37, 1110),
    ],
)
def test_published_counts_are_counted(examples: int, batch_size: int, per_epoch: int, in_30_epochs: int) -> None:
    found = checked(examples=examples, batch_size=batch_size, epochs=30, last_batch="keep")
    expected = {
        "epoch": 30,
        "batch size": batch_size,
        "step": in_30_epochs,
        "steps per epoch": per_epoch,
        "batch count": in_30_epochs,
        "last batch": examples % batch_size,
        "examples seen": 30 * examples,
        "left out": 0,
    }
    assert {term: entry.value for term, entry in found.items()} == expected
    assert {term: entry.counted for term, entry in found.items()} == expected
    assert all(entry.agrees for entry in found.values())


@given(
    examples=st.integers(1, 60),
    batch_size=st.integers(1, 130),
    steps=st.integers(1, 200),
    rule=st.sampled_from(LastBatch),
)
def test_formula_and_counter_agree_in_every_case(examples: int, batch_size: int, steps: int, rule: LastBatch) -> None:
    if rule is LastBatch.DROP:
        batch_size = min(batch_size, examples)
    found = checked(examples=examples, batch_size=batch_size, steps=steps, last_batch=rule)
    assert list(found) == list(GLOSSARY)
    assert not [entry for entry in found.values() if entry.agrees is False]
    uncounted = {term for term, entry in found.items() if entry.counted is None}
    assert uncounted in (set(), {"steps per epoch", "last batch", "left out"})
    assert bool(uncounted) == any("first epoch" in entry.note for entry in found.values())


@pytest.mark.parametrize("rule", [LastBatch.KEEP, LastBatch.DROP])
@pytest.mark.parametrize(("examples", "batch_size"), [(10, 4), (12, 4), (7, 1), (7, 7), (7, 10)])
def test_the_walk_is_that_of_a_real_loader(examples: int, batch_size: int, rule: LastBatch) -> None:
    from torch.utils.data import DataLoader

    batches = [
        len(batch)
        for _ in range(3)
        for batch in DataLoader(range(examples), batch_size=batch_size, drop_last=rule is LastBatch.DROP)  # pyright: ignore[reportArgumentType]
    ]
    run = count(examples=examples, batch_size=batch_size, epochs=3, last_batch=rule)
    counters = walk(run)
    assert (counters.updates, counters.examples) == (len(batches), sum(batches)) == (run.steps, run.examples_seen)
    assert counters.sizes == batches[: len(batches) // 3]


def test_what_cannot_be_counted_says_why() -> None:
    empty = checked(examples=7, batch_size=10, epochs=3, last_batch="drop")
    assert {entry.note for entry in empty.values()} == {"no step is made"}
    assert (empty["step"].value, empty["epoch"].value) == (0, 0)
    large = checked(examples=10**9, batch_size=1, epochs=3)
    assert {entry.agrees for entry in large.values()} == {None}
    assert "more than 200,000 steps" in large["step"].note
    short = checked(examples=100, batch_size=10, steps=5, last_batch="keep")
    assert short["steps per epoch"].note == "not counted: the run ends within its first epoch"
    assert (short["epoch"].counted, short["step"].counted) == (0, 5)


def test_every_entry_is_plain_data() -> None:
    entry = encode(check_glossary(count(examples=10, batch_size=4, epochs=2, last_batch="keep"))[3])
    assert entry == {
        "term": "steps per epoch",
        "also": ["iterations per epoch", "batch count of an epoch"],
        "definition": GLOSSARY["steps per epoch"].definition,
        "formula": GLOSSARY["steps per epoch"].formula,
        "value": 3.0,
        "counted": 3.0,
        "agrees": True,
        "note": "",
    }
