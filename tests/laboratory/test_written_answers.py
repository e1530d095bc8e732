"""A study and its claims, with every value that the code can make, are written and read again."""

from __future__ import annotations

import tempfile
import typing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from batchscope.errors import StoreError
from batchscope.laboratory.claims.files import claims_from, claims_json, read_claims
from batchscope.laboratory.claims.plan import ClaimsPlan
from batchscope.laboratory.claims.records import Claims
from batchscope.laboratory.files import read_study, study_from, study_json
from batchscope.laboratory.records import ROW_MEMBERS, SUMMARY_MEMBERS, Study, StudyRow, SummaryRow
from batchscope.store.codec import encode
from batchscope.store.files import write_json

from ..store.drawn import Kinds, drawn

SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example)
FEW = settings(max_examples=4, suppress_health_check=SLOW, phases=[Phase.generate])


def possible(study: Study) -> Study:
    """A study whose rows have no value under the name of one of their members."""
    rows = [replace(r, values={f"final_{name}": value for name, value in r.values.items()}) for r in study.rows]
    sums = [replace(s, estimates={f"final_{n}": value for n, value in s.estimates.items()}) for s in study.summary]
    return replace(study, rows=tuple(rows), summary=tuple(sums))


def verdicts() -> st.SearchStrategy[Claims]:
    """Claims on a tame study: one with all values is drawn alone, as both are more than one example may draw."""
    kinds = typing.get_type_hints(Claims)
    how = {name: Kinds.TAME if kind is Study else Kinds.POSSIBLE for name, kind in kinds.items()}
    return st.builds(Claims, **{name: drawn(kind, how[name]) for name, kind in kinds.items()})


def plans() -> st.SearchStrategy[ClaimsPlan]:
    """Plans with two values of each kind: with fewer they are refused."""

    def two(kind: Any) -> Any:
        return tuple[typing.get_args(kind)[:1] * 2] if typing.get_origin(kind) is tuple else kind

    return st.builds(ClaimsPlan, **{name: drawn(two(kind)) for name, kind in typing.get_type_hints(ClaimsPlan).items()})


@FEW
@given(data=st.data())
def test_a_study_is_written_and_read(data: st.DataObject) -> None:
    study = possible(data.draw(drawn(Study)))
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "study.json", study_json(study), study_from)
        assert encode(read_study(Path(folder))) == encode(study)


@FEW
@given(data=st.data())
def test_verdicts_are_written_and_read(data: st.DataObject) -> None:
    found, plan = data.draw(verdicts()), data.draw(plans())
    found = replace(found, study=possible(found.study))
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "claims.json", claims_json(found, plan), claims_from)
        again, planned = read_claims(Path(folder))
        assert encode(again.claims) == encode(found.claims)
        assert encode(planned) == encode(plan)
        assert encode(again.study) == encode(found.study)


@settings(FEW, max_examples=1)
@given(data=st.data())
def test_a_study_that_could_not_be_read_is_not_written(data: st.DataObject) -> None:
    broken = {**study_json(possible(data.draw(drawn(Study)))), "findings": [{"statement": 3}]}
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(StoreError, match="was not written"):
            write_json(Path(folder) / "study.json", broken, study_from)
        assert not list(Path(folder).iterdir())


def test_every_member_of_a_row_is_one_of_its_record() -> None:
    assert {*ROW_MEMBERS, "values"} == {f.name for f in fields(StudyRow)}
    assert {*SUMMARY_MEMBERS, "estimates"} == {f.name for f in fields(SummaryRow)}
