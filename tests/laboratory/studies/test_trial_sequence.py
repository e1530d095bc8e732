"""The advice as a rule, on scripted histories, and against a slow and obvious reading of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.errors import UsageError
from batchscope.laboratory.studies.trial_and_error.sequence import (
    Advice,
    Choice,
    Next,
    TrialTraining,
    follow,
    what_next,
)

ADVICE = Advice(batch_sizes=(8, 32, 128), first_epochs=2, most_epochs=16)
Script = Mapping[tuple[int, float], tuple[float | None, float]]


def scripted(script: Script) -> Callable[[Next], TrialTraining | None]:
    def made(asked: Next) -> TrialTraining | None:
        found = script.get((asked.batch_size, asked.epochs))
        return (
            None
            if found is None
            else TrialTraining(batch_size=asked.batch_size, epochs=asked.epochs, value=found[0], seconds=found[1])
        )

    return made


def visited(advice: Advice, script: Script) -> tuple[list[tuple[int, float]], Choice | None]:
    followed = follow(advice, scripted(script))
    return [(t.batch_size, t.epochs) for t in followed.trials], followed.choice


def test_epochs_are_doubled_while_it_pays_then_the_batch_grows_while_it_saves_time() -> None:
    script: Script = {
        (8, 2): (1.0, 2.0),
        (8, 4): (0.5, 4.0),
        (8, 8): (0.495, 8.0),
        (32, 4): (0.505, 1.5),
        (128, 4): (0.6, 0.5),
        (128, 8): (0.505, 1.0),
    }
    trials, choice = visited(ADVICE, script)
    assert trials == [(8, 2), (8, 4), (8, 8), (32, 4), (128, 4), (128, 8)]
    assert choice is not None
    assert choice.trial == TrialTraining(batch_size=128, epochs=8, value=0.505, seconds=1.0)
    assert choice.reason == "as good in 1 s instead of 1.5 s: taken; no larger batch is left"


def test_each_trial_says_why_it_is_made() -> None:
    script: Script = {(8, 2): (1.0, 2.0), (8, 4): (0.5, 4.0), (8, 8): (0.495, 8.0), (32, 4): (0.7, 3.0)}
    followed = follow(ADVICE, scripted(script))
    assert [d.reason for d in followed.decisions] == [
        "twice the epochs, to see whether they are worth it",
        "twice the epochs bettered 1 by 50 %: twice as many again",
        "twice the epochs better 0.5 by 1 % only: 4 are enough; a larger batch",
        "worse than 0.5 by 40 %, and 8 epochs would take 6 s: batch size 8 stays",
    ]
    assert followed.seconds == 17.0


@pytest.mark.parametrize(
    ("larger", "message"),
    [
        ({(32, 2): (0.9, 1.95)}, "as good, but 1.95 s against 2 s saves too little: batch size 8 stays"),
        ({(32, 2): (None, 1.0)}, "it diverged: batch size 8 stays"),
        (
            {(32, 2): (1.03, 0.1), (32, 4): (1.03, 0.2), (32, 8): (1.03, 0.4), (32, 16): (1.03, 0.8)},
            "16 epochs are the most",
        ),
    ],
)
def test_the_smallest_batch_stays_where_a_larger_one_is_no_better(larger: Script, message: str) -> None:
    _, choice = visited(ADVICE, {(8, 2): (1.0, 2.0), (8, 4): (1.0, 4.0), **larger})
    assert choice is not None
    assert choice.trial is not None
    assert (choice.trial.batch_size, choice.trial.epochs) == (8, 2)
    assert message in choice.reason


def test_the_quality_that_is_asked_does_not_creep() -> None:
    script: Script = {
        (8, 2): (1.0, 2.0),
        (8, 4): (1.0, 4.0),
        (32, 2): (1.015, 1.0),
        (128, 2): (1.03, 0.9),
    }
    trials, choice = visited(ADVICE, script)
    assert trials[-1] == (128, 2)
    assert choice is not None
    assert choice.trial is not None
    assert choice.trial.batch_size == 32


def test_a_score_is_better_when_larger() -> None:
    advice = Advice(batch_sizes=(8, 32), first_epochs=1, most_epochs=4, larger_is_better=True)
    script: Script = {(8, 1): (0.5, 1.0), (8, 2): (0.7, 2.0), (8, 4): (0.9, 4.0), (32, 4): (0.95, 2.0)}
    trials, choice = visited(advice, script)
    assert trials == [(8, 1), (8, 2), (8, 4), (32, 4)]
    assert choice is not None
    assert choice.trial is not None
    assert choice.trial.batch_size == 32


def test_the_last_doubling_ends_at_the_most_epochs() -> None:
    advice = Advice(batch_sizes=(8, 32), first_epochs=2, most_epochs=5)
    script: Script = {(8, 2): (1.0, 1.0), (8, 4): (0.5, 2.0), (8, 5): (0.25, 2.5)}
    assert visited(advice, script)[0] == [(8, 2), (8, 4), (8, 5)]


def test_a_batch_size_that_diverges_at_once_is_left_out() -> None:
    script: Script = {(8, 2): (None, 1.0), (32, 2): (1.0, 1.0), (32, 4): (1.0, 2.0), (128, 2): (2.0, 0.9)}
    trials, choice = visited(ADVICE, script)
    assert trials == [(8, 2), (32, 2), (32, 4), (128, 2)]
    assert choice is not None
    assert choice.trial is not None
    assert choice.trial.batch_size == 32
    lost: Script = {(size, 2): (None, 1.0) for size in ADVICE.batch_sizes}
    assert visited(ADVICE, lost)[1] == Choice(trial=None, reason="every batch size diverged at this learning rate")


def test_longer_runs_that_diverge_are_not_taken() -> None:
    _, choice = visited(ADVICE, {(8, 2): (1.0, 2.0), (8, 4): (None, 3.0), (32, 2): (3.0, 2.0)})
    assert choice is not None
    assert choice.trial is not None
    assert (choice.trial.batch_size, choice.trial.epochs) == (8, 2)


def test_a_trial_that_cannot_be_made_leaves_the_choice_open() -> None:
    followed = follow(ADVICE, scripted({(8, 2): (1.0, 2.0)}))
    assert (len(followed.trials), followed.choice) == (1, None)
    assert follow(ADVICE, lambda asked: None).choice is None


def test_a_history_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(ValueError, match="was not asked for"):
        what_next([TrialTraining(batch_size=32, epochs=2, value=1.0, seconds=1.0)], ADVICE)


@pytest.mark.parametrize(
    "wrong", [{"batch_sizes": (8,)}, {"batch_sizes": (32, 8)}, {"first_epochs": 20}, {"first_epochs": 0}]
)
def test_advice_that_leaves_nothing_to_raise_is_refused(wrong: Mapping[str, object]) -> None:
    members = {"batch_sizes": (8, 32), "first_epochs": 2, "most_epochs": 16, **wrong}
    with pytest.raises(UsageError):
        Advice(**members)  # type: ignore[arg-type]


@given(
    values=st.lists(st.one_of(st.none(), st.floats(0.1, 10)), min_size=12, max_size=12),
    seconds=st.lists(st.floats(0.01, 10), min_size=12, max_size=12),
)
def test_any_sequence_ends_with_what_it_tried(values: list[float | None], seconds: list[float]) -> None:
    cells = [(size, epochs) for size in ADVICE.batch_sizes for epochs in (2.0, 4.0, 8.0, 16.0)]
    script = {cell: (value, spent) for cell, value, spent in zip(cells, values, seconds, strict=True)}
    followed = follow(ADVICE, scripted(script))
    choice = followed.choice
    assert choice is not None
    assert len(set(followed.trials)) == len(followed.trials) <= 12
    assert [t.batch_size for t in followed.trials] == sorted(t.batch_size for t in followed.trials)
    if choice.trial is None:
        assert all(t.value is None for t in followed.trials)
    else:
        assert choice.trial in followed.trials
        earlier = [t for t in followed.trials if t.batch_size < choice.trial.batch_size and t.value is not None]
        assert not earlier or choice.trial.seconds <= max(t.seconds for t in earlier)
