"""The per-example source in whole models, against gradients of single examples from autograd."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from batchscope import NoiseMonitor
from batchscope.fits.noise_scale import Readings
from batchscope.live.sources.per_example import PerExampleSource
from batchscope.live.window import Window
from batchscope.store.records import Row

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Block(nn.Module):
    """Causal attention by hand, so that each of its maps is a layer, and a small MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.RMSNorm(width)
        self.attention, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attention(self.first(x)).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.down(F.gelu(self.up(self.second(x))))


class Gpt(nn.Module):
    def __init__(self, *, tied: bool = False, words: int = 11, width: int = 8) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(6, width)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, words, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.blocks(x))


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def make_cnn() -> nn.Module:
    first = (nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(inplace=True))
    return nn.Sequential(
        *first, nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(54, 3)
    )


def vectors(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 5), torch.randint(3, (n,))


def images(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 1, 8, 8), torch.randint(3, (n,))


def texts(n: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(11, (n, 6))
    return ids, ids.roll(-1, 1)


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x).flatten(0, -2), y.flatten())


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[Tensor, Tensor]]]] = {
    "mlp": (make_mlp, vectors),
    "cnn": (make_cnn, images),
    "gpt": (Gpt, texts),
}


def exact(
    model: nn.Module, x: Tensor, y: Tensor, names: Sequence[str], loss: Loss = cross_entropy
) -> tuple[float, float]:
    """Mean of `|g_i|²` over the examples, and `|mean g_i|²`, in float64, over some parameters."""
    model = copy.deepcopy(model).double()
    x = x.double() if x.is_floating_point() else x
    chosen = [p for name, p in model.named_parameters() if name in names]
    rows: list[Tensor] = []
    for i in range(len(x)):
        gradients = torch.autograd.grad(loss(model, x[i : i + 1], y[i : i + 1]), chosen)
        rows.append(torch.cat([g.to_dense().flatten() for g in gradients]))
    each = torch.stack(rows)
    return float(each.square().sum(1).mean()), float(each.mean(0).square().sum())


def prepare(model: nn.Module, **options: Any) -> tuple[PerExampleSource, torch.optim.Optimizer]:
    source, optimizer = PerExampleSource(**options), torch.optim.SGD(model.parameters(), lr=0.0)
    source.attach(model, optimizer)
    return source, optimizer


def covered(model: nn.Module, source: PerExampleSource) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad and name not in source.left_out]


def assert_row(row: Row | None, truth: tuple[float, float], *, rtol: float = 1e-6) -> None:
    assert row is not None
    assert math.isclose(row["mean_square_norm"], truth[0], rel_tol=rtol)
    assert math.isclose(row["square_norm_of_mean"], truth[1], rel_tol=rtol)


def window(batch_size: int, **rest: Any) -> Window:
    return Window(step=0, examples_before=0, batch_size=batch_size, **rest)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


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


# What is left out, and why


def leave_out(
    model: nn.Module, batch: tuple[Tensor, Tensor], loss: Loss = cross_entropy
) -> tuple[PerExampleSource, Row | None]:
    source, _ = prepare(model)
    loss(model, *batch).backward()
    return source, source.take(window(len(batch[0])))


def test_tied_weights_are_left_out() -> None:
    model, batch = Gpt(tied=True).double(), texts(5)
    source, row = leave_out(model, batch)
    assert source.left_out["words.weight"] == "it is shared: words.weight and head.weight are one parameter"
    assert_row(row, exact(model, *batch, covered(model, source)))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(torch.tanh(self.inner(x))))


class ByFunction(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(torch.tanh(self.inner(x)), self.inner.weight))


class OnlyByFunction(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(torch.tanh(x), self.inner.weight, self.inner.bias))


class Checkpointed(Twice):
    def forward(self, x: Tensor) -> Tensor:
        inner: Any = checkpoint(self.inner, x.requires_grad_(), use_reentrant=False)
        return self.head(inner)


class TimeFirst(Twice):
    batch_first = False


class Rows(Twice):
    """Its inner layer sees two rows an example."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x.repeat(2, 1)).unflatten(0, (2, -1)).sum(0))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Twice, "used 2 times in one backward pass"),
        (ByFunction, "is not what the examples add up to"),
        (OnlyByFunction, "came from elsewhere than one forward pass of its module"),
        (Checkpointed, "activation checkpointing"),
        (Rows, "saw 16 rows for 8 examples"),
    ],
)
def test_layer_that_cannot_be_measured_is_left_out(make: type[Twice], why: str) -> None:
    model, (x, y) = make().double(), vectors(8)
    source, row = leave_out(model, (x.double(), y))
    assert why in source.left_out["inner.weight"]
    assert covered(model, source)[-2:] == ["head.weight", "head.bias"]
    truth = exact(model, x, y, covered(model, source))
    assert_row(row, truth)


def test_penalty_in_the_loss_is_noticed() -> None:
    def penalised(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(model, x, y) + 0.1 * sum(p.square().sum() for p in model[0].parameters())  # pyright: ignore

    model, (x, y) = make_mlp(), vectors(32)
    source, row = leave_out(model, (x, y), penalised)
    assert "penalised in the loss" in source.left_out["0.weight"]
    assert_row(row, exact(model, x, y, ["2.weight", "2.bias"]), rtol=1e-4)


def test_frozen_parameters_do_not_count() -> None:
    model, (x, y) = make_cnn().double(), images(6)
    for parameter in model[0].parameters():  # pyright: ignore
        parameter.requires_grad_(False)
    model[3].weight.requires_grad_(False)  # pyright: ignore
    source, row = leave_out(model, (x.double(), y))
    assert_row(row, exact(model, x, y, covered(model, source)))
    assert source.name == "per-example norms (100 % of the parameters)"


def test_layer_whose_bias_gets_no_gradient_to_speak_of() -> None:
    """A bias in front of a norm layer has a gradient of rounding errors alone; it must not be taken for a mistake."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    source, _ = leave_out(model, images(8))
    assert source.left_out == {}


def test_unused_layer_counts_as_zero() -> None:
    class Unused(Twice):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(x)

    model, (x, y) = Unused().double(), vectors(8)
    source, row = leave_out(model, (x.double(), y))
    assert_row(row, exact(model, x, y, ["head.weight", "head.bias"]))
    assert source.left_out == {}


def test_positions_are_left_out_even_where_they_are_as_many_as_the_examples() -> None:
    model, batch = Gpt().double(), texts(6)
    source, row = leave_out(model, batch)
    assert "positions" in source.left_out["places.weight"]
    assert_row(row, exact(model, *batch, covered(model, source)))


def test_modules_with_time_first_are_left_out() -> None:
    source, row = leave_out(TimeFirst(), vectors(4))
    assert row is None
    assert "batch_first=False" in source.reason


def test_attention_of_torch_is_left_out_and_the_rest_is_right() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x)).mean(1)

    model, x, y = Encoder().double(), torch.randn(5, 7, 4), torch.randint(3, (5,))
    source, row = leave_out(model, (x.double(), y))
    assert {name for name in source.left_out if "self_attn" not in name} == set()
    assert len(source.left_out) == 4
    assert_row(row, exact(model, x, y, covered(model, source)))


def test_what_was_left_out_stays_left_out() -> None:
    model, (x, y) = Twice(), vectors(8)
    source, optimizer = prepare(model)
    cross_entropy(model, x, y).backward()
    source.take(window(8))
    source.attach(model, optimizer)
    assert not model.inner._forward_hooks
    assert model.head._forward_hooks


# When there is no row


def test_batch_normalisation_is_refused_in_training_only() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    source, row = leave_out(model, vectors(8))
    assert row is None
    assert source.reason.startswith("1 is batch normalisation")
    model.zero_grad()
    source, row = leave_out(model.eval(), vectors(8))
    assert "there is no rule for BatchNorm1d" in source.left_out["1.weight"]
    assert row is not None


def test_compiled_model_is_refused() -> None:
    model = make_mlp()
    source, optimizer = PerExampleSource(), torch.optim.SGD(model.parameters(), lr=0.0)
    source.attach(torch.compile(model, backend="eager"), optimizer)  # pyright: ignore
    assert source.take(window(8)) is None
    assert "before torch.compile" in source.reason
    model.compile(backend="eager")
    source.attach(nn.Sequential(model), optimizer)
    assert source.take(window(8)) is None
    assert "compiled" in source.left_out["0.0.weight"]


@pytest.mark.parametrize("before", [True, False])
def test_compiled_function_runs_on_undisturbed(before: bool) -> None:
    """Compiled before the hooks were put on or with them: no graph is broken, and no layer is taken for measured."""
    torch._dynamo.reset()
    model, (x, y) = make_mlp(), vectors(8)
    step: Any = torch.compile(lambda: cross_entropy(model, x, y), backend="eager", fullgraph=True)
    plain = copy.deepcopy(model)
    cross_entropy(plain, x, y).backward()
    if before:
        step()
    source, _ = prepare(model)
    step().backward()
    assert source.take(window(8)) is None
    assert "the pass is compiled" in source.reason
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_reentrant_checkpointing_is_refused() -> None:
    class Reentrant(Twice):
        def forward(self, x: Tensor) -> Tensor:
            inner: Any = checkpoint(self.inner, x.requires_grad_(), use_reentrant=True)
            return self.head(inner)

    source, row = leave_out(Reentrant(), vectors(8))
    assert row is None
    assert "use_reentrant=False" in source.reason


@pytest.mark.parametrize(
    ("passes", "facts", "why"),
    [
        (0, {}, "no backward pass"),
        (1, {"batch_size": 16}, "saw 8 rows where the micro-batch has 16 examples"),
        (3, {"batch_size": 8}, "unequal size"),
        (2, {"examples": (8,)}, "called 1 times, and the step had 2"),
        (1, {"weights": (80.0,)}, "had a weight without examples"),
        (1, {"examples": (8,), "weights": (80.0,)}, "one weight does not tell"),
        (2, {"examples": (8, 8), "weights": (80.0, 72.0)}, "weigh 9 to 10 each"),
    ],
)
def test_window_that_says_nothing(passes: int, facts: dict[str, Any], why: str) -> None:
    model, (x, y) = make_mlp(), vectors(8)
    source, _ = prepare(model)
    for _ in range(passes):
        (cross_entropy(model, x, y) / passes).backward()
    assert source.take(window(**{"batch_size": 8 * max(1, passes), **facts})) is None
    assert why in source.reason
    assert source.left_out == {}


def test_same_terms_in_every_micro_batch_are_taken() -> None:
    model, (x, y) = make_mlp().double(), vectors(8)
    source, optimizer = prepare(model)
    for sizes, weights in (((8,), (80.0,)), ((5, 3), (50.0, 30.0))):
        model.zero_grad()
        source.attach(model, optimizer)
        for a, b in zip(x.double().split(sizes), y.split(sizes), strict=True):
            (cross_entropy(model, a, b) * len(a) / 8).backward()
        row = source.take(window(8, examples=sizes, weights=weights))
    assert_row(row, exact(model, x, y, covered(model, source)))


def test_gradients_left_from_before_are_refused() -> None:
    model, (x, y) = make_mlp(), vectors(8)
    cross_entropy(model, x, y).backward()
    source, row = leave_out(model, (x, y))
    assert row is None
    assert "zero them" in source.reason
    model.zero_grad()
    source.attach(model, torch.optim.SGD(model.parameters(), lr=0.0))
    cross_entropy(model, x, y).backward()
    assert source.take(window(8)) is not None


def test_step_skipped_on_overflow_begins_anew() -> None:
    model, (x, y) = make_mlp().double(), vectors(8)
    source, _ = prepare(model)
    (cross_entropy(model, x.double(), y) * math.inf).backward()
    model.zero_grad()
    cross_entropy(model, x.double(), y).backward()
    assert_row(source.take(window(8)), exact(model, x, y, covered(model, source)))


def test_gradients_that_are_not_finite_give_no_row() -> None:
    model, (x, y) = make_mlp(), vectors(8)
    source, row = leave_out(model, (x * math.nan, y))
    assert row is None
    assert source.reason == "a gradient of the step was not finite"
    assert source.left_out == {}


def test_batch_of_one_is_refused() -> None:
    source, row = leave_out(make_mlp(), vectors(1))
    assert row is None
    assert "one example" in source.reason


def test_evaluation_inside_a_window_does_not_count() -> None:
    model, (x, y) = make_mlp().double(), vectors(8)
    source, _ = prepare(model)
    with torch.no_grad():
        model(x.double()[:3])
    model(x.double()[:5])
    cross_entropy(model, x.double(), y).backward()
    assert_row(source.take(window(8)), exact(model, x, y, covered(model, source)))
