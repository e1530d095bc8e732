"""Values that are no numbers, wherever they stand: the preflight names the member and the example."""

from __future__ import annotations

import math
from collections import UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

import batchscope
from batchscope.errors import TaskError
from batchscope.tasks import evaluation_values
from batchscope.tasks.evaluation_values import Seen, seen_in_evaluation
from batchscope.tasks.preflight.check import check
from batchscope.tasks.preflight.inputs import describe_bad_values
from batchscope.tasks.values import member_replaced, not_finite, rows_of
from batchscope.tasks.workload import Workload

from .parts import CLASSES, Parts, fixed_metrics, make_data, mean_loss, run, sgd

EXAMPLES, BAD = 300, 211
Pair = namedtuple("Pair", ["x", "y"])


def inputs(bad: int | None = BAD, value: float = math.nan) -> tuple[Tensor, Tensor]:
    x, y = make_data(EXAMPLES).tensors
    if bad is not None:
        x[bad, 2] = value
    return x, y


def of_key(model: nn.Module, batch: Any) -> Tensor:
    return mean_loss(model, (batch["x"].float(), batch["y"]))


LISTS: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "tuples": (lambda: list(zip(*inputs(), strict=True)), mean_loss, "batch[0]"),
    "dicts": (lambda: [{"x": x, "y": y} for x, y in zip(*inputs(), strict=True)], of_key, "batch['x']"),
    "arrays": (lambda: [{"x": x.numpy(), "y": int(y)} for x, y in zip(*inputs(), strict=True)], of_key, "batch['x']"),
    "named": (lambda: [Pair(x, y) for x, y in zip(*inputs(), strict=True)], mean_loss, "batch.x"),
    "double": (lambda: [(x.double(), y) for x, y in zip(*inputs(), strict=True)], mean_loss, "batch[0]"),
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_example_of_a_list(kind: str, value: float) -> None:
    make, loss, member = LISTS[kind]
    data = make()
    x = data[BAD]["x"] if isinstance(data[BAD], dict) else data[BAD][0]
    x[2] = value

    def model() -> nn.Module:
        return nn.Linear(4, CLASSES).double() if kind == "double" else nn.Linear(4, CLASSES)

    with pytest.raises(TaskError) as caught:
        run(data=data, compute_loss=loss, make_model=model)
    said = str(caught.value)
    assert "the loss is NaN before training" in said
    assert f"{member} (shape (16, 4)) holds 1 {'NaN' if math.isnan(value) else 'inf'} in 1 of 16 examples" in said
    assert f"({BAD} of train_data(), counted from 0); fill such values" in said


class Lazy(Dataset[Any]):
    """Makes its examples one at a time."""

    def __init__(self) -> None:
        self.x, self.y = inputs()

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": self.x[index].clone(), "y": self.y[index]}


def test_one_example_of_a_lazy_data_set() -> None:
    with pytest.raises(TaskError, match=rf"batch\['x'\] .* holds 1 NaN in 1 of 16 examples \({BAD} of train_data"):
        run(data=Lazy(), compute_loss=of_key)


class Whole(Dataset[Any]):
    """Gives several examples at once alone, as torch's loader asks it to."""

    def __init__(self, bad: int | None = BAD) -> None:
        self.x, self.y = inputs(bad)

    def __len__(self) -> int:
        return EXAMPLES

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [(self.x[i], self.y[i]) for i in indices]


def test_one_example_of_a_data_set_that_gives_several_at_once() -> None:
    parts = {"model": lambda: nn.Linear(4, CLASSES), "loss": mean_loss, "optimizer": sgd, "evaluate": fixed_metrics}
    collated = {"collate": lambda examples: [torch.stack(member) for member in zip(*examples, strict=True)]}
    made: dict[str, Any] = {**parts, **collated}
    with pytest.raises(
        TaskError, match=rf"example {BAD} of train_data\(\), counted from 0 holds 1 NaN in example\[0\]"
    ):
        check(Workload(batchscope.task(train=Whole(), **made)))


def test_values_of_other_examples_are_not_looked_for_once_more() -> None:
    workload = Workload(Parts(data=TensorDataset(*inputs())))
    sound, bad = torch.arange(16), torch.tensor([0, BAD])
    assert describe_bad_values(workload, workload.batch(sound), sound) == ""
    assert "holds 1 NaN in 1 of 300 examples" in describe_bad_values(workload, workload.batch(bad), bad)


def test_the_batch_of_a_dataclass_is_looked_into() -> None:
    @dataclass
    class Held:
        x: Tensor
        note: str = ""

    assert [found.name for found in not_finite({"held": Held(torch.tensor([1.0, math.inf]))})] == ["batch['held'].x"]


def test_infinite_inputs_in_memory() -> None:
    message = rf"tensor 0 of the training data \(shape \(300, 4\)\) holds 1 inf in 1 of 300 examples \({BAD} of train"
    with pytest.raises(TaskError, match=message):
        run(data=TensorDataset(*inputs(value=math.inf)))


def test_nan_in_the_labels_of_a_regression() -> None:
    x, y = inputs(None)
    y = y.float()
    y[BAD] = math.nan
    with pytest.raises(TaskError, match=rf"tensor 1 of the training data .* holds 1 NaN in 1 of 300 .*\({BAD} of"):
        run(data=TensorDataset(x, y), compute_loss=lambda model, batch: F.mse_loss(model(batch[0])[:, 0], batch[1]))


def test_a_mask_with_minus_inf_is_no_fault() -> None:
    mask = torch.zeros(EXAMPLES, CLASSES)
    mask[:, 0] = -math.inf
    mask[::3, 0] = 0.0
    x, y = inputs(None)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return mean_loss(lambda x: model(x) + batch[2].clamp(min=-5.0), batch)  # type: ignore[arg-type]

    assert not any("inf" in note for note in run(data=TensorDataset(x, y, mask), compute_loss=loss).notes)


def test_a_loss_that_is_infinite_for_one_example_of_the_first_batch() -> None:
    x, y = inputs(None)
    x[:] = x.abs() + 0.1
    first = int(torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(0))[3])
    x[first] = 0.0

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return mean_loss(model, batch) - 1e-3 * batch[0].sum(1).log().mean()

    with pytest.raises(
        TaskError, match=rf"the loss is inf before.*example {first} of train_data\(\).* alone gives inf"
    ):
        run(data=TensorDataset(x, y), compute_loss=loss)


# --- evaluation data --------------------------------------------------------------------------------------------------


def evaluated_on(x: Tensor, y: Tensor) -> Callable[[nn.Module], dict[str, float]]:
    return lambda model: {"val_loss": float(F.mse_loss(model(x)[:, 0], y))}


def test_nan_in_evaluation_inputs_alone() -> None:
    x, y = inputs()
    with pytest.raises(TaskError) as caught:
        run(metrics=evaluated_on(x, y.float()))
    said = str(caught.value)
    assert "val_loss is NaN before training, with fresh weights; evaluate(model) gives the model an input" in said
    assert f"(shape (300, 4)) that holds 1 NaN in 1 of 300 rows (the first is {BAD})" in said


def test_nan_in_evaluation_labels_alone() -> None:
    x, y = inputs(None)
    y = y.float()
    y[7] = math.nan
    with pytest.raises(TaskError, match=r"val_loss is NaN .* are numbers: look at the labels"):
        run(metrics=evaluated_on(x, y))


def test_a_model_that_gives_nan_in_evaluation_mode_alone() -> None:
    class Root(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            out = super().forward(input)
            return out if self.training else (out - 1e9).sqrt()

    with pytest.raises(TaskError, match=r"in evaluation mode the model returns \d+ NaN"):
        run(
            make_model=lambda: Root(4, CLASSES),
            metrics=lambda model: {"val_loss": float(model(torch.ones(5, 4)).sum())},
        )


def test_nan_in_an_example_that_is_held_back() -> None:
    task = {"model": lambda: nn.Linear(4, CLASSES), "loss": mean_loss, "optimizer": sgd}
    held = Workload(batchscope.task(train=TensorDataset(*inputs(None)), **task))
    bad = held.number_of(5, held_back=True)
    x, y = inputs(bad)
    for data in (TensorDataset(x, y), list(zip(x, y, strict=True)), Whole(bad)):
        with pytest.raises(
            TaskError, match=rf"val_loss is NaN.*example {bad} of train_data\(\).*held back.*holds 1 NaN"
        ):
            check(Workload(batchscope.task(train=data, **task)))


def test_labels_that_are_held_back_are_said_beside_inputs_and_outputs_that_are_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.mse_loss(model(batch[0])[:, 0], batch[1])

    task: dict[str, Any] = {"model": lambda: nn.Linear(4, CLASSES), "loss": loss, "optimizer": sgd}
    x, y = inputs(None)[0], torch.zeros(EXAMPLES)
    bad = Workload(batchscope.task(train=TensorDataset(x, y), **task)).number_of(5, held_back=True)
    y[bad] = math.nan
    held = Workload(batchscope.task(train=TensorDataset(x, y), **task))
    said = seen_in_evaluation(held, held.model(0)).in_words()
    assert f"are numbers: look at the labels that it uses (example {bad} of train_data()" in said
    monkeypatch.setattr(evaluation_values, "_LOOKING_S", -1.0)
    assert seen_in_evaluation(held, held.model(0)).held_back == ""


def test_examples_that_are_held_back_are_not_to_blame_for_outputs_of_inputs_that_are_numbers() -> None:
    (outputs,) = not_finite(torch.tensor([math.nan]))
    said = Seen(calls=1, outputs=[outputs], held_back="example 5 holds 1 NaN").in_words()
    assert said == "in evaluation mode the model returns 1 NaN (shape (1,)) for inputs without any"
    assert Seen(calls=0, held_back="example 5 holds 1 NaN").in_words().startswith("example 5 holds 1 NaN; fill")


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([1.0, math.nan]).half(),
        torch.tensor([1.0, math.nan]).bfloat16(),
        torch.tensor([1.0, math.nan]).to(torch.float8_e4m3fn),
        torch.tensor([[1.0, math.nan]]).to_sparse(),
        torch.tensor([1.0, math.nan], dtype=torch.complex64),
        np.array([1.0, math.nan], dtype=">f4"),
        np.array([1.0, math.nan], dtype=np.float16),
        np.float32(math.nan),
        math.nan,
    ],
)
def test_nan_is_found_in_every_kind_of_value(value: Any) -> None:
    (found,) = not_finite({"v": value})
    assert (found.name, found.nan, found.inf) == ("batch['v']", 1, 0)


@pytest.mark.parametrize(
    "value",
    [torch.tensor([3e38, 3e38]), torch.tensor([60000.0, 60000.0]).half(), torch.zeros(0), torch.arange(3), "nan", None],
)
def test_large_numbers_and_others_are_none(value: Any) -> None:
    assert not_finite([value]) == []


def test_rows_of_a_nest() -> None:
    batch = Pair(torch.arange(3), [torch.arange(6).reshape(3, 2), ["a", "b", "c"]])
    part = rows_of(batch, [2, 0], 3)
    assert isinstance(part, Pair)
    assert part.x.tolist() == [2, 0]
    assert part.y[0].tolist() == [[4, 5], [0, 1]]
    assert part.y[1] == ["c", "a"]
    assert rows_of([torch.zeros(3), torch.zeros(4)], [0], 3) is None


def test_rows_of_a_sparse_tensor_in_a_dataclass() -> None:
    @dataclass(frozen=True)
    class Held:
        x: Tensor
        names: list[str]

    part = rows_of(Held(torch.eye(3).to_sparse(), ["a", "b", "c"]), [2, 2], 3)
    assert isinstance(part, Held)
    assert part.x.to_dense().tolist() == [[0.0, 0.0, 1.0]] * 2
    assert part.names == ["c", "c"]


@dataclass(frozen=True, kw_only=True)
class Frozen:
    x: torch.Tensor
    name: str = "f"


def test_a_member_of_a_nest_is_replaced_in_a_copy() -> None:
    old, new = torch.zeros(3), torch.ones(3)
    batch = UserDict({"a": Pair(torch.arange(3), [Frozen(x=old), ["a"]]), "b": (old, 2)})
    made: Any = member_replaced(batch, old, new)
    assert isinstance(made, UserDict)
    assert isinstance(made["a"], Pair)
    assert made["a"].x is batch["a"].x
    assert made["a"].y[0].x is made["b"][0] is new
    assert batch["a"].y[0].x is batch["b"][0] is old
