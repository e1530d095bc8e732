"""Supervised task that the built-in ones share: a model on tensors in memory, its optimizer, and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer
from torch.utils.data import TensorDataset

from ...errors import TaskError
from ..protocol import Batch

__all__ = [
    "EVALUATED_AT_MOST",
    "MOMENTUM",
    "OptimizerName",
    "SupervisedTask",
    "bounded",
    "build_optimizer",
    "check_optimizer",
    "classification_metrics",
    "regression_metrics",
]

OptimizerName = Literal["sgd", "adamw"]

EVALUATED_AT_MOST = 2000
"""Examples of the validation part, and of the test part, in an evaluation: a run evaluates about 100 times."""

MOMENTUM = 0.9
"""Of `sgd`, unless a task says otherwise."""

_CHUNK = 1000


@dataclass(frozen=True, kw_only=True)
class SupervisedTask:
    """Supervised task: inputs, targets, a model and an objective.

    Attributes:
        make_model: builds a fresh model.
        objective: mean loss of outputs and targets.
        metrics: named numbers from the outputs and targets of a whole part.
        optimizer_name: `sgd` has no weight decay, `adamw` weight decay 0.01 and the default betas.
        parts: inputs and targets of `train`, `val` and perhaps `test`.
        momentum: of `sgd`; 0 is plain SGD.
        data_notes: what of the data was taken for what, in sentences.
    """

    make_model: Callable[[], nn.Module]
    objective: Callable[[Tensor, Tensor], Tensor]
    metrics: Callable[[Tensor, Tensor], Mapping[str, Tensor]]
    optimizer_name: OptimizerName
    parts: Mapping[str, tuple[Tensor, Tensor]]
    momentum: float = MOMENTUM
    data_notes: tuple[str, ...] = ()
    _placed: dict[torch.device, dict[str, tuple[Tensor, Tensor]]] = field(default_factory=dict, repr=False)

    def model(self) -> nn.Module:
        """A fresh model."""
        return self.make_model()

    def train_data(self) -> TensorDataset:
        """The training part."""
        return TensorDataset(*self.parts["train"])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of a batch of inputs and targets."""
        return self.objective(model(batch[0]), batch[1])

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """Optimizer: SGD, or AdamW."""
        return build_optimizer(self.optimizer_name, params, lr, momentum=self.momentum)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The metrics on the validation part and, where there is one, on the test part."""
        values: dict[str, float] = {}
        for part, batch in self._held_out(next(model.parameters()).device).items():
            values |= {f"{part}_{name}": value for name, value in self.metrics_on(model, batch).items()}
        return values

    @torch.no_grad()
    def metrics_on(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        """Metrics on any inputs and targets: a study asks for those of the training part."""
        outputs = torch.cat([model(chunk) for chunk in batch[0].split(_CHUNK)])
        return {name: float(value) for name, value in self.metrics(outputs, batch[1]).items()}

    def _held_out(self, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
        if device not in self._placed:
            self._placed[device] = {
                part: (inputs.to(device), targets.to(device))
                for part, (inputs, targets) in self.parts.items()
                if part != "train"
            }
        return self._placed[device]


def classification_metrics(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Mean cross-entropy, and the share of examples whose largest output is at the target's class."""
    return {"loss": F.cross_entropy(outputs, targets), "accuracy": (outputs.argmax(-1) == targets).float().mean()}


def regression_metrics(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Mean square error of the standardised target, and the share of the part's own variance that is explained."""
    error = F.mse_loss(outputs, targets)
    if not (targets != targets[:1]).any():  # the variance of equal numbers is not 0, but rounding
        return {"loss": error}
    return {"loss": error, "r2": 1.0 - error / targets.var(0, correction=0).mean()}


def bounded(inputs: Tensor, targets: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Examples, all or `most` of them drawn at random, always the same."""
    if len(inputs) <= most:
        return inputs, targets
    chosen = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:most]
    return inputs[chosen], targets[chosen]


def check_optimizer(name: OptimizerName, momentum: float) -> None:
    """Refuse a momentum that is impossible, or that the optimizer does not have.

    Raises:
        TaskError: the momentum is outside [0, 1), or is given with `adamw`.
    """
    if not 0.0 <= momentum < 1.0:
        raise TaskError(f"momentum={momentum} must be at least 0 (plain SGD) and below 1")
    if name != "sgd" and momentum != MOMENTUM:
        raise TaskError(f"momentum={momentum} is of optimizer=sgd; optimizer={name} has its own: leave momentum out")


def build_optimizer(
    name: OptimizerName, params: Iterable[nn.Parameter], lr: float, *, momentum: float = MOMENTUM
) -> Optimizer:
    """Optimizer: SGD without weight decay, or AdamW with default betas and weight decay 0.01.

    Both are fused: on a CPU, the update of a small model by AdamW then takes a third of the time.

    Args:
        name: `sgd` or `adamw`.
        params: what is trained.
        lr: the learning rate.
        momentum: of `sgd`, in [0, 1).
    """
    if name == "sgd":
        return SGD(params, lr=lr, momentum=momentum, fused=True)
    return AdamW(params, lr=lr, weight_decay=0.01, fused=True)
