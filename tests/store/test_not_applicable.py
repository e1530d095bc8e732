"""Why there is no measurement: one form in files, whatever stands beside it."""

from __future__ import annotations

import pytest

from batchscope.store.codec import decode, encode
from batchscope.store.not_applicable import NotApplicable, not_applicable

WHY = NotApplicable(reason="the model has no bias")


@pytest.mark.parametrize("found", [encode(WHY), {"seed": 0, **encode(WHY)}])
def test_the_reason_is_read_back(found: object) -> None:
    assert not_applicable(found) == WHY.reason


@pytest.mark.parametrize("found", [None, [], 3.0, {"reason": "another word"}, {"value": 1.0}])
def test_a_measurement_has_none(found: object) -> None:
    assert not_applicable(found) is None


def test_it_is_one_record_in_both_directions() -> None:
    assert decode(NotApplicable, encode(WHY)) == WHY
    assert encode({"box": WHY, "curvature": [1.0]}) == {"box": {"not_applicable": WHY.reason}, "curvature": [1.0]}
    with pytest.raises(ValueError, match="lacks 'not_applicable'"):
        decode(NotApplicable, {})
