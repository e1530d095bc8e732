"""What a plan rests on: every statement carries its tag and its source, and says no more than was done."""

from __future__ import annotations

import pytest

from batchscope.search.question import Question
from batchscope.search.reasons import evidence_of
from batchscope.search.refusal import not_reached
from batchscope.search.state import SearchState
from batchscope.store.records import Evidence, RateRange, RunStatus
from batchscope.testing import evaluation, stored_run

from . import searches
from .searches import TRIED, run, search


def statements(state: SearchState, tag: str = "") -> str:
    return "\n".join(e.statement for e in evidence_of(state) if not tag or e.tag == tag)


def only(state: SearchState, part: str) -> Evidence:
    (found,) = (e for e in evidence_of(state) if part in e.statement)
    return found


CASES = {
    "plain": search(),
    "nothing": search([], target=None, rate_range=None),
    "unaimed": search(question=Question()),
    "bound": search(bench=searches.bench(48, memory_bound=True)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_statement_has_a_tag_and_a_source(case: str) -> None:
    for evidence in evidence_of(CASES[case]):
        assert evidence.tag in ("measured", "fitted", "literature", "assumption")
        assert evidence.statement.strip()
        assert evidence.source.strip()
        assert "nan" not in evidence.statement
        assert "None" not in evidence.statement


def test_literature_is_named_by_author_and_year() -> None:
    for evidence in evidence_of(CASES["plain"]):
        if evidence.tag == "literature":
            assert "20" in evidence.source


def test_the_fit_is_stated_only_where_a_run_reached_the_target() -> None:
    assert "critical batch size" in statements(CASES["plain"], "fitted")
    assert "critical batch size" not in statements(CASES["nothing"])
    assert "critical batch size of" not in statements(search([run(64, 0.2, most=50)]))


def test_runs_are_counted_by_how_they_ended() -> None:
    lost = [run(64, 8.0, most=3, status=RunStatus.DIVERGED), run(64, 0.01, most=50, status=RunStatus.STALLED)]
    said = only(search([*(run(b, lr) for b, lr in TRIED), *lost]), "runs reached val_loss").statement
    assert "6 of 8 runs reached val_loss<=0.5; of the others," in said
    assert "1 diverged" in said
    assert "1 stopped improving" in said
    rows = [evaluation(step, {"val_loss": 1.5}) for step in (0, 20, 50)]
    flat = stored_run(64, 1e-9, rows, status=RunStatus.BEHIND, target=searches.TARGET)
    said = only(search([*(run(b, lr) for b, lr in TRIED), flat]), "runs reached val_loss").statement
    assert said.endswith("of the others, 1 stopped early, no better than fresh weights")
    assert "in a run that stopped early, no better than fresh weights" in not_reached(search([flat]))


@pytest.mark.parametrize(
    ("broke", "normalised", "words"),
    [(True, False, "diverges at 2 "), (False, False, "does not diverge up to 2 "), (True, True, "diverges at 2 ")],
)
def test_the_range_test_is_described_as_a_ceiling_with_the_rule_that_it_chose(
    broke: bool, normalised: bool, words: str
) -> None:
    test = RateRange(
        batch_size=64, ceiling_lr=2.0, broke=broke, normalised=normalised, lrs=(2.0,), losses=(None,), steps=20
    )
    state = search(rate_range=test)
    assert words in only(state, "training at batch size 64").statement
    rule = only(state, "the best learning rate was expected to grow").statement
    assert ("square root" in rule) == normalised
    assert "learning rate doubles" not in statements(search(rate_range=None))


def test_a_chosen_target_is_an_assumption_and_a_given_one_none() -> None:
    assert only(CASES["unaimed"], "was chosen").tag == "assumption"
    assert "was chosen" not in statements(CASES["plain"])


def test_hardware_read_from_a_profile_was_not_measured_here() -> None:
    assert only(CASES["plain"], "hardware knee").tag == "measured"
    assert only(search(bench_counts=False), "hardware knee").tag == "assumption"


def test_memory_is_evidence_where_it_bounds_and_says_whether_it_was_run() -> None:
    assert only(CASES["bound"], "fit into memory").tag == "measured"
    assert "fit into memory" not in statements(CASES["plain"])
