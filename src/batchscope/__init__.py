"""batchscope: which batch size, learning rate, steps and epochs train your PyTorch model to your target soonest.

The public names are imported when they are first used, so that `import batchscope` costs nothing and the reasoning half
(`batchscope.search.plan`, `.report`, `.fits`, `.store`) works where torch is not installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import (
        BatchscopeError,
        OutOfMemory,
        ProfileError,
        StoreError,
        TableError,
        TargetError,
        TaskError,
        UsageError,
    )
    from .live.monitor import NoiseMonitor
    from .search.find import find
    from .search.question import CurrentRecipe, Question
    from .search.table.fit import fit
    from .store.records import Estimate, HardwareProfile, Metric, Plan, PlanStatus, Recipe, RunStatus, Target
    from .store.runs import Store
    from .tasks.loading import LoadedTask, load_task
    from .tasks.protocol import Task, task
    from .training.count import Count, count

__version__ = "0.1.0"

__all__ = [
    "BatchscopeError",
    "Count",
    "CurrentRecipe",
    "Estimate",
    "HardwareProfile",
    "LoadedTask",
    "Metric",
    "NoiseMonitor",
    "OutOfMemory",
    "Plan",
    "PlanStatus",
    "ProfileError",
    "Question",
    "Recipe",
    "RunStatus",
    "Store",
    "StoreError",
    "TableError",
    "Target",
    "TargetError",
    "Task",
    "TaskError",
    "UsageError",
    "count",
    "find",
    "fit",
    "load_task",
    "task",
]

_NAMES_OF_MODULE = {
    "live.monitor": ("NoiseMonitor",),
    "training.count": ("Count", "count"),
    "errors": (
        "BatchscopeError",
        "OutOfMemory",
        "ProfileError",
        "StoreError",
        "TableError",
        "TargetError",
        "TaskError",
        "UsageError",
    ),
    "tasks.loading": ("LoadedTask", "load_task"),
    "search.question": ("CurrentRecipe", "Question"),
    "store.records": ("Estimate", "HardwareProfile", "Metric", "Plan", "PlanStatus", "Recipe", "RunStatus", "Target"),
    "store": ("Store",),
    "search.find": ("find",),
    "search.table.fit": ("fit",),
    "tasks.protocol": ("Task", "task"),
}
_MODULE_OF_NAME = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF_NAME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
