"""Dual norms of groups: against closed forms, and between their bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from batchscope.errors import UsageError
from batchscope.fits.dual_noise import estimate_dual
from batchscope.live.geometry import DualNorms, Geometry, geometry_of
from batchscope.testing.small_trainings import Lion


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in shapes]


class Signum(torch.optim.SGD):
    """A user's own, by its name."""


class SingleDeviceMuonWithAuxAdam(Optimizer):
    """One optimizer for both kinds of parameters, as Muon's reference code has it."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.1})


class Wrapped(Optimizer):
    """A wrapper, as Accelerate makes."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer


@pytest.mark.parametrize(
    ("make", "geometry"),
    [
        (torch.optim.SGD, "euclidean"),
        (torch.optim.Adam, "sign"),
        (torch.optim.AdamW, "sign"),
        (torch.optim.NAdam, "sign"),
        (torch.optim.RMSprop, "sign"),
        (Lion, "sign"),
        (Signum, "sign"),
        (torch.optim.Muon, "spectral"),
    ],
)
def test_default_is_the_optimizers_own(make: Callable[..., Optimizer], geometry: str) -> None:
    optimizer = make(parameters((2, 3)), lr=0.1)
    assert geometry_of(optimizer) == geometry
    assert geometry_of(Wrapped(optimizer)) == geometry


def test_other_geometries_are_refused() -> None:
    with pytest.raises(UsageError, match="'euclidean', 'sign', 'spectral'"):
        DualNorms("cosine", parameters((2,)))  # pyright: ignore[reportArgumentType]


def test_sign_by_hand() -> None:
    groups = [[torch.tensor([3.0, -1.0])], [torch.tensor([1.0, 1.0])]]
    row = DualNorms("sign", parameters((2,))).row(groups, [2, 2])
    assert row == {
        "geometry": "sign",
        "noise_norm": pytest.approx(4.0),  # |2| + |-2|, over the root of 1/2 + 1/2
        "norm_of_mean": pytest.approx(2.0),
        "aligned": pytest.approx(0.5 * (3 - 1) + 0.5 * (1 - 1)),
    }


def test_spectral_by_hand_with_a_vector_beside() -> None:
    a, b = torch.diag(torch.tensor([3.0, 1.0])), torch.diag(torch.tensor([1.0, -1.0]))
    row = DualNorms("spectral", parameters((2, 2), (1,))).row([[a, torch.ones(1)], [b, torch.ones(1)]], [2, 2])
    assert row["norm_of_mean"] == pytest.approx(2.0 + 1.0)
    assert row["noise_norm"] == pytest.approx(2.0 + 2.0)
    assert row["aligned"] == pytest.approx(0.5 * (3 - 1 + 1) + 0.5 * (1 - 1 + 1))


def test_spectral_does_not_depend_on_the_basis_and_sign_does() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = [[torch.randn(5, 3, generator=generator, dtype=torch.float64)] for _ in range(3)]
    q, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    turned = [[q @ g[0]] for g in groups]
    spectral, sign = (DualNorms(kind, parameters((5, 3))) for kind in ("spectral", "sign"))
    for key in ("noise_norm", "norm_of_mean", "aligned"):
        assert spectral.row(groups, [1, 1, 1])[key] == pytest.approx(spectral.row(turned, [1, 1, 1])[key], rel=1e-9)
        assert sign.row(groups, [1, 1, 1])[key] != pytest.approx(sign.row(turned, [1, 1, 1])[key], rel=1e-2)


def test_muons_own_matrices_only() -> None:
    matrix, embedding, bias = parameters((2, 2), (2, 2), (2,))
    optimizer = SingleDeviceMuonWithAuxAdam(
        [{"params": [matrix], "use_muon": True}, {"params": [embedding, bias], "use_muon": False}]
    )
    norms = DualNorms("spectral", [matrix, embedding, bias], optimizer)
    ones = torch.ones(2, 2)
    row = norms.row([[ones, ones, torch.ones(2)]] * 2, [1, 1])
    assert row["norm_of_mean"] == pytest.approx(2.0 + 4.0 + 2.0)
    assert row["aligned"] == pytest.approx(8.0)  # the null direction of a matrix of rank 1 counts for nothing
    assert row["noise_norm"] == 0.0


def draw(
    generator: torch.Generator, gradient: list[Tensor], deviation: list[Tensor], sizes: list[int]
) -> list[list[Tensor]]:
    return [
        [
            g + s * torch.randn(g.shape, generator=generator, dtype=g.dtype) / math.sqrt(size)
            for g, s in zip(gradient, deviation, strict=True)
        ]
        for size in sizes
    ]


def nuclear(x: Tensor) -> float:
    return float(torch.linalg.svdvals(x).sum())


@pytest.mark.parametrize("sizes", [[8, 8], [4, 4, 4, 4], [2, 6, 8], [1, 15]], ids=str)
@pytest.mark.parametrize("geometry", ["sign", "spectral"])
def test_noise_is_unbiased_and_the_norm_between_its_bounds(geometry: Geometry, sizes: list[int]) -> None:
    """400 draws of normal noise on a matrix and a vector, whose exact norms are known; the matrix's by 20,000 draws."""
    generator = torch.Generator().manual_seed(1)
    gradient = [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((6, 4), (5,))]
    deviation = [torch.full((6, 4), 2.0, dtype=torch.float64), torch.arange(1.0, 6.0, dtype=torch.float64)]
    norms = DualNorms(geometry, parameters((6, 4), (5,)))
    rows = [norms.row(draw(generator, gradient, deviation, sizes), sizes) for _ in range(400)]
    of_vector = math.sqrt(2 / math.pi) * 15.0
    if geometry == "sign":
        noise, signal = math.sqrt(2 / math.pi) * 48.0 + of_vector, sum(float(g.abs().sum()) for g in gradient)
    else:
        many = 2.0 * torch.randn(20_000, 6, 4, generator=generator, dtype=torch.float64)
        noise = float(torch.linalg.svdvals(many).sum(1).mean()) + of_vector
        signal = nuclear(gradient[0]) + float(gradient[1].abs().sum())

    def mean(key: str) -> tuple[float, float]:
        values = torch.tensor([row[key] for row in rows], dtype=torch.float64)
        return float(values.mean()), float(values.std()) / math.sqrt(len(rows))

    found, error = mean("noise_norm")
    assert abs(found - noise) < 3 * error + 2e-3 * noise
    lower, error = mean("aligned")
    assert lower < signal + 3 * error
    upper, error = mean("norm_of_mean")
    assert upper > signal - 3 * error
    assert lower < upper


@pytest.mark.parametrize("kind", ["full rank", "rank 2"])
def test_spectral_noise_scale_of_known_gradients(kind: str) -> None:
    generator = torch.Generator().manual_seed(2)
    gradient = torch.randn(12, 8, generator=generator, dtype=torch.float64)
    if kind == "rank 2":
        u, s, vh = torch.linalg.svd(gradient, full_matrices=False)
        gradient = u[:, :2] * s[:2] @ vh[:2]
    noise = torch.linalg.svdvals(5.0 * torch.randn(20_000, 12, 8, generator=generator, dtype=torch.float64))
    truth = (float(noise.sum(1).mean()) / nuclear(gradient)) ** 2
    size = round(40 * truth / 2)
    norms = DualNorms("spectral", parameters((12, 8)))
    spread = [torch.full((12, 8), 5.0, dtype=torch.float64)]
    rows = [
        {"kind": "noise", **norms.row(draw(generator, [gradient], spread, [size, size]), [size, size])}
        for _ in range(30)
    ]
    scale = estimate_dual(rows, geometry="spectral").gradient_noise_scale
    assert scale.value == pytest.approx(truth, rel=0.12)
    assert scale.low is not None
    assert scale.high is not None
    assert scale.low < truth < scale.high


def test_a_rank_tells_its_own_from_the_local_and_the_reduced_gradient() -> None:
    generator = torch.Generator().manual_seed(3)
    norms = DualNorms("sign", parameters((7,)))
    groups = [[torch.randn(7, generator=generator, dtype=torch.float64)] for _ in range(3)]
    sizes = [2, 4, 6]
    mean = [sum((g[0] * s for g, s in zip(groups, sizes, strict=True)), torch.zeros(7)) / 12]
    against = torch.stack([norms.against(g, mean, s, 12) for g, s in zip(groups, sizes, strict=True)])
    assert norms.row_of(against, mean, sizes) == pytest.approx(norms.row(groups, sizes))


def test_missing_sparse_and_complex_gradients() -> None:
    shapes = parameters((3,), (2, 2), (4,))
    shapes.append(nn.Parameter(torch.zeros(2, 2, dtype=torch.complex128)))
    sparse = torch.eye(2).to_sparse()
    complex_ = torch.full((2, 2), 3 + 4j)
    norms = DualNorms("spectral", shapes)
    row = norms.row([[None, sparse, torch.ones(4), complex_], [None, torch.eye(2), None, complex_]], [1, 1])
    assert row["norm_of_mean"] == pytest.approx(2.0 + 2.0 + 4 * 7)
    assert row["noise_norm"] == pytest.approx(4.0 / math.sqrt(2))  # the vector that one group lacks
    assert row["aligned"] == pytest.approx(2.0 + 28.0 + 0.0)
    nothing = norms.row([[None] * 4, [None] * 4], [1, 1])
    assert (nothing["noise_norm"], nothing["norm_of_mean"], nothing["aligned"]) == (0.0, 0.0, 0.0)
