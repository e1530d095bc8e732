"""The figures that the benchmark judges by, from its raw rows: what they are, their bounds, and their table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Figure", "by_training", "figures", "fresh_seconds", "off", "table"]

Row = Mapping[str, Any]
_EVALUATION_SHARE_OF_TRAINING = 0.01
"""Of one evaluation in a training: above that, the share of evaluations in a search is not judged."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure with its bound.

    Attributes:
        name: one line.
        value: none, where nothing was measured that it could be made from.
        bound: what it is judged by.
        low: whether it must be at most the bound; else at least.
        n: how many single numbers it was made from.
    """

    name: str
    value: float | None
    bound: float
    low: bool
    n: int

    @property
    def met(self) -> bool | None:
        """Whether it is within its bound; none where there is no value."""
        if self.value is None:
            return None
        return self.value <= self.bound if self.low else self.value >= self.bound


def off(ratio: float) -> float:
    """How many times two times differ, whichever is the longer."""
    return max(ratio, 1 / ratio) if ratio > 0 else math.inf


def fresh_seconds(row: Row) -> list[float]:
    """Seconds to the target of the recipe's fresh runs, infinite for one that did not reach it."""
    return [math.inf if run["seconds_to_target"] is None else run["seconds_to_target"] for run in row["fresh"]]


def step_ratio(row: Row) -> float | None:
    """The step time told, in units of the plain loop's mean step (median of the fresh runs)."""
    if not row["fresh"] or row["step_time_s"] is None:
        return None
    return row["step_time_s"]["value"] / statistics.median(run["step_s"]["mean"] for run in row["fresh"])


def verified_ratio(row: Row) -> float | None:
    """`verified.time_s`, in units of the plain loop's time for as many steps with the same recipe and seed."""
    tries = [each for each in row["verified_tries_s"] if each]
    return row["verified"]["time_s"] / statistics.median(tries) if tries else None


def held(row: Row) -> list[bool]:
    """For each fresh run, whether the interval of the time to target held its seconds."""
    interval = row["time_to_target_s"]
    if not row["fresh"] or interval is None:
        return []
    high = math.inf if interval["high"] is None else interval["high"]
    return [(interval["low"] or 0.0) <= each <= high and math.isfinite(each) for each in fresh_seconds(row)]


def forecast_held(row: Row) -> bool | None:
    """Whether the forecast held the wall time of the search."""
    return row["forecast"] and row["forecast"]["low"] <= row["wall_s"] <= row["forecast"]["high"]


def evaluation_share(row: Row) -> float | None:
    """Evaluations in the search's runs times what one takes in the plain loop, in units of the search's wall time."""
    if row["evaluation_s"] is None:
        return None
    return row["evaluations"] * row["evaluation_s"] / row["wall_s"]


def regret(row: Row, best_s: Mapping[str, float]) -> float | None:
    """The recipe's median wall time in units of the best cell's; infinite where there is no recipe, or it fails."""
    if row["training"] not in best_s:
        return None
    seconds = statistics.median(fresh_seconds(row)) if row["fresh"] else math.inf
    return seconds / best_s[row["training"]]


def price(row: Row, best_s: Mapping[str, float]) -> float | None:
    """The search's wall time in trainings: of the best cell, or of the recipe where no grid was measured."""
    one = best_s.get(row["training"])
    if one is None:
        one = statistics.median(fresh_seconds(row)) if row["fresh"] else math.inf
    return row["wall_s"] / one if math.isfinite(one) else None


def figures(rows: Sequence[Row], best_s: Mapping[str, float]) -> list[Figure]:
    """The figures over all rows.

    Args:
        rows: one a search, as `run.py` writes them.
        best_s: seconds to the target of the grid's best cell, by training.
    """
    steps, verified = _all(step_ratio, rows), _all(verified_ratio, rows)
    intervals = [each for row in rows for each in held(row)]
    forecasts = _all(forecast_held, rows)
    cheap = [row for row in rows if _cheap(row, best_s)]
    shares = _all(evaluation_share, cheap)
    regrets = _all(lambda row: regret(row, best_s), rows)
    prices = _all(lambda row: price(row, best_s), rows)
    decoding = _all(lambda row: regret(row, best_s), [row for row in rows if row["training"] == "decoding"])
    return [
        _figure("searches with a recipe, share", [bool(row["recipe"]) for row in rows], _mean, 1.0, low=False),
        _figure("step time against the plain loop, largest factor", [off(r) for r in steps], max, 1.25),
        _figure("verified against the plain loop, largest factor", [off(r) for r in verified], max, 1.10),
        _figure("fresh runs within the interval of the time to target", intervals, _mean, 0.85, low=False),
        _figure("searches within their forecast", forecasts, _mean, 0.80, low=False),
        _figure("evaluations' largest share of a search, where one is cheap", shares, max, 0.15),
        _figure("regret, median", regrets, statistics.median, 1.15),
        _figure("regret, worst", regrets, max, 1.5),
        _figure("regret with 2 ms decoding, worst", decoding, max, 1.2),
        _figure("search in trainings, median", prices, statistics.median, 4.0),
    ]


def _cheap(row: Row, best_s: Mapping[str, float]) -> bool:
    one = best_s.get(row["training"])
    if one is None and row["fresh"]:
        one = statistics.median(fresh_seconds(row))
    return bool(one and row["evaluation_s"] and row["evaluation_s"] < _EVALUATION_SHARE_OF_TRAINING * one)


def _all(of: Callable[[Row], Any], rows: Iterable[Row]) -> list[Any]:
    return [value for value in map(of, rows) if value is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _figure(name: str, values: Sequence[Any], of: Callable[[Any], float], bound: float, *, low: bool = True) -> Figure:
    return Figure(name=name, value=float(of(values)) if values else None, bound=bound, low=low, n=len(values))


def by_training(rows: Sequence[Row], best_s: Mapping[str, float]) -> list[dict[str, Any]]:
    """Medians of each training's rows, ratios with the least and the greatest; none where nothing was measured."""
    found: list[dict[str, Any]] = []
    for name in dict.fromkeys(row["training"] for row in rows):
        mine = [row for row in rows if row["training"] == name]
        intervals = [each for row in mine for each in held(row)]
        fresh = [each for row in mine for each in fresh_seconds(row)]
        found.append(
            {
                "training": name,
                "searches": len(mine),
                "recipes": sum(bool(row["recipe"]) for row in mine),
                "best_s": best_s.get(name),
                "recipe_s": statistics.median(fresh) if fresh else None,
                "regret": _spread(_all(lambda row: regret(row, best_s), mine)),
                "price": _spread(_all(lambda row: price(row, best_s), mine)),
                "step": _spread(_all(step_ratio, mine)),
                "verified": _spread(_all(verified_ratio, mine)),
                "interval": _mean(intervals) if intervals else None,
                "forecast": _mean(_all(forecast_held, mine)) if _all(forecast_held, mine) else None,
                "evaluations": _spread(_all(evaluation_share, mine)),
            }
        )
    return found


def _spread(values: Sequence[float]) -> tuple[float, float, float] | None:
    return (statistics.median(values), min(values), max(values)) if values else None


def table(rows: Sequence[Row], best_s: Mapping[str, float], descriptions: Mapping[str, str]) -> str:
    """Both tables in Markdown."""
    heads = ("training", "best / s", "recipe / s", "regret", "search / trainings", "step time", "verified")
    heads += ("in interval", "in forecast", "evaluations")
    lines = [_line(heads), _line(["---"] * len(heads))]
    for each in by_training(rows, best_s):
        name = f"{each['training']}: {descriptions.get(each['training'], '')} ({each['recipes']}/{each['searches']})"
        ratios = [_ratio(each[part]) for part in ("regret", "price", "step", "verified")]
        shares = [_percent(each["interval"]), _percent(each["forecast"]), _share(each["evaluations"])]
        lines.append(_line([name, _number(each["best_s"]), _number(each["recipe_s"]), *ratios, *shares]))
    lines += ["", _line(["figure", "value", "bound", "met", "from"]), _line(["---"] * 5)]
    for figure in figures(rows, best_s):
        sign = "at most" if figure.low else "at least"
        met = {True: "yes", False: "no", None: "not measured"}[figure.met]
        lines.append(_line([figure.name, _number(figure.value), f"{sign} {figure.bound:g}", met, str(figure.n)]))
    if not best_s:
        lines += ["", "No grid was used: regret is left out, and a training is one at the recipe."]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "–" if value is None else ("never" if math.isinf(value) else f"{value:.3g}")


def _ratio(spread: tuple[float, float, float] | None) -> str:
    return "–" if spread is None else f"{_number(spread[0])} ({_number(spread[1])} to {_number(spread[2])})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _share(spread: tuple[float, float, float] | None) -> str:
    return "–" if spread is None else _percent(spread[0])
