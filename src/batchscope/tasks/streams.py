"""Streams: training data that can only be iterated (`IterableDataset`), one example after another.

A stream has no epochs. A few first examples of it are taken when the task is made ready, and serve all that asks for
examples by their index: preflight, bench, probes. Every run iterates over a fresh `train_data()` from its beginning.

A loader asks a stream by *requests*, one a step: how many examples each micro-batch has. With `w` workers, each
iterates over a copy of its own and answers every w-th step, so that a stream with several workers must share its
examples out by `torch.utils.data.get_worker_info()`; one that does not is found by what its workers yield first, and
gets one worker. What a stream draws from global generators comes from a state of its own, which begins at the run's
seed plus the number of the worker: a run that goes on later passes over the examples that it has had, and comes to the
same ones as a run in one go.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import pickle
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from ..errors import TaskError
from ..hardware.random_state import RandomState, preserved_random_state, seed_everything
from ..hardware.time_limit import NO_LIMIT, TimeLimit
from .collation import joined
from .loader import open_loader
from .loader_workers import begun_as_theirs
from .patience import patience
from .protocol import Batch
from .user_code import explained

__all__ = ["LARGEST_BATCH", "first_examples", "stream_steps", "without_copies"]

LARGEST_BATCH = 4096
"""Largest batch size that is considered for a stream, where nothing else is asked for."""

_MOST_EXAMPLES, _MOST_S, _MOST_BYTES = 4096, 2.0, 256 * 2**20
_SHARE = 0.1
_FEWEST_EXAMPLES = 64
"""Taken of a stream however long they take; the preflight and the looks at examples need no more."""
_COMPARED = 4
"""First examples of two workers that are compared."""


@dataclass(frozen=True, kw_only=True)
class FirstExamples:
    """First examples of a stream, and what one takes to come."""

    examples: list[Any]
    seconds: float
    """Of an example, without collating; the first one, which opens the stream, apart."""
    opening_s: float
    """Until the first one came."""


def first_examples(
    stream: IterableDataset[Any],
    *,
    most_s: float = _MOST_S,
    most_bytes: int = _MOST_BYTES,
    until: TimeLimit = NO_LIMIT,
) -> FirstExamples:
    """Take the first examples of a stream: up to 4096, fewer where the limits allow fewer, 64 at least.

    Args:
        stream: iterated from its beginning.
        most_s: seconds that it may take.
        most_bytes: that the examples may have, by the first one as it is pickled.
        until: no more than 64 are taken once a tenth of the time until then is over, and none after it.

    Raises:
        OutOfTime: the time ended first.
        TaskError: the stream fails, or ends before.
    """
    started = clock = time.perf_counter()
    most_s = min(most_s, _SHARE * until.left_s)
    examples, most, ended = list[Any](), _MOST_EXAMPLES, True
    with explained("iterating over train_data()"):
        for example in stream:
            if not examples:
                most, clock = _most(example, most_bytes), time.perf_counter()
            examples.append(example)
            until.require()
            patience().signs += 1
            late = time.perf_counter() - started > most_s and len(examples) >= _FEWEST_EXAMPLES
            if late or len(examples) >= most:
                ended = False
                break
    if ended:
        raise TaskError(
            f"train_data() is a stream ({type(stream).__name__}) that ended after {len(examples)} examples; return so "
            "few as a list, which has epochs, or let the stream begin again at its end (`while True:`)"
        )
    each_s = (time.perf_counter() - clock) / max(1, len(examples) - 1)
    return FirstExamples(examples=examples, seconds=each_s, opening_s=clock - started)


def _most(example: Any, most_bytes: int) -> int:
    """How many examples of this size are taken."""
    try:
        size = len(pickle.dumps(example))
    except Exception:  # what cannot be pickled is not measured
        return _MOST_EXAMPLES
    return max(_FEWEST_EXAMPLES, min(_MOST_EXAMPLES, most_bytes // max(1, size)))


Request = tuple[tuple[int, ...], bool]
"""Examples in each micro-batch of a step, and whether the step is passed over."""


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """What a loader yields when the stream has no more: the examples that there were, in so many processes."""

    examples: int
    processes: int


class _Steps(Dataset[Any]):
    """Steps of a stream, as a data set that a `DataLoader` asks by requests, in order."""

    def __init__(self, stream: IterableDataset[Any], collate: Callable[[list[Any]], Batch] | None, seed: int) -> None:
        self.theirs, self._collate, self._seed = stream, collate, seed
        self._examples: Iterator[Any] | None = None
        self._random: RandomState | None = None
        self._taken = 0

    def __getitem__(self, request: Request) -> Any:
        sizes, passed_over = request
        parts = self._take(sizes)
        self._taken += sum(map(len, parts))
        worker = get_worker_info()
        if len(parts[-1]) < sizes[-1]:
            return _Ended(examples=self._taken, processes=worker.num_workers if worker else 1)
        if passed_over and worker is None:
            return None
        # of a step passed over as well: it may draw from the worker's
        made = [joined(part, self._collate) for part in parts]
        return None if passed_over else made

    def _take(self, sizes: tuple[int, ...]) -> list[list[Any]]:
        """Examples of each part, drawn in the stream's own random state."""
        before = RandomState.capture()
        try:
            if self._random is None or self._examples is None:
                worker = get_worker_info()
                seed_everything(self._seed + (worker.id if worker else 0))
                self._examples = iter(self.theirs)
            else:
                self._random.restore()
            return [list(itertools.islice(self._examples, size)) for size in sizes]
        finally:
            self._random = RandomState.capture()
            before.restore()


class _Requests:
    """Requests for one step after another, for a `DataLoader`."""

    def __init__(self, batch_size: int, parts_of: Callable[[int], int], skip: int) -> None:
        self.batch_size, self.parts_of, self.skip = batch_size, parts_of, skip

    def __iter__(self) -> Iterator[Request]:
        for step in itertools.count():
            parts = self.parts_of(step)
            yield (self.batch_size // parts,) * parts, step < self.skip


def stream_steps(
    stream: IterableDataset[Any],
    *,
    batch_size: int,
    parts_of: Callable[[int], int],
    seed: int,
    skip: int,
    collate: Callable[[list[Any]], Batch] | None,
    options: Mapping[str, Any],
    example_s: float,
    opening_s: float = 0.0,
) -> Generator[list[Batch]]:
    """Each step's micro-batches, each collated by itself, on the host; workers are gone when this is closed.

    Args:
        stream: a fresh one.
        batch_size: examples of a step.
        parts_of: micro-batches of a step, of its 0-based number.
        seed: of what the stream draws from global generators.
        skip: steps whose examples are passed over.
        collate: joins the examples of a micro-batch; `None`: torch's does.
        options: further arguments of `DataLoader`.
        example_s: seconds that an example is expected to take in one process.
        opening_s: seconds until the first example of a stream comes.

    Raises:
        TaskError: the stream fails, or ends; a worker died or hangs.
    """
    loader = _loader(_Steps(stream, collate, seed), _Requests(batch_size, parts_of, skip), options, seed)
    with open_loader(loader, batch_s=opening_s + example_s * batch_size) as next_step:
        for step in itertools.count():
            with explained("making a batch of train_data()"):
                made = next_step()
            if isinstance(made, _Ended):
                raise _too_short(made, step, batch_size)
            if step >= skip:
                yield made


def _too_short(ended: _Ended, step: int, batch_size: int) -> TaskError:
    where = f"one of its {ended.processes} loader workers had no more" if ended.processes > 1 else "it ended"
    return TaskError(
        f"train_data() is a stream, and {where} after {ended.examples} examples, in step {step + 1} at batch size "
        f"{batch_size}; training goes on: let the stream begin again at its end (`while True:` around its loop, best "
        "in another order each time), or return a list of its examples where they fit into memory"
    )


def _loader(steps: Dataset[Any], requests: Any, options: Mapping[str, Any], seed: int) -> DataLoader[Any]:
    """A loader that hands requests to a data set, in a worker to the copy there, and leaves the answers as they are."""
    how: dict[str, Any] = {**begun_as_theirs(options), "generator": torch.Generator().manual_seed(seed)}
    return DataLoader(steps, sampler=requests, batch_size=None, collate_fn=_itself, **how)


def _itself(made: Any) -> Any:
    return made


class _Content(pickle.Pickler):
    """Writes tensors by their contents: torch writes where their memory lies as well."""

    def reducer_override(self, obj: Any, /) -> Any:
        if not isinstance(obj, Tensor) or obj.layout is not torch.strided:
            return NotImplemented
        content = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return tuple, ((str(obj.dtype), tuple(obj.shape), content),)


def _fingerprint(example: Any) -> str:
    written = io.BytesIO()
    _Content(written).dump(example)
    return hashlib.sha256(written.getvalue()).hexdigest()


class _Fingerprints(Dataset[Any]):
    """Hashes of the first examples of a stream, all random generators seeded alike, as each worker has them."""

    def __init__(self, stream: IterableDataset[Any]) -> None:
        self.theirs = stream

    def __getitem__(self, request: int) -> list[str]:
        with preserved_random_state(0):
            return [_fingerprint(example) for example in itertools.islice(self.theirs, _COMPARED)]


def without_copies(
    stream: IterableDataset[Any],
    options: Mapping[str, Any],
    *,
    example_s: float,
    opening_s: float,
    until: TimeLimit = NO_LIMIT,
) -> tuple[dict[str, Any], str]:
    """Options of a loader whose workers do not yield the same examples: with one worker where several would.

    Returns:
        The options, and a sentence where they are others; else it is empty.

    Raises:
        OutOfTime: the time until then is too short to compare them.
        TaskError: the stream fails in a worker, or cannot be handed to one.

    Cost: with several workers, starting them once and taking four examples in each.
    """
    workers = options.get("num_workers", 0)
    if workers < 2:
        return dict(options), ""
    until.require(opening_s + example_s * _COMPARED)
    loader = _loader(_Fingerprints(stream), range(workers), options, 0)
    with (
        open_loader(loader, batch_s=opening_s + example_s * _COMPARED) as next_one,
        explained("iterating over train_data() in a loader worker"),
    ):
        first, second = next_one(), next_one()
    if first != second:
        return dict(options), ""
    return {**options, "num_workers": 1}, (
        f"train_data() is a stream whose {workers} loader workers would all yield the same examples (it does not share "
        "them out by torch.utils.data.get_worker_info()): one worker loads"
    )
