"""What is kept of an answer: discrete things and numbers, of `--json` and the results folder. No sentences, no clock.

Left out, besides sentences (`message`, `why`, `statement`, `source`, `method`, notes, evidence) and the environment:
seconds that were measured here (of a run, of a search, of an epoch), findings as far as they follow from these
(`OF_MEASURED_TIME`), and ids of runs, which are a hash of their configuration: a run is known by its configuration.
Where a member gets another name, the old one stays here and `NAMES` says what it is called now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ABSENT = "absent"
"""Of a member that is not there: unlike `null`, which is an answer."""

NAMES: Mapping[str, Sequence[str]] = {}
"""Name of a member as it was recorded: what it is called as well."""

OF_MEASURED_TIME: Mapping[str, Mapping[int, Sequence[str]]] = {
    "batch_norm": {27: ("effect",)},
    "distance": {15: ("effect",)},
    "early_stopping": {12: ("effect",)},
    "fixed_epochs": {8: ("effect",)},
    "fixed_steps": {7: ("effect",)},
    "gradient_size": {6: ("effect",)},
    "learning_rate_compensation": {12: ("effect",)},
    "modes": {1: ("effect", "verdict"), 2: ("verdict",), 12: ("effect",)},
    "recovery": {9: ("effect",)},
    "regularising_noise": {11: ("effect",)},
    "sharp_minima": {10: ("effect",)},
    "trial_and_error": {1: ("effect", "verdict"), 3: ("effect", "verdict"), 10: ("effect",)},
}
"""By study, the findings (by their place) that compare seconds, and what of them follows from these: how long an epoch
takes; how long the published number of repeats would; in `modes` the time to a quality, and whether a step on tens of
examples costs little more (its effect counts steps); in `trial_and_error` the training time of its trials."""

_CLOCK = ("step_time_s", "epoch_time_s", "train_time_s")
_RECIPE = (
    "batch_size",
    "micro_batch_size",
    "grad_accum_steps",
    "world_size",
    "lr",
    "schedule",
    "warmup_steps",
    "optimizer_changes",
    "steps",
    "steps_per_epoch",
    "epochs",
    "early_stop",
)
_CONFIG = (
    "purpose",
    "batch_size",
    "micro_batch_size",
    "grad_accum_steps",
    "lr",
    "optimizer_changes",
    "schedule",
    "warmup_steps",
    "seed",
    "target",
    "max_steps",
    "evaluation_growth",
    "evaluation_epochs",
    "noise_scale_groups",
    "stall_patience",
)
_RESULT = ("status", "steps", "examples", "steps_to_target", "first", "last", "best", "best_step")


def member(record: Mapping[str, Any], name: str) -> Any:
    """A member under the name that it was recorded by."""
    return next((record[known] for known in (name, *NAMES.get(name, ())) if known in record), ABSENT)


def members(record: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Some members of a record."""
    return {name: member(record, name) for name in names}


def fit_answer(printed: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Of a plan from a table."""
    return _plan(printed, folder)


def find_answer(printed: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Of a search: the plan, what the search took in examples and on the given machine, and its runs."""
    cost = members(member(printed, "search"), ("examples", "runs", "run_equivalents", "device_seconds"))
    return {**_plan(printed, folder), "search": cost, "trained": _runs(folder)}


def study_answer(printed: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Of a named study: its rows, what it says over seeds, and its findings without their sentences."""
    study, rows = member(printed, "study"), member(printed, "rows")
    if _read(folder / "study.json")["findings"] != printed["findings"]:
        raise RuntimeError(f"{study}: study.json holds other findings than --json")
    runs = {r["run"]: f"{r['variant']} batch {r['batch_size']} rate {r['lr']:g} seed {r['seed']}".strip() for r in rows}
    timed = OF_MEASURED_TIME.get(study, {})
    findings = [_finding(f, runs, timed.get(i, ())) for i, f in enumerate(member(printed, "findings"))]
    return {
        "study": study,
        "task": member(printed, "task"),
        "rows": _sorted({k: v for k, v in row.items() if k != "run" and k not in _CLOCK} for row in rows),
        "summary": _sorted(
            {k: _estimate(v) if isinstance(v, dict) else v for k, v in arm.items() if k not in _CLOCK}
            for arm in member(printed, "summary")
        ),
        "findings": findings,
    }


def _finding(finding: Mapping[str, Any], runs: Mapping[str, str], timed: Sequence[str]) -> dict[str, Any]:
    """A finding without its sentence."""
    found = {
        "tag": member(finding, "tag"),
        "effect": _estimate(member(finding, "effect")),
        "verdict": member(finding, "verdict"),
        "runs": sorted(runs[name] for name in member(finding, "runs")),
    }
    return {name: "of measured time" if name in timed else value for name, value in found.items()}


def _plan(printed: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    if _read(folder / "plan.json") != printed:
        raise RuntimeError("plan.json is not what --json prints")
    names = ("task", "objective", "status", "probability_within_5_percent", "verified", "within")
    choices = ("alternatives", "easier_targets")
    return {
        **members(printed, names),
        "target": _target(member(printed, "target")),
        "examples_in_training_set": member(printed, "examples_in_training_set"),
        "recipe": _recipe(member(printed, "recipe")),
        "predicted": _estimates(member(printed, "predicted")),
        "measured": _estimates(member(printed, "measured")),
        "current": _recipe(member(printed, "current")),
        "current_predicted": _estimates(member(printed, "current_predicted")),
        **{name: [_choice(each) for each in member(printed, name)] for name in choices},
        "bench": _bench(member(printed, "bench")),
        "curves": _curves(member(printed, "curves")),
    }


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    """An alternative, or the recipe of an easier target."""
    target = {"target": _target(choice["target"])} if "target" in choice else {}
    return {**target, "recipe": _recipe(choice["recipe"]), "predicted": _estimates(choice["predicted"])}


def _recipe(recipe: Any) -> Any:
    return members(recipe, _RECIPE) if isinstance(recipe, dict) else recipe


def _target(target: Any) -> Any:
    """`null` also for one that no value can meet: a run to the end of its steps."""
    if not isinstance(target, dict) or abs(target["value"]) > 1e300:
        return None
    return members(target, ("metric", "value", "mode"))


def _bench(bench: Any) -> Any:
    return members(bench, ("largest_micro_batch_size", "memory_bound")) if isinstance(bench, dict) else bench


def _estimates(record: Any) -> Any:
    return {name: _estimate(e) for name, e in record.items()} if isinstance(record, dict) else record


def _estimate(estimate: Any) -> Any:
    """Value, interval, number of readings, unit: one list, whose numbers are compared on the scale of the largest."""
    return list(members(estimate, ("value", "low", "high", "n", "unit")).values()) if estimate else estimate


def _curves(curves: Any) -> Any:
    """Of each curve some points: value, interval, batch size."""
    if not isinstance(curves, dict):
        return curves
    columns = ("value", "low", "high", "batch_size")
    points = {name: list(zip(*(curve[c] for c in columns), strict=True)) for name, curve in curves.items()}
    return {name: [list(p) for p in every[:: max(1, len(every) // 4)]] for name, every in points.items()}


def _runs(folder: Path) -> list[dict[str, Any]]:
    """The configuration and the end of every run in a results folder."""
    found: list[dict[str, Any]] = []
    for path in (folder / "runs").iterdir():
        config, result = _read(path / "config.json"), _read(path / "result.json")
        kept = members(config, _CONFIG)
        found.append({**kept, "target": _target(kept["target"]), "result": members(result, _RESULT)})
    return _sorted(found)


def _sorted(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """In an order that depends on discrete things first, whatever the order they came in."""
    first = ("purpose", "variant", "batch_size", "lr", "seed", "schedule", "max_steps", "steps", "epochs", "status")
    return sorted(records, key=lambda r: [f"{r[n]:20.10g}" if _is_number(r[n]) else str(r[n]) for n in first if n in r])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
