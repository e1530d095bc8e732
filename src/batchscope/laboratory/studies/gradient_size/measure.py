"""Shen's sums of gradients at one checkpoint: measured a few repeats at a time, kept after each, in several processes.

What is kept (a note of the laboratory, read by `gradient_sums`) holds every norm, the pooled histograms, and for each
repeat how many values lie at or beyond a mark. Bins and mark are fixed by the first repeat, before anything is counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ....probes.gradient_histogram import Histogram, symmetric_limit
from ....probes.sequential_gradients import SequentialNorms, measure_sequential_gradients
from ....store.codec import decode, encode
from ....store.not_applicable import NotApplicable, not_applicable
from ....tasks.workload import Workload
from ....training.executors.processes import SharedRepeats, one_thread, stretches
from ....training.limits import CutOff
from ....wording import duration, plural
from ...records import note_name
from .sums import NOTES

if TYPE_CHECKING:
    from ...checkpoints import Checkpoint
    from ...engine import Laboratory

__all__ = ["Asked", "Part", "gradient_sums_at", "measure_part"]

_BINS = 1001
_CHUNK_S = 6.0
"""Of work in one stretch of repeats, if it is more than one: what an interruption loses in each process."""
_FARTHEST = 4.0
"""Bins reach to so many times the largest batch's greatest value at most: small steps may diverge."""
_PREDICTED = 1000
"""Repeats of the published measurement."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is measured, the same at every checkpoint."""

    batch_sizes: tuple[int, ...]
    lr: float
    repeats: int
    share: float
    """Of the largest batch's values in the first repeat, that lie at or beyond the mark."""
    published_mark: float
    """A value from which on counts are given too."""

    @property
    def samples(self) -> int:
        """Drawn in each repeat."""
        return max(self.batch_sizes)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some repeats."""

    norms: SequentialNorms
    histograms: tuple[Histogram, ...]
    """Of the entries of the sums, for each batch size."""
    beyond: tuple[tuple[int, ...], ...]
    """For each repeat and batch size, values at or beyond the mark."""

    def joined(self, other: Part) -> Part:
        """Both, ordered by the number of the repeat."""
        counts = dict(zip(self.norms.repeats + other.norms.repeats, self.beyond + other.beyond, strict=True))
        norms = self.norms.joined(other.norms)
        return Part(
            norms=norms,
            histograms=tuple(a + b for a, b in zip(self.histograms, other.histograms, strict=True)),
            beyond=tuple(counts[number] for number in norms.repeats),
        )


def measure_part(
    workload: Workload, model: nn.Module, numbers: range, arguments: Mapping[str, Any], stop: Callable[[], bool]
) -> Part:
    """The repeats with these numbers; a `Measure` of `shared_repeats`.

    Args:
        workload: the task.
        model: the checkpoint.
        numbers: of the repeats.
        arguments: those of `measure_sequential_gradients`, and `limit`, `mark` and `marks` of the histograms.
        stop: asked after each batch size.

    Raises:
        CutOff: `stop` said so.
    """
    frame = dict(arguments)
    limit, mark, marks = (frame.pop(name) for name in ("limit", "mark", "marks"))
    sizes: tuple[int, ...] = tuple(frame["batch_sizes"])
    pooled = {size: Histogram.empty(limit=limit, bins=_BINS, marks=marks) for size in sizes}
    beyond: list[int] = []

    def count(size: int, total: Tensor) -> None:
        pooled[size] = pooled[size].with_values(total)
        beyond.append(int((total >= mark).sum()))
        if stop():
            raise CutOff

    norms = measure_sequential_gradients(
        workload, model, repeats=len(numbers), first_repeat=numbers.start, on_sum=count, **frame
    )
    assert isinstance(norms, SequentialNorms)
    rows = (tuple(beyond[i : i + len(sizes)]) for i in range(0, len(beyond), len(sizes)))
    return Part(norms=norms, histograms=tuple(pooled.values()), beyond=tuple(rows))


def gradient_sums_at(
    laboratory: Laboratory,
    shared: SharedRepeats,
    checkpoint: Checkpoint,
    weights: Mapping[str, Any],
    asked: Asked,
    *,
    later: int,
) -> bool:
    """Measure at one checkpoint whatever is not kept yet.

    Args:
        laboratory: where it is kept, as `gradient-sums-<checkpoint>`.
        shared: does the repeats.
        checkpoint: of a run.
        weights: kept there.
        asked: what is measured.
        later: checkpoints that come after this one, for the prediction.

    Returns:
        Whether it is all there now.
    """
    note = note_name(NOTES, checkpoint.name)
    kept = laboratory.read_note(note)
    if kept is not None and (not_applicable(kept) is not None or len(kept["sums"]["repeats"]) == asked.repeats):
        return True
    if laboratory.late:
        return False
    if not all(bool(v.isfinite().all()) for v in weights.values() if isinstance(v, Tensor) and v.is_floating_point()):
        diverged = NotApplicable(reason="the run diverged: its weights are no numbers")
        laboratory.note(note, {**_named(checkpoint), **encode(diverged)})
        return True
    model = laboratory.model(weights)
    keeper = _Keeper(laboratory, shared, checkpoint, asked)
    if kept is None:
        laboratory.progress.stage(f"sums of gradients {checkpoint.label}: a first repeat")
        try:
            with one_thread(laboratory.workload):
                reason = keeper.begin(model)
        except CutOff:
            return False
        if reason is not None:
            laboratory.note(note, {**_named(checkpoint), **encode(reason)})
            return True
    else:
        keeper.go_on(kept)
    keeper.predict(later)
    return keeper.finish(model)


class _Keeper:
    """Collects the parts of one checkpoint, and writes them down after each."""

    def __init__(self, laboratory: Laboratory, shared: SharedRepeats, checkpoint: Checkpoint, asked: Asked) -> None:
        self.laboratory, self.shared, self.checkpoint, self.asked = laboratory, shared, checkpoint, asked
        self.part: Part | None = None
        self.frame: dict[str, Any] = {
            "batch_sizes": asked.batch_sizes,
            "samples": asked.samples,
            "lr": asked.lr,
            "seed": checkpoint.seed,
        }

    def begin(self, model: nn.Module) -> NotApplicable | None:
        """The first repeat, which fixes bins and mark."""
        workload, late = self.laboratory.workload, lambda: self.laboratory.late
        sums: dict[int, Tensor] = {}

        def look(size: int, total: Tensor) -> None:
            sums[size] = total
            if late():
                raise CutOff

        norms = measure_sequential_gradients(workload, model, repeats=1, on_sum=look, **self.frame)
        if isinstance(norms, NotApplicable):
            return norms
        largest = sums[self.asked.samples]
        reach, farthest = symmetric_limit(sums.values()), symmetric_limit([largest], factor=1.25 * _FARTHEST)
        if reach is None or farthest is None:
            return NotApplicable(reason=f"the gradient of {norms.layer} is zero, or no number")
        values = largest.flatten()
        mark = float(values.kthvalue(max(1, round((1 - self.asked.share) * len(values)))).values)
        self.frame |= {"limit": min(reach, farthest), "mark": mark, "marks": (self.asked.published_mark,)}
        empty = Histogram.empty(limit=self.frame["limit"], bins=_BINS, marks=self.frame["marks"])
        self._keep(
            Part(
                norms=norms,
                histograms=tuple(empty.with_values(sums[size]) for size in self.asked.batch_sizes),
                beyond=(tuple(int((sums[size] >= mark).sum()) for size in self.asked.batch_sizes),),
            )
        )
        return None

    def go_on(self, kept: Mapping[str, Any]) -> None:
        """From what an earlier command kept."""
        sums = kept["sums"]
        norms = [[math.nan if v is None else v for v in row] for row in sums["norms"]]
        self.part = Part(
            norms=decode(SequentialNorms, {**sums, "norms": norms}),
            histograms=decode(tuple[Histogram, ...], kept["histograms"]),
            beyond=decode(tuple[tuple[int, ...], ...], kept["beyond"]),
        )
        self.frame |= {
            "limit": kept["histograms"][0]["limit"],
            "mark": kept["mark"],
            "marks": tuple(tail["mark"] for tail in kept["histograms"][0]["tails"]),
        }

    def predict(self, later: int) -> None:
        """Say how long it will take, here and at the checkpoints that come after; start processes for it."""
        each, left = self._each(), len(self._left())
        processes = self.shared.expect(each * (left + later * self.asked.repeats))
        here, all_in = (each * n / processes for n in (left, left + later * self.asked.repeats))
        done = f", {self.asked.repeats - left} of them done" if left < self.asked.repeats - 1 else ""
        said = (
            f"sums of gradients {self.checkpoint.label}: {plural(self.asked.repeats, 'repeat')} of "
            f"{plural(len(self.asked.batch_sizes), 'batch size')}{done}, about {duration(here)} in "
            f"{plural(processes, 'process', 'processes')}"
        )
        said += f"; with {plural(later, 'checkpoint')} more, about {duration(all_in)}" if later else ""
        budget = self.laboratory.deadline - time.monotonic()
        if all_in > budget:
            said += f"; the budget leaves {duration(budget)} (--budget), and the same command goes on from there"
        self.laboratory.progress.stage(said)

    def finish(self, model: nn.Module) -> bool:
        """All other repeats; whether there was time for them."""
        left = self._left()
        most = max(1, min(int(_CHUNK_S / self._each()), math.ceil(len(left) / (2 * self.shared.processes))))
        told = len(left)
        for _, part in self.shared.results(measure_part, model, stretches(left, most), self.frame):
            self._keep(part)
            if (now := len(self._left())) and told - now >= self.asked.repeats / 10:
                told = now
                remaining = duration(self._each() * now / self.shared.processes)
                self.laboratory.progress.stage(
                    f"sums of gradients {self.checkpoint.label}: {self.asked.repeats - now} of "
                    f"{plural(self.asked.repeats, 'repeat')}, about {remaining} left"
                )
        return not self._left()

    def _left(self) -> list[int]:
        done = set(self.part.norms.repeats) if self.part else set[int]()
        return [number for number in range(self.asked.repeats) if number not in done]

    def _each(self) -> float:
        """Seconds of one repeat in one process."""
        assert self.part is not None
        return self.part.norms.predicted_seconds(1).value or 1e-3

    def _keep(self, part: Part) -> None:
        self.part = whole = self.part.joined(part) if self.part else part
        self.laboratory.note(
            f"gradient-sums-{self.checkpoint.name}",
            {
                **_named(self.checkpoint),
                "wanted": self.asked.repeats,
                "processes": self.shared.processes,
                "mark": self.frame["mark"],
                "sums": encode(whole.norms),
                "spreads": encode(whole.norms.spreads()),
                "published_repeats_s": encode(whole.norms.predicted_seconds(_PREDICTED)),
                "beyond": whole.beyond,
                "histograms": encode(whole.histograms),
                "shapes": encode([histogram.shape() for histogram in whole.histograms]),
            },
        )


def _named(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"seed": checkpoint.seed, "part": checkpoint.part, "epoch": checkpoint.epoch, "label": checkpoint.label}
