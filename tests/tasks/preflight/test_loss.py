"""The loss: a finite scalar that depends on the parameters, and a mean over independent examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from batchscope.errors import TaskError
from batchscope.hardware.device import Device
from batchscope.tasks.preflight.inputs import telling_examples
from batchscope.tasks.preflight.loss import check_labels_on_cpu, check_mean
from batchscope.tasks.workload import Workload

from .parts import CLASSES, Parts, make_data, mean_loss, run, sum_loss


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
        (
            lambda m, b: sum_loss(m, b) + 1e4,
            r"the norm of the gradient of 16 examples.*beside a part that stays.*as a sum",
        ),
        (
            lambda m, b: -0.01 * sum_loss(m, b) - 1e3,
            r"beside a part that stays, the loss grows with the batch as a sum",
        ),
        (
            lambda m, b: (m(b[0]) - b[1][:, None]).norm(),
            r"it grows with the square root of the batch size, as a norm over all examples does.*the mean over",
        ),
        (lambda m, b: mean_loss(m, b) / len(b[0]), r"it is divided by the batch size once too often"),
        (
            lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"),
            r"a tensor of shape \(16,\), not a scalar; return loss.mean\(\)",
        ),
        (lambda m, b: mean_loss(m, b)[None], r"a tensor of shape \(1,\), not a scalar"),
        (lambda m, b: mean_loss(m, b).item(), r"returned float, not a tensor; return the loss without .item\(\)"),
        (lambda m, b: None, r"returned None, not a tensor; end it with `return loss`"),
        (lambda m, b: mean_loss(m, b) * float("nan"), r"the loss is NaN before training.*no input is NaN"),
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
        (lambda m, b: m(b["x"]), r"loss\(model, batch\) raised TypeError: .* \(test_loss.py, line \d+: "),
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


def test_a_loss_that_is_drawn_is_no_sum() -> None:
    """With importance weights that scatter by powers of ten a mean may double twice, by chance."""
    workload = Workload(Parts())
    model, indices = workload.model(0), torch.arange(8)
    for draws in range(60):

        def weighted(model: Any, batch: Any, draws: int = draws) -> Tensor:
            torch.rand(draws)
            weights = (1.5 * torch.randn(len(batch[0]))).exp()
            return (weights * F.cross_entropy(model(batch[0]), batch[1], reduction="none")).mean()

        check_mean(Workload(Parts(compute_loss=weighted)), model, indices)


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
    lazy = Workload(Parts(data=relabelled(make_data(), 41, 7), make_model=lambda: nn.LazyLinear(CLASSES)))
    lazy.device = Device(torch.device("cuda"))
    with pytest.raises(TaskError, match=r"a label or code is out of range.*runs from 0 to 7"):
        check_labels_on_cpu(lazy, indices)


def test_nan_in_the_inputs() -> None:
    message = r"the loss is NaN.*tensor 0 of the training data \(shape \(60, 4\)\) holds 3 NaN in 3 of 60 examples"
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
    said = "holds 1 NaN in 1 of 60 examples (7 of train_data(), counted from 0), and the loss is a number all the same"
    assert any(said in note for note in found.notes)
