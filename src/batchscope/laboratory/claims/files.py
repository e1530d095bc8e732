"""The verdicts as they stand in `claims.json`: what scripts rely on, and beside it what their page needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...report.page import draw
from ...store.codec import decode, encode
from ...store.files import of_another_schema, read_json
from ...store.runs import read_runs
from ..files import study_from, study_json
from .decide import Claim, Claims
from .page.page import claims_contents
from .plan import ClaimsPlan

__all__ = ["claims_from", "claims_json", "read_claims", "rebuilt_claims"]


def claims_json(claims: Claims, plan: ClaimsPlan) -> dict[str, Any]:
    """`claims.answer()`, and the study and the plan under `page`."""
    return {**claims.answer(), "page": {"study": study_json(claims.study), "plan": encode(plan)}}


def read_claims(folder: Path) -> tuple[Claims, ClaimsPlan]:
    """The verdicts in a results folder, and what was to be run.

    Raises:
        StoreError: there are none, or the file is truncated, or of another schema.
    """
    path = folder / "claims.json"
    try:
        return claims_from(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise of_another_schema(path, error) from None


def claims_from(data: Mapping[str, Any]) -> tuple[Claims, ClaimsPlan]:
    """What `claims_json` made of verdicts and a plan.

    Raises:
        KeyError, TypeError, ValueError: it is of another schema.
    """
    study = study_from(data["page"]["study"])
    plan = decode(ClaimsPlan, data["page"]["plan"])
    found = tuple(decode(Claim, claim) for claim in data["claims"])
    return Claims(task=data["task"], claims=found, study=study), plan


def rebuilt_claims(folder: Path) -> str:
    """The page of the verdicts in a results folder, from its files alone.

    Raises:
        StoreError: a file of it is missing, truncated or of another schema.
    """
    found, plan = read_claims(folder)
    runs = tuple(run for run in read_runs(folder) if run.result is not None)
    return draw(claims_contents(found, runs, plan))
