"""Streams: what runs are trained on, what is drawn by index, and one message for each that cannot be used."""

from __future__ import annotations

import gc
import itertools
import math
import multiprocessing
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, get_worker_info

from batchscope.errors import TaskError, UsageError
from batchscope.store.records import Row, RunConfig
from batchscope.tasks.preflight.check import check
from batchscope.tasks.protocol import Task, task
from batchscope.tasks.streams import LARGEST_BATCH, first_examples
from batchscope.tasks.workload import Workload
from batchscope.training.checkpoint import Checkpoint
from batchscope.training.loop import Training
from batchscope.training.noise import measure_noise
from batchscope.training.stopping import StepLimitRule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


class Counting(IterableDataset[Tensor]):
    """0, 1, 2, ... up to an end; shared out among workers where it is asked to."""

    def __init__(self, end: int | None = None, *, shares: bool = False) -> None:
        self.end, self.shares = end, shares

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker is not None and self.shares else (0, 1)
        numbers = itertools.count(first, step) if self.end is None else range(first, self.end, step)
        for number in numbers:
            yield torch.tensor([float(number)])


class Drawing(IterableDataset[tuple[Tensor, Tensor]]):
    """Examples drawn from every global generator, without end."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            x = torch.randn(2) + random.random()
            yield x, x.sum()[None]


def made(data: Any, **more: Any) -> Task:
    return task(
        model=lambda: nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.2), nn.Linear(8, 1)),
        train=data,
        loss=lambda model, batch: nn.functional.mse_loss(model(batch[0]), batch[1]),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        **{"evaluate": lambda model: {"val_loss": float(model[0].weight.square().mean())}, **more},
    )


def seen(workload: Workload, *, batch_size: int, steps: int, parts: int = 1, seed: int = 0, skip: int = 0) -> list[Any]:
    batches = workload.micro_batches(batch_size, parts, seed, skip)
    try:
        return [[batch.flatten().tolist() for batch in next(batches)] for _ in range(steps)]
    finally:
        batches.close()


@pytest.fixture(autouse=True)
def no_workers_are_left() -> Iterator[None]:
    yield
    gc.collect()
    assert multiprocessing.active_children() == []


def test_first_examples_are_drawn_by_index_and_each_run_begins_the_stream_anew() -> None:
    workload = Workload(made(Counting()))
    assert workload.examples_in_epoch is None
    assert workload.batch(torch.tensor([5, 2])).flatten().tolist() == [5.0, 2.0]
    for _ in range(2):
        assert seen(workload, batch_size=4, steps=2, parts=2) == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert seen(workload, batch_size=4, steps=1, skip=3) == [[[12, 13, 14, 15]]]
    assert any("no epochs" in note and str(LARGEST_BATCH) in note for note in check(Workload(made(Drawing()))).notes)


def test_so_many_first_examples_are_taken_as_limits_allow() -> None:
    assert len(first_examples(Counting(), most_s=math.inf).examples) == 4096
    assert len(first_examples(Counting(), most_s=0.0).examples) == 64
    assert len(first_examples(Counting(), most_s=math.inf, most_bytes=0).examples) == 64


def test_train_data_is_called_anew_for_each_run() -> None:
    calls = []

    class Source:
        def train_data(self) -> Counting:
            calls.append(1)
            return Counting()

    workload = Workload(made(Counting()))
    workload.task.train_data = Source().train_data  # type: ignore[method-assign]
    seen(workload, batch_size=2, steps=1)
    seen(workload, batch_size=2, steps=1)
    assert len(calls) == 2


def test_the_largest_batch_is_bounded_or_as_asked() -> None:
    workload = Workload(made(Drawing()))
    assert (workload.largest_batch(), workload.largest_batch(10_000), workload.largest_batch(8)) == (4096, 10_000, 8)
    assert check(workload).max_batch_size == 4096
    assert check(workload, max_batch_size=6000).max_batch_size == 6000
    assert workload.count(workload.disposable(0).draw(6000)) == 6000


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_run_that_goes_on_has_the_examples_of_one_in_one_go(workers: int) -> None:
    options = {"num_workers": workers} if workers else None
    workload = Workload(made(Counting(shares=True), loader_options=options))
    parts = {"batch_size": 4, "parts": 2, "seed": 3}
    assert seen(workload, steps=6, **parts)[4:] == seen(workload, steps=2, skip=4, **parts)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_stream_draws_is_the_same_in_a_run_that_goes_on(workers: int) -> None:
    """Its generators are its own: neither the model's dropout nor what was passed over moves them."""
    options = {"num_workers": workers} if workers else None
    config = RunConfig(task="t", batch_size=4, micro_batch_size=4, lr=0.1, max_steps=12, evaluation_every=1)
    whole = Training(Workload(made(Drawing(), loader_options=options)), config)
    whole.advance()
    rows: list[Row] = []
    paused = Training(Workload(made(Drawing(), loader_options=options)), config, on_row=rows.append)
    paused.advance([StepLimitRule(steps=5)])
    kept = Checkpoint(rows=tuple(rows), state=paused.state())
    paused.close()
    again = Training(Workload(made(Drawing(), loader_options=options)), config, goes_on=kept)
    again.advance()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_seeds_draw_different_streams_and_equal_seeds_the_same() -> None:
    workload = Workload(made(Drawing(), collate=lambda items: torch.stack([x for x, _ in items])))
    first, again, other = (seen(workload, batch_size=2, steps=2, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_workers_that_share_a_stream_out_yield_every_example_once() -> None:
    workload = Workload(made(Counting(shares=True), loader_options={"num_workers": 2}))
    assert workload.loader_workers == 2
    steps = seen(workload, batch_size=4, steps=4)
    assert sorted(itertools.chain(*itertools.chain(*steps))) == list(range(16))


@pytest.mark.parametrize("data", [Counting(), Drawing()])
def test_a_stream_whose_workers_would_yield_copies_gets_one_and_says_so(data: Any) -> None:
    workload = Workload(made(data, loader_options={"num_workers": 3, "prefetch_factor": 4}))
    assert workload.loader_workers == 1
    assert workload.loader_options == {"num_workers": 1, "prefetch_factor": 4}
    assert any("3 loader workers would all yield the same examples" in note for note in workload.notes)


def shard(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    info.dataset.shares = True  # type: ignore[attr-defined]


def test_a_stream_may_be_shared_out_by_worker_init_fn() -> None:
    options = {"num_workers": 2, "worker_init_fn": shard}
    workload = Workload(made(Counting(), loader_options=options))
    assert workload.loader_workers == 2
    assert sorted(itertools.chain(*itertools.chain(*seen(workload, batch_size=2, steps=2)))) == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_that_ends_before_the_run_says_after_how_many_examples(workers: int) -> None:
    options = {"num_workers": workers} if workers else None
    workload = Workload(made(Counting(6000, shares=True), loader_options=options))
    said = "it ended after 6000 examples" if not workers else "one of its 2 loader workers had no more after 3000"
    with pytest.raises(TaskError, match=rf"{said}.*in step [67] at batch size 1000.*while True"):
        seen(workload, batch_size=1000, steps=7)


def test_a_short_stream_is_better_a_list() -> None:
    with pytest.raises(TaskError, match=r"stream \(Counting\) that ended after 300 examples; return so few as a list"):
        Workload(made(Counting(300)))


def test_without_evaluate_a_stream_is_asked_for_one() -> None:
    with pytest.raises(TaskError, match="no validation split can be held back: give the task an evaluate"):
        Workload(made(Counting(), evaluate=None))


def test_a_stream_has_no_sampler() -> None:
    with pytest.raises(TaskError, match="which comes in its own order; leave sampler out"):
        Workload(made(Counting(), sampler=lambda seed: [0]))


def test_what_counts_in_epochs_refuses_a_stream() -> None:
    with pytest.raises(UsageError, match="counts in epochs, which a stream does not have; return a list"):
        _ = Workload(made(Counting())).epoch


class Module:
    def train_dataloader(self) -> None: ...


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DataLoader(TensorDataset(torch.zeros(8, 2)), batch_size=4), r"return its data set, loader.dataset$"),
        (
            DataLoader([1, 2, 3], collate_fn=len, num_workers=2),
            r"loader.dataset; give its collate_fn as the task's collate, its workers as .*'num_workers': 2",
        ),
        (
            DataLoader([1, 2], sampler=torch.utils.data.WeightedRandomSampler([0.5, 0.5], 2)),
            r"its WeightedRandomSampler as sampler\(seed\)",
        ),
        (Module(), r"returned Module, which makes loaders.*train_dataloader\(\).dataset.*collate_fn.*num_workers"),
        ((x for x in range(9)), "returned generator, which is neither a data set with __len__ .*IterableDataset"),
    ],
)
def test_loaders_and_iterators_are_refused_with_what_to_return(data: Any, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        Workload(made(data))


def test_the_noise_scale_is_measured_on_a_stream() -> None:
    report = measure_noise(Workload(made(Drawing())), lr=0.01, batch_size=8, steps=20)
    assert report.examples == 160
    assert report.gradient_noise_scale.n > 0
