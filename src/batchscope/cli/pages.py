"""Page of a results folder, made from its files alone. No torch."""

from __future__ import annotations

from pathlib import Path

from ..errors import UsageError

__all__ = ["PAGE", "write_page"]

PAGE = "report.html"


def write_page(folder: Path) -> Path:
    """Write the page of the search, the study or the claims that a folder holds.

    Returns:
        Where it is.

    Raises:
        UsageError: the folder has no answer to make a page of.
        StoreError: a file of it is missing, truncated or of another schema, or the page cannot be written.
    """
    from ..store.files import write_text

    page = folder / PAGE
    write_text(page, _drawn(folder))
    return page


def _drawn(folder: Path) -> str:
    from ..laboratory.claims.files import rebuilt_claims
    from ..laboratory.files import rebuilt_study
    from ..report import build
    from ..store.files import read_record
    from ..store.question import check_schema
    from ..store.records import Plan
    from ..store.runs import read_runs

    check_schema(folder)
    if (folder / "study.json").exists():
        return rebuilt_study(folder)
    if (folder / "claims.json").exists():
        return rebuilt_claims(folder)
    if (folder / "claims-plan.json").exists():
        raise UsageError(f"{folder} holds claims that were not finished; repeat the command that made them")
    if not (folder / "plan.json").exists():
        raise _without_page(folder)
    return build(read_record(folder / "plan.json", Plan), read_runs(folder))


def _without_page(folder: Path) -> UsageError:
    """What is said of a folder that has no answer to make a page of."""
    from ..store.question import command_of

    if not folder.is_dir():
        return UsageError(f"there is no folder {folder}; give the --out of an earlier command")
    command = command_of(folder)
    if command is None:
        return UsageError(f"{folder} is no results folder; give the --out of a search, of a study or of claims")
    if command in ("bench", "noise"):
        return UsageError(f"{folder} is of `batchscope {command}`, which has no page; its answer is in {command}.json")
    kind = {"find": "search"}.get(command, command)
    return UsageError(f"the {kind} in {folder} is not finished; repeat the command that made it")
