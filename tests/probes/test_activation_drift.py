"""What layers receive, against the same forward pass written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from batchscope.probes.activation_drift import ActivationDrift
from batchscope.store.records import Row, RunConfig
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train

EXAMPLES = 24


def ready(model: Callable[[], nn.Module], *, adam: bool = False, shape: tuple[int, ...] = (4,)) -> Workload:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(EXAMPLES, *shape, generator=generator, dtype=torch.float64)
    part = TensorDataset(x, torch.randint(3, (EXAMPLES,), generator=generator))
    return Workload(
        task(
            model=lambda: model().double(),
            train=part,
            val=part,
            loss=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
            optimizer=lambda params, lr: (torch.optim.Adam if adam else torch.optim.SGD)(params, lr=lr),
        )
    )


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 5), nn.Linear(5, 3)
    )


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(4, 3))


def fixed(workload: Workload) -> Any:
    return workload.batch(torch.arange(16))


def looked(workload: Workload, model: nn.Module, *changes: Callable[[], object]) -> list[dict[str, Any]]:
    """The layers of the rows: at once, and after each change of the model."""
    observer = ActivationDrift(workload, fixed(workload))
    observer.begin(model, torch.optim.SGD(model.parameters()))
    rows: list[dict[str, Any]] = []
    for change in (lambda: None, *changes):
        change()
        row = observer.at_evaluation(len(rows))
        assert row is not None
        rows.append(row["layers"])
    return rows


def test_means_and_deviations_of_what_layers_receive() -> None:
    workload = ready(convolutions, shape=(2, 4, 4))
    model = workload.model(0)
    first = looked(workload, model)[0]
    assert list(first) == ["2", "4"]
    into_2 = model.get_submodule("1")(model.get_submodule("0")(fixed(workload)[0])).detach()
    by_channel = into_2.transpose(0, 1).reshape(3, -1)
    assert first["2"]["mean"] == pytest.approx(float(into_2.mean()), rel=1e-12)
    assert first["2"]["deviation"] == pytest.approx(float(by_channel.var(1, correction=0).mean().sqrt()), rel=1e-12)
    into_4 = model.get_submodule("2")(into_2).flatten(1).detach()
    assert first["4"]["deviation"] == pytest.approx(float(into_4.var(0, correction=0).mean().sqrt()), rel=1e-12)
    assert (first["4"]["drift"], first["4"]["step_drift"], first["4"]["stretch"]) == (0.0, None, 1.0)


def test_drift_by_hand() -> None:
    """The first layer's bias raised by 0.3, then by 0.4, and its output doubled: means and deviations follow."""
    workload = ready(lambda: nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)))
    model = workload.model(0)
    bias, weight = model.get_parameter("0.bias"), model.get_parameter("0.weight")

    def raise_by(value: float) -> Callable[[], object]:
        return lambda: bias.data.add_(value)

    first, second, third, fourth = (
        row["1"] for row in looked(workload, model, raise_by(0.3), raise_by(0.4), lambda: weight.data.mul_(2.0))
    )
    assert second["drift"] == pytest.approx(0.3 / first["deviation"])
    assert third["drift"] == pytest.approx(0.7 / first["deviation"])
    assert third["step_drift"] == pytest.approx(0.4 / first["deviation"])
    assert third["stretch"] == pytest.approx(1.0)
    assert fourth["stretch"] == pytest.approx(2.0)
    assert third["mean"] - first["mean"] == pytest.approx(0.7)


def test_a_layer_whose_inputs_do_not_vary_has_no_unit_to_drift_in() -> None:
    workload = ready(lambda: nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)))
    model = workload.model(0)
    model.get_parameter("0.weight").data.zero_()
    layer = looked(workload, model)[0]["1"]
    assert (layer["deviation"], layer["drift"], layer["stretch"]) == (0.0, None, None)


def test_training_is_the_same_with_the_observer() -> None:
    """With dropout and running statistics, which a forward pass would move."""
    config = RunConfig(task="t", batch_size=8, micro_batch_size=8, lr=0.1, max_steps=9, evaluation_growth=2.0)
    workload = ready(perceptron)
    rows: list[Row] = []
    without = train(workload, config)
    watched = train(workload, config, observers=[ActivationDrift(workload, fixed(workload))], on_row=rows.append)
    assert watched.last == without.last
    rows = [row for row in rows if row["kind"] == "activations"]
    assert [row["step"] for row in rows] == [0, 1, 2, 4, 8, 9]
    assert list(rows[-1]["layers"]) == ["4", "5"]
    assert rows[-1]["layers"]["4"]["drift"] > 0


def test_no_hidden_layer_is_said() -> None:
    workload = ready(lambda: nn.Linear(4, 3))
    observer = ActivationDrift(workload, fixed(workload))
    model = workload.model(0)
    observer.begin(model, torch.optim.SGD(model.parameters()))
    row = observer.at_evaluation(0)
    assert row is not None
    assert "no hidden layer" in row["not_applicable"]
