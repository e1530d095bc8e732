"""The preflight as a whole: sound tasks are left as they were; models and data sets that cannot be used."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from batchscope.errors import TaskError, UsageError
from batchscope.tasks.builtin.digits import digits
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload

from .parts import CLASSES, Parts, make_data, mean_loss, run, sgd, stacked, sum_loss


def test_a_sound_task() -> None:
    found = run()
    assert (found.parameters, found.max_batch_size, found.smallest_micro_batch_size) == (4 * CLASSES + CLASSES, 60, 1)
    assert found.independent
    assert found.notes == ()
    torch.manual_seed(0)
    expected = nn.Linear(4, CLASSES).weight.square().sum().item()
    assert found.metrics == {"val_loss": expected, "val_accuracy": 0.25, "test_loss": 1.0}


def test_a_model_without_trainable_parameters() -> None:
    with pytest.raises(TaskError, match=r"no trainable parameters \(0 parameter tensors\)"):
        run(make_model=nn.Identity)
    with pytest.raises(
        TaskError, match=r"no trainable parameters \(2 parameter tensors, all with requires_grad=False\)"
    ):
        run(make_model=lambda: nn.Linear(4, CLASSES).requires_grad_(False))


def test_a_model_that_raises() -> None:
    with pytest.raises(TaskError, match=r"model\(\) raised ZeroDivisionError: division by zero \(test_check.py, line"):
        run(make_model=lambda: nn.Linear(4, int(1 / 0)))


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(5))


class StreamWithLength(Stream):
    def __len__(self) -> int:
        return 5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], r"train_data\(\) has 0 examples; at least 2"),
        (make_data(1), r"train_data\(\) has 1 example; at least 2"),
        (Stream(), r"is a stream \(Stream\) that ended after 5 examples; return so few as a list"),
        (StreamWithLength(), r"is a stream \(StreamWithLength\) that ended after 5 examples"),
        (iter([1, 2]), r"returned list_iterator, which is neither a data set with __len__"),
        (None, r"returned NoneType"),
    ],
)
def test_bad_data_sets(data: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        run(data=data)


def test_two_examples_are_enough() -> None:
    assert run(data=make_data(2)).max_batch_size == 2


def test_batches_that_are_miscounted() -> None:
    class Transposed(Parts):
        def collate(self, examples: list[Any]) -> list[Tensor]:
            return [torch.stack([x for x, _ in examples], 1), torch.stack([y for _, y in examples])]

    transposed = Transposed(compute_loss=lambda model, batch: mean_loss(model, (batch[0].T, batch[1])))
    message = r"a batch of 16 examples was counted as 4 \(batch\[0\] \(4, 16\), batch\[1\] \(16,\)\); .*def batch_size"
    with pytest.raises(TaskError, match=message):
        check(Workload(transposed))


@pytest.mark.parametrize(
    ("asked", "given", "noted"), [(None, 60, False), (60, 60, False), (16, 16, False), (500, 60, True)]
)
def test_the_largest_batch(asked: int | None, given: int, noted: bool) -> None:
    found = run(max_batch_size=asked)
    assert found.max_batch_size == given
    assert bool(found.notes) == noted
    if noted:
        assert "batches of up to 500 were allowed, but there are only 60 training examples" in found.notes


def test_nonsense_limits() -> None:
    with pytest.raises(UsageError, match="the largest batch size is 0; it must be at least 1"):
        run(max_batch_size=0)
    with pytest.raises(UsageError, match=r"the learning rate is -1\.0; it must be a number above 0"):
        check(Workload(Parts()), lr=-1.0)


def test_without_evaluate_a_part_is_held_back_and_said() -> None:
    class Bare(Parts):
        evaluate = None  # pyright: ignore[reportAssignmentType]

    found = check(Workload(Bare()))
    assert list(found.metrics) == ["val_loss"]
    assert found.max_batch_size == 54
    assert any("a validation split of 6 training examples, held back" in note for note in found.notes)


def generator_states() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002


def test_the_random_generators_are_left_where_they_were() -> None:
    """F24: a probe that draws random numbers makes a run with it differ from one without."""
    before = generator_states()
    check(Workload(digits(model="cnn", norm="batch")))
    assert generator_states() == before


def test_a_refusal_leaves_the_random_generators_too() -> None:
    before = generator_states()
    with pytest.raises(TaskError):
        run(compute_loss=sum_loss)
    assert generator_states() == before


def test_no_model_of_the_users_is_touched() -> None:
    """F25, F26: counters, modes and weights of a model that the user holds stay as they are."""
    held = stacked(nn.BatchNorm1d(8))()
    held.eval()
    before = {k: v.clone() for k, v in held.state_dict().items()}
    made: list[nn.Module] = []

    def make() -> nn.Module:
        made.append(stacked(nn.BatchNorm1d(8))())
        return made[-1]

    run(make_model=make)
    assert len(made) == 2
    assert not held.training
    assert all(torch.equal(v, before[k]) for k, v in held.state_dict().items())


def test_weights_are_put_back_after_the_trial_steps() -> None:
    """The metrics are those of fresh weights, so the steps that try the optimizer leave no trace in them."""
    torch.manual_seed(0)
    fresh = nn.Linear(4, CLASSES).weight.square().sum().item()
    assert run(make_optimizer=lambda params, lr: sgd(params, lr)).metrics["val_loss"] == fresh


@pytest.mark.parametrize("largest", [16, 4, 2])
def test_less_memory_means_fewer_examples(largest: int) -> None:
    sizes: list[int] = []

    def hungry(model: nn.Module, batch: Any) -> Tensor:
        if len(batch[0]) > 4 * largest:
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(len(batch[0]))
        return mean_loss(model, batch)

    assert run(compute_loss=hungry).independent
    assert max(sizes) == 4 * largest
