"""How people write recipes, budgets and sizes: what is read, and what is refused with the words to write instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.errors import TargetError, UsageError
from batchscope.search.question import (
    CurrentRecipe,
    Question,
    Within,
    hardest_first,
    parse_bytes,
    parse_current,
    parse_seconds,
    parse_within,
)
from batchscope.store.records import Target


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        (" 2 m ", 120),
        ("2min", 120),
        ("1.5h", 5400),
        (".5H", 1800),
        ("1d", 86400),
        ("0.1s", 0.1),
    ],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "ten", "m", "0", "0s", "-5m", "5 weeks", "1h30m", "nan", "inf", "e3", "1,5h", "5m later"]
)
def test_what_is_no_length_of_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"--budget .* write for example 90s, 10m or 1\.5h") as refusal:
        parse_seconds(text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 2**20),
        ("8589934592b", 2**33),
        ("300kB", 300_000),
        ("1k", 1024),
        ("500MB", 500_000_000),
        ("500MiB", 500 * 2**20),
        ("8G", 2**33),
        ("8GiB", 2**33),
        ("8gb", 8 * 10**9),
        ("0.5 TiB", 2**39),
        ("0.0015k", 1),
    ],
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "lots", "0", "0.4b", "-1G", "8 gibs", "8Gbit", "GB", "e9", "nan", "80%"])
def test_what_is_no_amount_of_memory_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"--memory-limit .* write for example 500MB or 8GiB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["8", "512b", "1048575", "1.9"])
def test_a_few_bytes_are_refused_with_the_units_to_write(text: str) -> None:
    with pytest.raises(UsageError, match="so little needs a unit: write ") as refusal:
        parse_bytes(text)
    for advised in str(refusal.value).rpartition("write ")[2].split(" or "):
        assert parse_bytes(advised) > 2**19


@given(
    batch_size=st.integers(1, 10**6), lr=st.floats(1e-12, 1e6), first=st.booleans(), space=st.sampled_from(["", " "])
)
def test_a_recipe_is_read_as_it_is_written(batch_size: int, lr: float, first: bool, space: str) -> None:
    parts = [f"batch_size{space}={space}{batch_size}", f"lr={lr!r}"]
    text = f",{space}".join(parts if first else parts[::-1])
    assert parse_current(text) == CurrentRecipe(batch_size=batch_size, lr=lr)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has the part ''"),
        ("32", "has the part '32'"),
        ("batch_size=32", "lacks lr"),
        ("lr=0.1", "lacks batch_size"),
        ("batch_size=32,lr=0.1,momentum=0.9", "has the part 'momentum=0.9'"),
        ("batch_size=32,lr=0.1,lr=0.2", "has the part 'lr=0.2'"),
        ("batch=32,lr=0.1", "has the part 'batch=32'"),
        ("batch_size=32;lr=0.1", "lacks lr"),
        ("batch_size=32.5,lr=0.1", "batch_size is 32.5; it must be a whole number"),
        ("batch_size=many,lr=0.1", "batch_size is many; it must be a whole number"),
        ("batch_size=,lr=0.1", "batch_size is empty; it must be a whole number"),
        ("batch_size=0,lr=0.1", "batch_size is 0; it must be at least 1"),
        ("batch_size=-8,lr=0.1", "batch_size is -8; it must be at least 1"),
        ("batch_size=32,lr=0", "lr is 0; it must be a number above 0"),
        ("batch_size=32,lr=-1", "lr is -1; it must be a number above 0"),
        ("batch_size=32,lr=nan", "lr is nan; it must be a number above 0"),
        ("batch_size=32,lr=inf", "lr is inf; it must be a number above 0"),
    ],
)
def test_what_is_no_recipe_is_refused_with_the_part_that_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(TargetError) as refusal:
        parse_current(text)
    assert complaint in str(refusal.value)
    assert "write for example 'batch_size=32,lr=0.001'" in str(refusal.value)
    assert refusal.value.exit_status == 2


@pytest.mark.parametrize(
    ("member", "value", "option"),
    [
        ("max_batch_size", 0, "--max-batch-size"),
        ("max_batch_size", -4, "--max-batch-size"),
        ("trainings", 0, "--trainings"),
    ],
)
def test_a_question_without_sense_is_refused(member: str, value: float, option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} is {value:g}; it must be"):
        Question(**{member: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "amount", "unit", "said"),
    [
        ("300s", 300, "seconds", "300 seconds"),
        ("10m", 600, "seconds", "600 seconds"),
        ("1s", 1, "seconds", "1 second"),
        ("20epochs", 20, "epochs", "20 epochs"),
        (" 1.5 Epochs", 1.5, "epochs", "1.5 epochs"),
        ("1 epoch", 1, "epochs", "1 epoch"),
        ("2500000steps", 2500000, "steps", "2500000 steps"),
        ("1 step", 1, "steps", "1 step"),
    ],
)
def test_lengths_of_training(text: str, amount: float, unit: str, said: str) -> None:
    assert parse_within(text) == Within(amount=amount, unit=unit)  # type: ignore[arg-type]
    assert str(parse_within(text)) == said


@pytest.mark.parametrize(
    "text", ["", "0", "0epochs", "-3epochs", "epochs", "0.5steps", "0steps", "soon", "nan", "0e3epochs"]
)
def test_what_is_no_length_of_training_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"--within .* write for example 300s, 10m, 20epochs or 5000steps") as refusal:
        parse_within(text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize(
    ("texts", "ordered"),
    [
        (["val_loss<=0.3", "val_loss<=0.1", "val_loss<=0.2"], ["val_loss<=0.1", "val_loss<=0.2", "val_loss<=0.3"]),
        (["accuracy>=0.9", "accuracy>=0.99"], ["accuracy>=0.99", "accuracy>=0.9"]),
        (["val_loss<=0.3"], ["val_loss<=0.3"]),
        ([], []),
    ],
)
def test_of_several_targets_the_hardest_comes_first(texts: list[str], ordered: list[str]) -> None:
    assert [str(target) for target in hardest_first([Target.parse(text) for text in texts])] == ordered


@pytest.mark.parametrize(
    "texts", [["val_loss<=0.3", "accuracy>=0.9"], ["loss<=0.3", "loss>=0.3"], ["loss<=0.3", "loss<=0.30"]]
)
def test_targets_that_are_not_passed_on_the_same_way_are_refused(texts: list[str]) -> None:
    with pytest.raises(TargetError, match="different values of one metric"):
        hardest_first([Target.parse(text) for text in texts])


def test_a_length_of_training_goes_with_no_target_and_no_other_search() -> None:
    within = Within(amount=5, unit="epochs")
    with pytest.raises(UsageError, match=r"--within 5 epochs .*--target loss<=1 .*give one of them"):
        Question(within=within, target=Target.parse("loss<=1"))
    with pytest.raises(UsageError, match=r"--search grid .*--within 5 epochs .*leave one of them out"):
        Question(within=within, search="grid")
    assert Question(within=within).counts_examples
    assert not Question(within=Within(amount=5, unit="seconds")).counts_examples
