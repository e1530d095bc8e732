"""The gradient noise scale alone: B = tr(Σ) / |G|² of a short run with the default recipe, the rate scaled to it."""

from __future__ import annotations

import math
from typing import Any

from batchscope.errors import TaskError
from batchscope.training.noise import measure_noise
from finders_file import found
from replay import DEFAULT_BATCH_SIZE, Game, default_lr
from tables import Table

__all__ = ["measure", "search"]

_STEPS = 200


def search(game: Game) -> None:
    """The recipe that the noise scale gave, for the steps that it took."""
    one = found("noise scale", game.table, game.seed)
    game.spend(sum(count * game.step_time(int(size)) for size, count in one["steps"].items()))
    game.recommend(one["batch_size"], one["lr"])


def measure(table: Table, seed: int) -> dict[str, Any]:
    """The batch size of the table nearest to the noise scale (McCandlish et al. 2018).

    The rate is scaled linearly with SGD, with the square root with AdamW (Malladi et al. 2022). Where noise hides the
    gradient the noise scale is taken as large as its lower bound; where examples are not independent (batch
    normalisation) there is none, and the default recipe stays.
    """
    adamw = table.task.optimizer == "adamw"
    lr = default_lr(table.task.optimizer)
    try:
        report = measure_noise(
            table.workload, lr=lr, batch_size=DEFAULT_BATCH_SIZE, steps=_STEPS, target=table.task.goal, seed=seed
        )
    except TaskError as error:
        return {"batch_size": DEFAULT_BATCH_SIZE, "lr": lr, "steps": {}, "why": str(error)}
    scale = report.gradient_noise_scale.value or report.gradient_noise_scale.low or max(table.batch_sizes)
    size = min(table.batch_sizes, key=lambda each: abs(math.log(each / scale)))
    factor = (size / DEFAULT_BATCH_SIZE) ** (0.5 if adamw else 1.0)
    return {
        "batch_size": size,
        "lr": float(f"{lr * factor:.3g}"),
        "steps": {str(DEFAULT_BATCH_SIZE): report.steps},
        "noise_scale": scale,
    }
