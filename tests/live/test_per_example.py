"""The per-example source in whole models, against gradients of single examples from autograd."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from batchscope import NoiseMonitor
from batchscope.fits.noise_scale import Readings
from batchscope.live.sources.per_example import PerExampleSource
from batchscope.store.records import Row

from .example_models import (
    MODELS,
    Gpt,
    assert_row,
    covered,
    cross_entropy,
    exact,
    images,
    make_cnn,
    make_mlp,
    prepare,
    texts,
    vectors,
    window,
)

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("double", [False, True])
def test_whole_model(name: str, double: bool) -> None:
    make, data = MODELS[name]
    model, (x, y) = make(), data(9)
    if double:
        model, x = model.double(), x.double() if x.is_floating_point() else x
    source, _ = prepare(model)
    cross_entropy(model, x, y).backward()
    row = source.take(window(9))
    assert source.reason == ""
    assert set(source.left_out) == ({"places.weight"} if name == "gpt" else set())
    assert_row(row, exact(model, x, y, covered(model, source)), rtol=1e-9 if double else 2e-4)
    assert row is not None
    assert (row["groups"], row["group_size"]) == (9, 1)
    assert source.name == f"per-example norms ({96 if name == 'gpt' else 100} % of the parameters)"
    source.detach()
    assert all(not m._forward_hooks for m in model.modules())
    assert all(not p._backward_hooks for p in model.parameters())


@pytest.mark.parametrize("examples", [(), (4, 4), (5, 3)])
def test_accumulated_micro_batches(examples: tuple[int, ...]) -> None:
    model, (x, y) = make_cnn().double(), images(8)
    x, sizes = x.double(), examples or (4, 4)
    source, _ = prepare(model)
    for a, b in zip(x.split(sizes), y.split(sizes), strict=True):
        (cross_entropy(model, a, b) * len(a) / 8).backward()
    assert_row(source.take(window(8, examples=examples)), exact(model, x, y, covered(model, source)))


def test_layers_apart() -> None:
    model, (x, y) = make_mlp().double(), vectors(6)
    source, _ = prepare(model, layers=True)
    cross_entropy(model, x.double(), y).backward()
    row = source.take(window(6))
    assert row is not None
    assert row["layers"].keys() == {"0", "2"}
    for name, pair in row["layers"].items():
        truth = exact(model, x, y, [f"{name}.weight", f"{name}.bias"])
        torch.testing.assert_close(tuple(pair), truth)


def test_norm_layers_alone() -> None:
    model, (x, y) = Gpt().double(), texts(5)
    source, _ = prepare(model, norm_layers_only=True)
    cross_entropy(model, x, y).backward()
    names = [name for name in dict(model.named_parameters()) if "first" in name or "second" in name]
    assert_row(source.take(window(5)), exact(model, x, y, names))
    assert source.name == "per-example norms of norm layers (3 % of the parameters)"
    source.attach(make_mlp(), torch.optim.SGD(model.parameters(), lr=0.1))
    assert source.take(window(5)) is None
    assert source.reason == "the model has no trained norm layer"


@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, 1.0), (torch.float16, 1024.0)])
@pytest.mark.parametrize("name", MODELS)
def test_mixed_precision_and_loss_scale(name: str, dtype: torch.dtype, scale: float) -> None:
    make, data = MODELS[name]
    model, (x, y) = make(), data(16)
    source, _ = prepare(model)
    with torch.autocast("cpu", dtype=dtype):
        loss = cross_entropy(model, x, y)
    (loss.float() * scale).backward()
    row = source.take(window(16, loss_scale=scale))
    assert set(source.left_out) == ({"places.weight"} if name == "gpt" else set())
    assert_row(row, exact(model, x, y, covered(model, source)), rtol=3e-2)


def test_backward_under_autocast_computes_in_float32() -> None:
    model, (x, y) = make_cnn(), images(8)
    source, _ = prepare(model)
    cross_entropy(model, x, y).backward()
    plain = source.take(window(8))
    source.attach(model, torch.optim.SGD(model.parameters(), lr=0.0))
    model.zero_grad()
    loss = cross_entropy(model, x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss.backward()
    again = source.take(window(8))
    assert plain is not None
    assert_row(again, (plain["mean_square_norm"], plain["square_norm_of_mean"]), rtol=1e-3)


def test_gradients_stay_bit_for_bit() -> None:
    plain, (x, y) = Gpt(), texts(7)
    watched = copy.deepcopy(plain)
    prepare(watched)
    state = torch.get_rng_state()
    for model in (plain, watched):
        cross_entropy(model, x, y).backward()
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)  # pyright: ignore


@pytest.mark.filterwarnings("ignore:backward hook:UserWarning")
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_watched_model_are_not_watched(copied: Callable[[nn.Module], nn.Module]) -> None:
    model, (x, y) = make_mlp().double(), vectors(8)
    source, _ = prepare(model)
    other = copied(model)
    cross_entropy(other, x.double(), y).backward()
    cross_entropy(model, x.double(), y).backward()
    assert_row(source.take(window(8)), exact(other, x, y, covered(model, source)))


def test_monitor_leaves_a_training_bit_for_bit_as_it_is() -> None:
    def train(*, watched: bool, sets_to_none: bool) -> tuple[list[Tensor], list[Row]]:
        torch.manual_seed(0)
        model = nn.Sequential(make_cnn(), nn.Dropout(0.2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        rows: list[Row] = []
        options: dict[str, Any] = {"batch_size": 8, "scaler": scaler, "source": "per-example", "clock": lambda: 0.0}
        monitor = NoiseMonitor(model, optimizer, **options) if watched else None
        for _ in range(8):
            x, y = images(8)
            optimizer.zero_grad(set_to_none=sets_to_none)
            scaler.scale(cross_entropy(model, x, y)).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
        if monitor is not None:
            rows = monitor.state_dict()["rows"]
            assert monitor.read().source == "per-example norms (100 % of the parameters)"
        return [*model.parameters(), torch.get_rng_state()], rows

    for sets_to_none in (True, False):
        plain, _ = train(watched=False, sets_to_none=sets_to_none)
        watched, rows = train(watched=True, sets_to_none=sets_to_none)
        assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
        assert len(rows) == 8
        assert rows[0]["square_norm_of_mean"] > 0.1**2  # before clipping, and not 2²⁰ times as much
        assert rows[0]["square_norm_of_mean"] < 100


def test_estimates_are_unbiased_over_many_steps() -> None:
    """tr(Σ) and |G|² of drawn batches, within three standard errors of the whole set's in float64."""
    model, (x, y) = make_cnn(), images(200)
    each, whole = exact(model, x, y, list(dict(model.named_parameters())))
    source, optimizer = PerExampleSource(), torch.optim.SGD(model.parameters(), lr=0.0)
    rows: list[Row] = []
    for _ in range(150):
        drawn = torch.randint(200, (16,))
        source.attach(model, optimizer)
        optimizer.zero_grad()
        cross_entropy(model, x[drawn], y[drawn]).backward()
        row = source.take(window(16))
        assert row is not None
        rows.append(row)
    readings = Readings.of(rows)
    for values, truth in ((readings.trace, each - whole), (readings.square, whole)):
        assert abs(values.mean() - truth) < 3 * values.std() / math.sqrt(len(rows))
