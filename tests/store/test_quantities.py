"""Numbers as they are given: whole ones exactly, none infinite, in whatever type and however large."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchscope import CurrentRecipe, Question, count
from batchscope.errors import BatchscopeError, UsageError
from batchscope.laboratory.claims.run import ClaimsQuestion
from batchscope.laboratory.records import Length, StudyQuestion
from batchscope.search.question import Within
from batchscope.store.quantities import MOST, finite_number, parse_number, parse_whole, whole_number
from batchscope.training.measurements import BenchLimits, NoiseRun


def kind(value: object) -> str:
    """Id of a test; an integer of 5,000 digits has no text."""
    return type(value).__name__


NOT_WHOLE: list[Any] = [1000.5, math.nan, math.inf, -math.inf, True, "1000", None, 10**400, -(10**5000), 0, -3, 1e300]


@pytest.mark.parametrize(
    "value", [64, 64.0, 1e3, np.int64(7), np.float32(64), torch.tensor(5), Decimal(8), Fraction(8)]
)
def test_a_whole_number_of_any_type(value: Any) -> None:
    whole = whole_number(value, "n")
    assert whole == value
    assert type(whole) is int


@pytest.mark.parametrize(
    "value",
    [*NOT_WHOLE, np.bool_(True), torch.tensor(True), torch.ones(2), torch.tensor(0.5), [1], Fraction(1, 3)],
    ids=kind,
)
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^n is .*; it must be") as raised:
        whole_number(value, "n")
    assert len(str(raised.value)) < 160


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "1", None, 10**400, 0, -1.0, 1e16, [1.0]], ids=kind)
def test_what_is_no_finite_number(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^n is .*; it must be"):
        finite_number(value, "n")


@pytest.mark.parametrize("text", ["1000.5", "nan", "inf", "-inf", "True", "", "x", "1e400", "1e999999999", "0", "-3"])
def test_a_text_that_is_no_whole_number(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--n is .*; it must be"):
        parse_whole(text, "--n")


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "1e999999999", "0", "-1e-3", "1e-400", "x", "9" * 5000])
def test_a_text_that_is_no_number(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--n is .*; it must be"):
        parse_number(text, "--n")


@given(st.integers(min_value=1, max_value=MOST))
def test_no_digit_is_lost(n: int) -> None:
    assert parse_whole(str(n), "n") == parse_whole(f"{n}.0", "n") == whole_number(float(n), "n") == n


@given(st.floats(min_value=1e-300, max_value=1e15))
def test_a_number_reads_back(x: float) -> None:
    assert parse_number(repr(x), "x") == x


COUNTS: dict[str, Callable[[Any], object]] = {
    "count examples": lambda n: count(examples=n, batch_size=8, epochs=1),
    "count batch_size": lambda n: count(examples=8, batch_size=n, epochs=1),
    "count steps": lambda n: count(examples=8, batch_size=8, steps=n),
    "question max_batch_size": lambda n: Question(max_batch_size=n),
    "question memory_limit": lambda n: Question(memory_limit=n),
    "question confirm": lambda n: Question(confirm=n),
    "question seed": lambda n: Question(seed=-1 if n in (0, None) else n),
    "current batch_size": lambda n: CurrentRecipe(batch_size=n, lr=0.1),
    "within steps": lambda n: Within(amount=n, unit="steps"),
    "bench": lambda n: BenchLimits(max_batch_size=n),
    "noise steps": lambda n: NoiseRun(steps=n),
    "noise batch_size": lambda n: NoiseRun(batch_size=n),
    "study batch_sizes": lambda n: StudyQuestion(batch_sizes=(n,), lrs=(0.1,)),
    "study seeds": lambda n: StudyQuestion(batch_sizes=(8,), lrs=(0.1,), seeds=(-1 if n == 0 else n,)),
    "study repeats": lambda n: StudyQuestion(batch_sizes=(8,), lrs=(0.1,), repeats=n),
    "claims seeds": lambda n: ClaimsQuestion(seeds=n),
}


@pytest.mark.parametrize("made", COUNTS.values(), ids=list(COUNTS))
@pytest.mark.parametrize("value", [value for value in NOT_WHOLE if value is not None], ids=kind)
def test_every_argument_that_counts(made: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(BatchscopeError):
        made(value)


@pytest.mark.parametrize("made", COUNTS.values(), ids=list(COUNTS))
def test_a_float_without_a_fraction_counts(made: Callable[[Any], object]) -> None:
    assert made(8.0) == made(8)


MEASURES: dict[str, Callable[[Any], object]] = {
    "count epochs": lambda x: count(examples=8, batch_size=8, epochs=x),
    "question trainings": lambda x: Question(trainings=x),
    "current lr": lambda x: CurrentRecipe(batch_size=8, lr=x),
    "within epochs": lambda x: Within(amount=x, unit="epochs"),
    "noise lr": lambda x: NoiseRun(lr=x),
    "study lrs": lambda x: StudyQuestion(batch_sizes=(8,), lrs=(x,)),
    "study length": lambda x: Length(unit="epochs", amount=x),
    "study patience": lambda x: Length(unit="until-stopped", amount=8, patience=x),
    "claims epochs": lambda x: ClaimsQuestion(epochs=x),
    "claims budget": lambda x: ClaimsQuestion(budget_s=x),
}


@pytest.mark.parametrize("made", MEASURES.values(), ids=list(MEASURES))
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0])
def test_every_argument_that_measures(made: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(BatchscopeError):
        made(value)


def test_the_largest_numbers_give_an_answer() -> None:
    found = count(examples=MOST, batch_size=1, epochs=MOST)
    assert found.steps == found.examples_seen == MOST**2
