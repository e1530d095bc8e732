"""The preflight: each broken task gets one message with its numbers; sound tasks pass and are left as they were."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from batchscope.check import Preflight, check
from batchscope.checks.inputs import telling_examples
from batchscope.checks.loss import check_labels_on_cpu
from batchscope.device import Device
from batchscope.errors import TargetError, TaskError, UsageError
from batchscope.records import Target
from batchscope.tasks.digits import digits
from batchscope.workload import Workload

CLASSES = 3


def make_data(examples: int = 60) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(examples, 4, generator=generator), torch.arange(examples) % CLASSES)


def mean_loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def sgd(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
    return torch.optim.SGD(params, lr=lr)


def fixed_metrics(model: nn.Module) -> Mapping[str, Any]:
    return {"val_loss": next(model.parameters()).square().sum().item(), "val_accuracy": 0.25, "test_loss": 1.0}


@dataclass
class Parts:
    """A sound task; tests replace one part of it."""

    make_model: Callable[[], nn.Module] = lambda: nn.Linear(4, CLASSES)
    data: Any = field(default_factory=make_data)
    compute_loss: Callable[[nn.Module, Any], Any] = mean_loss
    make_optimizer: Callable[..., Any] = sgd
    metrics: Callable[[nn.Module], Any] = fixed_metrics

    def model(self) -> nn.Module:
        return self.make_model()

    def train_data(self) -> Any:
        return self.data

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return self.compute_loss(model, batch)

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Any:
        return self.make_optimizer(params, lr)

    def evaluate(self, model: nn.Module) -> Any:
        return self.metrics(model)


def run(target: str | None = None, max_batch_size: int | None = None, **parts: Any) -> Preflight:
    asked = Target.parse(target) if target else None
    return check(Workload(Parts(**parts)), target=asked, max_batch_size=max_batch_size)


def test_a_sound_task() -> None:
    found = run()
    assert (found.parameters, found.max_batch_size, found.smallest_micro_batch_size) == (4 * CLASSES + CLASSES, 60, 1)
    assert found.independent
    assert found.notes == ()
    torch.manual_seed(0)
    expected = nn.Linear(4, CLASSES).weight.square().sum().item()
    assert found.metrics == {"val_loss": expected, "val_accuracy": 0.25, "test_loss": 1.0}


# --- the loss -----------------------------------------------------------------------------------------------------


def sum_loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")


def relabelled(data: TensorDataset, row: int, label: int) -> TensorDataset:
    data.tensors[1][row] = label
    return data


def with_nan(rows: list[int]) -> TensorDataset:
    data = make_data()
    data.tensors[0][rows, 1] = float("nan")
    return data


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            sum_loss,
            r"the loss of 16 examples is (\d+\.?\d*), of the same examples twice (\d+\.?\d*), four times (\d+\.?\d*): "
            r"it grows with the batch as a sum does.*reduction='mean'",
        ),
        (lambda m, b: sum_loss(m, b) + 10 * m.weight.square().sum(), r"it grows with the batch as a sum does"),
        (lambda m, b: mean_loss(m, b) / len(b[0]), r"it is divided by the batch size once too often"),
        (
            lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"),
            r"a tensor of shape \(16,\), not a scalar; return loss.mean\(\)",
        ),
        (lambda m, b: mean_loss(m, b)[None], r"a tensor of shape \(1,\), not a scalar"),
        (lambda m, b: mean_loss(m, b).item(), r"returned float, not a tensor; return the loss without .item\(\)"),
        (lambda m, b: None, r"returned NoneType, not a tensor"),
        (lambda m, b: mean_loss(m, b) * float("nan"), r"the loss is nan before training.*no input is NaN"),
        (lambda m, b: mean_loss(m, b) / 0, r"the loss is inf before training"),
        (lambda m, b: mean_loss(m, b).detach(), r"the loss \([\d.]+\) does not depend on.*it carries no gradient"),
        (
            lambda m, b: mean_loss(m, b).detach() + 0 * m.weight.sum() + 0 * m.bias.sum(),
            r"all 2 parameter tensors have no gradient, or zero",
        ),
        (
            lambda m, b: mean_loss(nn.Linear(4, CLASSES), b),
            r"all 2 parameter tensors have no gradient",
        ),
        (
            lambda m, b: mean_loss(m, b) + (m.weight * 0).norm(dim=0).sqrt().sum(),
            r"the gradient of weight \(1 of 2 parameter tensors\) is not finite",
        ),
        (lambda m, b: m(b["x"]), r"loss\(model, batch\) raised TypeError: .* \(test_check.py, line \d+: "),
    ],
)
def test_bad_losses(loss: Callable[..., Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        run(compute_loss=loss)


def test_the_numbers_of_a_sum_are_in_proportion() -> None:
    with pytest.raises(TaskError) as caught:
        run(compute_loss=sum_loss)
    words = str(caught.value).split(":")[0].replace(",", "").split()
    once, twice, four = (float(w) for w in words if w.replace(".", "").isdigit() and w != "16")
    assert (twice / once, four / once) == pytest.approx((2.0, 4.0), rel=1e-3)


@pytest.mark.parametrize("label", [CLASSES, 12, -1])
def test_labels_out_of_range(label: int) -> None:
    """The one bad label of sixty is tried first, wherever it stands."""
    message = (
        rf"a label or code is out of range.*tensor 1 of the training data runs from {min(0, label)} to {max(2, label)}"
    )
    with pytest.raises(TaskError, match=message + r"; the model's last layer has 3 outputs \(0 to 2\)") as caught:
        run(data=relabelled(make_data(), 41, label))
    assert isinstance(caught.value.__cause__, IndexError)


def test_on_an_accelerator_labels_are_tried_on_the_cpu_first() -> None:
    """Out of range there, they would raise a device-side assert, after which the process cannot use the device."""
    workload = Workload(Parts(data=relabelled(make_data(), 41, 7)))
    indices = telling_examples(workload, 16)
    check_labels_on_cpu(workload, indices)  # on a CPU the first loss finds it
    workload.device = Device(torch.device("cuda"))
    with pytest.raises(TaskError, match=r"a label or code is out of range.*runs from 0 to 7"):
        check_labels_on_cpu(workload, indices)
    sound = Workload(Parts(compute_loss=lambda model, batch: 1 / 0))
    sound.device = Device(torch.device("cuda"))
    check_labels_on_cpu(sound, indices)  # what else may fail on a CPU is no verdict


def test_nan_in_the_inputs() -> None:
    message = r"the loss is nan.*tensor 0 of the training data \(shape \(60, 4\)\) holds 3 NaN in 3 of 60 examples"
    with pytest.raises(TaskError, match=message):
        run(data=with_nan([5, 41, 50]))


class Records(Dataset[dict[str, Tensor]]):
    """Examples as dicts, one at a time."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x, y = self.data[index]
        return {"x": x, "y": y}


def test_nan_in_a_dict_batch() -> None:
    with pytest.raises(TaskError, match=r"batch\['x'\] \(shape \(16, 4\)\) holds 16 NaN in 16 of 16 examples"):
        run(
            data=Records(with_nan(list(range(60)))),
            compute_loss=lambda model, batch: mean_loss(model, (batch["x"], batch["y"])),
        )


def test_nan_that_the_loss_knows_of_is_only_noted() -> None:
    found = run(
        data=with_nan([7]), compute_loss=lambda model, batch: mean_loss(model, (batch[0].nan_to_num(), batch[1]))
    )
    assert any("holds 1 NaN in 1 of 60 examples, and the loss is a number all the same" in note for note in found.notes)


# --- the model and the data ---------------------------------------------------------------------------------------


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
        (Stream(), r"returned Stream, which can only be iterated"),
        (StreamWithLength(), r"returned StreamWithLength, which can only be iterated"),
        (iter([1, 2]), r"which can only be iterated"),
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
    with pytest.raises(UsageError, match="a largest batch size of 0 makes no sense"):
        run(max_batch_size=0)
    with pytest.raises(UsageError, match="a learning rate of -1 makes no sense"):
        check(Workload(Parts()), lr=-1.0)


def test_without_evaluate_a_part_is_held_back_and_said() -> None:
    class Bare(Parts):
        evaluate = None  # pyright: ignore[reportAssignmentType]

    found = check(Workload(Bare()))
    assert list(found.metrics) == ["val_loss"]
    assert found.max_batch_size == 54
    assert any("val_loss is measured on 6 training examples, held back" in note for note in found.notes)


# --- the optimizer ------------------------------------------------------------------------------------------------


class Deaf(torch.optim.SGD):
    """Says the right rate and steps by another."""

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= 0.01 * p.grad


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            lambda params, lr: torch.optim.SGD(params, lr=0.1),
            r"ignores lr: asked for 0.001 its rate is 0.1, asked for 0.0005 it is 0.1",
        ),
        (
            lambda params, lr: Deaf(params, lr=lr),
            r"ignores lr: a step at 0.001 moves the weights by ([\d.e-]+), one at 0.0005 by \1",
        ),
        (
            lambda params, lr: torch.optim.SGD(nn.Linear(4, 3).parameters(), lr=lr),
            r"holds none of the model's 2 trainable parameter tensors, but 2 others",
        ),
        (lambda params, lr: None, r"optimizer\(params, lr\) returned NoneType, which is no torch optimizer"),
        (lambda params: None, r"optimizer\(params, lr\) raised TypeError: .*takes 1 positional argument"),
        (lambda params, lr: torch.optim.LBFGS(params, lr=lr), r"optimizer.step\(\) raised TypeError: .*closure"),
        (
            lambda params, lr: torch.optim.SGD([], lr=lr),
            r"optimizer\(params, lr\) raised ValueError: optimizer got an empty parameter list",
        ),
    ],
)
def test_bad_optimizers(optimizer: Callable[..., Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        run(make_optimizer=optimizer)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop])
def test_sound_optimizers(kind: Any) -> None:
    assert run(make_optimizer=lambda params, lr: kind(params, lr=lr)).notes == ()


def test_what_is_legitimate_but_worth_saying() -> None:
    def last_layer(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return torch.optim.SGD(list(params)[1:], lr=lr)

    def two_rates(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        weight, bias = params
        return torch.optim.SGD([{"params": [weight]}, {"params": [bias], "lr": 0.5}], lr=lr)

    assert run(make_optimizer=last_layer).notes == (
        "the optimizer leaves 1 of 2 parameter tensors as they are (weight, ...)",
    )
    assert run(make_optimizer=two_rates).notes == ("parameter group 1 keeps its rate 0.5 whatever lr is",)
    assert run(make_optimizer=lambda params, lr: sgd(params, lr / 10)).notes == (
        "asked for lr=0.001, the optimizer's rate is 0.0001; recommended rates are those of lr",
    )


# --- evaluate and the target --------------------------------------------------------------------------------------


def draws(model: nn.Module) -> dict[str, float]:
    return {"val_loss": 1.0 + torch.rand(()).item()}


def meddles(model: nn.Module) -> dict[str, float]:
    for p in model.parameters():
        p.data.mul_(1.0 + 1e-6)
    return {"val_loss": 1.0}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (
            draws,
            r"two evaluations of the same model disagree: val_loss is 1\.\d+, then 1\.\d+; evaluate on a fixed set",
        ),
        (meddles, r"evaluate\(model\) changed the model's parameters \(weight\)"),
        (lambda model: None, r"evaluate\(\) returned None; it must return a dict"),
        (lambda model: {}, r"evaluate\(\) returned {}; it must return a dict"),
        (lambda model: 0.5, r"evaluate\(\) returned 0.5; it must return a dict"),
        (lambda model: {"val_loss": "low"}, r"evaluate\(\) returned 'low' for 'val_loss', which is not a number"),
        (lambda model: {"val_loss": torch.zeros(3)}, r"for 'val_loss', which is not a number"),
        (lambda model: {"val_loss": float("nan")}, r"val_loss is nan before training"),
        (
            lambda model: {"val_f1": float("nan"), "test_f1": 1.0},
            r"no metric is a finite number before training: val_f1 is nan",
        ),
        (lambda model: {"test_loss": 1.0}, r"returned test_loss; metrics that begin with test_ are reported only"),
        (
            lambda model: {"val_loss": 1 / 0},
            r"evaluate\(model\) raised ZeroDivisionError: division by zero \(test_check.py",
        ),
    ],
)
def test_bad_evaluations(metrics: Callable[..., Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        run(metrics=metrics)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("val_los<=0.1", r"asks for val_los, .*did you mean 'val_loss'\?; there are val_loss, val_accuracy$"),
        ("f1>=0.9", r"asks for f1, which evaluate\(model\) does not return; there are val_loss, val_accuracy$"),
        (
            "val_accuracy>=0.2",
            r"already met before training: val_accuracy is 0.25 with fresh weights; ask for a value above",
        ),
        (
            "val_accuracy<=0.25",
            r"already met before training: val_accuracy is 0.25 with fresh weights; ask for a value below",
        ),
    ],
)
def test_bad_targets(target: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        run(target=target)


def test_a_metric_that_is_no_number_yet_is_noted() -> None:
    found = run(target="val_loss<=0.1", metrics=lambda model: {"val_loss": 1.0, "val_auc": float("nan")})
    assert found.notes == ("val_auc is nan before training",)


# --- are examples independent of one another? ---------------------------------------------------------------------


class OwnBatchNorm(nn.Module):
    """Batch normalisation of no known type."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() if self.training else x


class FunctionalDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


def stacked(*middle: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(4, 8), *middle, nn.Linear(8, CLASSES))


def contrast(model: nn.Module, batch: Any) -> Tensor:
    """Each example against the others of its batch."""
    z = F.normalize(model(batch[0]), dim=1)
    return F.cross_entropy(z @ z.T / 0.5, torch.arange(len(z)))


def token_mean(model: nn.Module, batch: Any) -> Tensor:
    """A mean over tokens, of which examples have 1, 2 or 3."""
    each = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    return (each * (batch[1] + 1)).sum() / (batch[1] + 1).sum()


@pytest.mark.parametrize(
    "middle", [nn.ReLU(), nn.LayerNorm(8), nn.Dropout(0.5), nn.AlphaDropout(0.5), FunctionalDropout()]
)
def test_independent(middle: nn.Module) -> None:
    workload = Workload(Parts(make_model=stacked(middle)))
    assert check(workload).independent
    assert workload.independent


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"make_model": stacked(nn.BatchNorm1d(8))}, r"1 batch normalisation layers \(1, ...\)"),
        ({"make_model": stacked(nn.BatchNorm1d(8), nn.Dropout(0.5))}, r"1 batch normalisation layers"),
        (
            {"make_model": stacked(OwnBatchNorm())},
            r"the loss of 16 examples is [\d.]+ as one batch and [\d.]+ as the mean",
        ),
        ({"compute_loss": contrast}, r"the loss of 16 examples is"),
        ({"compute_loss": token_mean}, r"the loss of 16 examples is"),
    ],
)
def test_not_independent(parts: Any, said: str) -> None:
    workload = Workload(Parts(**parts))
    found = check(workload)
    assert not found.independent
    assert not workload.independent
    assert any("examples of a batch are not independent of one another" in note for note in found.notes)
    assert any("Per-example statistics (the gradient noise scale) are switched off" in note for note in found.notes)
    assert any(re.search(said, note) for note in found.notes)


def test_a_batch_norm_that_fails_on_one_example() -> None:
    found = run(make_model=stacked(nn.BatchNorm1d(8)))
    assert found.smallest_micro_batch_size == 2
    assert "a batch of one example cannot be trained on; the smallest micro-batch is 2" in found.notes
    assert run(make_model=stacked(nn.BatchNorm1d(8)), data=make_data(3)).smallest_micro_batch_size == 2


# --- nothing of the user's is changed (F24, F25, F26) -------------------------------------------------------------


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
