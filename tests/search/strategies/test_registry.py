"""The folder of strategies is what `--search` takes: one file, one name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import batchscope.search.strategies
from batchscope.errors import UsageError
from batchscope.search.follow import NAMES, TYPICAL_RUNS, require
from batchscope.search.strategies import SEARCHES, offer_of
from batchscope.search.strategies.space import Trial


def test_every_file_but_what_they_share_is_a_search() -> None:
    files = {path.stem for path in Path(batchscope.search.strategies.__file__).parent.glob("*.py")}
    assert set(SEARCHES) == files - {"__init__", "space"}
    assert SEARCHES[0] == "anchors"
    assert set(TYPICAL_RUNS) == {*NAMES, "anchors"} == set(SEARCHES)


@pytest.mark.parametrize("search", SEARCHES[1:])
def test_an_offer_builds_a_strategy_from_the_first_run(search: str) -> None:
    first = Trial(batch_size=8, lr=0.1, status="reached", cost=2.0, cost_to_target=1.5)
    assert callable(offer_of(search).build(first))
    assert offer_of(search).typical_runs > 1.0


def test_a_search_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"'bayes'.*anchors, grid"):
        require("bayes")


def test_the_command_line_lists_them_all(cli: Callable[..., Any]) -> None:
    ended = cli("find digits --search bayes")
    assert ended.status == 2
    assert all(search in ended.err for search in SEARCHES)
