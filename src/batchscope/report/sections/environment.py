"""Environment: where the measurements were made, and with what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...store.records import Plan
from ...wording import count
from ..blocks import Facts, Section

if TYPE_CHECKING:
    from ...store.runs import StoredRun


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with versions and device."""
    here = plan.environment
    pairs = [
        ("device", f"{here.device_name} ({here.device})" if here.device_name else here.device),
        ("platform", here.platform),
        ("processors", f"{count(here.cpu_count)}, {count(here.threads)} threads used"),
        ("batchscope", here.batchscope),
        ("Python", here.python),
        ("torch", here.torch or "none"),
        ("NumPy", here.numpy),
        ("training examples", count(plan.examples_in_training_set) if plan.examples_in_training_set else "unknown"),
    ]
    if plan.bench is not None and plan.bench.profile.name not in ("", here.device_name):
        pairs.insert(1, ("answer is for", plan.bench.profile.name))
    return Section("environment", "Environment", (Facts(tuple(pairs)),), folded=True)
