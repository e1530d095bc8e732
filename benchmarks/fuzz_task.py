"""Generated tasks: data, model, loss, optimizer and metrics drawn at random, some as people write them, some not.

`task(number)` is the factory that the command names; the same number gives the same task. About a third of the tasks
have a flaw: one example with NaN, labels that are all the same, a loss that is a sum or never changes, an `evaluate`
that raises or returns NaN, an optimizer with a scheduler beside it, and the like.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, IterableDataset, TensorDataset

__all__ = ["Generated", "task", "task_case"]

_INPUTS = [torch.float32, torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool, torch.float16]
_FLAWS = [
    "",
    "",
    "",
    "",
    "nan example",
    "one class",
    "offset",
    "inf label",
    "none",
    "few",
    "sum",
    "constant loss",
    "negative loss",
    "evaluate raises",
    "evaluate nan",
    "evaluate wrong",
    "scheduler",
    "nan batch",
    "no gradient",
    "frozen",
    "prints",
    "loss dict",
    "ragged",
    "empty",
    "huge scale",
    "tiny scale",
    "dead unit",
]


class Rows(Dataset[Any]):
    """Examples in a list, each as the task has them."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


class Stream(IterableDataset[Any]):
    """The same examples one after the other, for ever; where there are few, once."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return itertools.cycle(self.rows) if len(self.rows) > 40 else iter(self.rows)


class Generated:
    """One generated task.

    Attributes:
        flaw: what is wrong with it; empty: nothing.
    """

    def __init__(self, number: int) -> None:
        draw = random.Random(f"generated {number}")
        self.flaw = draw.choice(_FLAWS)
        self.problem = draw.choice(["regression", "classes", "classes", "binary"])
        self.layout = draw.choice(["tensors", "tuples", "dicts", "stream"])
        self.kind = draw.choice(["sgd", "momentum", "adam", "adamw", "rmsprop", "lbfgs"])
        self.norm = draw.choice(["", "", "batch", "layer"])
        self.metric = draw.choice(["val_loss", "val_loss", "val_accuracy", "depth", "none"])
        examples = 3 if self.flaw == "few" else 0 if self.flaw == "empty" else draw.choice([40, 300, 1500])
        generator = torch.Generator().manual_seed(number)
        self.inputs, self.outputs = draw.choice([1, 5, 20]), 1 if self.problem != "classes" else draw.choice([2, 4])
        x = torch.randn(examples, self.inputs, generator=generator)
        truth = torch.randn(self.inputs, self.outputs, generator=generator)
        score = x @ truth + 0.3 * torch.randn(examples, self.outputs, generator=generator)
        self.y = self._labels(score)
        kind = draw.choice(_INPUTS)
        whole = kind in (torch.uint8, torch.int64)
        self.x = (8 * x + 100).clamp(0, 255).to(kind) if whole else (x > 0) if kind is torch.bool else x.to(kind)
        self._spoil()

    def _labels(self, score: Tensor) -> Tensor:
        if self.problem == "classes":
            return score.argmax(1) if len(score) else torch.zeros(0, dtype=torch.int64)
        return (score > 0).float() if self.problem == "binary" else score

    def _spoil(self) -> None:
        if self.flaw == "nan example" and self.x.is_floating_point():
            self.x[len(self.x) // 2] = torch.nan
        if self.flaw == "one class":
            self.y = torch.zeros_like(self.y)
        if self.flaw == "offset":
            self.y = self.y + 1e9 if self.problem == "regression" else self.y
        if self.flaw == "inf label" and self.y.is_floating_point():
            self.y[0] = torch.inf

    def model(self) -> nn.Module:
        """A small network."""
        norms = {"batch": [nn.BatchNorm1d(16)], "layer": [nn.LayerNorm(16)]}.get(self.norm, [])
        head = nn.Linear(16, self.outputs)
        model = nn.Sequential(nn.Linear(self.inputs, 16), *norms, nn.ReLU(), head)
        if self.flaw == "frozen":
            model.requires_grad_(False)
        if self.flaw == "dead unit":
            nn.init.zeros_(head.weight)
        return model

    def train_data(self) -> Any:
        """The examples in the task's layout."""
        if self.layout == "tensors" and self.flaw not in ("none", "ragged"):
            return TensorDataset(self.x, self.y)
        rows: list[Any] = list(zip(self.x, self.y, strict=True))
        if self.flaw == "none" and rows:
            rows[0] = (rows[0][0], None)
        if self.flaw == "ragged" and rows:
            rows[0] = (torch.zeros(self.inputs + 1), rows[0][1])
        if self.layout == "dicts":
            rows = [{"x": x, "y": y} for x, y in rows]
        return Stream(rows) if self.layout == "stream" else Rows(rows)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        """The mean of the problem's usual loss, unless it is spoilt."""
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
        loss = self._mean(model(x.float()), y)
        if self.flaw == "prints":
            print("loss", float(loss))
        spoilt: dict[str, Callable[[], Any]] = {
            "sum": lambda: loss * len(y),
            "constant loss": lambda: 0.0 * loss + 1.0,
            "negative loss": lambda: loss - 5.0,
            "nan batch": lambda: loss / (x.float().mean() > -0.5).float() if len(y) < 8 else loss,
            "no gradient": loss.detach,
            "loss dict": lambda: {"loss": loss, "other": 1.0},
            "huge scale": lambda: 1e12 * loss,
            "tiny scale": lambda: 1e-12 * loss,
        }
        return spoilt.get(self.flaw, lambda: loss)()

    def _mean(self, scores: Tensor, y: Tensor) -> Tensor:
        if self.problem == "classes":
            return F.cross_entropy(scores, y)
        if self.problem == "binary":
            return F.binary_cross_entropy_with_logits(scores, y)
        return F.mse_loss(scores, y)

    def optimizer(self, params: Any, lr: float) -> Any:
        """One of torch's."""
        made = {
            "sgd": lambda: torch.optim.SGD(params, lr=lr),
            "momentum": lambda: torch.optim.SGD(params, lr=lr, momentum=0.9, nesterov=True),
            "adam": lambda: torch.optim.Adam(params, lr=lr),
            "adamw": lambda: torch.optim.AdamW(params, lr=lr),
            "rmsprop": lambda: torch.optim.RMSprop(params, lr=lr),
            "lbfgs": lambda: torch.optim.LBFGS(params, lr=lr),
        }[self.kind]()
        return ([made], [torch.optim.lr_scheduler.StepLR(made, 10)]) if self.flaw == "scheduler" else made

    def __getattr__(self, name: str) -> Any:
        """`evaluate`, where the task has one."""
        if name == "evaluate" and self.__dict__.get("metric", "none") != "none":
            return self._evaluate
        raise AttributeError(name)

    def _evaluate(self, model: nn.Module) -> Any:
        if self.flaw == "evaluate raises":
            raise KeyError("labels")
        if self.flaw == "evaluate wrong":
            return 0.5
        x, y = self.x[:200].float(), self.y[:200]
        scores = model(x)
        loss = self._mean(scores, y)
        right = (scores.argmax(1) == y) if self.problem == "classes" else ((scores > 0).float() == (y > 0.5).float())
        value = {"val_accuracy": right.float().mean(), "depth": -loss}.get(self.metric, loss)
        return {self.metric: float("nan") if self.flaw == "evaluate nan" else value.item()}


def task(number: int = 0) -> Generated:
    """The generated task of a number."""
    return Generated(number)


def task_case(random: random.Random, folder: Path) -> list[str]:
    """The command of a search of a generated task, with little time."""
    words = ["find", f"{__file__}:task", "--set", f"number={random.randrange(10**6)}", "--out", "out", "--budget", "4s"]
    if random.random() < 0.7:
        words.append("--json")
    if random.random() < 0.3:
        words += ["--target", random.choice(["val_loss<=0.5", "val_accuracy>=0.8"])]
    if random.random() < 0.1:
        words += ["--within", random.choice(["1s", "30steps"])]
    return words
