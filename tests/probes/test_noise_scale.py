"""The noise-scale probe inside the training loop, against gradients taken one example at a time in float64."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from batchscope.fits.noise_scale import Readings, estimate
from batchscope.probes.noise_scale import NoiseScale
from batchscope.store.records import RunConfig
from batchscope.tasks.protocol import Task, task
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train

EXAMPLES = 60


def make_data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(EXAMPLES, 5, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] + 0.5 * torch.randn(EXAMPLES, generator=generator) > 0).long()


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).double()


def mean_cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def make_task(**parts: Any) -> Task:
    """A classification in float64; `evaluate` is trivial, so no example is held back."""
    defaults: dict[str, Any] = {
        "model": make_mlp,
        "train": TensorDataset(*make_data()),
        "loss": mean_cross_entropy,
        "optimizer": lambda params, lr: torch.optim.SGD(params, lr=lr),
        "evaluate": lambda model: {"val_loss": 1.0},
    }
    return task(**{**defaults, **parts})


def measure(
    workload: Workload,
    *,
    batch_size: int,
    steps: int,
    lr: float = 0.0,
    accumulate: int = 1,
    seed: int = 0,
    **probe: int,
) -> list[dict[str, Any]]:
    """The noise rows of a run; at rate 0 the parameters stay where they are."""
    config = RunConfig(
        task="toy",
        batch_size=batch_size,
        micro_batch_size=batch_size // accumulate,
        grad_accum_steps=accumulate,
        lr=lr,
        seed=seed,
        max_steps=steps,
        evaluation_growth=4.0,
    )
    rows: list[Any] = []
    train(workload, config, probes=[NoiseScale(**{"every": 1, **probe})], on_row=rows.append)
    return [row for row in rows if row["kind"] == "noise"]


def gradient(model: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def truth(workload: Workload) -> tuple[float, float]:
    """tr(Σ) and |G|² over the data set at the first parameters, one example at a time."""
    model = workload.model(0)
    batches = [workload.batch(torch.tensor([i])) for i in range(workload.examples)]
    each = torch.stack([gradient(model, workload.loss(model, batch)) for batch in batches])
    mean = each.mean(dim=0)
    return float((each - mean).square().sum(dim=1).mean()), float(mean.square().sum())


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "groups"), [(8, 1, 2), (24, 1, 8), (30, 3, 2), (10, 1, 10)], ids=str
)
def test_f50_unbiased_against_per_example_gradients(batch_size: int, accumulate: int, groups: int) -> None:
    """Whatever the grouping, and although a third of the data set is in a batch: numerator and denominator apart."""
    workload = Workload(make_task())
    rows = measure(workload, batch_size=batch_size, steps=400, accumulate=accumulate, groups=groups)
    readings = Readings.of(rows, examples=EXAMPLES)
    trace, square = truth(workload)
    for values, true in ((readings.trace, trace), (readings.square, square)):
        error = values.std(ddof=1) / math.sqrt(readings.n)
        assert abs(values.mean() - true) < 3 * error
        assert error < 0.12 * true
    found = estimate(rows, examples=EXAMPLES)
    assert found.low is not None
    assert found.high is not None
    assert 0.9 * found.low < trace / square < 1.1 * found.high


def test_f40_a_row_holds_all_groups_of_its_step() -> None:
    workload = Workload(make_task())
    row = measure(workload, batch_size=12, steps=1, groups=4)[0]
    parts = next(workload.micro_batches(12, 4, 1_000_003))
    model = workload.model(0)
    each = torch.stack([gradient(model, workload.loss(model, part)) for part in parts])
    assert row["mean_square_norm"] == pytest.approx(float(each.square().sum(dim=1).mean()), rel=1e-12)
    assert row["square_norm_of_mean"] == pytest.approx(float(each.mean(dim=0).square().sum()), rel=1e-12)
    assert (row["groups"], row["group_size"], row["step"], row["examples"]) == (4, 3, 0, 0)


def test_f41_equal_seeds_give_equal_rows() -> None:
    workload = Workload(make_task())
    first, again, other = (measure(workload, batch_size=8, steps=10, lr=0.1, seed=s) for s in (3, 3, 4))
    assert first == again
    assert first != other


def test_f47_layers_without_special_support_are_measured() -> None:
    def make_model() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 2)).double()

    workload = Workload(make_task(model=make_model))
    readings = Readings.of(measure(workload, batch_size=20, steps=200), examples=EXAMPLES)
    assert readings.trace.mean() == pytest.approx(truth(workload)[0], rel=0.05)


def test_training_is_the_same_with_the_probe() -> None:
    workload = Workload(make_task(evaluate=None))
    config = RunConfig(task="toy", batch_size=8, micro_batch_size=8, lr=0.3, max_steps=30)
    without, measured = train(workload, config), train(workload, config, probes=[NoiseScale(groups=4, every=2)])
    assert measured.last["val_loss"] == pytest.approx(without.last["val_loss"], rel=1e-10)


def test_only_every_kth_step_is_measured() -> None:
    rows = measure(Workload(make_task()), batch_size=8, steps=20, every=6)
    assert [row["step"] for row in rows] == [0, 6, 12, 18]
    assert [row["examples"] for row in rows] == [0, 48, 96, 144]


@given(
    groups=st.integers(2, 16), step=st.integers(0, 100), micro_batch_size=st.integers(1, 300), parts=st.integers(1, 40)
)
def test_groups_divide_the_batch_and_respect_accumulation(
    groups: int, step: int, micro_batch_size: int, parts: int
) -> None:
    batch_size = micro_batch_size * parts
    made = NoiseScale(groups=groups, every=4).groups(step, batch_size, parts)
    assert made != 1
    assert made == 0 or (batch_size % made == 0 and made % parts == 0)
    assert (made == 0) if step % 4 else (made > 0 or parts == 1)


@pytest.mark.parametrize(
    ("batch_size", "parts", "expected"), [(64, 1, 2), (1437, 1, 3), (7, 1, 7), (11, 1, 0), (1, 1, 0), (64, 16, 16)]
)
def test_the_nearest_possible_number_of_groups(batch_size: int, parts: int, expected: int) -> None:
    assert NoiseScale(groups=2).groups(0, batch_size, parts) == expected


class SequenceFirst(Dataset[Any]):
    """The same examples, collated with the features first: no batch may be cut along its first dimension."""

    def __init__(self) -> None:
        self.x, self.y = make_data()

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": self.x[index], "y": self.y[index], "name": f"example {index}"}


class SequenceFirstTask:
    """A task whose batches are dicts with the example in the second dimension, and with strings in them."""

    def model(self) -> nn.Module:
        return make_mlp()

    def train_data(self) -> Dataset[Any]:
        return SequenceFirst()

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        stacked = {key: torch.stack([item[key] for item in items], dim=-1) for key in ("x", "y")}
        return {**stacked, "name": [item["name"] for item in items]}

    def batch_size(self, batch: dict[str, Any]) -> int:
        return len(batch["name"])

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        assert len(batch["name"]) == batch["x"].shape[1]
        return mean_cross_entropy(model, (batch["x"].T, batch["y"]))

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"val_loss": 1.0}


@pytest.mark.parametrize("workers", [0, 2])
def test_groups_are_collated_apart(workers: int) -> None:
    plain, other = Workload(make_task()), Workload(SequenceFirstTask())
    other.loader_workers = workers
    for row, twin in zip(
        measure(plain, batch_size=12, steps=8, every=2), measure(other, batch_size=12, steps=8, every=2), strict=True
    ):
        assert twin["mean_square_norm"] == pytest.approx(row["mean_square_norm"], rel=1e-9)
        assert twin["square_norm_of_mean"] == pytest.approx(row["square_norm_of_mean"], rel=1e-9)


def test_sparse_gradients_and_parameters_without_a_gradient() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 2, sparse=True)
            self.unused = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x[:, 0].abs().mul(3).long().clamp(max=8))

    workload = Workload(make_task(model=Bag))
    row = measure(workload, batch_size=12, steps=1, groups=2)[0]
    parts = next(workload.micro_batches(12, 2, 1_000_003))
    model = workload.model(0)
    each: list[Tensor] = []
    for part in parts:
        model.zero_grad()
        workload.loss(model, part).backward()
        table = model.get_parameter("table.weight")
        assert table.grad is not None
        each.append(table.grad.to_dense().flatten().double())
    assert row["mean_square_norm"] == pytest.approx(float(torch.stack(each).square().sum(dim=1).mean()), rel=1e-5)


def test_norms_of_large_float32_gradients_are_exact() -> None:
    """One float32 reduction over all elements would be off by a per cent here."""
    parameter = nn.Parameter(torch.zeros(3_000_001))
    probe = NoiseScale()
    parameter.grad = torch.full_like(parameter, 0.1)
    probe.after_micro_batch([parameter], 0.5, 1.0)
    parameter.grad = parameter.grad + 0.2
    probe.after_micro_batch([parameter], 0.5, 1.0)
    row = probe.after_step(0, 2)
    assert row is not None
    assert row["square_norm_of_mean"] == pytest.approx(3_000_001 * 0.09, rel=1e-5)
    assert row["mean_square_norm"] == pytest.approx(3_000_001 * 2 * (0.01 + 0.04), rel=1e-5)


def test_a_gradient_that_is_not_finite_makes_no_row() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    probe = NoiseScale()
    for value in (1.0, math.inf):
        parameter.grad = torch.full_like(parameter, value)
        probe.after_micro_batch([parameter], 0.5, 1.0)
    assert probe.after_step(0, 2) is None


def weighted_task(**parts: Any) -> Task:
    """Examples of 1 to 8 terms: the loss is the mean over terms, as of tokens, and their number its weight."""
    x, y = make_data()
    terms = torch.randint(1, 9, (EXAMPLES,), generator=torch.Generator().manual_seed(5)).double()

    def mean_over_terms(model: nn.Module, batch: Any) -> Tensor:
        losses = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        return (batch[2] * losses).sum() / batch[2].sum()

    given = {"train": TensorDataset(x, y, terms), "loss": mean_over_terms, "loss_weight": lambda batch: batch[2].sum()}
    return make_task(**{**given, **parts})


@pytest.mark.parametrize(("batch_size", "accumulate", "groups"), [(30, 1, 2), (40, 2, 4), (48, 3, 2)], ids=str)
def test_groups_of_unequal_weight_against_per_example_gradients(batch_size: int, accumulate: int, groups: int) -> None:
    """tr(Σ) of the ratio `Σ w g ÷ Σ w` and |G|² of the mean over all terms, each apart."""
    workload = Workload(weighted_task())
    model = workload.model(0)
    batches = [workload.batch(torch.tensor([i])) for i in range(workload.examples)]
    each = torch.stack([gradient(model, workload.loss(model, batch)) for batch in batches])
    weights = torch.tensor([workload.weight(batch) for batch in batches], dtype=torch.float64)
    mean = (weights[:, None] * each).sum(dim=0) / weights.sum()
    trace = float((weights**2 * (each - mean).square().sum(dim=1)).mean() / weights.mean() ** 2)
    rows = measure(workload, batch_size=batch_size, steps=400, accumulate=accumulate, groups=groups)
    readings = Readings.of(rows, examples=EXAMPLES)
    for values, true in ((readings.trace, trace), (readings.square, float(mean.square().sum()))):
        error = values.std(ddof=1) / math.sqrt(readings.n)
        assert abs(values.mean() - true) < 3 * error + 0.03 * true
        assert error < 0.12 * true


def test_equal_weights_are_no_weights_and_the_step_is_the_same_with_the_probe() -> None:
    x, y = make_data()
    ones = TensorDataset(x, y, torch.ones(EXAMPLES, dtype=torch.float64))
    equal = measure(Workload(weighted_task(train=ones)), batch_size=12, steps=4, groups=4)
    plain = measure(Workload(make_task()), batch_size=12, steps=4, groups=4)
    for key in ("mean_square_norm", "square_norm_of_mean", "groups", "group_size"):
        assert [row[key] for row in equal] == pytest.approx([row[key] for row in plain], rel=1e-12)
    config = RunConfig(task="toy", batch_size=12, micro_batch_size=12, lr=0.3, max_steps=20)
    workload = Workload(weighted_task(evaluate=None))
    without, measured = train(workload, config), train(workload, config, probes=[NoiseScale(groups=4, every=2)])
    assert measured.last["val_loss"] == pytest.approx(without.last["val_loss"], rel=1e-10)


def test_the_factor_of_a_float16_training_is_divided_out() -> None:
    """Losses so small that gradients in float16 would be zero without it."""

    def rows(precision: str) -> list[dict[str, Any]]:
        x, y = make_data()
        made = make_task(
            model=lambda: make_mlp().float(),
            train=TensorDataset(x.float(), y),
            loss=lambda model, batch: 1e-5 * mean_cross_entropy(model, batch),
            precision=precision,
        )
        return measure(Workload(made), batch_size=24, steps=20, groups=4)

    for half, single in zip(rows("float16"), rows("float32"), strict=True):
        assert half["mean_square_norm"] == pytest.approx(single["mean_square_norm"], rel=0.02)
        assert half["square_norm_of_mean"] == pytest.approx(single["square_norm_of_mean"], rel=0.02)


def test_clipping_comes_after_the_reading() -> None:
    def clip(model: nn.Module) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)

    clipped = measure(Workload(make_task(before_update=clip)), batch_size=12, steps=3)
    assert clipped == measure(Workload(make_task()), batch_size=12, steps=3)


@pytest.mark.parametrize("bad", [{"groups": 1}, {"every": 0}])
def test_impossible_settings_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 2 groups"):
        NoiseScale(**bad)
