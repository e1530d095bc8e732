"""The arithmetic of epochs, batches and steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.errors import UsageError
from batchscope.store.codec import encode
from batchscope.training.count import LastBatch, count

sizes = st.integers(min_value=1, max_value=10_000_000)
rules = st.sampled_from(LastBatch)


@pytest.mark.parametrize(
    ("examples", "batch_size", "steps_per_epoch"),
    [
        (60_000, 64, 938),
        (60_000, 256, 235),
        (60_000, 1024, 59),
        (18_610, 8, 2327),
        (18_610, 32, 582),
        (18_610, 64, 291),
        (18_610, 128, 146),
        (18_610, 256, 73),
        (18_610, 512, 37),
    ],
)
def test_published_counts(examples: int, batch_size: int, steps_per_epoch: int) -> None:
    run = count(examples=examples, batch_size=batch_size, epochs=30, last_batch="keep")
    assert run.steps_per_epoch == steps_per_epoch
    assert run.steps == 30 * steps_per_epoch
    assert run.examples_seen == 30 * examples
    assert "drop_last=False" in run.rule


def test_the_three_rules_on_one_case() -> None:
    runs = {rule: count(examples=10, batch_size=4, epochs=2, last_batch=rule) for rule in LastBatch}
    assert {rule: run.steps_per_epoch for rule, run in runs.items()} == {"keep": 3, "drop": 2, "stream": 2.5}
    assert {rule: run.steps for rule, run in runs.items()} == {"keep": 6, "drop": 4, "stream": 5}
    assert {rule: run.examples_seen for rule, run in runs.items()} == {"keep": 20, "drop": 16, "stream": 20}
    assert {rule: run.last_batch_size for rule, run in runs.items()} == {"keep": 2, "drop": 4, "stream": 4}
    assert {rule: run.examples_left_out_per_epoch for rule, run in runs.items()} == {"keep": 0, "drop": 2, "stream": 0}
    assert "drop makes 2 steps an epoch and stream makes 2.5 steps an epoch" in runs[LastBatch.KEEP].notes[-1]


@pytest.mark.parametrize("rule", LastBatch)
def test_batch_of_one_and_batch_of_all(rule: LastBatch) -> None:
    single = count(examples=7, batch_size=1, epochs=3, last_batch=rule)
    assert (single.steps_per_epoch, single.steps, single.last_batch_size) == (7, 21, 1)
    assert "a step of its own" in single.notes[0]
    whole = count(examples=7, batch_size=7, epochs=3, last_batch=rule)
    assert (whole.steps_per_epoch, whole.steps, whole.last_batch_size) == (1, 3, 7)
    assert "full gradient" in whole.notes[0]


def test_batch_larger_than_the_data_kept() -> None:
    run = count(examples=7, batch_size=10, epochs=3, last_batch="keep")
    assert (run.steps_per_epoch, run.steps, run.last_batch_size, run.examples_seen) == (1, 3, 7, 21)
    assert "one partial batch of 7" in run.notes[0]


def test_batch_larger_than_the_data_dropped() -> None:
    run = count(examples=7, batch_size=10, epochs=3, last_batch="drop")
    assert (run.steps_per_epoch, run.steps, run.last_batch_size, run.examples_seen) == (0, 0, 0, 0)
    assert "nothing is trained" in run.notes[0]
    with pytest.raises(UsageError, match=r"no number of epochs makes 5 steps.*drop_last=True"):
        count(examples=7, batch_size=10, steps=5, last_batch="drop")


def test_batch_larger_than_the_data_streamed() -> None:
    run = count(examples=7, batch_size=14, epochs=3, last_batch="stream")
    assert (run.steps_per_epoch, run.steps, run.examples_seen) == (0.5, 2, 28)
    assert "more than one epoch" in run.notes[0]


def test_an_epoch_cut_short() -> None:
    run = count(examples=10, batch_size=4, steps=4, last_batch="keep")
    assert run.epochs == pytest.approx(4 / 3)
    assert run.examples_seen == 14
    assert count(examples=30, batch_size=1, epochs=0.1, last_batch="keep").steps == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"examples": 0, "batch_size": 1, "epochs": 1}, "examples is 0"),
        ({"examples": -5, "batch_size": 1, "epochs": 1}, "examples is -5"),
        ({"examples": True, "batch_size": 1, "epochs": 1}, "examples is True"),
        ({"examples": 10.5, "batch_size": 1, "epochs": 1}, "examples is 10.5"),
        ({"examples": 10, "batch_size": 0, "epochs": 1}, "batch_size is 0"),
        ({"examples": 10, "batch_size": 2, "epochs": 0}, "epochs is 0"),
        ({"examples": 10, "batch_size": 2, "epochs": -1.5}, "epochs is -1.5"),
        ({"examples": 10, "batch_size": 2, "epochs": math.nan}, "epochs is nan"),
        ({"examples": 10, "batch_size": 2, "epochs": math.inf}, "epochs is inf"),
        ({"examples": 10, "batch_size": 2, "steps": 0}, "steps is 0"),
        ({"examples": 10, "batch_size": 2, "steps": 1.5}, "steps is 1.5"),
        ({"examples": 10, "batch_size": 2}, "neither epochs nor steps"),
        ({"examples": 10, "batch_size": 2, "epochs": 1, "steps": 5}, "both given"),
        ({"examples": 10, "batch_size": 2, "epochs": 1, "last_batch": "pad"}, "keep, drop, stream"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        count(**arguments)


@given(examples=sizes, batch_size=sizes, epochs=st.integers(min_value=1, max_value=1000))
def test_rules_bound_one_another(examples: int, batch_size: int, epochs: int) -> None:
    size = {"examples": examples, "batch_size": batch_size}
    keep, drop, stream = (count(**size, epochs=epochs, last_batch=rule) for rule in LastBatch)
    assert drop.steps <= stream.steps <= keep.steps <= drop.steps + epochs
    assert keep.examples_seen == epochs * examples
    assert drop.examples_seen == epochs * (examples - drop.examples_left_out_per_epoch)
    assert 0 <= stream.examples_seen - epochs * examples < batch_size
    assert 1 <= keep.last_batch_size <= min(batch_size, examples)


@given(examples=sizes, batch_size=sizes, steps=sizes, rule=rules)
def test_steps_to_epochs_and_back(examples: int, batch_size: int, steps: int, rule: LastBatch) -> None:
    if rule is LastBatch.DROP:
        batch_size = min(batch_size, examples)
    there = count(examples=examples, batch_size=batch_size, steps=steps, last_batch=rule)
    back = count(examples=examples, batch_size=batch_size, epochs=there.epochs, last_batch=rule)
    assert back.steps == steps
    assert back.examples_seen == there.examples_seen


@given(examples=st.integers(1, 60), batch_size=st.integers(1, 70), steps=st.integers(1, 200), rule=rules)
def test_examples_seen_equals_walking_the_loader(examples: int, batch_size: int, steps: int, rule: LastBatch) -> None:
    if rule is LastBatch.DROP and batch_size > examples:
        return
    if rule is LastBatch.STREAM:
        epoch = [batch_size]
    else:
        epoch = [batch_size] * (examples // batch_size)
        if rule is LastBatch.KEEP and examples % batch_size:
            epoch.append(examples % batch_size)
    walked = sum(epoch[i % len(epoch)] for i in range(steps))
    assert count(examples=examples, batch_size=batch_size, steps=steps, last_batch=rule).examples_seen == walked


def test_result_is_plain_data() -> None:
    data = encode(count(examples=10, batch_size=4, epochs=2))
    assert data["last_batch"] == "stream"
    assert data["steps"] == 5
