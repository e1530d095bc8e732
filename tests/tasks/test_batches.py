"""Batches out of a data set: the order of examples, and their number in a batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchscope.errors import TaskError
from batchscope.tasks.batches import first_dimension, index_stream

sizes = st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(sizes=sizes, seed=st.integers(0, 100), epochs=st.integers(1, 4))
def test_each_epoch_holds_each_example_once(sizes: tuple[int, int], seed: int, epochs: int) -> None:
    examples, batch_size = sizes
    stream = index_stream(examples, batch_size, seed)
    drawn = torch.cat([next(stream) for _ in range(-(-epochs * examples // batch_size))])
    for epoch in drawn[: epochs * examples].split(examples):
        assert epoch.sort().values.tolist() == list(range(examples))


@given(sizes=sizes, seed=st.integers(0, 100))
def test_the_order_does_not_depend_on_the_batch_size(sizes: tuple[int, int], seed: int) -> None:
    examples, batch_size = sizes
    stream, one_by_one = index_stream(examples, batch_size, seed), index_stream(examples, 1, seed)
    drawn = torch.cat([next(stream) for _ in range(5)])
    assert len(drawn) == 5 * batch_size
    assert drawn.tolist() == [int(next(one_by_one)) for _ in range(5 * batch_size)]


def test_epochs_and_seeds_differ() -> None:
    orders = [next(index_stream(50, 50, seed)).tolist() for seed in range(3)]
    stream = index_stream(50, 50, 0)
    orders.append([next(stream) for _ in range(2)][1].tolist())
    assert len({tuple(order) for order in orders}) == 4


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 11 is larger than the training set of 10 examples"):
        next(index_stream(10, 11, 0))


def test_counting_a_batch() -> None:
    assert first_dimension({"name": "x", "rows": [torch.zeros(7, 2)]}) == 7
    for batch in ("text", {"n": 3}, [torch.zeros(())]):
        with pytest.raises(TaskError, match=r"holds no tensor with a first dimension.*batch_size\(batch\) -> int"):
            first_dimension(batch)
