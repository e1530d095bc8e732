"""The bench leaves the process and the user's objects as they were; its memory readings are right on real models."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from batchscope.errors import TaskError
from batchscope.hardware.bench import measure
from batchscope.hardware.capacity import measure_capacity
from batchscope.hardware.device import pick
from batchscope.hardware.live_bytes import LiveBytes, unique_bytes
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload


class Block(nn.Module):
    """One attention block over 16 positions of width 32; its scores grow with the square of the length."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.output = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.attention(x, x, x)[0].mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))


def cnn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))


SHAPES = {mlp: (32,), cnn: (1, 8, 8), Block: (16, 32)}
MODELS = list(SHAPES)


def workload(make=mlp, *, examples: int = 1024, evaluate=None, device: str = "cpu") -> Workload:
    x, y = torch.randn(examples, *SHAPES[make]), torch.randint(10, (examples,))
    made = task(
        model=make,
        train=TensorDataset(x, y),
        val=TensorDataset(x[:10], y[:10]),
        loss=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        optimizer=lambda params, lr: torch.optim.AdamW(params, lr=lr),
        evaluate=evaluate,
    )
    return Workload(made, device=pick(device))


@pytest.mark.parametrize("make", MODELS)
def test_f23_memory_is_predicted_within_5_percent_at_four_times_the_largest_reading(make) -> None:
    ready = workload(make)
    small = measure_capacity(ready, top=256, limit_bytes=2**40)
    large = measure_capacity(ready, top=1024, limit_bytes=2**40)
    assert (small.readings[-1].micro_batch_size, large.readings[-1].micro_batch_size) == (256, 1024)
    assert small.model.peak_bytes(1024) == pytest.approx(large.readings[-1].peak_memory_bytes, rel=0.05)


def test_the_split_is_what_the_tensors_weigh() -> None:
    ready = workload(mlp)
    parameters = sum(p.nbytes for p in mlp().parameters())
    split = measure(ready).split
    assert split is not None
    assert (split.weights, split.gradients) == (parameters, parameters)
    assert split.optimizer_state == 2 * parameters + 4 * 4  # two moments, and a step count for each of four tensors
    saved = 4 * (32 + 64 + 64 + 10)  # input, hidden layer before and after ReLU, scores
    assert saved <= split.activations_per_example <= 3 * saved


@pytest.mark.parametrize("accumulation", [1, 3])
def test_f16_training_at_the_size_found_stays_within_the_limit(accumulation: int) -> None:
    ready, limit = workload(mlp), 600_000
    bench = measure(ready, memory_limit=limit)
    assert bench.memory_bound
    model = ready.model(1)
    optimizer = ready.optimizer(model, 1e-3)
    with LiveBytes(model.parameters()) as counter:
        for _ in range(5):
            optimizer.zero_grad(set_to_none=True)
            for _ in range(accumulation):
                batch = ready.batch(torch.randperm(ready.examples)[: bench.largest_micro_batch_size])
                ready.loss(model, batch).backward()
            optimizer.step()
    assert 0.7 * limit <= counter.peak <= limit


def test_f19_the_bench_does_not_evaluate() -> None:
    def evaluate(model: nn.Module) -> dict[str, float]:
        raise torch.OutOfMemoryError("evaluation does not fit")

    assert measure(workload(mlp, evaluate=evaluate)).largest_micro_batch_size == 1024


def test_f22_the_autotuner_setting_is_left_alone() -> None:
    before = torch.backends.cudnn.benchmark
    measure(workload(mlp, examples=64))
    assert torch.backends.cudnn.benchmark == before


def test_f24_the_random_streams_go_on_as_without_the_bench() -> None:
    def draws() -> tuple[float, float, float]:
        return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002

    def seeded() -> None:
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        random.seed(3)

    ready = workload(mlp, examples=64)
    seeded()
    expected = draws()
    seeded()
    measure(ready, seed=5)
    assert draws() == expected


def test_f25_f26_the_users_model_is_never_touched() -> None:
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(32, 10)
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(x)

    theirs = Counting().eval()
    theirs.calls = 19
    before = theirs.weight.detach().clone()
    SHAPES[Counting] = (32,)
    measure(workload(Counting, examples=64))
    assert (theirs.calls, theirs.training) == (19, False)
    assert theirs.weight.grad is None
    assert torch.equal(theirs.weight, before)


@pytest.mark.parametrize("broken", [False, True])
def test_f29_nothing_is_written_also_on_an_error(broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ready = workload(mlp, examples=64)
    if broken:
        ready.task = task(
            model=mlp,
            train=TensorDataset(torch.zeros(64, 32)),
            val=TensorDataset(torch.zeros(64, 32)),
            loss=lambda model, batch: model(batch[0], "one argument too many"),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
        with pytest.raises(TaskError):
            measure(ready)
    else:
        measure(ready)
    assert list(tmp_path.iterdir()) == []


def test_repeating_the_bench_counts_the_same_bytes() -> None:
    ready = workload(Block, examples=64)
    first, second = (measure(ready).profile.peak_memory_bytes for _ in range(2))
    assert first == second


@pytest.mark.gpu
def test_on_an_accelerator_memory_is_the_allocators_and_the_size_found_can_be_trained() -> None:
    ready = workload(mlp, examples=4096, device="cuda")
    limit = 4 * 2**20
    bench = measure(ready, memory_limit=limit)
    assert bench.largest_verified
    assert bench.memory_bound
    assert {r.memory_method for r in bench.readings if r.peak_memory_bytes} == {"allocator peak"}
    model = ready.model(0)
    optimizer = ready.optimizer(model, 1e-3)
    held = torch.cuda.memory_allocated() - unique_bytes(model.parameters())
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        ready.loss(model, ready.batch(torch.arange(bench.largest_micro_batch_size))).backward()
        optimizer.step()
    assert torch.cuda.max_memory_allocated() - held <= limit


@pytest.mark.gpu
def test_f18_on_an_accelerator_a_failed_step_gives_its_memory_back() -> None:
    ready = workload(mlp, examples=64, device="cuda")
    measure(ready)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    make = ready.task

    def greedy(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        if len(batch[0]) == 64:
            torch.empty(2**50, device="cuda")
        return make.loss(model, batch)

    ready.task = task(
        model=mlp,
        train=make.train_data(),
        val=make.train_data(),
        loss=greedy,
        optimizer=make.optimizer,
    )
    bench = measure(ready)
    assert 57 <= bench.largest_micro_batch_size < 64
    assert torch.cuda.memory_allocated() <= before + 2**20
