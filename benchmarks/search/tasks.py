"""The trainings on which searches are compared: half of them to choose a method by, half of them to report it on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from batchscope.store.records import Target
from batchscope.tasks.loading import LoadedTask, load_task
from batchscope.tasks.workload import Workload

__all__ = ["TASKS", "BenchTask"]

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"


@dataclass(frozen=True, kw_only=True)
class BenchTask:
    """One training, its target, and where its table begins.

    Attributes:
        name: also the name of the table's file.
        spec: a built-in task, or `generated:FACTORY` for one of `generated.py`.
        settings: the factory's arguments; a `path` is relative to the folder of the shared data.
        target: `METRIC<=VALUE` or `METRIC>=VALUE`.
        batch_sizes: the table's, increasing.
        first_lr: a guess of the best rate at the largest batch size; the table's rates are this times powers of two.
        first_steps: a guess of the steps to target at the largest batch size.
        schedule: constant, or decaying to zero over the run.
        half: whether methods are chosen on it (`design`) or reported on it (`held-out`).
        description: one line.
    """

    name: str
    spec: str
    settings: dict[str, Any] = field(default_factory=dict)
    target: str
    batch_sizes: tuple[int, ...]
    first_lr: float
    first_steps: int
    schedule: Literal["constant", "linear"] = "constant"
    half: Literal["design", "held-out"]
    description: str

    @property
    def optimizer(self) -> str:
        """`adamw` for a task whose name ends so, else `sgd`."""
        return "adamw" if self.name.endswith("adamw") else "sgd"

    def load(self) -> LoadedTask:
        """The task, as `find` takes it."""
        settings = dict(self.settings)
        if "path" in settings:
            settings["path"] = str(DATA / settings["path"])
        return load_task(self.spec.replace("generated:", f"{HERE / 'generated.py'}:"), settings)

    def workload(self) -> Workload:
        """The task made ready to run on this machine's processor."""
        loaded = self.load()
        return Workload(loaded.task, name=loaded.name, settings=loaded.settings)

    @property
    def goal(self) -> Target:
        """The target as a record."""
        return Target.parse(self.target)


def _powers(low: int, high: int, factor: int = 2) -> tuple[int, ...]:
    return tuple(low * factor**k for k in range(round(math.log(high / low, factor)) + 1))


_FASHION, _LETTER, _BIKE = (f"{name}/{name}.npz" for name in ("fashion_mnist", "letter", "bike_sharing"))

_ALL = (
    BenchTask(
        name="digits-sgd",
        spec="digits",
        settings={"optimizer": "sgd"},
        target="val_loss<=0.15",
        batch_sizes=_powers(4, 1024),
        first_lr=0.32,
        first_steps=60,
        half="design",
        description="8 x 8 digits, perceptron, SGD with momentum",
    ),
    BenchTask(
        name="digits-adamw",
        spec="digits",
        settings={"optimizer": "adamw"},
        target="val_loss<=0.15",
        batch_sizes=_powers(4, 1024),
        first_lr=0.04,
        first_steps=40,
        half="design",
        description="8 x 8 digits, perceptron, AdamW",
    ),
    BenchTask(
        name="fashion-sgd",
        spec="arrays",
        settings={
            "path": _FASHION,
            "model": "mlp",
            "optimizer": "sgd",
            "hidden": 128,
            "depth": 1,
            "evaluate_at_most": 1000,
        },
        target="val_loss<=0.4",
        batch_sizes=_powers(64, 4096, 4),
        first_lr=0.16,
        first_steps=150,
        half="design",
        description="Fashion-MNIST, perceptron, SGD with momentum",
    ),
    BenchTask(
        name="letter-adamw",
        spec="arrays",
        settings={"path": _LETTER, "model": "mlp", "optimizer": "adamw", "hidden": 256, "depth": 1},
        target="val_loss<=0.3",
        batch_sizes=_powers(32, 4096),
        first_lr=0.04,
        first_steps=40,
        half="design",
        description="letters from 16 features, wide perceptron, AdamW",
    ),
    BenchTask(
        name="bike-sgd",
        spec="arrays",
        settings={"path": _BIKE, "model": "mlp", "optimizer": "sgd", "hidden": 128, "depth": 2},
        target="val_loss<=0.2",
        batch_sizes=_powers(16, 8192),
        first_lr=0.32,
        first_steps=120,
        half="design",
        description="regression of hourly rentals, two hidden layers, SGD with momentum",
    ),
    BenchTask(
        name="teacher-sgd",
        spec="generated:teacher_student",
        target="val_loss<=0.05",
        batch_sizes=_powers(8, 4096),
        first_lr=0.16,
        first_steps=150,
        half="design",
        description="a network learns a smaller random network from noisy generated data, SGD with momentum",
    ),
    BenchTask(
        name="letter-accuracy-sgd",
        spec="arrays",
        settings={"path": _LETTER, "model": "mlp", "optimizer": "sgd", "hidden": 128, "depth": 1},
        target="val_accuracy>=0.9",
        batch_sizes=_powers(8, 8192, 4),
        first_lr=1.28,
        first_steps=200,
        half="design",
        description="letters from 16 features, a target in accuracy, SGD with momentum",
    ),
    BenchTask(
        name="label-noise-adamw",
        spec="generated:fashion",
        settings={"model": "mlp", "optimizer": "adamw", "side": 14, "examples": 8000, "wrong_labels": 0.2},
        target="val_loss<=0.78",
        batch_sizes=(*_powers(8, 2048, 4), 4096),
        first_lr=0.01,
        first_steps=60,
        half="held-out",
        description="Fashion-MNIST at 14 x 14 with a fifth of the training labels drawn at random, perceptron, AdamW",
    ),
    BenchTask(
        name="tiny-set-sgd",
        spec="generated:fashion",
        settings={"model": "mlp", "optimizer": "sgd", "side": 28, "examples": 500},
        target="val_loss<=0.75",
        batch_sizes=_powers(4, 256),
        first_lr=0.04,
        first_steps=80,
        half="held-out",
        description="500 images of Fashion-MNIST, perceptron, SGD with momentum",
    ),
    BenchTask(
        name="interpolating-sgd",
        spec="generated:random_labels",
        target="fit_loss<=0.01",
        batch_sizes=_powers(8, 1024),
        first_lr=0.64,
        first_steps=110,
        half="held-out",
        description="a wide perceptron learns 1,024 random labels by heart, SGD with momentum",
    ),
    BenchTask(
        name="cnn-group-sgd",
        spec="digits",
        settings={"model": "cnn", "norm": "group", "optimizer": "sgd"},
        target="val_loss<=0.12",
        batch_sizes=(4, 16, 32, 64, 256, 1024),
        first_lr=0.08,
        first_steps=60,
        half="held-out",
        description="8 x 8 digits, convolutions with group norm, SGD with momentum",
    ),
    BenchTask(
        name="cnn-batch-sgd",
        spec="generated:fashion",
        settings={"model": "cnn", "norm": "batch", "optimizer": "sgd", "side": 7, "examples": 6000},
        target="val_loss<=0.65",
        batch_sizes=_powers(8, 2048, 4),
        first_lr=0.16,
        first_steps=60,
        half="held-out",
        description="Fashion-MNIST at 7 x 7, convolutions with batch norm, SGD with momentum",
    ),
    BenchTask(
        name="residual-adamw",
        spec="generated:residual_digits",
        target="val_loss<=0.12",
        batch_sizes=(*_powers(8, 512, 4), 1024),
        first_lr=0.02,
        first_steps=50,
        half="held-out",
        description="8 x 8 digits, a residual net of eight channels, AdamW",
    ),
    BenchTask(
        name="text-adamw",
        spec="text",
        settings={
            "path": "tinyshakespeare/tinyshakespeare.npz",
            "optimizer": "adamw",
            "context": 8,
            "width": 24,
            "depth": 1,
            "evaluate_at_most": 128,
        },
        target="val_loss<=2.5",
        batch_sizes=_powers(8, 2048, 4),
        first_lr=0.01,
        first_steps=70,
        half="held-out",
        description="characters of Shakespeare, a transformer of one block, AdamW",
    ),
    BenchTask(
        name="bike-adamw",
        spec="arrays",
        settings={"path": _BIKE, "model": "mlp", "optimizer": "adamw", "hidden": 64, "depth": 2},
        target="val_loss<=0.2",
        batch_sizes=_powers(8, 8192, 4),
        first_lr=0.04,
        first_steps=120,
        half="held-out",
        description="regression of hourly rentals, two hidden layers, AdamW",
    ),
    BenchTask(
        name="digits-decay-sgd",
        spec="digits",
        settings={"optimizer": "sgd"},
        target="val_loss<=0.15",
        batch_sizes=(*_powers(8, 512, 4), 1024),
        first_lr=0.64,
        first_steps=60,
        schedule="linear",
        half="held-out",
        description="8 x 8 digits, perceptron, SGD with momentum and a rate that falls to zero",
    ),
)

TASKS: dict[str, BenchTask] = {task.name: task for task in _ALL}
