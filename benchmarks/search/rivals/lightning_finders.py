"""Lightning's batch-size finder, then its learning-rate finder, with their defaults, run by Lightning itself.

What fits is the table's largest batch size, given to the finder as its limit (`max_val`; 8,192 is Lightning's own).
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections import Counter
from typing import Any

from finders_file import found
from replay import Game, default_lr
from tables import Table

__all__ = ["measure", "search"]


def search(game: Game) -> None:
    """The recipe that the two finders gave, for the steps that they took."""
    one = found("Lightning finders", game.table, game.seed)
    game.spend(sum(count * game.step_time(int(size)) for size, count in one["steps"].items()))
    game.recommend(one["batch_size"], one["lr"])


def measure(table: Table, seed: int) -> dict[str, Any]:
    """Run `Tuner.scale_batch_size` and `Tuner.lr_find` on the task's model and data, and count their steps."""
    import lightning
    import torch
    from lightning.pytorch.tuner import Tuner
    from torch.utils.data import DataLoader

    largest = max(table.batch_sizes)
    workload, task = table.workload, table.workload.task
    start = default_lr(table.task.optimizer)
    steps: Counter[str] = Counter()

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = workload.model(seed)
            self.batch_size, self.lr = 2, start

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            steps[str(workload.count(batch))] += 1
            return task.loss(self.model, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return task.optimizer(self.model.parameters(), self.lr)

        def train_dataloader(self) -> DataLoader[Any]:
            collate = getattr(task, "collate", None)
            return DataLoader(task.train_data(), batch_size=self.batch_size, shuffle=True, collate_fn=collate)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning.seed_everything(seed, verbose=False)
        trainer = lightning.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        module, tuner = Module(), Tuner(trainer)
        with contextlib.redirect_stderr(io.StringIO()):
            tuner.scale_batch_size(module, max_val=largest)
            tuner.lr_find(module)
    return {"batch_size": module.batch_size, "lr": float(f"{module.lr:.3g}"), "steps": dict(steps)}
