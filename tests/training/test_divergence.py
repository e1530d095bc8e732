"""A loss that is no number: what comes from data, one batch, a gradient or `evaluate` is said, and nothing else is."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import batchscope
from batchscope.errors import TaskError
from batchscope.hardware.device import Device
from batchscope.store.records import RunConfig, RunStatus
from batchscope.tasks.culprits import Drawn, step_named
from batchscope.tasks.workload import Workload
from batchscope.training import divergence
from batchscope.training.divergence import LossWatch
from batchscope.training.lr_range import measure_rate_range
from batchscope.training.step_clock import StepClock

from .spoilt import BAD, EXAMPLES, NOT_THE_LR, START_BIAS, inputs, mean_loss, refused, run, sgd, workload


class Records(Dataset[Any]):
    """Examples as dicts, made one at a time; one holds a value that is no number."""

    def __init__(self, member: str = "x", value: float = math.nan) -> None:
        self.member, self.value = member, value

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        x, y = inputs()
        example = {"x": x[index].clone(), "weight": torch.tensor(1.0), "y": int(y[index])}
        if index == BAD:
            example[self.member] = example[self.member] * 0 + self.value
        return example


def weighted(model: nn.Module, batch: Any) -> Tensor:
    return (batch["weight"] * F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")).mean()


@pytest.mark.parametrize(
    ("member", "value", "what"),
    [("x", math.nan, "4 NaN"), ("x", math.inf, "4 inf"), ("weight", math.nan, "1 NaN")],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_value_of_one_example(member: str, value: float, what: str, workers: int) -> None:
    options = {"loader_options": {"num_workers": workers}} if workers else {}
    said = refused(workload(Records(member, value), weighted, **options))
    assert f"batch['{member}']" in said
    assert f"holds {what} in 1 of 8 examples ({BAD} of train_data(), counted from 0)" in said
    assert NOT_THE_LR in said
    assert "in step " in said
    assert "batch size 8 and learning rate 0.01" in said


def test_a_value_in_a_list_of_tuples_under_a_collate_that_sorts() -> None:
    x, y = inputs()
    rows = [(x[i] if i != BAD else x[i] * math.nan, y[i]) for i in range(EXAMPLES)]

    def collate(items: list[Any]) -> Any:
        items = sorted(items, key=lambda item: int(item[1]))
        return torch.stack([a for a, _ in items]), torch.stack([b for _, b in items])

    said = refused(workload(rows, collate=collate))
    assert f"example {BAD} of train_data(), counted from 0 holds 4 NaN in example[0]" in said


def test_a_value_that_collate_makes() -> None:
    def collate(items: list[Any]) -> Any:
        x, y = torch.stack([a for a, _ in items]), torch.stack([b for _, b in items])
        return x / (x != inputs()[0][BAD]), y

    said = refused(workload(list(zip(*inputs(), strict=True)), collate=collate))
    assert "holds 4 inf in 1 of 8 examples" in said
    assert "its examples hold none as train_data() returns them" in said


def test_a_value_of_an_example_that_stands_elsewhere_once_a_part_is_held_back() -> None:
    x, y = inputs()
    x[BAD] = math.nan
    held_back = Workload(batchscope.task(train=list(zip(x, y, strict=True)), **vars_of()))
    if not any(held_back.number_of(i, held_back=True) == BAD for i in range(held_back.held_back)):
        assert f"({BAD} of train_data()" in refused(held_back, max_steps=100)


def vars_of() -> dict[str, Any]:
    return {"model": lambda: nn.Linear(4, 2), "loss": mean_loss, "optimizer": sgd}


class Stream(IterableDataset[Any]):
    """An endless stream, in which one example comes with NaN."""

    def __iter__(self) -> Iterator[Any]:
        x, y = inputs()
        for i in range(100_000):
            yield (x[i % EXAMPLES] if i != 5000 else x[0] * math.nan), y[i % EXAMPLES]


def test_a_value_in_a_stream() -> None:
    said = refused(workload(Stream()), batch_size=64, max_steps=200, evaluation_growth=2.0)
    assert "the loss is NaN in step 79 of the run with batch size 64" in said
    assert "batch[0] (shape (64, 4)) holds 4 NaN in 1 of 64 examples" in said


def of_positives(model: nn.Module, batch: Any, above: float = 1.0) -> Tensor:
    """A mean over those examples alone that have a large first input."""
    chosen = batch[0][:, 0] > above
    return mean_loss(model, batch) + model(batch[0])[chosen].square().mean()


def kept_positives(model: nn.Module, batch: Any) -> Tensor:
    """The same as the advice has it."""
    chosen = batch[0][:, 0] > 1.0
    return mean_loss(model, batch) + model(batch[0])[chosen].square().sum() / max(1, int(chosen.sum()))


def test_a_mean_over_nothing_in_some_batches() -> None:
    said = refused(workload(loss=of_positives))
    assert "no input is NaN or inf, and every example of it alone gives NaN as well" in said
    assert "divide by max(1, its number)" in said
    assert run(workload(loss=kept_positives)).status is RunStatus.OUT_OF_STEPS


def test_a_statistic_of_the_whole_batch_that_is_zero() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return mean_loss(model, batch) + torch.zeros(()) / (batch[1].unique().numel() - 1)

    said = refused(workload(loss=loss), batch_size=4)
    assert "no input is NaN or inf" in said
    assert NOT_THE_LR in said


def test_an_example_whose_loss_is_infinite() -> None:
    x, y = inputs()
    x[BAD] = 0.0

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return mean_loss(model, batch) - 1e-3 * batch[0].norm(dim=1).log().mean()

    said = refused(workload(TensorDataset(x, y), loss))
    assert "the loss is inf in step" in said
    assert f"no input is NaN or inf, and example {BAD} of train_data(), counted from 0, alone gives inf" in said


@pytest.mark.parametrize("accumulate", [1, 4])
def test_an_example_whose_gradient_alone_is_no_number(accumulate: int) -> None:
    x, y = inputs()
    x[BAD] = 0.0

    def loss(model: Any, batch: Any) -> Tensor:
        return mean_loss(model, batch) + (batch[0] @ model.weight.T).square().sum(1).sqrt().mean()

    micro = 8 // accumulate
    said = refused(workload(TensorDataset(x, y), loss), grad_accum_steps=accumulate, micro_batch_size=micro)
    assert f"example {BAD} of train_data(), counted from 0, alone gives such a gradient" in said
    assert "the gradient of weight is not finite in step" in said
    assert "sqrt(x + 1e-12)" in said
    assert "the first NaN is in the backward pass of Pow (test_divergence.py, line" in said


def test_a_gradient_at_a_zero_that_training_comes_to() -> None:
    def loss(model: Any, batch: Any) -> Tensor:
        size = model.weight.square().sum()
        return mean_loss(model, batch) + torch.where(size > 0.3, size.sub(0.3).sqrt(), 0.0)

    said = refused(workload(loss=loss), lr=0.1, max_steps=300)
    assert "the gradient of weight is not finite in step" in said
    assert "the weights are numbers, and at a tenth of the learning rate it breaks as well, so the learning" in said
    assert "backward pass of Sqrt" in said


def test_a_before_update_that_divides_by_zero_once() -> None:
    def before_update(model: Any) -> None:
        for p in model.parameters():
            p.grad /= (model.bias[0] < model.bias[0].detach().new_tensor(START_BIAS + 1e-3)).float()
            p.grad.nan_to_num_(nan=math.nan, posinf=math.nan, neginf=math.nan)

    class Model(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 2)
            nn.init.constant_(self.bias, START_BIAS)

    biased = TensorDataset(inputs()[0], torch.zeros(EXAMPLES, dtype=torch.int64))
    said = refused(workload(biased, before_update=before_update, model=Model), lr=1e-3)
    assert "before_update(model) or the optimizer made weight NaN in step" in said


def test_an_optimizer_that_divides_zero_by_zero() -> None:
    def loss(model: Any, batch: Any) -> Tensor:
        return mean_loss(model, batch) + 0 * model.unused.sum()

    class Model(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 2)
            self.unused = nn.Parameter(torch.zeros(3))

    def adam(params: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=lr, eps=0.0)

    said = refused(workload(loss=loss, model=Model, optimizer=adam))
    assert "the optimizer made unused NaN in step 1 of the run" in said
    assert "eps=0" in said


def test_an_evaluate_that_gives_nan_for_a_sound_model() -> None:
    calls: list[int] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        calls.append(1)
        value = float(F.cross_entropy(model(inputs()[0]), inputs()[1]))
        return {"val_loss": value if len(calls) < 5 else math.nan}

    said = refused(workload(evaluate=evaluate))
    assert "evaluate(model) returned NaN for val_loss after step" in said
    assert "although the training loss is" in said
    assert "inputs and outputs in evaluate(model) are numbers" in said


def test_a_metric_beside_may_have_no_value() -> None:
    def evaluate(model: nn.Module) -> dict[str, float]:
        return {"val_loss": float(F.cross_entropy(model(inputs()[0]), inputs()[1])), "val_f1": math.nan}

    assert run(workload(evaluate=evaluate)).status is RunStatus.OUT_OF_STEPS


def test_a_loss_that_raises_in_one_batch() -> None:
    x, y = inputs()
    y[BAD] = 7
    said = refused(workload(TensorDataset(x, y)))
    assert "loss(model, batch) raised IndexError: Target 7 is out of bounds" in said
    assert f"and example {BAD} of train_data(), counted from 0, alone raises it" in said
    assert "it was step" in said


def test_a_lack_of_memory_while_examples_are_tried_blames_none() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        if len(batch[0]) < 8:
            raise MemoryError
        raise ValueError("a batch of 8")

    made = workload(loss=loss)
    drawn = Drawn(micro_batches=[made.batch(torch.arange(8))], indices=torch.arange(8))
    with (
        pytest.raises(TaskError, match=r"ValueError: a batch of 8.*; it was step 3$"),
        step_named(made, lambda: drawn, seed=0, where=lambda: "step 3"),
    ):
        made.loss(made.model(0), drawn.micro_batches[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_example_that_cannot_be_made(workers: int) -> None:
    class Broken(Records):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == BAD:
                raise OSError("cannot identify image file 'img_137.jpg'")
            return super().__getitem__(index)

    with pytest.raises(TaskError) as caught:  # already where the examples are looked through, or in the run
        run(workload(Broken(), weighted, loader_options={"num_workers": workers}))
    said = str(caught.value)
    assert "OSError: cannot identify image file 'img_137.jpg'" in said
    assert f"example {BAD} of train_data(), counted from 0, raises it" in said


# --- what is the learning rate's stays so ---------------------------------------------------------------------------


def exploding(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0]).exp().mean()


@pytest.mark.parametrize("lr", [1e3, 1e30])
@pytest.mark.parametrize(
    ("loss", "data"),
    [
        (lambda model, batch: model(batch[0]).square().mean(), None),
        (lambda model, batch: (model(batch[0]) - 1).square().square().mean(), None),
        (exploding, None),
        (
            lambda model, batch: (model(batch[0]).square() + batch[2].exp()).mean(),  # a mask with -inf
            TensorDataset(*inputs(), torch.full((EXAMPLES, 2), -math.inf)),
        ),
    ],
)
def test_a_learning_rate_that_is_too_high(lr: float, loss: Any, data: Any) -> None:
    result = run(workload(data, loss), lr=lr, max_steps=400)
    assert result.status is RunStatus.DIVERGED


def test_arithmetic_that_overflows_only_with_the_weights_of_a_far_too_high_learning_rate() -> None:
    """exp(bias) is infinite beyond 88, where its branch is not taken: the loss is ordinary, its gradient NaN."""

    def softplus(model: nn.Module, batch: Any) -> Tensor:
        z = model(batch[0])
        return (torch.where(z > 20, z, z.exp().log1p()) - z).mean()

    zeros = TensorDataset(torch.zeros(EXAMPLES, 4), torch.zeros(EXAMPLES, dtype=torch.int64))
    of = workload(zeros, softplus, model=lambda: nn.Linear(4, 1), evaluate=lambda model: {"val_loss": 1.0})
    assert run(of, lr=250.0).status is RunStatus.DIVERGED
    assert run(of, lr=25.0).status is RunStatus.OUT_OF_STEPS


def test_looking_for_a_cause_is_no_part_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "refuse_batch", lambda *of, **how: time.sleep(2.0))
    result = run(workload(loss=lambda model, batch: model(batch[0]).square().mean()), lr=1e3, max_steps=400)
    assert result.status is RunStatus.DIVERGED
    assert result.device_seconds < 2.0


def test_the_random_state_of_a_run_is_left_alone_by_a_look_at_its_batch() -> None:
    drawn: list[Tensor] = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        drawn.append(torch.rand(1))
        return model(batch[0]).square().mean()

    how: dict[str, Any] = {"max_steps": 50, "evaluation_growth": 50.0}
    assert run(workload(loss=loss), lr=1e3, **how).status is RunStatus.DIVERGED
    watched = drawn.copy()
    drawn.clear()
    run(workload(loss=loss), lr=1e-3, **how)
    assert len(watched) > len(drawn)
    assert watched[-1] == drawn[-1]


# --- where losses are looked at later ---------------------------------------------------------------------------------


def watched_late(of: Workload, losses: Sequence[float], batch_size: int = 8) -> LossWatch:
    """A watch on an accelerator that has seen losses, and is not evaluated yet."""
    config = RunConfig(task="t", batch_size=batch_size, micro_batch_size=batch_size, lr=0.1, max_steps=60)
    cpu, of.device = of.device, Device(torch.device("cuda"))
    watch = LossWatch(of, config, 5, lambda step: 1, StepClock(cpu))
    of.device = cpu
    for step, loss in enumerate(losses):
        watch.see(step, [], torch.tensor(loss))
    return watch


def test_on_an_accelerator_the_batch_is_drawn_anew() -> None:
    of = workload(Records(), weighted)
    drawn = [of.indices_of(8, 5, s) for s in range(60)]
    step = next(s for s, indices in enumerate(drawn) if indices is not None and BAD in indices.tolist())
    watch = watched_late(of, [0.7] * step + [math.nan] * 3)
    with pytest.raises(TaskError, match=rf"the loss is NaN in step {step + 1} of the run.*\({BAD} of train_data"):
        watch.at_evaluation(step + 3, math.nan, "val_loss", math.nan, of.model(0))


def test_on_an_accelerator_a_learning_rate_is_too_high_as_well() -> None:
    of = workload()
    watch = watched_late(of, [0.7, 1e10, math.inf])
    watch.at_evaluation(3, math.inf, "val_loss", math.nan, of.model(0))


# --- the range test ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "loss", "message"),
    [
        (Records(), weighted, rf"the loss is NaN in the range test at batch size 40.*\({BAD} of train_data"),
        (None, partial(of_positives, above=2.2), "every example of it alone gives NaN as well.*divide by max"),
    ],
)
def test_the_range_test_takes_no_batch_for_a_learning_rate(data: Any, loss: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        measure_rate_range(workload(data, loss), batch_size=40, micro_batch_size=40)
