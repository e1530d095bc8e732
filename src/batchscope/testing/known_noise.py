"""Trainings whose gradient noise is known exactly at every step: linear regression and a noisy quadratic.

A reading of a run is held against `Σ_t tr(Σ_t) ÷ Σ_t |G_t|²` over the steps that it was made of, with the exact mean
and covariance of one example's gradient at the weights of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ..fits.noise_scale import recent
from ..live.monitor import NoiseMonitor
from ..store.records import Estimate, Row
from ..tasks.protocol import task
from ..tasks.workload import Workload
from ..training.noise import measure_noise

__all__ = ["KNOWN", "Known", "Read", "read_by_command", "read_by_monitor"]

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Known:
    """A training of the weights `w` from a random start, by SGD.

    `"regression"`: loss `½ (x·w - y)²` with `x ~ N(0, H)`, `y ~ N(0, s²)`, where `G = H w` and `Σ = (wᵀHw + s²) H + G
    Gᵀ` (Isserlis 1918). `"quadratic"`: loss `½ (w - c)ᵀ H (w - c)` with `c ~ N(0, s² I)`, where `G = H w` and `Σ = s²
    H²`. H is diagonal, its eigenvalues are 1, 1/2, 1/3 and so on.
    """

    kind: str
    lr: float
    dimensions: int = 10
    noise: float = 1.0
    start: float = 2.0
    batch_size: int = 32
    steps: int = 40

    @property
    def curvature(self) -> Tensor:
        """Diagonal of H."""
        return 1.0 / torch.arange(1, self.dimensions + 1, dtype=torch.float64)

    def model(self, seed: int) -> nn.Module:
        """Model at its random start, in float64."""
        generator = torch.Generator().manual_seed(seed)
        model = nn.Linear(self.dimensions, 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            model.weight.copy_(self.start * torch.randn(1, self.dimensions, generator=generator, dtype=torch.float64))
        return model

    def batch(self, examples: int, generator: torch.Generator) -> Batch:
        """Independent examples."""
        x = torch.randn(examples, self.dimensions, generator=generator, dtype=torch.float64)
        y = torch.randn(examples, 1, generator=generator, dtype=torch.float64)
        if self.kind == "quadratic":
            return self.noise * x, y
        return x * self.curvature.sqrt(), self.noise * y

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Mean loss of a batch."""
        x, y = batch
        if self.kind == "quadratic":
            identity = torch.eye(self.dimensions, dtype=torch.float64)
            apart = model(identity).squeeze(-1) - x
            return 0.5 * (self.curvature * apart.square()).sum(-1).mean()
        return 0.5 * (model(x) - y).square().mean()

    def exact(self, model: nn.Module) -> tuple[float, float]:
        """`|G|²` and `tr(Σ)` at the weights of now."""
        w, h = next(model.parameters()).detach().squeeze(0), self.curvature
        square = float((h * w).square().sum())
        if self.kind == "quadratic":
            return square, float(self.noise**2 * h.square().sum())
        return square, float(((h * w.square()).sum() + self.noise**2) * h.sum()) + square


KNOWN = {
    "regression, weights fixed": Known(kind="regression", lr=0.0),
    "regression, slow": Known(kind="regression", lr=0.02),
    "regression, fast": Known(kind="regression", lr=0.2),
    "regression, noise hides the gradient": Known(kind="regression", lr=0.05, start=0.4),
    "quadratic": Known(kind="quadratic", lr=0.1, noise=2.0),
    "quadratic, few dimensions": Known(kind="quadratic", lr=0.1, noise=2.0, dimensions=3),
}
"""By name."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a run said, and the truth."""

    gradient_noise_scale: Estimate
    signal: float | None
    """Estimate of the mean `|G|²`."""
    noise: float | None
    """Estimate of the mean `tr(Σ)`."""
    truth: tuple[float, float]
    """Mean `|G|²` and mean `tr(Σ)` of the steps that were read."""

    @property
    def covered(self) -> bool:
        """Whether the true noise scale lies in the interval; an open end covers."""
        square, trace = self.truth
        found = self.gradient_noise_scale
        return (found.low or 0.0) <= trace / square and (found.high is None or trace / square <= found.high)


def read_by_monitor(
    known: Known,
    *,
    seed: int,
    source: str,
    parts: int,
    before_step: Callable[[nn.Module], object] | None = None,
    scale: float | None = None,
    **options: Any,
) -> Read:
    """Train in a plain loop beside a `NoiseMonitor`, every step of which is measured.

    Args:
        known: the training.
        seed: of the start and of the examples.
        source: of the monitor.
        parts: backward passes a step.
        before_step: called before each optimizer step, such as clipping.
        scale: of a gradient scaler; `None`: there is none.
        options: more arguments of the monitor.
    """
    generator, model = torch.Generator().manual_seed(10_000 + seed), known.model(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=known.lr)
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    exact = list[tuple[float, float]]()
    with NoiseMonitor(
        model,
        optimizer,
        batch_size=known.batch_size,
        scaler=scaler,
        loss=known.loss,
        source=source,
        clock=lambda: 0.0,
        **options,
    ) as monitor:
        for _ in range(known.steps):
            exact.append(known.exact(model))
            for _ in range(parts):
                batch = known.batch(known.batch_size // parts, generator)
                monitor.micro_batch(batch=batch)
                loss = known.loss(model, batch) / parts
                (loss if scaler is None else scaler.scale(loss)).backward()
            if scaler is not None:
                scaler.unscale_(optimizer)
            if before_step is not None:
                before_step(model)
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
            optimizer.zero_grad()
        reading, rows = monitor.read(), recent(monitor.state_dict()["rows"])
    return Read(
        gradient_noise_scale=reading.gradient_noise_scale,
        signal=reading.signal.value,
        noise=reading.noise.value,
        truth=_mean(exact, rows),
    )


def read_by_command(known: Known, *, seed: int, examples: int = 512) -> Read:
    """Do the same by `measure_noise`, the function behind the command `noise`, on a regression with a finite data set.

    Its batches are drawn without replacement, and the truth is that of the data set.
    """
    generator = torch.Generator().manual_seed(20_000 + seed)
    x, y = known.batch(examples, generator)
    weights = dict[int, list[NDArray[np.float64]]]()

    def remember(model: nn.Module) -> None:
        weights.setdefault(id(model), []).append(next(model.parameters()).detach().squeeze(0).numpy().copy())

    made = list[nn.Module]()  # kept, so that no model has the identity of another

    def model() -> nn.Module:
        made.append(known.model(seed))
        return made[-1]

    workload = Workload(
        task(
            model=model,
            train=TensorDataset(x, y),
            loss=known.loss,
            optimizer=partial(torch.optim.SGD),
            evaluate=lambda model: {"val_loss": float(known.loss(model, (x, y)))},
            before_update=remember,
        ),
        name=known.kind,
    )
    rows = list[Row]()
    report = measure_noise(
        workload, lr=known.lr, batch_size=known.batch_size, steps=known.steps, seed=seed, on_row=rows.append
    )
    run = next(path for path in weights.values() if len(path) == known.steps)
    exact = [_of_data_set(x.numpy(), y.numpy().squeeze(-1), w) for w in run]
    return Read(
        gradient_noise_scale=report.gradient_noise_scale,
        signal=None,
        noise=None,
        truth=_mean(exact, [row for row in rows if row["kind"] == "noise"]),
    )


def _mean(exact: Sequence[tuple[float, float]], rows: Sequence[Row]) -> tuple[float, float]:
    square, trace = np.mean([exact[row["step"]] for row in rows], axis=0)
    return float(square), float(trace)


def _of_data_set(x: NDArray[np.float64], y: NDArray[np.float64], w: NDArray[np.float64]) -> tuple[float, float]:
    """`|G|²` and `tr(Σ)` over all examples of a regression."""
    gradients = x * (x @ w - y)[:, None]
    mean = gradients.mean(axis=0)
    return float((mean**2).sum()), float(((gradients - mean) ** 2).sum(axis=1).mean())
