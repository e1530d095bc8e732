"""What a study's page begins with: three main findings, then a figure, then the rest."""

from __future__ import annotations

import pytest

from batchscope.laboratory.page.page import study_contents
from batchscope.laboratory.page.sections.findings import MAIN
from batchscope.laboratory.records import Finding
from batchscope.report.blocks import Block, Figure, Row, Section, Tagged, Text

from ..test_summary import stored, study_of

RUNS = tuple(stored(size, 0.1, seed, [1.0, 0.5, 0.4]) for size in (10, 50) for seed in (0, 1))
TABLE = Section("published", "Published", (Text(("beside it",)),))


def finding(number: int) -> Finding:
    return Finding(statement=f"finding {number}", tag="measured", source="here")


def is_figure(block: Block) -> bool:
    return isinstance(block, Figure | Row)


@pytest.mark.parametrize("n", [1, 3, 4, 26])
def test_the_main_findings_come_first_and_each_is_said_once(n: int) -> None:
    study = study_of(RUNS, findings=tuple(map(finding, range(n))))
    found = study_contents(study, RUNS, (TABLE,)).sections
    lists = [block for section in found for block in section.blocks if isinstance(block, Tagged)]
    assert [len(block.items) for block in lists] == [min(n, MAIN), *([n - MAIN] if n > MAIN else [])]
    assert any(block is lists[0] for block in found[0].blocks)
    assert any(map(is_figure, found[1].blocks))
    assert len({section.name for section in found}) == len(found)
    assert TABLE in found


def test_a_figure_of_the_study_itself_goes_before_the_common_ones() -> None:
    own = Section("own", "Own", (Figure("own", "own", (), {}, "so it is"),))
    found = study_contents(study_of(RUNS, findings=(finding(0),)), RUNS, (TABLE, own)).sections
    assert found[1] is own
