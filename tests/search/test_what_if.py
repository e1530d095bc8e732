"""`--at`: what training would take at any batch size, with what speaks against believing it."""

from __future__ import annotations

import math

import pytest

from batchscope.errors import UsageError
from batchscope.search.plan import build_plan
from batchscope.search.question import Question, Within, parse_at
from batchscope.store.codec import decode, encode
from batchscope.store.records import Plan, WhatIf

from . import searches
from .searches import EXAMPLES, run, search, step_time, true_steps


def asked(*sizes: int, **how: object) -> dict[int, WhatIf]:
    plan = build_plan(search(at=sizes, **how))
    assert [answer.batch_size for answer in plan.what_if] == sorted(set(sizes))
    return {answer.batch_size: answer for answer in plan.what_if}


def test_the_truth_lies_in_the_intervals_between_and_beyond_the_sizes_that_were_run() -> None:
    for size, answer in asked(12, 40, 200, 1024).items():
        assert answer.lr is not None
        assert answer.predicted is not None
        steps = answer.predicted.steps_to_target
        best = min(true_steps(size, answer.lr * 1.1**k) for k in range(-12, 13))
        assert (steps.low or 0) <= best * 1.2
        assert best <= (steps.high or math.inf)
        assert answer.predicted.step_time_s.value == pytest.approx(step_time(size), rel=0.2)


def test_between_the_sizes_there_is_no_doubt_and_outside_it_is_said_how_far() -> None:
    sizes = sorted({size for size, _ in search().reached})
    low, high = sizes[0], sizes[-1]
    found = asked(low, high, 2 * high, 20 * high)
    assert found[low].doubt == found[high].doubt == ""
    assert found[2 * high].doubt.startswith(
        f"extrapolated to 2 times the largest batch size that reached the target ({high}"
    )
    assert "far outside, 20 times" in found[20 * high].doubt
    widths = [math.log(_high(found[size]) / _low(found[size])) for size in (high, 20 * high)]
    assert widths[1] > widths[0]


def test_above_the_training_set_and_the_memory_it_is_answered_and_said() -> None:
    found = asked(96, 4 * EXAMPLES, bench=searches.bench(48, memory_bound=True))
    assert "48 examples fit into memory at once, so it is counted in 2 parts of 48" in found[96].doubt
    assert "larger than the training set" in found[4 * EXAMPLES].doubt
    assert found[4 * EXAMPLES].predicted is not None


def test_without_a_run_that_got_there_nothing_is_predicted() -> None:
    plan = build_plan(search([run(64, 0.2, most=50), run(64, 0.01, most=80)], at=(64, 128)))
    assert plan.recipe is None
    assert [answer.predicted for answer in plan.what_if] == [None, None]
    assert {answer.doubt for answer in plan.what_if} == {"no run reached the target"}


def test_one_batch_size_alone_says_that_the_others_are_assumed() -> None:
    found = asked(16, 64, runs=[run(16, 0.08), run(16, 0.04), run(16, 0.1)])
    assert "how others compare with it is assumed" not in found[16].doubt
    assert "only batch size 16 reached the target" in found[64].doubt


def test_the_recipe_does_not_depend_on_what_is_asked_beside() -> None:
    plain, beside = build_plan(search()), build_plan(search(at=(7, 4096)))
    assert plain.recipe == beside.recipe
    assert plain.predicted == beside.predicted
    assert plain.what_if == ()


def test_it_stands_in_the_plan_as_written_and_older_plans_are_read() -> None:
    data = encode(build_plan(search(at=(40, 100_000))))
    assert [set(answer) >= {"batch_size", "lr", "predicted"} for answer in data["what_if"]] == [True, True]
    assert decode(Plan, data, where="plan").what_if[0].batch_size == 40
    del data["what_if"]
    assert decode(Plan, data, where="plan").what_if == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no batch size; write for example --at 64,512,4096"),
        ("64,many", "a batch size of --at is many; it must be a whole number, at least 1"),
        ("0", "a batch size of --at is '?0'?; it must be at least 1"),
        ("64.5", "must be a whole number"),
        ("1e12", "at most 1,073,741,824"),
        (",".join(map(str, range(1, 66))), "names 65 batch sizes; ask about at most 64 at once"),
    ],
)
def test_what_is_no_list_of_batch_sizes_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_at(text)


def test_a_length_and_batch_sizes_contradict_each_other() -> None:
    with pytest.raises(UsageError, match=r"--within 20 epochs gives its length; leave one of them out"):
        Question(within=Within(amount=20, unit="epochs"), at=(64,))
    assert Question(at=(64, 16, 64)).at == (16, 64)


def _low(answer: WhatIf) -> float:
    assert answer.predicted is not None
    return answer.predicted.steps_to_target.low or 1.0


def _high(answer: WhatIf) -> float:
    assert answer.predicted is not None
    return answer.predicted.steps_to_target.high or math.inf
