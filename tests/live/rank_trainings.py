"""Trainings on several ranks, whose gradients of single examples every rank can compute."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from batchscope.live.sources.ranks import RankSource
from batchscope.live.window import Window
from batchscope.store.records import Row

EXAMPLES, WIDTH = 24, 5


class Population:
    """Examples whose gradients every rank can compute, in float64."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)
        self.x = torch.randn(EXAMPLES, WIDTH, dtype=torch.float64, generator=draw)
        self.y = torch.randn(EXAMPLES, 1, dtype=torch.float64, generator=draw)

    def loss(self, model: nn.Module, index: Sequence[int]) -> Tensor:
        kind = next(model.parameters()).dtype
        return F.mse_loss(model(self.x[list(index)].to(kind)), self.y[list(index)].to(kind))

    def per_example(self, model: nn.Module) -> Tensor:
        """Gradient of each example by itself, shape (examples, parameters)."""
        rows: list[Tensor] = []
        parameters = [p for p in model.parameters() if p.requires_grad]
        for i in range(EXAMPLES):
            found = torch.autograd.grad(self.loss(model, [i]), parameters, allow_unused=True)
            whole = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
            rows.append(torch.cat([gradient.flatten() for gradient in whole]))
        return torch.stack(rows)


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, 1)).double()


class Plan:
    """Which examples each rank has in each micro-batch of a step, the same on all ranks."""

    def __init__(self, sizes: Sequence[Sequence[int]], seed: int = 0) -> None:
        self.sizes, self.draw = sizes, torch.Generator().manual_seed(seed)

    def step(self) -> list[list[list[int]]]:
        return [
            [torch.randint(EXAMPLES, (size,), generator=self.draw).tolist() for size in of_rank]
            for of_rank in self.sizes
        ]


def whole(tensor: Any) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach()


def weights_of(model: nn.Module) -> list[float]:
    return torch.cat([whole(p).flatten() for p in model.parameters()]).tolist()


@contextmanager
def held_back(model: Any) -> Iterator[None]:
    model.set_requires_gradient_sync(False)
    yield
    model.set_requires_gradient_sync(True)


def true_row(step: int, gradients: list[Tensor], micro: list[list[list[int]]], before: int) -> Row:
    """Row of a step from the gradients that each rank has of single examples; equal shares of its micro-batches."""
    ranks = len(micro)
    shares = torch.tensor([1 / ranks / len(of_rank) for of_rank in micro for _ in of_rank], dtype=torch.float64)
    means = [of_single[index].mean(0) for of_single, of_rank in zip(gradients, micro, strict=True) for index in of_rank]
    groups = torch.stack(means) * shares[:, None]
    squares, mean, n = float(groups.square().sum()), float(groups.sum(0).square().sum()), len(shares)
    together = float(shares.square().sum())
    batch = ranks**2 / sum(1 / sum(map(len, of_rank)) for of_rank in micro)
    return {
        "kind": "noise",
        "step": step,
        "examples": before,
        "groups": n,
        "group_size": batch / n,
        "mean_square_norm": (squares * (n - 1) + mean * (1 - n * together)) / (1 - together),
        "square_norm_of_mean": mean,
    }


Wrap = Callable[[nn.Module], Any]
Loop = Callable[["Training", list[list[int]]], None]


class Training:
    """A plain loop under DDP or FSDP2, with a source beside it or without."""

    def __init__(
        self, wrap: Wrap, sizes: Sequence[Sequence[int]], *, source: RankSource | None, model: Callable[[], nn.Module]
    ) -> None:
        self.population, self.plan, self.source = Population(), Plan(sizes), source
        self.wrapped: Any = wrap(model())
        self.model: nn.Module = getattr(self.wrapped, "module", self.wrapped)
        self.reference = model().double()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.rank, self.seen = dist.get_rank(), 0
        self.rows: list[Row] = []
        self.reasons: list[str] = []
        self.truth: list[Row] = []
        self.told = False

    def true_row(self, step: int, micro: list[list[list[int]]]) -> Row:
        found: list[Tensor] = []
        with torch.no_grad():
            for p, now in zip(self.reference.parameters(), self.model.parameters(), strict=True):
                p.copy_(whole(now))
        for rank in range(len(micro)):
            if isinstance(self.reference, Partly):
                self.reference.rank = rank
            found.append(self.population.per_example(self.reference))
        return true_row(step, found, micro, self.seen)

    def quiet(self) -> AbstractContextManager[None]:
        return self.wrapped.no_sync() if hasattr(self.wrapped, "no_sync") else held_back(self.wrapped)

    def backward(self, index: list[int], parts: int, scale: float = 1.0) -> None:
        (self.population.loss(self.wrapped, index) * scale / parts).backward()

    def step(self, k: int, *, loop: Loop | None = None, scale: float = 1.0, clip: float | None = None) -> None:
        micro = self.plan.step()
        mine = micro[self.rank]
        if self.source is not None:
            held = self.wrapped is self.model and loop is None  # one reduction of all that a rank has
            self.truth.append(
                self.true_row(k, [[[*itertools.chain(*of_rank)]] for of_rank in micro] if held else micro)
            )
            self.source.attach(self.wrapped, self.optimizer)
        self.optimizer.zero_grad()
        if loop is not None:
            loop(self, mine)
        else:
            for j, index in enumerate(mine):
                last = j == len(mine) - 1
                with nullcontext() if last else self.quiet():
                    self.backward(index, len(mine), scale)
        for p in self.model.parameters():
            if p.grad is not None:
                p.grad /= scale
        if clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()
        batch = sum(len(index) for of_rank in micro for index in of_rank)
        if self.source is not None:
            examples = tuple(map(len, mine)) if self.told else ()
            window = Window(step=k, examples_before=self.seen, batch_size=batch, examples=examples, loss_scale=scale)
            row = self.source.take(window)
            self.source.detach()
            self.reasons.append(self.source.reason)
            if row is not None:
                self.rows.append(row)
        self.seen += batch


def synced_every_time(training: Training, mine: list[list[int]]) -> None:
    for index in mine:
        training.backward(index, len(mine))


def never_synced(training: Training, mine: list[list[int]]) -> None:
    with training.wrapped.no_sync():
        training.backward(mine[0], 1)


def hooked(hook: Callable[..., Any], state: Callable[[], Any] = lambda: None) -> Wrap:
    def wrap(model: nn.Module) -> DistributedDataParallel:
        wrapped = DistributedDataParallel(model)
        wrapped.register_comm_hook(state(), hook)
        return wrapped

    return wrap


def built_in(model: nn.Module) -> DistributedDataParallel:
    wrapped = DistributedDataParallel(model)
    wrapped._register_builtin_comm_hook(dist.BuiltinCommHookType.FP16_COMPRESS)
    return wrapped


def with_options(**options: Any) -> Wrap:
    return lambda model: DistributedDataParallel(model, **options)


class Partly(nn.Module):
    """Ranks use different parts of it, one is frozen, one is used twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.twice = nn.Linear(WIDTH, WIDTH)
        self.parts = nn.ModuleList([nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 1)])
        self.frozen, self.unused = nn.Linear(WIDTH, WIDTH), nn.Linear(2, 2)
        self.frozen.requires_grad_(False)
        self.double()
        self.rank = dist.get_rank()

    def forward(self, x: Tensor) -> Tensor:
        return self.parts[self.rank](self.twice(torch.tanh(self.twice(self.frozen(x)))))
