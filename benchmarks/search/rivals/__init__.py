"""What people use instead: one file a rival or family, each a function of a game (`replay.Game`) that it plays."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from replay import Game

from . import asha, lightning_finders, noise_scale, optuna_tools, random_search, recipes

__all__ = ["FINDERS", "NEEDS", "RIVALS", "missing", "plays"]

RIVALS: dict[str, Callable[[Game], None]] = {
    "default": recipes.default,
    "largest, linear": recipes.largest_linear,
    "largest, square root": recipes.largest_square_root,
    "noise scale": noise_scale.search,
    "Lightning finders": lightning_finders.search,
    "random search": random_search.search,
    "Optuna TPE": optuna_tools.tpe,
    "Optuna TPE, median": optuna_tools.tpe_median,
    "Optuna TPE, Hyperband": optuna_tools.tpe_hyperband,
    "Ray Tune ASHA": asha.search,
}

FINDERS = {"Lightning finders": lightning_finders.measure, "noise scale": noise_scale.measure}
"""Those that train by themselves, once a task and seed; `finders.py` runs them."""

NEEDS = {
    "Optuna TPE": "optuna",
    "Optuna TPE, median": "optuna",
    "Optuna TPE, Hyperband": "optuna",
    "Ray Tune ASHA": "ray",
}
"""The packages without which a rival is left out of a replay."""

_ANY_SCHEDULE = ("default", "largest, linear", "largest, square root", "noise scale", "Lightning finders")


def missing(rival: str) -> str | None:
    """The package that is not installed, if the rival needs one."""
    package = NEEDS.get(rival)
    return package if package is not None and importlib.util.find_spec(package) is None else None


def plays(rival: str, schedule: str) -> bool:
    """Whether a table holds what the rival needs.

    Where the rate decays a table has the shortest horizons alone, and a search over batch size and rate would have to
    search over the horizon as well: only the rivals that name a recipe outright are judged there.
    """
    return schedule == "constant" or rival in _ANY_SCHEDULE
