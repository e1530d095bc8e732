"""A task whose descent has a closed form: a bowl over the weights of one layer or more, the same at every example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import TensorDataset

__all__ = ["CURVATURES", "EXAMPLES", "Bowl", "shrunk"]

EXAMPLES = 40
CURVATURES = {"first": 0.5, "second": 0.2}


class Layer(nn.Module):
    """Six weights of norm 3 and two biases of norm 1, in a random direction."""

    def __init__(self) -> None:
        super().__init__()
        weight, bias = (torch.randn(shape, dtype=torch.float64) for shape in ((3, 2), (2,)))
        self.weight = nn.Parameter(3 * weight / weight.norm())
        self.bias = nn.Parameter(bias / bias.norm())


class Layers(nn.Module):
    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, Layer())


@dataclass
class Bowl:
    """Loss Σ ½ h ‖θ‖² over the layers: each layer's weights shrink by 1 - learning rate × h × scale(B) in a step."""

    name: str = "bowl"
    layers: tuple[str, ...] = ("first", "second")
    power: int = 0
    """The gradient of a batch of B of N examples is B / N to this power times as large."""
    examples: int = EXAMPLES

    def model(self) -> nn.Module:
        return Layers(self.layers)

    def seeded(self, seed: int) -> nn.Module:
        """The model that a run of this seed begins with."""
        torch.manual_seed(seed)
        return self.model()

    def train_data(self) -> TensorDataset:
        return TensorDataset(torch.zeros(self.examples, 1, dtype=torch.float64))

    def loss(self, model: Any, batch: Any) -> Tensor:
        scale = (len(batch[0]) / self.examples) ** self.power if model.training else 1.0
        return scale * self._height(model) + batch[0].mean()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return SGD(params, lr=lr)

    def evaluate(self, model: Any) -> Mapping[str, float]:
        height = float(self._height(model))
        return {"val_loss": height, "test_loss": height}

    def _height(self, model: Any) -> Tensor:
        return torch.stack([0.5 * CURVATURES[name] * square(getattr(model, name)) for name in self.layers]).sum()


def square(layer: Layer) -> Tensor:
    return (layer.weight**2).sum() + (layer.bias**2).sum()


def shrunk(lr: float, steps: int, layer: str) -> float:
    """What is left of a layer's weights after so many steps of gradient descent."""
    return (1 - lr * CURVATURES[layer]) ** steps
