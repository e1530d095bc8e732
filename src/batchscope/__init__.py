"""batchscope: which batch size, learning rate, steps and epochs train your PyTorch model to your target soonest.

The public names are imported when they are first used, so that `import batchscope` costs nothing and the reasoning half
(`batchscope.plan`, `.report`, `.fits`, `.store`) works where torch is not installed.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .count import Count, count
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
    from .loading import LoadedTask, load_task
    from .question import CurrentRecipe, Question
    from .records import Estimate, HardwareProfile, Plan, PlanStatus, Recipe, RunStatus, Target
    from .store import Store
    from .sweep import find
    from .table.plan import fit
    from .task import Task, task

__version__ = "0.1.0"

__all__ = [
    "BatchscopeError",
    "Count",
    "CurrentRecipe",
    "Estimate",
    "HardwareProfile",
    "LoadedTask",
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
    "count": ("Count", "count"),
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
    "loading": ("LoadedTask", "load_task"),
    "question": ("CurrentRecipe", "Question"),
    "records": ("Estimate", "HardwareProfile", "Plan", "PlanStatus", "Recipe", "RunStatus", "Target"),
    "store": ("Store",),
    "sweep": ("find",),
    "table.plan": ("fit",),
    "task": ("Task", "task"),
}
_MODULE_OF_NAME = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names}


class _Package(types.ModuleType):
    """Keeps `batchscope.task` the function, although importing the submodule `batchscope.task` sets that attribute."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _MODULE_OF_NAME and isinstance(value, types.ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _MODULE_OF_NAME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{_MODULE_OF_NAME[name]}", __name__), name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
