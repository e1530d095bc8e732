"""The exhaustive grid of each training: batch sizes by factors of 4, learning rates by factors of 3, by a plain loop.

    python benchmarks/real/grid.py --dry-run            # what is left to do, and how long it will take
    python benchmarks/real/grid.py                      # everything; about an hour on a quiet core
    python benchmarks/real/grid.py images text --most-minutes 20

Needs the data in `../shared`. Every cell is one run of `loop.py` in a process with one thread, from the centre on, with
one seed; a run is censored at three times the best time so far. Where the best cell lies at an edge, the grid grows
there. The cells close to the best are then run with two more seeds; the best is the one with the least median wall
time, evaluations apart. Each run is kept as it ends, in `benchmarks/real/grids/NAME.npz` with its curve, and is not
repeated by the next call, unless the task file or the target has changed.

Times are wall times: nothing else should run meanwhile. The load average is kept beside each.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plain
from grid_file import FOLDER, Grid, Key, key, load, save
from trainings import TRAININGS, Training

__all__ = ["Best", "best", "fill", "forecast", "limit", "wanted"]

SEEDS = (101, 102, 103)
SIZE_FACTOR, LR_FACTOR = 4, 3.0
CENSOR = 3.0
CLOSE = 1.25
"""Cells at most so many times as slow as the best are run with the other seeds too."""
FIRST_LIMIT = 6.0
"""Before any run has reached the target: so many times the guess."""
_REACH, _MOST_REACH = 2, 4
_SETUP_S = 5.0
Loop = Callable[[Sequence[str], float], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best cell: its median seconds to the target, of how many runs, and whether the grid could go on beyond it."""

    batch_size: int
    lr: float
    seconds: float
    runs: int
    at_edge: bool


def cell(training: Training, i: int, j: int) -> tuple[int, float] | None:
    """The cell so many factors from the centre; none where no such batch can be made."""
    size = training.batch_size * float(SIZE_FACTOR) ** i
    if size < 1 or size > training.examples:
        return None
    return round(size), float(f"{training.lr * LR_FACTOR**j:.6g}")


def _seconds(grid: Grid, of: tuple[int, float]) -> list[float]:
    """Seconds of a cell's runs, infinite for one that did not reach the target."""
    found = (grid.runs.get(key(*of, seed)) for seed in SEEDS)
    return [run["seconds_to_target"] or math.inf for run in found if run is not None]


def wanted(training: Training, grid: Grid) -> list[Key]:
    """The runs that are known to be missing, in the order in which they are made.

    First the rectangle, then a row or column beside the best cell where it lies at an edge, then the other seeds of
    the cells close to the best. Empty: the grid is complete.
    """
    low_i, high_i, low_j, high_j = -_REACH, _REACH, -_REACH, _REACH
    while True:
        places = [(i, j) for i in range(low_i, high_i + 1) for j in range(low_j, high_j + 1) if cell(training, i, j)]
        places.sort(key=lambda place: (abs(place[0]) + abs(place[1]), place))
        cells = [cell(training, *place) for place in places]
        missing = [key(*each, SEEDS[0]) for each in cells if each and key(*each, SEEDS[0]) not in grid.runs]
        if missing:
            return missing
        first = {place: grid.seconds(*each, SEEDS[0]) or math.inf for place, each in zip(places, cells, strict=True)}
        i, j = min(first, key=first.__getitem__)
        if math.isinf(first[i, j]):
            return []
        grown = (
            max(low_i - (i == low_i and cell(training, low_i - 1, j) is not None), -_MOST_REACH),
            min(high_i + (i == high_i and cell(training, high_i + 1, j) is not None), _MOST_REACH),
            max(low_j - (j == low_j), -_MOST_REACH),
            min(high_j + (j == high_j), _MOST_REACH),
        )
        if grown == (low_i, high_i, low_j, high_j):
            close = [place for place in places if first[place] <= CLOSE * first[i, j]]
            close_cells = [cell(training, *place) for place in sorted(close, key=first.__getitem__)]
            others = [key(*each, seed) for each in close_cells if each for seed in SEEDS[1:]]
            return [other for other in others if other not in grid.runs]
        low_i, high_i, low_j, high_j = grown


def best(training: Training, grid: Grid) -> Best | None:
    """The cell with the least median among those that have most runs; none where no run has reached the target."""
    cells = {(b, lr) for b, lr, _ in grid.runs}
    runs = {each: _seconds(grid, each) for each in cells}
    most = max(map(len, runs.values()), default=0)
    medians = {each: statistics.median(seconds) for each, seconds in runs.items() if len(seconds) == most}
    if not medians or math.isinf(min(medians.values())):
        return None
    found = min(medians, key=lambda each: (medians[each], each))
    sizes, lrs = [b for b, _ in cells], [lr for _, lr in cells]
    edge = found[1] in (min(lrs), max(lrs))
    edge |= found[0] == min(sizes) and found[0] >= SIZE_FACTOR
    edge |= found[0] == max(sizes) and found[0] * SIZE_FACTOR <= training.examples
    return Best(batch_size=found[0], lr=found[1], seconds=medians[found], runs=most, at_edge=edge)


def limit(training: Training, grid: Grid) -> float:
    """Seconds of steps after which a run is censored."""
    reached = [run["seconds_to_target"] for run in grid.runs.values() if run["seconds_to_target"] is not None]
    return CENSOR * min(reached) if reached else FIRST_LIMIT * training.seconds


def forecast(training: Training, grid: Grid) -> tuple[int, float, float]:
    """Runs known to be missing (other seeds of close cells not yet), their expected seconds, and the most."""
    missing = len(wanted(training, grid))
    walls = [run["wall_seconds"] for run in grid.runs.values()]
    overhead = max((run["wall_seconds"] / run["seconds"] for run in grid.runs.values()), default=1.3)
    each = statistics.fmean(walls) if walls else 2 * training.seconds
    further = 4 if not grid.runs or missing > len(SEEDS) * 2 else 0
    most = limit(training, grid) if grid.runs else CENSOR * training.seconds
    return missing, (missing + further) * (each + _SETUP_S), (missing + further) * (most * overhead + _SETUP_S)


def fill(
    training: Training,
    folder: Path = FOLDER,
    *,
    loop: Loop = plain.run,
    until: float = math.inf,
    say: Callable[[str], None] = print,
) -> Grid:
    """Make the missing runs one after another, each kept as it ends.

    Args:
        training: whose grid.
        folder: of the files.
        loop: runs a command; another one in tests.
        until: no run begins after this moment of `time.monotonic`.
        say: takes each line of progress.
    """
    path = folder / f"{training.name}.npz"
    grid = load(path, training.fingerprint)
    failed: set[Key] = set()
    while time.monotonic() < until:
        missing = [of for of in wanted(training, grid) if of not in failed]
        if not missing:
            break
        of, most_s = missing[0], limit(training, grid)
        try:
            answer = loop(plain.words(training, *of, max_seconds=most_s), most_s)
        except plain.Failed as reason:
            failed.add(of)
            say(f"{training.name} {_name(of)}: failed, and is tried again by the next call: {reason}")
            continue
        grid.add(of, answer, limit_s=most_s, load=os.getloadavg()[0])
        save(path, grid)
        left, seconds, _ = forecast(training, grid)
        took = f"{answer['status']} after {answer['steps']} steps, {answer['seconds']:.1f} s"
        say(f"{training.name} {_name(of)}: {took}; {left} runs left, about {seconds / 60:.0f} min")
    return grid


def _name(of: Key) -> str:
    return f"B={of[0]} lr={of[1]:.3g} seed={of[2]}"


def _summary(training: Training, grid: Grid) -> str:
    found = best(training, grid)
    if found is None:
        return f"{training.name}: no run has reached {training.target} yet"
    edge = ", at the edge of the grid" if found.at_edge else ""
    return (
        f"{training.name}: best B={found.batch_size} lr={found.lr:.3g}{edge}: {found.seconds:.2f} s, "
        f"the median of {found.runs}; {len(grid.runs)} runs"
    )


def main() -> None:
    """Fill the grids that the command line names, or say what that takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", nargs="*", help=f"of {', '.join(TRAININGS)}; all, unless some are named")
    parser.add_argument("--most-minutes", type=float, default=math.inf, help="no run begins after that")
    parser.add_argument("--dry-run", action="store_true", help="say how long it will take, and stop")
    asked = parser.parse_args()
    if unknown := set(asked.training) - set(TRAININGS):
        parser.error(f"no training is called {', '.join(sorted(unknown))}; there are {', '.join(TRAININGS)}")
    chosen = [TRAININGS[name] for name in asked.training or TRAININGS]
    expected = most = 0.0
    for training in chosen:
        runs, seconds, at_most = forecast(training, load(FOLDER / f"{training.name}.npz", training.fingerprint))
        expected, most = expected + seconds, most + at_most
        print(f"{training.name}: {runs} runs to make, about {seconds / 60:.0f} min, at most {at_most / 60:.0f} min")
    print(f"together about {expected / 60:.0f} min, at most {most / 60:.0f} min, if no grid grows", flush=True)
    if asked.dry_run:
        return
    until = time.monotonic() + 60 * asked.most_minutes
    for training in chosen:
        grid = fill(training, until=until, say=lambda line: print(line, flush=True))
        _keep_environment(training, grid)
        print(_summary(training, grid), flush=True)


def _keep_environment(training: Training, grid: Grid) -> None:
    from batchscope.hardware.device import pick
    from batchscope.hardware.environment import environment_of
    from batchscope.store.codec import encode

    if grid.runs:
        grid.meta["environment"] = encode(environment_of(pick("cpu")))
        save(FOLDER / f"{training.name}.npz", grid)


if __name__ == "__main__":
    main()
