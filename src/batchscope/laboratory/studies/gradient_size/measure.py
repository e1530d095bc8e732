"""Shen's sums of gradients at the checkpoints: a few repeats at a time, kept after each, in several processes.

A repeat draws what its number says, and is computed on one thread: so the numbers are the same, however many processes
there are and whichever measures what. What is kept (a note of the laboratory, read by `sums`) holds every norm, the
pooled histograms, and for each repeat how many values lie at or beyond a mark. Bins and mark are fixed by the first
repeat, before anything is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ....probes.gradient_histogram import Histogram, symmetric_limit
from ....probes.sequential_gradients import SequentialNorms, measure_sequential_gradients
from ....store.codec import decode, encode
from ....store.not_applicable import NotApplicable, not_applicable
from ....training.executors.base import CountedExecutor
from ....training.executors.choose import choose
from ....training.executors.completed import IsLate, completed
from ....training.executors.reloadable_task import ReloadableTask, one_thread
from ....training.limits import CutOff
from ....wording import duration, plural
from ...records import note_name
from .sums import NOTES

if TYPE_CHECKING:
    from ....store.runs import StoredRun
    from ...checkpoints import Checkpoint
    from ...engine import Laboratory

__all__ = ["Asked", "Part", "measure_gradient_sums", "measure_part", "stretches"]

_BINS = 1001
_CHUNK_S = 6.0
"""Seconds of work in one stretch of repeats, if it is more than one: what an interruption loses in each process."""
_FARTHEST = 4.0
"""Times the largest batch's greatest value that bins reach to at most: small steps may diverge."""
_PREDICTED = 1000
"""Repeats of the published measurement."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is measured at one checkpoint."""

    run: StoredRun
    checkpoint: Checkpoint
    batch_sizes: tuple[int, ...]
    lr: float
    repeats: int
    share: float
    """Share of the largest batch's values in the first repeat that lie at or beyond the mark."""
    published_mark: float
    """A value from which on counts are given too."""

    @property
    def samples(self) -> int:
        """Number of samples drawn in each repeat."""
        return max(self.batch_sizes)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What some of the repeats measured."""

    norms: SequentialNorms
    histograms: tuple[Histogram, ...]
    """Histogram of the entries of the sums, for each batch size."""
    beyond: tuple[tuple[int, ...], ...]
    """For each repeat and batch size, values at or beyond the mark."""

    def joined(self, other: Part) -> Part:
        """This part and another, ordered by the number of the repeat."""
        counts = dict(zip(self.norms.repeats + other.norms.repeats, self.beyond + other.beyond, strict=True))
        norms = self.norms.joined(other.norms)
        return Part(
            norms=norms,
            histograms=tuple(a + b for a, b in zip(self.histograms, other.histograms, strict=True)),
            beyond=tuple(counts[number] for number in norms.repeats),
        )


def measure_gradient_sums(laboratory: Laboratory, asked: Sequence[Asked]) -> bool:
    """Measure at all checkpoints whatever is not kept yet.

    Args:
        laboratory: where it is kept, as `gradient-sums-<checkpoint>`.
        asked: the checkpoints, and what is measured there.

    Returns:
        Whether there was time for all of it.
    """
    complete = True
    task = ReloadableTask(loaded=laboratory.loaded, workload=laboratory.workload)
    with ExitStack() as stack:
        executor: CountedExecutor | None = None
        for i, at in enumerate(asked):
            keeper = _Keeper(laboratory, task, at)
            later = sum(other.repeats for other in asked[i + 1 :])
            try:
                keeper.prepare()
                if keeper.left():
                    if executor is None:
                        executor = stack.enter_context(choose(task, seconds=keeper.seconds(later)))
                    keeper.predict(later, len(asked) - 1 - i, executor)
                    keeper.finish(executor)
            except CutOff:
                complete = False
    return complete


def measure_part(
    task: ReloadableTask, weights: Mapping[str, Any], frame: Mapping[str, Any], numbers: range, late: IsLate
) -> Part:
    """Measure the repeats with these numbers, on one thread, in whichever process this is.

    Args:
        task: the task.
        weights: `state_dict` of the checkpoint.
        frame: arguments of `measure_sequential_gradients`, and `limit`, `mark` and `marks` of the histograms.
        numbers: of the repeats.
        late: asked after each batch size whether time is up.

    Raises:
        CutOff: time is up.
    """
    frame = dict(frame)
    limit, mark, marks = (frame.pop(name) for name in ("limit", "mark", "marks"))
    sizes: tuple[int, ...] = tuple(frame["batch_sizes"])
    pooled = {size: Histogram.empty(limit=limit, bins=_BINS, marks=marks) for size in sizes}
    beyond: list[int] = []

    def count(size: int, total: Tensor) -> None:
        pooled[size] = pooled[size].with_values(total)
        beyond.append(int((total >= mark).sum()))
        if late():
            raise CutOff

    with one_thread(task.workload):
        norms = measure_sequential_gradients(
            task.workload,
            _model(task, weights),
            repeats=len(numbers),
            first_repeat=numbers.start,
            on_sum=count,
            **frame,
        )
    assert isinstance(norms, SequentialNorms)
    rows = (tuple(beyond[i : i + len(sizes)]) for i in range(0, len(beyond), len(sizes)))
    return Part(norms=norms, histograms=tuple(pooled.values()), beyond=tuple(rows))


def stretches(numbers: Sequence[int], most: int) -> list[range]:
    """Ranges of neighbours that increasing numbers make, none longer than `most`.

    >>> stretches([0, 1, 2, 3, 7, 8], 3)
    [range(0, 3), range(3, 4), range(7, 9)]
    """
    found: list[range] = []
    for number in numbers:
        if found and found[-1].stop == number and len(found[-1]) < most:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found


class _Keeper:
    """Collects the parts of one checkpoint, and writes them down after each."""

    def __init__(self, laboratory: Laboratory, task: ReloadableTask, asked: Asked) -> None:
        self.laboratory, self.task, self.asked = laboratory, task, asked
        self.checkpoint = asked.checkpoint
        self.part: Part | None = None
        self.processes = 1
        self.weights: Mapping[str, Any] = {}
        self.frame: dict[str, Any] = {
            "batch_sizes": asked.batch_sizes,
            "samples": asked.samples,
            "lr": asked.lr,
            "seed": asked.checkpoint.seed,
        }

    def prepare(self) -> None:
        """Read what an earlier command kept, or measure the first repeat; a reason for no numbers is kept too.

        Raises:
            CutOff: something is left to measure, and time is up.
        """
        kept = self.laboratory.read_note(self._note)
        if kept is not None and not_applicable(kept) is not None:
            return
        if kept is not None:
            self._read(kept)
            if not self.left():
                return
        if self.laboratory.late:
            raise CutOff
        self.weights = self.laboratory.weights(self.asked.run, self.checkpoint.kept)
        if kept is None and (reason := self._first_repeat()) is not None:
            self.laboratory.note(self._note, {**self._named, **encode(reason)})

    def left(self) -> list[int]:
        """Numbers of the repeats that are not measured yet; none where nothing can be measured."""
        done = set(self.part.norms.repeats) if self.part else set(range(self.asked.repeats))
        return [number for number in range(self.asked.repeats) if number not in done]

    def seconds(self, later: int = 0) -> float:
        """Seconds in one process of the repeats that are left here, and of so many later ones."""
        return self._each() * (len(self.left()) + later)

    def predict(self, later: int, checkpoints: int, executor: CountedExecutor) -> None:
        """Say how long it will take here, and with the repeats at the checkpoints that come after."""
        self.processes = max(1, executor.processes)
        here, in_all = (seconds / self.processes for seconds in (self.seconds(), self.seconds(later)))
        measured = self.asked.repeats - len(self.left())
        text = (
            f"sums of gradients {self.checkpoint.label}: {plural(self.asked.repeats, 'repeat')} of "
            f"{plural(len(self.asked.batch_sizes), 'batch size')}{f', {measured} of them done' if measured > 1 else ''}"
            f", about {duration(here)} in {plural(self.processes, 'process', 'processes')}"
        )
        text += f"; with {plural(checkpoints, 'checkpoint')} more, about {duration(in_all)}" if checkpoints else ""
        budget = self.laboratory.deadline.left_s
        if in_all > budget:
            text += f"; the budget leaves {duration(budget)} (--budget), and the same command goes on from there"
        self.laboratory.progress.stage(text)

    def finish(self, executor: CountedExecutor) -> None:
        """Measure all repeats that are left.

        Raises:
            CutOff: time is up.
        """
        left = self.left()
        most = max(1, min(int(_CHUNK_S / self._each()), math.ceil(len(left) / (2 * self.processes))))
        function = partial(measure_part, self.task, self.weights, self.frame)
        shown = len(left)
        for _, part in completed(executor, function, stretches(left, most), late=lambda: self.laboratory.late):
            self.processes = max(1, executor.processes)
            self._keep(part)
            if (now := len(self.left())) and shown - now >= self.asked.repeats / 10:
                shown = now
                self.laboratory.progress.stage(
                    f"sums of gradients {self.checkpoint.label}: {self.asked.repeats - now} of "
                    f"{plural(self.asked.repeats, 'repeat')}, about {duration(self.seconds() / self.processes)} left"
                )
        if self.left():
            raise CutOff

    def _first_repeat(self) -> NotApplicable | None:
        """The first repeat, which fixes bins and mark; or why nothing can be measured."""
        values = (value for value in self.weights.values() if isinstance(value, Tensor) and value.is_floating_point())
        if not all(bool(value.isfinite().all()) for value in values):
            return NotApplicable(reason="the run diverged: its weights are no numbers")
        self.laboratory.progress.stage(f"sums of gradients {self.checkpoint.label}: a first repeat")
        sums: dict[int, Tensor] = {}

        def look(size: int, total: Tensor) -> None:
            sums[size] = total
            if self.laboratory.late:
                raise CutOff

        with one_thread(self.task.workload):
            norms = measure_sequential_gradients(
                self.task.workload, _model(self.task, self.weights), repeats=1, on_sum=look, **self.frame
            )
            return norms if isinstance(norms, NotApplicable) else self._fix_bins(norms, sums)

    def _fix_bins(self, norms: SequentialNorms, sums: Mapping[int, Tensor]) -> NotApplicable | None:
        """Choose bins and mark by the sums of the first repeat, and keep it; or why there can be none."""
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

    def _read(self, kept: Mapping[str, Any]) -> None:
        """Go on from what an earlier command kept."""
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

    def _each(self) -> float:
        """Seconds of one repeat in one process."""
        assert self.part is not None
        return self.part.norms.predicted_seconds(1).value or 1e-3

    def _keep(self, part: Part) -> None:
        """Write down what is measured so far."""
        self.part = whole = self.part.joined(part) if self.part else part
        self.laboratory.note(
            self._note,
            {
                **self._named,
                "wanted": self.asked.repeats,
                "processes": self.processes,
                "mark": self.frame["mark"],
                "sums": encode(whole.norms),
                "spreads": encode(whole.norms.spreads()),
                "published_repeats_s": encode(whole.norms.predicted_seconds(_PREDICTED)),
                "beyond": whole.beyond,
                "histograms": encode(whole.histograms),
                "shapes": encode([histogram.shape() for histogram in whole.histograms]),
            },
        )

    @property
    def _note(self) -> str:
        return note_name(NOTES, self.checkpoint.name)

    @property
    def _named(self) -> dict[str, Any]:
        at = self.checkpoint
        return {"seed": at.seed, "part": at.part, "epoch": at.epoch, "label": at.label}


def _model(task: ReloadableTask, weights: Mapping[str, Any]) -> nn.Module:
    """The model of a task with these weights, on its device, in training mode."""
    model = task.workload.model(0)
    model.load_state_dict(weights)
    return model
