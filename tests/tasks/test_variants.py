"""Variants of a task: the same initial weights, and few of its examples, evaluated as the task is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import Dataset, TensorDataset

from batchscope.errors import UsageError
from batchscope.tasks.protocol import task
from batchscope.tasks.variants import few_examples, same_initial_weights, with_few_examples
from batchscope.tasks.workload import Workload

EXAMPLES = 50


class Squares(Dataset[Any]):
    """A map-style data set that computes its examples."""

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([float(index)]), torch.tensor([float(index) ** 2])


def workload(data: Any, **members: Any) -> Workload:
    return Workload(
        task(
            model=lambda: nn.Linear(1, 1),
            train=data,
            loss=lambda model, batch: nn.functional.mse_loss(model(batch[0]), batch[1]),
            optimizer=lambda params, lr: SGD(params, lr=lr),
            **members,
        )
    )


def numbers(data: Any) -> list[float]:
    return [float(data[i][0]) for i in range(len(data))]


def in_memory() -> TensorDataset:
    x = torch.arange(float(EXAMPLES))[:, None]
    return TensorDataset(x, x**2)


@pytest.mark.parametrize("data", [in_memory(), Squares()])
def test_parts_are_drawn_without_replacement_nested_and_the_same_for_a_seed(data: Any) -> None:
    whole = workload(data, evaluate=lambda model: {"val_loss": 0.0})
    few, more, again = (numbers(few_examples(whole, n, 3)()) for n in (10, 30, 10))
    assert (len(few), len(set(more))) == (10, 30)
    assert few == again == more[:10]
    assert numbers(few_examples(whole, 10, 4)()) != few
    assert sorted(numbers(few_examples(whole, 1000, 3)())) == sorted(numbers(data))


@pytest.mark.parametrize(("data", "inside"), [(in_memory(), True), (Squares(), False)])
def test_what_is_in_memory_stays_there(data: Any, inside: bool) -> None:
    whole = workload(data, evaluate=lambda model: {"val_loss": 0.0})
    part = workload(few_examples(whole, 10, 0)(), evaluate=lambda model: {"val_loss": 0.0})
    assert (part.in_memory, part.examples) == (inside, 10)


@pytest.mark.parametrize("data", [in_memory(), Squares()])
def test_a_task_that_holds_back_is_evaluated_on_what_was_held_back_of_all(data: Any) -> None:
    whole = workload(data)
    assert whole.held_back == 5
    members = with_few_examples(whole, 10, 0)
    part = workload(members["train_data"](), evaluate=members["evaluate"])
    assert (part.examples, part.held_back) == (10, 0)
    model = part.model(0)
    assert part.evaluate(model) == whole.evaluate(model)
    drawn = numbers(few_examples(whole, EXAMPLES, 0)())
    assert len(drawn) == EXAMPLES - 5


def test_one_example_is_too_few() -> None:
    with pytest.raises(UsageError, match="1 training examples make no sense"):
        few_examples(workload(in_memory()), 1, 0)


def test_runs_of_any_seed_begin_at_the_same_weights() -> None:
    make = same_initial_weights(lambda: nn.Linear(3, 2), seed=4)
    weights = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        weights.append(make().weight)
        assert torch.initial_seed() == seed
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], same_initial_weights(lambda: nn.Linear(3, 2), seed=5)().weight)
