"""Update norms on a bowl, where gradient descent is `w ← (1 - lr h) w`, and against the weights of a real run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import TensorDataset

from batchscope.probes.update_size import UpdateSize
from batchscope.store.records import Row, RunConfig
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train

START = torch.tensor([3.0, -4.0], dtype=torch.float64)
EXAMPLES = 20


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(START.clone())


class Bowl:
    """Loss `½ |w - z|²` over examples `z`; without spread all `z` are 0."""

    def __init__(self, *, spread: float, adam: bool = False) -> None:
        generator = torch.Generator().manual_seed(4)
        self.z = spread * torch.randn(EXAMPLES, 2, generator=generator, dtype=torch.float64)
        self.adam = adam

    def model(self) -> nn.Module:
        return Point()

    def train_data(self) -> TensorDataset:
        return TensorDataset(self.z)

    def loss(self, model: Any, batch: Any) -> Tensor:
        return 0.5 * (model.w - batch[0]).square().sum(1).mean()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return Adam(params, lr=lr) if self.adam else SGD(params, lr=lr, momentum=0.0)

    def evaluate(self, model: Any) -> dict[str, float]:
        return {"val_loss": 1.0}


class Keeping(UpdateSize):
    """Also keeps the weights after every step."""

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.path = [START]
        self.model = model
        super().begin(model, optimizer)

    def after_update(self, step: int) -> Row | None:
        self.path.append(self.model.get_parameter("w").detach().clone())
        return super().after_update(step)


def run(bowl: Bowl, *, batch_size: int, steps: int, every: int = 1, lr: float = 0.1) -> tuple[list[Row], list[Tensor]]:
    config = RunConfig(
        task="t", batch_size=batch_size, micro_batch_size=batch_size, lr=lr, max_steps=steps, evaluation_growth=2.0
    )
    rows: list[Row] = []
    observer = Keeping(examples=EXAMPLES, batch_size=batch_size, every=every)
    train(Workload(bowl), config, observers=[observer], on_row=rows.append)
    return rows, observer.path


def of_kind(rows: list[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def test_a_straight_way_down() -> None:
    """The t-th update is `lr (1 - lr)^(t-1) |w_0|`, and all point one way."""
    rows, _ = run(Bowl(spread=0.0), batch_size=5, steps=8)
    norms = [0.1 * 0.9**t * 5.0 for t in range(8)]
    updates = of_kind(rows, "updates")
    assert [(row["step"], row["measured"]) for row in updates] == [(1, 1), (2, 1), (4, 2), (8, 4)]
    assert updates[-1]["mean_norm"] == pytest.approx(sum(norms[4:]) / 4, rel=1e-12)
    assert updates[-1]["largest_norm"] == pytest.approx(norms[4], rel=1e-12)
    first, second = of_kind(rows, "epoch_updates")
    assert (first["epoch"], first["step"], first["steps"]) == (1, 4, 4)
    assert first["norm_of_sum"] == pytest.approx(5.0 * (1 - 0.9**4), rel=1e-12)
    assert second["sum_of_norms"] == pytest.approx(sum(norms[4:]), rel=1e-12)
    assert first["straightness"] == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("adam", [False, True])
def test_epochs_that_end_inside_a_step_against_the_weights(adam: bool) -> None:
    rows, path = run(Bowl(spread=3.0, adam=adam), batch_size=8, steps=10)
    epochs = of_kind(rows, "epoch_updates")
    ends = [3, 5, 8, 10]
    assert [row["step"] for row in epochs] == ends
    norms = [float((b - a).norm()) for a, b in itertools.pairwise(path)]
    for row, start, end in zip(epochs, [0, *ends], ends, strict=False):
        assert row["steps"] == end - start
        assert row["norm_of_sum"] == pytest.approx(float((path[end] - path[start]).norm()), rel=1e-10)
        assert row["sum_of_norms"] == pytest.approx(sum(norms[start:end]), rel=1e-10)
        assert row["straightness"] < 1.0


def test_every_third_update() -> None:
    rows, path = run(Bowl(spread=3.0), batch_size=5, steps=8, every=3)
    norms = [float((path[t] - path[t - 1]).norm()) for t in (3, 6)]
    updates = of_kind(rows, "updates")
    assert [(row["step"], row["measured"]) for row in updates] == [(4, 1), (8, 1)]
    assert [row["mean_norm"] for row in updates] == pytest.approx(norms, rel=1e-12)
    first = of_kind(rows, "epoch_updates")[0]
    assert first["sum_of_norms"] == pytest.approx(4 * norms[0], rel=1e-12)
    assert first["norm_of_sum"] == pytest.approx(float((path[4] - path[0]).norm()), rel=1e-12)


def test_an_epoch_without_a_measured_update_and_one_without_movement() -> None:
    epochs = of_kind(run(Bowl(spread=1.0), batch_size=20, steps=2, every=9)[0], "epoch_updates")
    assert [(row["mean_norm"], row["straightness"]) for row in epochs] == [(None, None)] * 2
    assert epochs[0]["norm_of_sum"] > 0
    still = of_kind(run(Bowl(spread=1.0), batch_size=20, steps=1, lr=0.0)[0], "epoch_updates")[0]
    assert (still["norm_of_sum"], still["mean_norm"], still["straightness"]) == (0.0, 0.0, None)


def test_a_larger_batch_makes_smaller_updates_at_a_standstill() -> None:
    """At the minimum an update is noise alone, whose size falls as 1/√B."""
    sizes = (1, 4)
    means: list[float] = []
    for batch_size in sizes:
        rows, _ = run(Bowl(spread=1.0), batch_size=batch_size, steps=600, lr=0.05)
        means.append(of_kind(rows, "updates")[-1]["mean_norm"])
    assert means[0] / means[1] == pytest.approx(math.sqrt(sizes[1] / sizes[0]), rel=0.25)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="each at least 1"):
        UpdateSize(examples=10, batch_size=5, every=0)
