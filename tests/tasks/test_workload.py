"""A task made ready: batches of every kind, both ways of loading, the held-back part."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import Dataset, Subset, TensorDataset, random_split

from batchscope.errors import TaskError
from batchscope.hardware.random_state import preserved_random_state
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload, mean_loss


def sgd(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
    return SGD(params, lr=lr)


def numbers(examples: int) -> TensorDataset:
    x = torch.arange(examples, dtype=torch.float64)
    return TensorDataset(torch.stack([x, x**2], 1), x.clone())


def squares(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]).squeeze(1) - batch[1]).square().mean()


def make_workload(
    data: Any, *, loss: Callable[[nn.Module, Any], Tensor] = squares, evaluate: Any = None, **extra: Any
) -> Workload:
    made = task(model=lambda: nn.Linear(2, 1).double(), train=data, loss=loss, optimizer=sgd, evaluate=evaluate)
    for name, value in extra.items():
        object.__setattr__(made, name, value)
    return Workload(made)


def no_metrics(model: nn.Module) -> dict[str, float]:
    return {"val_loss": 1.0}


class Items(Dataset[Any]):
    """A map-style data set that computes its examples, so that it goes through a DataLoader."""

    def __init__(self, examples: int, make: Callable[[Tensor, Tensor], Any] = lambda x, y: (x, y)) -> None:
        self.data, self.make = numbers(examples), make

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.make(*self.data[index])


def first_steps(workload: Workload, batch_size: int, parts: int, steps: int, seed: int = 0) -> list[list[Any]]:
    return list(itertools.islice(workload.micro_batches(batch_size, parts, seed), steps))


# --- batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "parts"), [(1, 1), (7, 1), (8, 2), (23, 1), (20, 4)])
def test_both_ways_of_loading_give_the_same_batches(batch_size: int, parts: int) -> None:
    in_memory, loaded = (make_workload(data, evaluate=no_metrics) for data in (numbers(23), Items(23)))
    assert in_memory.in_memory
    assert not loaded.in_memory
    assert loaded.tensors == ()
    for ours, theirs in zip(*(first_steps(w, batch_size, parts, 8) for w in (in_memory, loaded)), strict=True):
        assert [len(batch[0]) for batch in ours] == [batch_size // parts] * parts
        for a, b in zip(ours, theirs, strict=True):
            assert all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


def test_parts_of_a_step_are_its_batch() -> None:
    workload = make_workload(numbers(24), evaluate=no_metrics)
    for (whole,), parts in zip(first_steps(workload, 8, 1, 9), first_steps(workload, 8, 4, 9), strict=True):
        assert torch.equal(whole[1], torch.cat([part[1] for part in parts]))


@pytest.mark.parametrize("data", [numbers(24), Items(24)])
def test_the_number_of_parts_may_change_from_step_to_step(data: Any) -> None:
    workload = make_workload(data, evaluate=no_metrics)
    steps = list(itertools.islice(workload.micro_batches(8, lambda step: 4 if step == 1 else 1, 0), 3))
    assert [len(step) for step in steps] == [1, 4, 1]
    plain = first_steps(workload, 8, 1, 3)
    for step, (whole,) in zip(steps, plain, strict=True):
        assert torch.equal(torch.cat([part[1] for part in step]), whole[1])


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


@pytest.mark.parametrize(
    ("make", "loss"),
    [
        (lambda x, y: {"x": x, "y": y}, lambda model, batch: squares(model, (batch["x"], batch["y"]))),
        (lambda x, y: Pair(x, y), lambda model, batch: squares(model, (batch.x, batch.y))),
        (lambda x, y: {"in": {"x": x}, "y": y}, lambda model, batch: squares(model, (batch["in"]["x"], batch["y"]))),
        (lambda x, y: torch.cat([x, y[None]]), lambda model, batch: squares(model, (batch[:, :2], batch[:, 2]))),
        (lambda x, y: [x, y, "a name"], squares),
    ],
    ids=["dict", "named tuple", "nested", "tensor", "with text"],
)
def test_every_kind_of_batch(make: Callable[..., Any], loss: Callable[..., Tensor]) -> None:
    """The same loss comes out of every way to write an example down."""
    workload = make_workload(Items(12, make), loss=loss, evaluate=no_metrics)
    plain = make_workload(numbers(12), evaluate=no_metrics)
    model = workload.model(0)
    for (batch,), (pair,) in zip(first_steps(workload, 5, 1, 4), first_steps(plain, 5, 1, 4), strict=True):
        assert workload.count(batch) == 5
        assert workload.loss(model, batch).item() == plain.loss(model, pair).item()


def test_collate_and_batch_size_of_the_task_are_used() -> None:
    def collate(examples: list[Any]) -> dict[str, Any]:
        return {"n": len(examples), "columns": torch.stack([x for x, _ in examples], 1)}

    workload = make_workload(
        numbers(12), evaluate=no_metrics, collate=collate, batch_size=lambda batch: batch["columns"].shape[1]
    )
    assert not workload.in_memory
    batch = workload.batch(torch.tensor([3, 1, 4]))
    assert batch["n"] == workload.count(batch) == 3
    assert batch["columns"][0].tolist() == [3.0, 1.0, 4.0]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_give_the_same_batches() -> None:
    workload = make_workload(Items(23), evaluate=no_metrics)
    alone = first_steps(workload, 6, 2, 5)
    workload.loader_workers = 2
    for ours, theirs in zip(alone, first_steps(workload, 6, 2, 5), strict=True):
        assert all(torch.equal(a[1], b[1]) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("part", [Subset(numbers(30), [5, 3, 8]), random_split(numbers(30), [20, 10])[0]])
def test_a_part_of_a_tensor_data_set_stays_in_memory(part: Subset[Any]) -> None:
    workload = make_workload(part, evaluate=no_metrics)
    assert workload.in_memory
    assert workload.tensors[1].tolist() == [float(part[i][1]) for i in range(len(part))]


def test_a_data_set_of_a_derived_type_is_asked_for_its_examples() -> None:
    class Noisy(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Tensor, ...]:
            x, y = super().__getitem__(index)
            return x + 1000.0, y

    workload = make_workload(Noisy(*numbers(10).tensors), evaluate=no_metrics)
    assert not workload.in_memory
    assert workload.batch(torch.tensor([0]))[0].min() == 1000.0


# --- what is held back, evaluation, random state ------------------------------------------------------------------


@pytest.mark.parametrize("kind", [numbers, Items])
@pytest.mark.parametrize(("examples", "held"), [(3, 1), (10, 1), (100, 10), (1000, 100)])
def test_the_held_back_part_is_disjoint_and_always_the_same(
    kind: Callable[[int], Any], examples: int, held: int
) -> None:
    seen: list[Tensor] = []

    def recording(model: nn.Module, batch: Any) -> Tensor:
        seen.append(batch[1])
        return squares(model, batch)

    parts: list[list[float]] = []
    for _ in range(2):
        workload = make_workload(kind(examples), loss=recording)
        assert (workload.examples, workload.held_back) == (examples - held, held)
        workload.evaluate(workload.model(0))
        parts.append(sorted(torch.cat(seen).tolist()))
        seen.clear()
    trained = workload.batch(torch.arange(workload.examples))[1].tolist()
    assert parts[0] == parts[1]
    assert sorted([*trained, *parts[0]]) == [float(i) for i in range(examples)]


def test_two_examples_cannot_be_held_back_from() -> None:
    with pytest.raises(
        TaskError, match=r"train_data\(\) has 2 examples; without evaluate\(\) one of them is held back"
    ):
        make_workload(numbers(2))


def test_the_mean_loss_weighs_examples_not_chunks() -> None:
    """2,300 examples make two full chunks and one of 300."""
    data, model = numbers(2300), nn.Linear(2, 1).double()
    whole = squares(model, data.tensors).item()
    assert mean_loss(model, squares, data) == pytest.approx(whole, rel=1e-12)
    assert mean_loss(model, squares, Items(2300)) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_puts_the_mode_back(training: bool) -> None:
    """F26, also where the evaluation raises; inside, the model is in evaluation mode and nothing is tracked."""
    seen: list[tuple[bool, bool]] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append((model.training, torch.is_grad_enabled()))
        if len(seen) > 1:
            raise ValueError("later")
        return {"val_loss": 0.0}

    workload = make_workload(numbers(10), evaluate=evaluate)
    model = workload.model(0).train(training)
    workload.evaluate(model)
    with pytest.raises(TaskError, match=r"evaluate\(model\) raised ValueError: later"):
        workload.evaluate(model)
    assert seen == [(False, False)] * 2
    assert model.training == training


def test_models_are_fresh_seeded_and_in_training_mode() -> None:
    workload = make_workload(numbers(10), evaluate=no_metrics)
    first, again, other = workload.model(1), workload.model(1), workload.model(2)
    assert first is not again
    assert first.training
    assert torch.equal(first.weight, again.weight)  # pyright: ignore[reportArgumentType]
    assert not torch.equal(first.weight, other.weight)  # pyright: ignore[reportArgumentType]


def test_optimizer_changes_reach_every_group() -> None:
    def grouped(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return torch.optim.AdamW([{"params": [p]} for p in params], lr=lr)

    made = task(model=lambda: nn.Linear(2, 1), train=numbers(10), loss=squares, optimizer=grouped, evaluate=no_metrics)
    workload = Workload(made)
    optimizer = workload.optimizer(workload.model(0), 0.1, {"betas": [0.9, 0.99], "weight_decay": 0.5})
    assert [(g["lr"], g["betas"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.1, (0.9, 0.99), 0.5)] * 2


def test_random_state_is_preserved() -> None:
    """F24: every generator that user code may draw from goes on as if nothing had been drawn; inside it is seeded."""

    def draw() -> tuple[float, float, float]:
        return torch.rand(()).item(), float(np.random.rand()), random.random()  # noqa: NPY002

    with preserved_random_state(3):
        first = draw()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    expected = [draw(), draw()]
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    got = [draw()]
    with contextlib.suppress(KeyError), preserved_random_state(3):
        assert draw() == first
        raise KeyError
    got.append(draw())
    assert got == expected


def test_a_data_set_that_raises_is_named() -> None:
    class Broken(Items):
        def __getitem__(self, index: int) -> Any:
            raise OSError("no such image")

    with pytest.raises(
        TaskError,
        match=r"making a batch of train_data\(\) raised OSError: no such image \(test_workl.*; example 0 of",
    ):
        make_workload(Broken(10), evaluate=no_metrics)


def test_an_example_that_raises_in_the_middle_of_a_run_is_named() -> None:
    class BrokenLate(Items):
        broken = False

        def __getitem__(self, index: int) -> Any:
            if index == 18 and self.broken:
                raise OSError("no such image")
            return super().__getitem__(index)

    data = BrokenLate(20)
    workload = make_workload(data, evaluate=no_metrics)
    data.broken = True
    with pytest.raises(
        TaskError, match=r"making a batch of train_data\(\) raised OSError: no such image \(test_workload"
    ):
        first_steps(workload, 10, 1, 2)
    with pytest.raises(TaskError, match=r"making a batch of train_data\(\) raised OSError: no such image"):
        workload.batch(torch.tensor([18]))


def test_a_loss_that_samples_is_evaluated_on_the_same_draws() -> None:
    """Negative sampling, noise: without `evaluate`, the validation loss of a model does not change by chance."""

    def sampled(model: nn.Module, batch: Any) -> torch.Tensor:
        noise = torch.randn(batch[0].shape)
        return (model(batch[0] + noise) - model(noise)).square().mean()

    data = TensorDataset(torch.randn(50, 3))

    def sgd(params: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr)

    for validation in (None, data):
        made = task(model=lambda: nn.Linear(3, 1), train=data, val=validation, loss=sampled, optimizer=sgd)
        workload = Workload(made)
        model = workload.model(0)
        state = torch.get_rng_state()
        assert workload.evaluate(model) == workload.evaluate(model)
        assert torch.equal(torch.get_rng_state(), state)
