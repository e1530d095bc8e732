"""Distance, norm and angles of the weights, where they can be worked out by hand and against NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from batchscope.probes.distance import DistanceFromInit
from batchscope.store.codec import encode
from batchscope.store.records import Row, RunConfig
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 2)).double()


def workload(model: Any = two_layers) -> Workload:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    data = TensorDataset(x, (x[:, 0] > 0).long())
    return Workload(
        task(
            model=model,
            train=data,
            val=data,
            loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )


def config(steps: int = 12) -> RunConfig:
    return RunConfig(task="t", batch_size=8, micro_batch_size=8, lr=0.3, max_steps=steps, evaluation_growth=2.0)


def placed(initial: Tensor, now: Tensor) -> Row:
    """The row of a model with one matrix that has moved from `initial` to `now`."""
    model = nn.Linear(*initial.T.shape, bias=False).to(initial.dtype)
    model.weight.data.copy_(initial)
    observer = DistanceFromInit()
    observer.begin(model, torch.optim.SGD(model.parameters()))
    model.weight.data.copy_(now)
    row = observer.at_evaluation(3)
    assert row is not None
    return row


def test_a_right_angle_by_hand() -> None:
    row = placed(torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    assert (row["kind"], row["step"]) == ("weights", 3)
    assert row["all"] == pytest.approx(
        {
            "distance": 4.0,
            "norm": 5.0,
            "initial_norm": 3.0,
            "angle_degrees": 90.0,
            "turned_degrees": math.degrees(math.atan2(4, 3)),
        }
    )
    assert row["layers"]["model"] == row["parameters"]["weight"] == row["weights"] == row["all"]
    assert row["biases"] == {"not_applicable": "the model has no biases"}


@pytest.mark.parametrize(
    ("now", "angle", "turned"), [((6.0, 0.0), 0.0, 0.0), ((1.0, 0.0), 180.0, 0.0), ((-1.0, 0.0), 180.0, 180.0)]
)
def test_along_the_initial_direction(now: tuple[float, float], angle: float, turned: float) -> None:
    travel = placed(torch.tensor([[3.0, 0.0]]), torch.tensor([now]))["all"]
    assert (travel["angle_degrees"], travel["turned_degrees"]) == pytest.approx((angle, turned))


def test_zeros_have_a_distance_and_no_angle() -> None:
    unmoved = placed(torch.ones(1, 2), torch.ones(1, 2))["all"]
    assert (unmoved["distance"], unmoved["angle_degrees"], unmoved["turned_degrees"]) == (0.0, None, 0.0)
    from_zero = placed(torch.zeros(1, 2), torch.ones(1, 2))["all"]
    assert (from_zero["distance"], from_zero["angle_degrees"], from_zero["turned_degrees"]) == (2**0.5, None, None)


def test_a_small_turn_of_many_float32_weights_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    initial = torch.randn(700, 700, generator=generator)
    now = initial + 1e-3 * torch.randn(700, 700, generator=generator)
    travel = placed(initial, now)["all"]
    before, after = initial.double().numpy().ravel(), now.double().numpy().ravel()
    across = after - before * (after @ before) / (before @ before)
    turned = math.degrees(math.atan2(float(np.linalg.norm(across)), after @ before / float(np.linalg.norm(before))))
    assert travel["turned_degrees"] == pytest.approx(turned, rel=1e-9)
    assert travel["distance"] == pytest.approx(float(np.linalg.norm(after - before)), rel=1e-12)


def test_groups_of_a_run_against_numpy() -> None:
    ready = workload()
    models: list[dict[str, Any]] = []

    class Keeping(DistanceFromInit):
        def begin(self, model: nn.Module, optimizer: Any) -> None:
            self.model = model
            super().begin(model, optimizer)

        def at_evaluation(self, step: int) -> Row | None:
            models.append({name: p.detach().clone().numpy() for name, p in self.model.named_parameters()})
            return super().at_evaluation(step)

    rows: list[Row] = []
    train(ready, config(), observers=[Keeping()], on_row=rows.append)
    rows = [row for row in rows if row["kind"] == "weights"]
    assert [row["step"] for row in rows] == [0, 1, 2, 4, 8, 12]

    def apart(names: list[str]) -> float:
        return math.sqrt(sum(float(((models[-1][n] - models[0][n]) ** 2).sum()) for n in names))

    last, names = rows[-1], list(models[0])
    assert last["all"]["distance"] == pytest.approx(apart(names), rel=1e-12)
    assert last["weights"]["distance"] == pytest.approx(apart(["0.weight", "3.weight"]), rel=1e-12)
    assert last["biases"]["distance"] == pytest.approx(apart(["0.bias", "3.bias"]), rel=1e-12)
    assert last["layers"]["3"]["distance"] == pytest.approx(apart(["3.weight", "3.bias"]), rel=1e-12)
    assert {n: t["distance"] for n, t in last["parameters"].items()} == pytest.approx({n: apart([n]) for n in names})
    assert encode(last) == last


def test_training_and_the_generators_are_the_same_with_the_observer() -> None:
    state = torch.get_rng_state()
    without, watched = (train(workload(), config(), observers=o) for o in ([], [DistanceFromInit()]))
    assert watched.last == without.last
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_that_are_no_numbers_are_said() -> None:
    row = placed(torch.ones(1, 2), torch.tensor([[math.inf, 1.0]]))
    assert row["not_applicable"] == "the weights have left the range of numbers"
