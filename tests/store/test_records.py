"""Records survive their files; what does not fit is refused by name; the error tree is as drawn."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import math
import pkgutil
from typing import Any

import pytest

from batchscope import errors
from batchscope.store import records
from batchscope.store.codec import decode, encode
from batchscope.store.records import (
    SCHEMA,
    Estimate,
    HardwareProfile,
    Plan,
    PlanStatus,
    Recipe,
    RunConfig,
    RunResult,
    RunStatus,
    Target,
)


def _is_record(member: object) -> bool:
    return isinstance(member, type) and dataclasses.is_dataclass(member)


RECORDS = [getattr(records, name) for name in records.__all__ if _is_record(getattr(records, name))]


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_records_are_frozen_and_keyword_only(kind: Any) -> None:
    assert kind.__dataclass_params__.frozen
    assert all(f.kw_only for f in dataclasses.fields(kind))


def test_every_record_of_the_package_is_imported_from_it() -> None:
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.iter_modules(records.__path__, f"{records.__name__}.")
    ]
    made = {name for module in modules for name, kind in inspect.getmembers(module, _is_record)}
    assert made == {kind.__name__ for kind in RECORDS}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_become_null(number: float) -> None:
    estimate = Estimate(value=number, low=None, high=1.0, n=3, unit="s", method="median")
    assert encode(estimate)["value"] is None
    assert encode({"deep": [(number,)]}) == {"deep": [[None]]}


def test_encode_turns_other_objects_into_text() -> None:
    assert encode({1: RunStatus.BEHIND, "kind": int}) == {"1": "behind", "kind": "<class 'int'>"}


def make_profile(**changes: Any) -> dict[str, Any]:
    return {"name": "card", "step_time_s": [[1, 0.1], [2, 0.15]], **changes}


def test_profile_as_a_person_writes_it() -> None:
    profile = decode(HardwareProfile, make_profile(peak_memory_bytes=[[1, 1000]], capacity_bytes=None))
    assert profile == HardwareProfile(
        name="card", step_time_s=((1, 0.1), (2, 0.15)), peak_memory_bytes=((1, 1000.0),), schema=SCHEMA
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "HardwareProfile is list, not an object"),
        ({"step_time_s": []}, "HardwareProfile lacks 'name'"),
        (make_profile(speed=1), "HardwareProfile has an unknown member 'speed'"),
        (make_profile(name=3), "HardwareProfile.name is 3, not str"),
        (make_profile(step_time_s=0.1), "HardwareProfile.step_time_s is float, not a list"),
        (make_profile(step_time_s=[[1, 0.1], [2]]), "HardwareProfile.step_time_s[1] has 1 members, not 2"),
        (make_profile(step_time_s=[[1, "fast"]]), "HardwareProfile.step_time_s[0][1] is 'fast', not float"),
        (make_profile(step_time_s=[[1.5, 0.1]]), "HardwareProfile.step_time_s[0][0] is 1.5, not int"),
        (make_profile(step_time_s=[[True, 0.1]]), "HardwareProfile.step_time_s[0][0] is True, not int"),
        (make_profile(capacity_bytes="8GB"), "HardwareProfile.capacity_bytes is '8GB', not int"),
    ],
)
def test_profile_refusals(data: Any, message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the whole message is compared)
        decode(HardwareProfile, data)
    assert str(refusal.value) == message


def make_result(**changes: Any) -> dict[str, Any]:
    numbers = {"steps": 10, "examples": 100, "device_seconds": 1, "steps_to_target": None, "best_step": 10}
    metrics = {"last": {"val_loss": 1}, "best": {"val_loss": 1.0}, "first": {"val_loss": 2.0}}
    return {"status": "reached", "message": "", **numbers, **metrics, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "finished"}, "RunResult.status is 'finished', not one of reached, out-of-steps"),
        ({"last": {"val_loss": "low"}}, "RunResult.last.val_loss is 'low', not float"),
        ({"best": [1.0]}, "RunResult.best is list, not an object"),
    ],
)
def test_result_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the whole message is compared)
        decode(RunResult, make_result(**changes))
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_the_result_of_a_diverged_run_can_be_read_back(number: float) -> None:
    result = decode(RunResult, make_result(last={"val_loss": number, "val_accuracy": 0.1}))
    again = decode(RunResult, json.loads(json.dumps(encode(result), allow_nan=False)))
    assert math.isnan(again.last["val_loss"])
    assert again.last["val_accuracy"] == 0.1


def test_whole_numbers_serve_as_floats() -> None:
    result = decode(RunResult, make_result())
    assert result.device_seconds == 1.0
    assert result.last == {"val_loss": 1.0}


def test_a_refusal_names_the_place_it_was_given() -> None:
    with pytest.raises(ValueError, match=r"^plan\.json\.mode is 'between', not one of min, max"):
        decode(Target, {"metric": "val_loss", "value": 1, "mode": "between"}, "plan.json")


def test_batch_size_identity() -> None:
    with pytest.raises(ValueError, match=r"batch_size 64 is not micro_batch_size 16 \* grad_accum_steps 2 .* = 32"):
        RunConfig(task="digits", batch_size=64, micro_batch_size=16, grad_accum_steps=2, lr=0.1, max_steps=10)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("val_loss<=0.12", Target(metric="val_loss", value=0.12, mode="min")),
        ("val_accuracy>=0.97", Target(metric="val_accuracy", value=0.97, mode="max")),
        ("  val_loss < 1e-3 ", Target(metric="val_loss", value=0.001, mode="min")),
        ("score>-.5", Target(metric="score", value=-0.5, mode="max")),
        ("val/loss.mean<=2.", Target(metric="val/loss.mean", value=2.0, mode="min")),
    ],
)
def test_target_parses(text: str, target: Target) -> None:
    assert Target.parse(text) == target
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not METRIC<=NUMBER"),
        ("val_loss", "is not METRIC<=NUMBER"),
        ("val_loss=0.1", "is not METRIC<=NUMBER"),
        ("val_loss==0.1", "is not METRIC<=NUMBER"),
        ("0.1>=val_loss", "is not METRIC<=NUMBER"),
        ("val_loss<=", "is not METRIC<=NUMBER"),
        ("val_loss<=low", "is not METRIC<=NUMBER"),
        ("val_loss<=nan", "is not METRIC<=NUMBER"),
        ("val_loss<=0.1,0.2", "is not METRIC<=NUMBER"),
        ("val_loss<=1e999", "not a finite number"),
        ("test_accuracy>=0.9", "test metrics are reported only"),
    ],
)
def test_target_refusals(text: str, message: str) -> None:
    with pytest.raises(errors.TargetError, match=message) as refusal:
        Target.parse(text)
    assert repr(text) in str(refusal.value)


def test_target_is_met_at_its_value() -> None:
    assert Target.parse("val_loss<=0.1").met_by(0.1)
    assert not Target.parse("val_loss<=0.1").met_by(0.11)
    assert Target.parse("val_accuracy>=0.9").met_by(0.9)
    assert not Target.parse("val_accuracy>=0.9").met_by(math.nan)


def test_statuses_carry_their_meaning_and_exit_status() -> None:
    assert all(status.meaning and status.ending and status.detail for status in RunStatus)
    for status in set(RunStatus) - {RunStatus.REACHED}:
        assert not status.detail.startswith(status.ending), "they stand beside each other"
    assert {status.value for status in PlanStatus if status.exit_status == 3} == {
        "target-not-reached",
        "insufficient-data",
        "unfinished",
    }
    assert {status.exit_status for status in PlanStatus} == {0, 3}


def test_plan_members_are_those_of_the_contract() -> None:
    contract = "schema task objective target status message recipe probability_within_5_percent predicted measured"
    contract += " verified alternatives search evidence environment"
    assert set(contract.split()) <= {f.name for f in dataclasses.fields(Plan)}
    recipe = "batch_size micro_batch_size grad_accum_steps world_size lr schedule warmup_steps final_lr"
    recipe += " precision num_threads optimizer_changes steps steps_per_epoch epochs early_stop"
    assert set(recipe.split()) == {f.name for f in dataclasses.fields(Recipe)}


def test_the_error_tree_is_as_drawn() -> None:
    drawing = errors.__doc__ or ""
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.BatchscopeError)
        assert name in drawing
        assert kind.exit_status == (3 if kind is errors.OutOfTime else 2)
    usage = {"TaskError", "TargetError", "ProfileError", "StoreError", "TableError"}
    assert {kind.__name__ for kind in errors.UsageError.__subclasses__()} == usage


def test_out_of_memory_carries_the_size() -> None:
    error = errors.OutOfMemory("a step of 512 examples did not fit", micro_batch_size=512)
    assert error.micro_batch_size == 512
    assert "512" in str(error)
