"""Plain records in which the measuring half and the reasoning half meet.

Immutable, keyword-only, free of torch and NumPy, and equal to what stands in the files (`store.codec` says how). Every
record is imported from here; the modules below divide them by subject.
"""

from .estimates import TARGET_OF_TABLE, Estimate, Metric, Target
from .hardware import Bench, Environment, HardwareProfile, MemorySplit, RateRange, Reading, Timing
from .plans import (
    Alternative,
    Curve,
    Curves,
    EarlyStop,
    EasierTarget,
    Evidence,
    Measured,
    Plan,
    PlanStatus,
    Predicted,
    Recipe,
    RestsOn,
    RunEvaluations,
    SearchCost,
    Verified,
    WhatIf,
)
from .programs import LibraryArguments, TaskProgram
from .runs import RUN_PURPOSES, Row, RunConfig, RunResult, RunStatus, ScheduleName
from .schema import SCHEMA

__all__ = [
    "RUN_PURPOSES",
    "SCHEMA",
    "TARGET_OF_TABLE",
    "Alternative",
    "Bench",
    "Curve",
    "Curves",
    "EarlyStop",
    "EasierTarget",
    "Environment",
    "Estimate",
    "Evidence",
    "HardwareProfile",
    "LibraryArguments",
    "Measured",
    "MemorySplit",
    "Metric",
    "Plan",
    "PlanStatus",
    "Predicted",
    "RateRange",
    "Reading",
    "Recipe",
    "RestsOn",
    "Row",
    "RunConfig",
    "RunEvaluations",
    "RunResult",
    "RunStatus",
    "ScheduleName",
    "SearchCost",
    "Target",
    "TaskProgram",
    "Timing",
    "Verified",
    "WhatIf",
]
