"""What is decided on evidence of which everything is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from batchscope.laboratory.claims.decide import DECISIONS
from batchscope.laboratory.claims.definitions import CHECKS
from batchscope.laboratory.claims.plan import NORM, ClaimsPlan, trial_variant
from batchscope.laboratory.claims.records import Verdict
from batchscope.laboratory.claims.results import TaskResults
from batchscope.laboratory.claims.statements import Kind, statements
from batchscope.laboratory.claims.tuning import followed

from .made_results import EXAMPLES, PLAN, evidence, run


def small_is_faster(batch_size: int, lr: float, seed: int, epoch: float) -> dict[str, float]:
    """Losses fall with the number of updates times the learning rate: at equal epochs a small batch is ahead."""
    fall = math.exp(-lr * epoch * EXAMPLES / batch_size / 100 * (1 + 0.02 * seed))
    return _metrics(0.05 + fall, 0.10 + fall, score=0.9 - 0.5 * fall)


def size_is_nothing(batch_size: int, lr: float, seed: int, epoch: float) -> dict[str, float]:
    """Losses fall with epochs and learning rate, whatever the batch size."""
    fall = math.exp(-3 * lr * epoch * (1 + 0.02 * seed))
    return _metrics(0.05 + fall, 0.10 + fall, score=0.9 - 0.5 * fall)


def overfits(batch_size: int, lr: float, seed: int, epoch: float) -> dict[str, float]:
    """The validation loss has its minimum at epoch 8 and rises from there; the training loss falls on."""
    train = math.exp(-0.3 * epoch)
    val = 0.4 + (epoch / 8 - 1) ** 2 * (1 + 0.05 * seed) * (1.0 if epoch < 8 else 0.1)
    return _metrics(train, val, score=0.9 - 0.1 * val)


def _metrics(train: float, val: float, *, score: float) -> dict[str, float]:
    return {
        "val_loss": val,
        "val_accuracy": score,
        "test_loss": val,
        "test_accuracy": score - 0.01,
        "train_loss_eval": train,
        "train_accuracy_eval": min(1.0, score + 0.05),
    }


def verdicts(found: TaskResults) -> Mapping[str, Any]:
    return {identifier: decide(found).verdict.value for identifier, decide in DECISIONS.items()}


def test_every_statement_has_what_decides_or_checks_it_and_nothing_else_has() -> None:
    kinds = {kind: {i for i, s in statements().items() if s.kind is kind} for kind in Kind}
    assert set(DECISIONS) == kinds[Kind.MEASURABLE]
    assert set(CHECKS) == kinds[Kind.DEFINITION]


def test_where_small_batches_are_ahead_at_equal_epochs() -> None:
    found = verdicts(evidence(small_is_faster))
    held = ("S0.5a", "S2.7b", "S1.12a", "S1.12c", "S0.8b", "S2.11c", "S1.13b", "S2.10a", "S1.12b", "S0.15")
    assert {i: found[i] for i in held} == dict.fromkeys(held, "held")
    assert found["S3.7d"] == "not held"
    assert found["S1.10c"] == found["S3.7e"] == "not held"


def test_where_the_batch_size_does_nothing() -> None:
    found = verdicts(evidence(size_is_nothing))
    for identifier in ("S0.5a", "S2.7b", "S3.7d", "S1.12a", "S1.12b", "S1.12c", "S0.8b", "S1.10b", "S2.11a", "S0.15"):
        assert found[identifier] == "not held", identifier
    assert found["S0.17"] == "held"
    assert found["S1.13b"] == "held"


def test_an_effect_that_the_rate_takes_away_depends_on_it() -> None:
    """At a tenth of the learning rate the large batch is behind; at the best learning rates all are at the floor."""

    def course(batch_size: int, lr: float, seed: int, epoch: float) -> dict[str, float]:
        suits = math.sqrt(lr / 0.1) if batch_size > 10 else 1.0 - abs(lr - 0.01)
        fall = math.exp(-2 * suits**2 * epoch * (1 + 0.01 * seed))
        return _metrics(0.05 + fall, 0.10 + fall, score=0.9 - 0.5 * fall)

    found = evidence(course)
    assert found.one_rate == 0.01
    claim = DECISIONS["S1.10b"](found)
    assert (claim.verdict, claim.on) == (Verdict.DEPENDS, "the learning rate")
    assert "at one learning rate: " in claim.reason
    assert "each at its best: " in claim.reason
    assert DECISIONS["S1.16"](found).verdict is Verdict.HELD
    assert DECISIONS["S0.14b"](found).verdict is Verdict.HELD


def test_where_the_validation_loss_rises_past_its_minimum() -> None:
    found = verdicts(evidence(overfits))
    for identifier in ("S0.11a", "S0.11b", "S2.5a", "S2.5b", "S2.9b", "S1.8", "S2.14"):
        assert found[identifier] == "held", identifier
    assert found["S0.12a"] == "not held"


def test_a_run_that_never_gets_past_its_minimum_leaves_overfitting_open() -> None:
    claim = DECISIONS["S0.11b"](evidence(small_is_faster))
    assert claim.verdict is Verdict.UNDECIDED
    assert "no run got past its validation minimum" in claim.reason


def test_what_was_not_measured_is_undecided_and_says_so() -> None:
    bare = evidence(small_is_faster)
    for identifier in ("S0.3a", "S1.4c", "S0.4b", "S3.13a", "S2.12", "S0.19a"):
        claim = DECISIONS[identifier](bare)
        assert claim.verdict is Verdict.UNDECIDED, identifier
        assert "budget" in claim.reason, claim.reason
        assert claim.effect.value is None


def test_a_task_that_cannot_be_timed_leaves_the_statements_on_time_undecided() -> None:
    found = evidence(small_is_faster, notes={"timing": {"not_applicable": "a step took 61 s"}})
    for identifier in ("S0.8a", "S1.4c", "S1.10d", "S3.7a"):
        claim = DECISIONS[identifier](found)
        assert claim.verdict is Verdict.UNDECIDED
        assert "a step took 61 s" in claim.reason


def test_what_does_not_apply_is_not_testable_and_says_why() -> None:
    notes = {"gradients": {"not_applicable": "it is coupled"}, NORM: {"not_applicable": "no activation module"}}
    found = evidence(small_is_faster, notes=notes)
    for identifier, reason in (("S0.3a", "it is coupled"), ("S3.13a", "no activation module")):
        claim = DECISIONS[identifier](found)
        assert (claim.verdict, claim.reason) == (Verdict.NOT_TESTABLE, reason)


def test_a_task_without_test_metrics_cannot_be_asked_for_them() -> None:
    def course(batch_size: int, lr: float, seed: int, epoch: float) -> dict[str, float]:
        return {k: v for k, v in small_is_faster(batch_size, lr, seed, epoch).items() if not k.startswith("test_")}

    for identifier in ("S0.13", "S1.8", "S1.9", "S2.15b"):
        claim = DECISIONS[identifier](evidence(course))
        assert claim.verdict is Verdict.NOT_TESTABLE
        assert "test metric" in claim.reason


def test_a_task_with_a_loss_alone_is_judged_by_it() -> None:
    def course(batch_size: int, lr: float, seed: int, epoch: float) -> dict[str, float]:
        kept = ("val_loss", "train_loss_eval")
        return {k: v for k, v in small_is_faster(batch_size, lr, seed, epoch).items() if k in kept}

    found = evidence(course)
    assert found.score.metric == "val_loss"
    assert found.score.sign == -1
    assert DECISIONS["S0.8b"](found).verdict is Verdict.HELD
    assert DECISIONS["S1.10a"](found).verdict is Verdict.UNDECIDED, "step times are missing"


def timing(seconds: Mapping[int, float], rounds: int = 5) -> dict[str, Any]:
    """Rounds that differ by a hundredth."""
    sizes = sorted(seconds)
    return {
        "sizes": sizes,
        "seconds": [[seconds[b] * (1 + 0.01 * r * (-1) ** i) for i, b in enumerate(sizes)] for r in range(rounds)],
    }


def test_time_is_decided_by_the_rounds_of_the_timing() -> None:
    free = {"timing": timing(dict.fromkeys((1, 10, 40, 100, 200), 1e-3))}
    found = verdicts(evidence(small_is_faster, notes=free))
    assert {i: found[i] for i in ("S0.8a", "S1.4c", "S1.7c", "S1.10d", "S3.7a", "S3.11b")} == dict.fromkeys(
        ("S0.8a", "S1.4c", "S1.7c", "S1.10d", "S3.7a", "S3.11b"), "held"
    )
    assert found["S1.10a"] == "held", "an epoch is faster and the score lower"
    linear = {"timing": timing({b: b * 1e-3 for b in (1, 10, 40, 100, 200)})}
    found = verdicts(evidence(small_is_faster, notes=linear))
    assert {i: found[i] for i in ("S0.8a", "S1.4c", "S1.7c", "S3.11b")} == dict.fromkeys(
        ("S0.8a", "S1.4c", "S1.7c", "S3.11b"), "not held"
    )
    knee = {"timing": timing({1: 1e-3, 10: 1e-3, 40: 4e-3, 100: 1e-2, 200: 2e-2})}
    claim = DECISIONS["S1.7c"](evidence(small_is_faster, notes=knee))
    assert (claim.verdict, claim.on) == (Verdict.DEPENDS, "the batch size")


def test_memory_is_read_and_the_line_through_it_says_what_fits() -> None:
    found = evidence(small_is_faster, notes={"capacity": {"free_bytes": 1500, "device": "a machine"}})
    assert found.memory == {10: 1010.0, 40: 1040.0, 200: 1200.0}
    assert DECISIONS["S1.5c"](found).verdict is Verdict.HELD
    claim = DECISIONS["S3.10b"](found)
    assert (claim.verdict, claim.effect.value) == (Verdict.HELD, pytest.approx(0.5))


def test_trials_are_followed_from_their_runs() -> None:
    def flat(batch_size: int, lr: float, seed: int, epoch: float) -> dict[str, float]:
        return small_is_faster(10, lr, seed, min(epoch, 1.0))

    made = [
        run(b, lr, s, flat, epochs=max(1.0, n), variant=trial_variant(n))
        for b in PLAN.batch_sizes
        for lr in PLAN.lrs
        for n in (1.25, 2.5)
        for s in PLAN.seeds
    ]
    found = evidence(flat, notes={"timing": timing({10: 1e-3, 40: 1.1e-3, 200: 1.2e-3})}, extra=made)
    sequence = followed(found, 0)
    assert [(t.batch_size, t.epochs) for t in sequence.trials] == [(10, 1.25), (10, 2.5), (40, 1.25), (200, 1.25)]
    assert sequence.choice is not None
    assert sequence.choice.trial is not None
    assert sequence.choice.trial.batch_size == 200
    assert DECISIONS["S2.12"](found).verdict is Verdict.HELD


def test_runs_that_diverged_or_have_no_numbers_do_not_stop_the_decisions() -> None:
    """Metrics that are no numbers, as a run that is lost has them on disk."""

    def course(batch_size: int, lr: float, seed: int, epoch: float) -> dict[str, float]:
        found = small_is_faster(batch_size, lr, seed, epoch)
        return dict.fromkeys(found, math.nan) if lr == 0.1 and epoch > 2 else found

    assert set(verdicts(evidence(course)).values()) <= {v.value for v in Verdict}
    everything_lost = evidence(lambda b, lr, s, t: dict.fromkeys(small_is_faster(b, lr, s, t), math.nan if t else 1.0))
    assert set(verdicts(everything_lost).values()) <= {v.value for v in Verdict}


def test_a_long_run_that_diverges_never_converges() -> None:
    def course(batch_size: int, lr: float, seed: int, epoch: float) -> dict[str, float]:
        found = small_is_faster(batch_size, lr, seed, epoch)
        return dict.fromkeys(found, math.nan) if epoch > 30 else found

    claim = DECISIONS["S0.12a"](evidence(course))
    assert claim.verdict is Verdict.HELD
    assert "diverged" in claim.reason


def test_where_tuning_has_no_gap_to_close_nothing_is_said_of_it() -> None:
    """The large batch is the better one at one learning rate."""

    def course(batch_size: int, lr: float, seed: int, epoch: float) -> dict[str, float]:
        loss = 0.5 - 0.0005 * batch_size * (1 if lr == 0.01 else -1) + 0.001 * seed
        return _metrics(loss, loss + 0.1, score=0.5)

    claim = DECISIONS["S0.14b"](evidence(course))
    assert claim.verdict is Verdict.UNDECIDED
    assert "no gap that tuning could leave" in claim.reason


def test_a_validation_loss_that_rises_gains_nothing_in_the_second_half() -> None:
    claim = DECISIONS["S0.10b"](evidence(overfits))
    assert claim.verdict is Verdict.HELD
    assert claim.effect.high is not None
    assert claim.effect.high < 1


def test_sizes_of_a_plan_never_meet() -> None:
    for sizes in ((8, 32, 128, 512), (1, 512), (4, 32), (2, 3)):
        plan = ClaimsPlan(batch_sizes=sizes, lrs=(0.1, 1.0), seeds=(0, 1), epochs=5)
        for chosen in (plan.long_sizes, plan.norm_sizes, plan.few_sizes(1000), plan.few_sizes(40)):
            assert len(set(chosen)) == len(chosen) >= 2, (sizes, chosen)
        assert plan.middle > plan.smallest
    assert ClaimsPlan(batch_sizes=(8, 32, 128, 512), lrs=(0.1, 1.0), seeds=(0, 1), epochs=5).long_sizes == (32, 256)
