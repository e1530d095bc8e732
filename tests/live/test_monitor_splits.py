"""The monitor with `loss=` and `geometry=`: which source it takes, and in which norm it reads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from batchscope.errors import UsageError
from batchscope.live.monitor import NoiseMonitor
from batchscope.live.reading import Reading
from batchscope.tasks.model_state import fingerprint


def loss_of(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def train(
    *,
    steps: int = 12,
    batch_size: int = 32,
    parts: int = 1,
    optimizer: Any = torch.optim.SGD,
    monitored: bool = True,
    noise: float = 0.5,
    lr: float = 0.01,
    told: bool = True,
    **options: Any,
) -> tuple[Reading | None, dict[str, float]]:
    torch.manual_seed(0)
    model = nn.Linear(6, 4).double()
    made = optimizer([model.weight], lr=lr)
    monitor = NoiseMonitor(model, made, batch_size=batch_size, clock=lambda: 0.0, **options) if monitored else None
    for _ in range(steps):
        made.zero_grad()
        for _ in range(parts):
            x = torch.randn(batch_size // parts, 6, dtype=torch.float64)
            batch = x, x[:, :4] * 2 + noise * torch.randn(batch_size // parts, 4, dtype=torch.float64)
            if monitor is not None and told:
                monitor.micro_batch(batch=batch)
            (loss_of(model, batch) / parts).backward()
        made.step()
    reading = None if monitor is None else monitor.read()
    if monitor is not None:
        monitor.close()
    return reading, fingerprint(model)


def test_a_step_of_one_pass_is_split() -> None:
    reading, state = train(loss=loss_of)
    assert reading is not None
    assert reading.source == "batches split in 2"
    assert reading.passed_over["micro-batches"] == "one backward pass in the step"
    assert reading.gradient_noise_scale.n == 9  # three windows were tried without
    assert reading.gradient_noise_scale.value is not None
    assert state == train(monitored=False)[1]


def test_without_loss_or_batch_the_reason_says_what_to_give() -> None:
    reading, _ = train()
    assert reading is not None
    assert reading.passed_over["split"].startswith("no loss= was given")
    reading, _ = train(loss=loss_of, source="split", told=False)
    assert reading is not None
    assert "call micro_batch(batch=batch) before the backward pass" in reading.reason


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize(
    ("optimizer", "geometry"),
    [(torch.optim.SGD, "euclidean"), (torch.optim.AdamW, "sign"), (torch.optim.Muon, "spectral")],
)
def test_the_geometry_is_the_optimizers_own(optimizer: Any, geometry: str, parts: int) -> None:
    """Also where both sources have it: a split batch, and accumulated micro-batches."""
    reading, state = train(loss=loss_of, optimizer=optimizer, parts=parts, batch_size=256)
    assert reading is not None
    assert reading.geometry == geometry
    assert reading.reason == ""
    assert reading.notes == ()
    scale, signal, noise = reading.gradient_noise_scale, reading.signal, reading.noise
    assert scale.value is not None
    assert signal.value is not None
    assert noise.value is not None
    assert noise.value / signal.value == pytest.approx(scale.value)
    assert state == train(optimizer=optimizer, parts=parts, batch_size=256, monitored=False)[1]


def sign_noise_scale() -> float:
    """Of `train` at its first weights, from the moments of 200,000 gradients of single examples."""
    torch.manual_seed(0)
    weight = nn.Linear(6, 4).double().weight.detach()
    x = torch.randn(200_000, 6, dtype=torch.float64)
    apart = x @ weight.T - 2 * x[:, :4] - 0.5 * torch.randn(200_000, 4, dtype=torch.float64)
    gradients = 0.5 * apart[:, :, None] * x[:, None, :]
    return 2 / math.pi * float(gradients.std(0).sum() / gradients.mean(0).abs().sum()) ** 2


def test_both_sources_find_the_true_noise_scale_in_the_sign_geometry() -> None:
    truth = sign_noise_scale()
    for parts in (1, 2, 5):
        reading, _ = train(optimizer=torch.optim.Adam, lr=1e-9, parts=parts, batch_size=512, steps=60, loss=loss_of)
        assert reading is not None
        assert reading.source == ("batches split in 2" if parts == 1 else "accumulated micro-batches")
        scale = reading.gradient_noise_scale
        assert scale.value is not None
        assert scale.low is not None
        assert scale.high is not None
        assert scale.low < truth < scale.high
        assert scale.value == pytest.approx(truth, rel=0.2)


def test_where_noise_hides_the_gradient_the_default_is_euclidean_and_says_so() -> None:
    hidden: dict[str, Any] = {"optimizer": torch.optim.Adam, "loss": loss_of, "noise": 60.0, "batch_size": 8}
    reading, _ = train(**hidden)
    assert reading is not None
    assert reading.geometry == "euclidean"
    assert any("not in the optimizer's own geometry (sign): noise hides the gradient" in note for note in reading.notes)

    asked, _ = train(**hidden, geometry="sign")
    assert asked is not None
    assert asked.geometry == "sign"
    assert asked.gradient_noise_scale.value is None
    assert "noise hides the gradient" in asked.reason
    assert asked.gradient_noise_scale.low is not None

    hidden["batch_size"] = 20_000
    followed, _ = train(**hidden, geometry="sign")  # the advice: more examples a step
    assert followed is not None
    assert followed.gradient_noise_scale.value is not None


def test_a_geometry_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="geometry is 'round'; write one of 'euclidean', 'sign', 'spectral'"):
        train(geometry="round")


def test_a_scaled_loss_is_measured_unscaled_in_every_geometry() -> None:
    def read(scale: float) -> Reading:
        torch.manual_seed(0)
        model = nn.Linear(6, 4)
        made = torch.optim.Adam(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        with NoiseMonitor(model, made, batch_size=512, clock=lambda: 0.0, scaler=scaler) as monitor:
            for _ in range(6):
                for _ in range(2):
                    x = torch.randn(256, 6)
                    scaler.scale(loss_of(model, (x, x[:, :4])) / 2).backward()
                scaler.step(made)
                scaler.update()
                made.zero_grad()
            return monitor.read()

    one, other = read(1.0), read(1024.0)
    assert one.geometry == other.geometry == "sign"
    for a, b in ((one.signal, other.signal), (one.noise, other.noise)):
        assert a.value is not None
        assert a.value == pytest.approx(b.value, rel=1e-4)
        assert math.isfinite(a.value)
