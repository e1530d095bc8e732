"""Whether a published conclusion holds here is a member of the finding, in Python and in `study.json`."""

from __future__ import annotations

import pytest

from batchscope.laboratory.published import conclusion
from batchscope.laboratory.records import Finding
from batchscope.store.codec import decode, encode


@pytest.mark.parametrize(("holds", "verdict"), [(True, "so"), (False, "not so"), (None, "left open")])
def test_a_verdict_is_a_member_and_stands_in_the_sentence(holds: bool | None, verdict: str) -> None:
    found = conclusion("a large batch is faster", holds, "by so much", source="Shen 2018")
    assert found.verdict == encode(found)["verdict"] == verdict
    assert f"here it is {verdict}" in found.statement


def test_a_finding_stored_without_a_verdict_is_read() -> None:
    stored = encode(Finding(statement="an epoch takes 1 s", tag="measured", source="a clock"))
    assert stored.pop("verdict") is None
    assert decode(Finding, stored).verdict is None
