"""The exhaustive truth for the tasks: every batch size and learning rate, three seeds each, as curves.

    python benchmarks/search/tables.py digits-sgd             # one task; resumes from what its table holds
    python benchmarks/search/tables.py all --skip-times
    python benchmarks/search/tables.py all --times            # this machine's step times, and the best cells, again

For each batch size the rates are spaced by a factor of 2, from two that are clearly too low (2.5 times the best steps,
or censored there) to two that are clearly too high. The best cell of each hardware profile is then run on nine fresh
seeds. `Table.read(name)` gives it all back from `benchmarks/search/tables/<name>.npz`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from batchscope.fits.step_time import StepTime, fit_step_time
from batchscope.hardware.device import Device, pick
from batchscope.hardware.environment import environment_of
from batchscope.hardware.step_times import measure_step_times
from batchscope.store.codec import encode
from batchscope.tasks.workload import Workload
from curves import Curve, measured
from table_file import Measured, load, locked, rate_key, save
from tasks import TASKS, BenchTask

__all__ = ["KNEES", "PROFILES", "TASKS", "Best", "Curve", "Table", "geometric_mean", "next_rate"]

FOLDER = Path(__file__).resolve().parent / "tables"
CHOOSING_SEEDS = (101, 102, 103)
FRESH_SEEDS = tuple(range(201, 210))
KNEES = {"knee64": 64, "knee512": 512, "knee4096": 4096}
PROFILES = ("here", *KNEES)
CENSOR = 2.5
_BEYOND = 2
"""Clearly worse rates on each side of the best."""
_MOST_RATES = 14
_TIMINGS = 5


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best cell of a profile, with the geometric mean of its steps on the fresh seeds."""

    batch_size: int
    lr: float
    steps: float
    time_s: float


class _BusySeconds(Device):
    """A processor whose clock stands still while others use it; right for one thread."""

    def clock(self) -> float:
        """Seconds that this process has computed."""
        return time.process_time()


class Table:
    """The measured cells of one task, kept on disk after every cell."""

    def __init__(self, task: BenchTask, path: Path, content: Measured) -> None:
        self.task, self.path, self._measured = task, path, content

    @classmethod
    def read(cls, name: str, folder: Path = FOLDER) -> Table:
        """The table of a task, empty where none was filled yet; trains nothing, loads no data."""
        path = folder / f"{name}.npz"
        return cls(TASKS[name], path, load(path))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Those that were measured, increasing."""
        return tuple(sorted({key[0] for key in self._measured.curves}))

    def rates(self, batch_size: int) -> tuple[float, ...]:
        """The rates measured at a batch size, increasing."""
        return tuple(sorted({key[1] for key in self._measured.curves if key[0] == batch_size}))

    def curve(self, batch_size: int, lr: float, seed_index: int) -> Curve:
        """The run of a cell with one of the three choosing seeds.

        Raises:
            KeyError: that cell was not measured.
        """
        return self._measured.curves[batch_size, rate_key(lr), seed_index]

    def cell_steps(self, batch_size: int, lr: float) -> float:
        """Geometric mean of the steps to target; infinite where a seed did not reach it."""
        return geometric_mean([self.curve(batch_size, lr, i).steps_to_target for i in range(len(CHOOSING_SEEDS))])

    def best_rate(self, batch_size: int) -> tuple[float, float]:
        """The best rate at a batch size, and its steps to target."""
        return min(((lr, self.cell_steps(batch_size, lr)) for lr in self.rates(batch_size)), key=lambda pair: pair[1])

    def step_time(self, profile: str, batch_size: int) -> float:
        """Seconds of one step on a profile."""
        if profile in KNEES:
            return 1e-3 * (1 + batch_size / KNEES[profile])
        return self._own_step_time.seconds(batch_size)

    @property
    def timed(self) -> bool:
        """Whether this machine's step times are known."""
        return "step_time_s" in self._measured.meta

    @cached_property
    def _own_step_time(self) -> StepTime:
        return fit_step_time([(int(size), float(seconds)) for size, seconds in self._measured.meta["step_time_s"]])

    def best(self, profile: str) -> Best:
        """The best cell of a profile; its steps are those of the fresh seeds."""
        return Best(**self._measured.meta["best"][profile])

    def fresh(self, batch_size: int, lr: float, most_steps: int) -> list[float | None]:
        """Steps to target on the nine fresh seeds, `None` for a seed that took more than `most_steps`.

        Measured, and kept in the table, where it does not have them yet.
        """
        cell = (batch_size, rate_key(lr))
        known, longest = self._measured.fresh.get(cell), self._measured.fresh_most.get(cell, 0)
        if known is None or (None in known and longest < most_steps):
            start, steps = 0, list[float | None]()
            for index, seed in enumerate(FRESH_SEEDS):
                before = known[index] if known else None
                steps.append(before or self._steps(batch_size, lr, seed, most_steps, start))
                start = round(steps[-1] or start)
            known, longest = steps, most_steps
            self._measured.fresh[cell], self._measured.fresh_most[cell] = steps, most_steps
            self._save()
        return [None if s is None or s > most_steps else s for s in known]

    def _steps(self, batch_size: int, lr: float, seed: int, most_steps: int, start: int) -> float | None:
        curve = measured(self.workload, self.task, batch_size, lr, seed, most_steps, start)
        return None if curve.steps_to_target is None else round(curve.steps_to_target, 2)

    @cached_property
    def workload(self) -> Workload:
        """The task made ready to run."""
        return self.task.workload()

    def fill(self) -> None:
        """Measure every batch size, from the largest to the smallest, widening the rates until both sides are seen."""
        began, spent = time.perf_counter(), self._measured.meta.get("fill_s", 0.0)
        lr, steps, before = self.task.first_lr, float(self.task.first_steps), 2 * max(self.task.batch_sizes)
        for batch_size in reversed(self.task.batch_sizes):
            ratio = before / batch_size
            lr = lr if ratio <= 2 else lr / 2
            lr, steps = self._fill_batch_size(batch_size, lr, round(steps), math.ceil(1.25 * ratio * CENSOR * steps))
            self._save(
                environment=encode(environment_of(pick("cpu"))), fill_s=round(spent + time.perf_counter() - began, 1)
            )
            before = batch_size

    def _fill_batch_size(self, batch_size: int, lr: float, start: int, most: int) -> tuple[float, float]:
        column: dict[float, float] = {}
        candidate: float | None = lr
        while candidate is not None:
            column[candidate] = self._fill_cell(batch_size, candidate, start, most)
            if math.isfinite(best := min(column.values())):
                start, most = round(best), math.ceil(CENSOR * best)
            candidate = next_rate(column, lr)
        shown = {f"{rate:.3g}": round(value, 1) for rate, value in sorted(column.items())}
        found = min(column, key=column.__getitem__)
        print(f"{self.task.name} B={batch_size}: {column[found]:.0f} steps at {found:.3g}  {shown}", flush=True)
        return found, column[found]

    def _fill_cell(self, batch_size: int, lr: float, start: int, most: int) -> float:
        keys = [(batch_size, rate_key(lr), index) for index in range(len(CHOOSING_SEEDS))]
        if not all(key in self._measured.curves for key in keys):
            for key, seed in zip(keys, CHOOSING_SEEDS, strict=True):
                curve = measured(self.workload, self.task, batch_size, lr, seed, most, start)
                start = round(curve.steps_to_target or start)
                self._measured.curves[key] = curve
            self._save()
        return self.cell_steps(batch_size, lr)

    def time_steps(self) -> None:
        """Step times of this machine at every batch size, for the profile `here`, in seconds of its processor.

        Each is the median of a few steps, and the least of repeated passes: other work only ever lengthens a step.
        """
        workload = self.task.workload()
        workload.device = _BusySeconds(workload.device.torch_device)
        passes = [measure_step_times(workload, self.task.batch_sizes, seed=i).readings for i in range(_TIMINGS)]
        seconds: dict[int, list[float]] = {}
        for reading in itertools.chain.from_iterable(passes):
            seconds.setdefault(reading.micro_batch_size, []).append(reading.step_time_s or math.inf)
        self.__dict__.pop("_own_step_time", None)
        self._save(step_time_s=[[size, min(seconds[size])] for size in sorted(seconds)])

    def measure_best(self) -> None:
        """Run the best cell of each profile on the fresh seeds; the next best, where one of them fails."""
        chosen: dict[str, Best] = {}
        for profile in PROFILES:
            chosen[profile] = best = self._best_of(profile)
            print(
                f"{self.task.name} {profile}: B={best.batch_size} lr={best.lr:.3g} {best.steps:.1f} steps, "
                f"{best.time_s:.4g} s",
                flush=True,
            )
        self._save(best={profile: dataclasses.asdict(best) for profile, best in chosen.items()})

    def _best_of(self, profile: str) -> Best:
        cells = [(b, lr) for b in self.batch_sizes for lr in self.rates(b) if math.isfinite(self.cell_steps(b, lr))]
        for batch_size, lr in sorted(cells, key=lambda cell: self.cell_steps(*cell) * self.step_time(profile, cell[0])):
            steps = geometric_mean(self.fresh(batch_size, lr, math.ceil(20 * self.cell_steps(batch_size, lr))))
            if math.isfinite(steps):
                time_s = steps * self.step_time(profile, batch_size)
                return Best(batch_size=batch_size, lr=lr, steps=steps, time_s=time_s)
        raise RuntimeError(f"{self.task.name}: no cell reaches the target on every fresh seed")

    def _save(self, **changes: Any) -> None:
        """Write what was measured here and meanwhile by others; `meta` stays as it is on disk, but for the changes."""
        with locked(self.path):
            self._measured.take(load(self.path))
            self._measured.meta.update(changes)
            save(self.path, self._measured)


def geometric_mean(steps: list[float | None]) -> float:
    """Geometric mean; infinite when a run never reached the target."""
    return math.inf if None in steps else math.exp(statistics.fmean(math.log(s) for s in steps if s is not None))


def next_rate(column: Mapping[float, float], first: float) -> float | None:
    """The next rate to measure at a batch size; nothing, once the best has two clearly worse ones on each side.

    Args:
        column: steps to target by rate, infinite where censored; the rates are neighbours by a factor of 2.
        first: the rate that the column began with.

    Raises:
        RuntimeError: none of many rates reaches the target.

    Example:
        >>> next_rate({1.0: 10.0}, 1.0), next_rate({0.5: 12.0, 1.0: 10.0, 2.0: 50.0, 4.0: 60.0}, 1.0)
        (2.0, 0.25)
    """
    low, high = min(column), max(column)
    best = min(column, key=column.__getitem__)
    if math.isinf(column[best]):
        if len(column) > _MOST_RATES:
            raise RuntimeError(f"no rate of {sorted(column)} reaches the target")
        return low / 2 if high / first >= first / low else high * 2
    worse = {lr for lr, steps in column.items() if steps >= CENSOR * column[best]}
    if sum(lr > best for lr in worse) < _BEYOND and high < 2**6 * best:
        return high * 2
    if sum(lr < best for lr in worse) < _BEYOND:
        return low / 2
    return None


def main() -> None:
    """Fill the tables named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="+", choices=[*TASKS, "all"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-times", action="store_true", help="measure the cells only")
    parser.add_argument("--times", action="store_true", help="measure the step times again, and the best cells")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in TASKS if "all" in arguments.task else arguments.task:
        table = Table.read(name)
        table.fill()
        if arguments.times or (not arguments.skip_times and not table.timed):
            table.time_steps()
        if table.timed:
            table.measure_best()


if __name__ == "__main__":
    main()
