"""A quadratic whose training is known in closed form, a study of it, and what a study leaves in its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import TensorDataset

from batchscope.laboratory.records import Length, Study, StudyQuestion
from batchscope.laboratory.study import study

Cli = Callable[..., Any]

EXAMPLES = 40
CURVATURE = 0.5


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, dtype=torch.float64))
        self.start = self.w.detach().clone()


@dataclass
class Quadratic:
    """Loss ½ h ‖w‖²: gradient descent is `w ← (1 - lr h) w`, from a start that depends on the seed."""

    name: str = "quadratic"

    def model(self) -> nn.Module:
        return Point()

    def train_data(self) -> TensorDataset:
        return TensorDataset(torch.zeros(EXAMPLES, 1, dtype=torch.float64))

    def loss(self, model: Any, batch: Any) -> Tensor:
        return (0.5 * CURVATURE * (model.w**2).sum() + batch[0].sum(1)).mean()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return SGD(params, lr=lr)

    def evaluate(self, model: Any) -> Mapping[str, float]:
        loss = 0.5 * CURVATURE * float((model.w**2).sum())
        return {"val_loss": loss, "score": -loss, "test_loss": 2 * loss, "start": float((model.start**2).sum())}


def question(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (4, 10),
        "lrs": (0.1, 0.5),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=3),
    }
    return StudyQuestion(**{**values, **changes})


def made(tmp_path: Path, asked: StudyQuestion, task: Any = None, **how: Any) -> Study:
    return study(task or Quadratic(), asked, out=tmp_path / "out", **how)


COMMAND = "study digits --batch-sizes 64,256 --lrs 0.05,0.2 --seeds 2 --epochs 3 --out out"


def files_of(out: Path) -> dict[Path, tuple[int, bytes]]:
    found = (path for path in out.glob("runs/*/*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def without_clock(answer: Any) -> Any:
    """Rows and summary without what the clock says."""
    clocks = ("step_time_s", "epoch_time_s", "train_time_s")
    return [[{k: v for k, v in row.items() if k not in clocks} for row in answer[part]] for part in ("rows", "summary")]
