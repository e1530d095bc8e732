"""From the fitted critical batch size to the page: which functions hand it on, as they are seen on the stack."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import batchscope
from batchscope.fits.steps_to_target import StepsPosterior
from batchscope.search.table.fit import fit
from batchscope.store.records import Estimate, Measured

PACKAGE = Path(batchscope.__file__).parent
TO_THE_PLAN = [
    "search/plan._measured",
    "search/plan.without_recipe",
    "search/plan.build_plan",
    "search/table/fit._plan",
    "search/table/fit.fit",
]
TO_THE_FIGURE = [
    "report/sections/steps_and_examples.collect",
    "report/sections/steps_and_examples.build",
    "report/page.contents",
    "report/__init__.build",
    "search/table/fit.fit",
]
"""Each function was called by the next. `contents` calls every section alike."""


def calls() -> list[str]:
    """Functions of the package on the stack, the innermost first."""
    frames = [frame for frame in inspect.stack(0) if Path(frame.filename).is_relative_to(PACKAGE)]
    named = [(Path(f.filename).relative_to(PACKAGE).with_suffix("").as_posix(), f.function) for f in frames]
    return [f"{file}.{function}" for file, function in named if not function.startswith("<")]


def test_from_the_fit_to_the_page_it_is_at_most_five_hops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hop is a step from one file to the next. One fit, end to end, with its plan and its page."""
    asked: list[list[str]] = []
    read: list[list[str]] = []
    estimate = StepsPosterior.critical_batch_size

    def watched(posterior: StepsPosterior) -> Estimate:
        asked.append(calls())
        return estimate(posterior)

    class Watched(Measured):
        def __getattribute__(self, name: str) -> Any:
            if name == "critical_batch_size":
                read.append(calls())
            return super().__getattribute__(name)

    monkeypatch.setattr(StepsPosterior, "critical_batch_size", watched)
    monkeypatch.setattr("batchscope.search.plan.Measured", Watched)
    rows = [f"{b},{1000 / b**0.5 / (x * (2 - x))},0.01,{0.01 * b * x}" for b in (16, 64, 256) for x in (0.4, 0.8, 1.5)]
    (tmp_path / "runs.csv").write_text("\n".join(["batch_size,steps_to_target,step_time_s,lr", *rows]))
    plan = fit(tmp_path / "runs.csv", out=tmp_path / "out")
    assert plan.measured.critical_batch_size.value is not None
    assert TO_THE_PLAN in asked
    assert TO_THE_FIGURE in read
    files = {call.rpartition(".")[0] for call in TO_THE_PLAN + TO_THE_FIGURE} | {"fits/steps_to_target"}
    assert len(files) - 1 <= 5


@pytest.mark.usefixtures("profile")
def test_a_search_hands_it_on_as_a_fit_does(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    estimate = StepsPosterior.critical_batch_size

    def watched(posterior: StepsPosterior) -> Estimate:
        asked.append(calls())
        return estimate(posterior)

    monkeypatch.setattr(StepsPosterior, "critical_batch_size", watched)
    assert cli("find digits --hardware machine.json --target val_loss<=0.8 --trainings 1").status == 0
    links = [*TO_THE_PLAN[:3], "search/find.find"]
    assert links in [found[: len(links)] for found in asked]
