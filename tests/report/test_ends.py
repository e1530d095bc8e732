"""Where the runs of a search for a given length ended: on the page in one figure, and no target beside it."""

from __future__ import annotations

import dataclasses

from batchscope.report import build
from batchscope.report.blocks import Figure
from batchscope.report.sections import ends
from batchscope.store.records import PlanStatus, RunStatus

from . import plans


def test_every_run_is_drawn_where_it_ended_and_fresh_weights_beside() -> None:
    (figure,) = ends.build(plans.within(), plans.runs()).blocks
    assert isinstance(figure, Figure)
    kept = [r for r in plans.runs() if r.result and r.result.status is not RunStatus.DIVERGED]
    assert sum(len(trace["x"]) for trace in figure.data) == len(kept)
    assert any(key.label.startswith("fresh weights") for key in figure.keys)
    assert "diverged and" in figure.caption
    assert ends.build(plans.ok(), plans.runs()).blocks == ()


def test_without_a_run_that_trained_the_page_speaks_of_no_target() -> None:
    lost = dataclasses.replace(
        plans.within(), status=PlanStatus.TARGET_NOT_REACHED, recipe=None, target=None, predicted=None
    )
    page = build(lost, plans.runs())
    assert "There was no target to reach" not in page
    assert "No target was set" not in page
