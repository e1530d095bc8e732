"""What the five trainings are judged by: the interval of the time to target, and the script's default."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["fast_enough", "kept", "median_seconds", "table", "within"]

Row = Mapping[str, Any]
_KEEPING = "keep-current"
"""Status of a plan that says to keep the current recipe."""


def median_seconds(runs: Sequence[Row]) -> float | None:
    """Median over runs of the seconds to the target, those that did not reach it endless; none: the median is."""
    seconds = sorted(run.get("seconds_to_target") or float("inf") for run in runs)
    middle = statistics.median_low(seconds) if seconds else float("inf")
    return None if middle == float("inf") else middle


def within(row: Row) -> bool | None:
    """Whether the median time of the recipe's fresh runs lies in the plan's 90 % interval; none: there is no recipe."""
    told, measured = (row["predicted"] or {}).get("time_to_target_s"), median_seconds(row["fresh"])
    if told is None or not row["fresh"]:
        return None
    low, high = told["low"] or 0.0, float("inf") if told["high"] is None else told["high"]
    return measured is not None and low <= measured <= high


def kept(row: Row) -> bool:
    """Whether the answer is to keep what the script has."""
    return row["status"] == _KEEPING


def fast_enough(row: Row) -> bool:
    """Whether the recipe is at least as fast as the script's default, or the answer is to keep that."""
    recipe, default = median_seconds(row["fresh"]), median_seconds(row["defaults"])
    return kept(row) or (recipe is not None and (default is None or recipe <= default))


def table(rows: Sequence[Row], descriptions: Mapping[str, str]) -> str:
    """Table of the trainings, and under it how many meet what is asked."""
    head = ("training", "default", "recipe", "told (90 %) / s", "recipe / s", "default / s", "within", "search / s")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(_cells(row, descriptions))} |" for row in rows]
    hold, fast = [within(row) for row in rows], [fast_enough(row) for row in rows]
    lines += [
        "",
        f"Time to target within the 90 % interval: {hold.count(True)} of {len(rows)} (asked: at least four of five). "
        f"At least as fast as the default, or kept: {fast.count(True)} of {len(rows)} (asked: all).",
    ]
    return "\n".join(lines) + "\n"


def _cells(row: Row, descriptions: Mapping[str, str]) -> list[str]:
    told = (row["predicted"] or {}).get("time_to_target_s") or {}
    numbers = [told.get(end) for end in ("value", "low", "high")]
    recipe = _settings(row["recipe"]) if row["recipe"] else "none"
    ends = f"{_number(numbers[0])} ({_number(numbers[1])}–{_number(numbers[2])})" if told else "–"
    fit = {True: "yes", False: "no", None: "–"}[within(row)]
    return [
        descriptions.get(row["training"], row["training"]),
        _settings(row["default"]),
        f"{recipe}, kept" if kept(row) else recipe,
        ends,
        _number(median_seconds(row["fresh"])),
        _number(median_seconds(row["defaults"])),
        fit,
        f"{row['wall_s']:.0f}",
    ]


def _settings(recipe: Row) -> str:
    return f"{recipe['batch_size']}, {recipe['lr']:.3g}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
