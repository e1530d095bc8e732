"""Samplers: the order of an epoch is the task's, in memory and in the loader alike, and bad ones get one message."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset, WeightedRandomSampler

from batchscope.errors import TaskError
from batchscope.tasks.batches import index_stream
from batchscope.tasks.preflight.check import check
from batchscope.tasks.preflight.constant import best_constant
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

EXAMPLES = 20


def workload(sampler: Callable[[int], Any], *, examples: int = EXAMPLES, **more: Any) -> Workload:
    x = torch.arange(float(examples))[:, None]
    made = task(
        model=lambda: nn.Linear(1, 1),
        train=TensorDataset(x, 2 * x),
        loss=lambda model, batch: nn.functional.mse_loss(model(batch[0] / examples), batch[1] / examples),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        sampler=sampler,
        **{"evaluate": lambda model: {"val_loss": float(model.weight.square().sum())}, **more},
    )
    return Workload(made)


def drawn(made: Workload, batch_size: int, steps: int, seed: int = 0, skip: int = 0) -> list[int]:
    batches = made.micro_batches(batch_size, 1, seed, skip)
    taken = itertools.islice(batches, steps)
    found = [int(x) for step in taken for x in step[0][0].flatten()]
    batches.close()
    return found


def evens_then_odds(seed: int) -> Iterable[int]:
    evens = torch.arange(0, EXAMPLES, 2).roll(seed)
    return [*evens.tolist(), *range(1, EXAMPLES, 2)]


def weighted(seed: int) -> Iterable[int]:
    return WeightedRandomSampler([1.0] * 10 + [0.0] * 10, num_samples=50)


def test_epochs_follow_one_another_each_in_the_order_of_seed_plus_epoch() -> None:
    made = workload(evens_then_odds)
    expected = [*evens_then_odds(3), *evens_then_odds(4), *evens_then_odds(5)]
    assert drawn(made, 6, 10, seed=3) == expected
    assert drawn(made, 6, 3, seed=3, skip=7) == expected[42:]


def test_the_loader_comes_to_the_same_order_as_memory() -> None:
    in_memory, loaded = workload(weighted), workload(weighted, loader_options={"num_workers": 1})
    assert in_memory.in_memory
    assert not loaded.in_memory
    assert drawn(in_memory, 7, 9, seed=2) == drawn(loaded, 7, 9, seed=2)
    assert drawn(in_memory, 7, 9, seed=2) != drawn(in_memory, 7, 9, seed=3)


def test_an_epoch_is_what_the_sampler_yields() -> None:
    made = workload(weighted)
    assert (made.examples, made.examples_in_epoch, made.epoch, made.largest_batch()) == (20, 50, 50, 20)
    assert max(drawn(made, 10, 20)) < 10
    few = workload(lambda seed: torch.arange(8))
    assert (few.epoch, few.largest_batch()) == (8, 8)
    assert drawn(few, 8, 2) == [*range(8), *range(8)]


def test_a_note_says_what_it_means_for_batch_sizes() -> None:
    notes = check(workload(evens_then_odds)).notes
    assert any("an epoch is the 20 that it yields of 20, and a batch is a consecutive" in note for note in notes)


def test_examples_that_are_held_back_are_left_out_of_the_order() -> None:
    made = workload(lambda seed: range(EXAMPLES), evaluate=None)
    assert (made.examples, made.held_back, made.epoch) == (18, 2, 18)
    order = drawn(made, 6, 3)
    assert order == sorted(order)
    assert len(set(order)) == 18


def test_without_a_sampler_orders_are_seeded_permutations() -> None:
    generator = torch.Generator().manual_seed(4)
    expected = torch.cat([torch.randperm(10, generator=generator) for _ in range(3)])
    assert torch.cat(list(itertools.islice(index_stream(10, 4, 4), 7))).tolist() == expected[:28].tolist()
    assert next(index_stream(10, 4, 4, skip=5)).tolist() == expected[20:24].tolist()


def sampled(data: Any, sampler: Callable[[int], Any]) -> Workload:
    made = task(
        model=lambda: nn.LazyLinear(1),
        train=data,
        loss=lambda model, batch: nn.functional.mse_loss(model(batch[0]), batch[1]),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        sampler=sampler,
        evaluate=lambda model: {"val_loss": float(model.weight.square().sum())},
    )
    return Workload(made)


def test_examples_that_the_sampler_leaves_out_may_be_none() -> None:
    x = torch.randn(EXAMPLES, 3)
    data = [None if i % 10 == 0 else (row, row[:1]) for i, row in enumerate(x)]
    made = sampled(data, lambda seed: [i for i in range(EXAMPLES) if i % 10])
    assert made.drawable.tolist() == [i for i in range(EXAMPLES) if i % 10]
    assert check(made).max_batch_size == 18
    best_constant(made)
    assert made.count(made.disposable(0).draw(30)) == 30


def test_rows_in_memory_that_the_sampler_leaves_out_may_be_nan() -> None:
    x = torch.randn(EXAMPLES, 3)
    x[::5] = math.nan
    kept = [i for i in range(EXAMPLES) if i % 5]
    assert not any("NaN" in note for note in check(sampled(TensorDataset(x, x[:, :1]), lambda seed: kept)).notes)
    message = r"tensor 0 of the training data that the sampler yields \(shape \(17, 3\)\) .* in 1 of 17 examples \(5 of"
    with pytest.raises(TaskError, match=message):
        check(sampled(TensorDataset(x, x[:, :1]), lambda seed: [*kept, 5]))


def test_a_sampler_may_yield_one_example_alone() -> None:
    x = torch.randn(EXAMPLES, 3)
    assert check(sampled(TensorDataset(x, x[:, :1]), lambda seed: [7] * EXAMPLES)).max_batch_size == EXAMPLES


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (lambda seed: [], r"sampler\(0\) yielded no index; it must yield the indices"),
        (lambda seed: range(30), r"yielded indices from 0 to 29, and train_data\(\) has 20 examples, 0 to 19"),
        (lambda seed: [0, -1], "yielded indices from -1 to 0"),
        (lambda seed: [0, 1.5], r"yielded 1.5, which is not the index of an example; it must"),
        (lambda seed: [True, False], "yielded True, which is not the index"),
        (lambda seed: [[0, 1], [2, 3]], r"yielded \[0, 1\].*give no batch sampler"),
        (lambda seed: torch.zeros(20, dtype=torch.bool), r"returned a tensor of shape \(20,\), torch.bool"),
        (lambda seed: None, "sampler returned NoneType; it must yield"),
        (lambda seed: itertools.repeat(0), "over 100 times the 20 examples"),
        (lambda seed: 1 // 0, r"sampler\(0\) raised ZeroDivisionError"),
        (lambda: [0], r"sampler\(0\) raised TypeError"),
    ],
)
def test_bad_samplers_get_one_message(sampler: Any, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        workload(sampler)


def test_a_sampler_that_goes_wrong_in_a_later_epoch_ends_the_run_with_its_message() -> None:
    made = workload(lambda seed: range(EXAMPLES if seed == 0 else 0))
    with pytest.raises(TaskError, match=r"sampler\(1\) yielded no index"):
        drawn(made, 10, 3)
