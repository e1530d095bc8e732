"""A study as it stands in `study.json`: what scripts rely on, and beside it what its page needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..report.page import draw
from ..store.codec import decode, encode
from ..store.files import of_another_schema, read_json
from ..store.records import Estimate
from ..store.runs import read_runs
from .page.page import study_contents
from .records import ROW_MEMBERS, SUMMARY_MEMBERS, Study, StudyRow, SummaryRow
from .studies import named_study, names

__all__ = ["read_study", "rebuilt_study", "study_from", "study_json"]

_ANSWER = ("study", "task", "rows", "summary", "findings")


def study_json(study: Study) -> dict[str, Any]:
    """`study.answer()`, and every other member under `page`."""
    return {**study.answer(), "page": {k: v for k, v in encode(study).items() if k not in _ANSWER}}


def read_study(folder: Path) -> Study:
    """The study in a results folder.

    Raises:
        StoreError: there is none, or it is truncated, or of another schema.
    """
    path = folder / "study.json"
    try:
        return study_from(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise of_another_schema(path, error) from None


def study_from(data: Mapping[str, Any]) -> Study:
    """What `study_json` made of a study.

    Raises:
        KeyError, TypeError, ValueError: it is of another schema.
    """
    page: Mapping[str, Any] = data["page"]
    plain = {**page, "study": data["study"], "task": data["task"], "findings": data["findings"]}
    frame = decode(Study, {**plain, "rows": [], "summary": []})
    rows = tuple(_row(row) for row in data["rows"])
    return replace(frame, rows=rows, summary=tuple(_summary(row) for row in data["summary"]))


def rebuilt_study(folder: Path) -> str:
    """The page of the study in a results folder, from its files alone.

    Raises:
        StoreError: a file of it is missing, truncated or of another schema.
    """
    study = read_study(folder)
    runs = tuple(run for run in read_runs(folder) if run.result is not None)
    own = named_study(study.study).sections(study, runs) if study.study in names() else ()
    return draw(study_contents(study, runs, own))


def _row(data: Mapping[str, Any]) -> StudyRow:
    own = {name: data[name] for name in ROW_MEMBERS}
    return StudyRow(**own, values={name: value for name, value in data.items() if name not in ROW_MEMBERS})


def _summary(data: Mapping[str, Any]) -> SummaryRow:
    own = {name: data[name] for name in SUMMARY_MEMBERS}
    estimates = {name: decode(Estimate, value) for name, value in data.items() if name not in SUMMARY_MEMBERS}
    return SummaryRow(**own, estimates=estimates)
