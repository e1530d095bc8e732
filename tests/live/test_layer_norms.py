"""Every layer rule against gradients of single examples from autograd, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from batchscope.live.sources import layer_norms
from batchscope.live.sources.layer_norms import Signs, rule_of

few = st.integers(1, 4)
seeds = st.integers(0, 2**31 - 1)


def check(module: nn.Module, x: Tensor) -> None:
    """Compare squared norms and projection with one backward pass an example."""
    module = module.double()
    x = x.double() if x.is_floating_point() else x
    output = module(x)
    cotangent = torch.randn_like(output)
    signs = {name: Signs.of(p) for name, p in module.named_parameters()}
    rule = rule_of(module)
    assert not isinstance(rule, str)
    with torch.no_grad():
        found = rule(module, x, cotangent, signs)
    each: dict[str, list[Tensor]] = {name: [] for name in signs}
    for i in range(len(x)):
        gradients = torch.autograd.grad(module(x[i : i + 1]), list(module.parameters()), cotangent[i : i + 1])
        for name, gradient in zip(each, gradients, strict=True):
            each[name].append(gradient.to_dense())
    assert found.keys() == each.keys()
    for name, gradients in each.items():
        exact = torch.stack([g.square().sum() for g in gradients])
        torch.testing.assert_close(found[name].square_norms, exact, rtol=1e-9, atol=1e-12)
        whole = torch.stack(gradients).sum(0)
        by_hand = signs[name].rows @ (whole.reshape(len(whole), -1) @ signs[name].columns)
        torch.testing.assert_close(found[name].projection, by_hand, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(signs[name].project(whole), by_hand)


@given(seed=seeds, examples=few, positions=st.lists(few, max_size=2), wide=few, high=few, bias=st.booleans())
def test_linear(seed: int, examples: int, positions: list[int], wide: int, high: int, bias: bool) -> None:
    torch.manual_seed(seed)
    check(nn.Linear(wide, high, bias=bias), torch.randn(examples, *positions, wide))


@pytest.mark.parametrize(("positions", "wide", "high"), [(3, 40, 50), (60, 4, 5)])
def test_both_forms_of_a_linear_map_on_sequences(positions: int, wide: int, high: int) -> None:
    gram = positions * (wide + high) < wide * high
    assert gram == (positions == 3)
    check(nn.Linear(wide, high), torch.randn(5, positions, wide))


def test_few_examples_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Conv2d(2, 3, 3).double(), torch.randn(7, 2, 6, 6, dtype=torch.float64)
    g, signs = torch.randn(7, 3, 4, 4, dtype=torch.float64), {"weight": Signs.of(layer.weight)}
    rule: Any = rule_of(layer)
    with torch.no_grad():
        at_once = rule(layer, x, g, signs)["weight"]
        monkeypatch.setattr(layer_norms, "_AT_ONCE", 2 * 16 * 18)
        in_parts = rule(layer, x, g, signs)["weight"]
    torch.testing.assert_close(in_parts.square_norms, at_once.square_norms)
    torch.testing.assert_close(in_parts.projection, at_once.projection)


@given(
    seed=seeds,
    dimensions=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 3]),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    kernel=st.tuples(*[st.integers(1, 3)] * 3),
    stride=st.tuples(*[st.integers(1, 3)] * 3),
    dilation=st.tuples(*[st.integers(1, 2)] * 3),
    padding=st.tuples(*[st.integers(0, 2)] * 3),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
)
@settings(max_examples=60)
def test_convolutions(
    seed: int,
    dimensions: int,
    groups: int,
    channels: tuple[int, int],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[int, ...],
    mode: str,
) -> None:
    torch.manual_seed(seed)
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    options: dict[str, Any] = {"stride": stride[:dimensions], "dilation": dilation[:dimensions]}
    options |= {"padding": padding[:dimensions], "groups": groups, "padding_mode": mode}
    layer = kind(channels[0] * groups, channels[1] * groups, kernel[:dimensions], **options)
    check(layer, torch.randn(3, channels[0] * groups, *(5, 6, 7)[:dimensions]))


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("kernel", [2, 3])
def test_convolution_with_padding_by_name(kernel: int) -> None:
    check(nn.Conv2d(2, 4, kernel, padding="same"), torch.randn(3, 2, 5, 6))
    check(nn.Conv1d(2, 4, kernel, padding="valid", bias=False), torch.randn(3, 2, 5))


def test_depthwise_convolution_with_many_positions() -> None:
    check(nn.Conv2d(6, 6, 3, padding=1, groups=6), torch.randn(2, 6, 12, 12))


@given(
    seed=seeds,
    examples=few,
    positions=st.lists(few, max_size=2),
    rows=st.integers(2, 5),
    wide=few,
    padded=st.booleans(),
)
def test_embedding(seed: int, examples: int, positions: list[int], rows: int, wide: int, padded: bool) -> None:
    torch.manual_seed(seed)
    layer = nn.Embedding(rows, wide, padding_idx=1 if padded else None)
    check(layer, torch.randint(rows, (examples, *positions)))


def test_sparse_embedding() -> None:
    check(nn.Embedding(5, 3, sparse=True), torch.tensor([[1, 1, 2], [0, 4, 4]]))
    layer = nn.Embedding(5, 3, sparse=True)
    layer(torch.tensor([[1, 1], [2, 0]])).square().sum().backward()
    gradient, signs = layer.weight.grad, Signs.of(layer.weight)
    assert gradient is not None
    assert gradient.is_sparse
    torch.testing.assert_close(signs.project(gradient), signs.project(gradient.to_dense()))


def test_embedding_whose_examples_change_one_another_has_no_rule() -> None:
    assert "scale_grad_by_freq" in str(rule_of(nn.Embedding(4, 2, scale_grad_by_freq=True)))


@given(
    seed=seeds,
    examples=few,
    positions=st.lists(few, max_size=2),
    shape=st.lists(st.integers(2, 4), min_size=1, max_size=2),
)
def test_norms_of_the_last_dimensions(seed: int, examples: int, positions: list[int], shape: list[int]) -> None:
    torch.manual_seed(seed)
    x = torch.randn(examples, *positions, *shape)
    for layer in (
        nn.LayerNorm(shape),
        nn.LayerNorm(shape, bias=False, eps=0.1),
        nn.RMSNorm(shape),
        nn.RMSNorm(shape, eps=0.1),
    ):
        nn.init.normal_(layer.weight)
        check(layer, x)


@given(seed=seeds, examples=few, groups=few, each=few, positions=st.lists(st.integers(2, 4), max_size=3))
def test_group_norm(seed: int, examples: int, groups: int, each: int, positions: list[int]) -> None:
    torch.manual_seed(seed)
    if each == 1 and not positions:
        each = 2
    layer = nn.GroupNorm(groups, groups * each)
    nn.init.normal_(layer.weight)
    check(layer, torch.randn(examples, groups * each, *positions))


def test_other_layers_have_no_rule() -> None:
    assert rule_of(nn.Bilinear(2, 2, 2)) == "there is no rule for Bilinear"


def test_signs_leave_the_random_stream_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    Signs.of(torch.zeros(4, 5))
    assert torch.equal(state, torch.get_rng_state())
