"""Programs that several ranks run at once, each in a process of its own, and the launcher that ends them all.

`launch("name", folder)` starts the ranks on the CPU; they meet in a file, so that no port is needed. It returns what
the program returned on each rank, and leaves no process behind.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultReduceScatter
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from batchscope.live.guard import Guard
from batchscope.live.monitor import NoiseMonitor
from batchscope.live.reading import Reading
from batchscope.live.sources.ranks import RankSource
from batchscope.live.sources.sharded import ShardedSource
from batchscope.live.window import Source, Window
from batchscope.store.records import Row

EXAMPLES, WIDTH = 48, 5


def launch(name: str, folder: Path, *, ranks: int = 2, timeout_s: float = 150.0) -> list[Any]:
    """What the program returned on each rank."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(ranks)}
    command = [sys.executable, "-W", "ignore", __file__, name, str(folder)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(ranks):
            with open(folder / f"{rank}.txt", "wb") as output:
                processes.append(
                    subprocess.Popen(
                        command,
                        env={**environment, "RANK": str(rank)},
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        ends = time.monotonic() + timeout_s
        while any(process.poll() is None for process in processes) and time.monotonic() < ends:
            if any(process.poll() for process in processes):
                break  # one failed: the others would wait for it
            time.sleep(0.05)
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    said = "\n".join((folder / f"{rank}.txt").read_text() for rank in range(ranks))
    assert all(process.returncode == 0 for process in processes), said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


# ---- data and the truth


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


def under_ddp() -> dict[str, Any]:
    """Rows of the source under DDP in all its settings, the truth for each, and weights with and without the source."""
    plain = with_options()
    state = lambda: powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=2)  # noqa: E731
    cases: dict[str, tuple[Wrap, list[list[int]], dict[str, Any]]] = {
        "one micro-batch": (plain, [[4], [4]], {}),
        "accumulated": (plain, [[2, 2, 2], [2, 2, 2]], {}),
        "reduced every time": (plain, [[2, 2], [2, 2]], {"loop": synced_every_time}),
        "uneven": (plain, [[5], [2]], {"told": True}),
        "unequal numbers of micro-batches": (plain, [[2, 2, 2], [2]], {"told": True}),
        "scaled and clipped": (plain, [[3, 3], [3, 3]], {"scale": 1024.0, "clip": 1e-3}),
        "bucket view": (with_options(gradient_as_bucket_view=True), [[2, 2], [2, 2]], {}),
        "static graph": (with_options(static_graph=True), [[4], [4]], {}),
        "static graph, accumulated": (with_options(static_graph=True), [[2, 2], [2, 2]], {"loop": synced_every_time}),
        "unused parameters": (with_options(find_unused_parameters=True), [[4, 4], [4, 4]], {"model": Partly}),
        "small buckets": (with_options(bucket_cap_mb=1e-5), [[4], [4]], {}),
        "fp16 hook": (hooked(default_hooks.fp16_compress_hook), [[4], [4]], {}),
        "allreduce hook": (hooked(default_hooks.allreduce_hook), [[4], [4]], {}),
        "built-in fp16 hook": (built_in, [[4], [4]], {}),
        "PowerSGD": (hooked(powerSGD_hook.powerSGD_hook, state), [[4], [4]], {}),
        "never reduced": (plain, [[4], [4]], {"loop": never_synced}),
    }
    return compared(cases, lambda: RankSource(guard=Guard()))


def compared(
    cases: dict[str, tuple[Wrap, list[list[int]], dict[str, Any]]], source: Callable[[], Source]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (wrap, sizes, how) in cases.items():
        told, model = how.pop("told", False), how.pop("model", make_model)
        pair: list[Training] = []
        for each in (source(), None):
            training = Training(wrap, sizes, source=each, model=model)
            training.told = told
            for k in range(5):
                training.step(k, **how)
            pair.append(training)
        watched, free = pair
        found[name] = {
            "rows": watched.rows,
            "truth": watched.truth,
            "reasons": watched.reasons,
            "unchanged": weights_of(watched.model) == weights_of(free.model),
        }
    return found


def sharding(
    *, parts: Sequence[int] = (0, 2), root: bool = True, kind: torch.dtype = torch.float64, **options: Any
) -> Wrap:
    def wrap(model: nn.Module) -> nn.Module:
        mesh, model = init_device_mesh("cpu", (dist.get_world_size(),)), model.to(kind)
        for part in parts:
            fully_shard(model[part], mesh=mesh, **options)  # type: ignore[index]
        return fully_shard(model, mesh=mesh, **options) if root else model

    return wrap


def divided(model: nn.Module) -> nn.Module:
    wrapped = sharding()(model)
    for module in wrapped.modules():
        if hasattr(module, "set_gradient_divide_factor"):
            module.set_gradient_divide_factor(1.0)
    return wrapped


def with_own_scatter(model: nn.Module) -> nn.Module:
    class Own(DefaultReduceScatter):
        pass

    wrapped: Any = sharding(parts=())(model)
    wrapped.set_custom_reduce_scatter(Own())
    return wrapped


def under_fsdp() -> dict[str, Any]:
    """Rows of the source under `fully_shard`, the truth for each, and weights with and without the source."""
    single = {"kind": torch.float32}
    bfloat16 = MixedPrecisionPolicy(reduce_dtype=torch.bfloat16)
    float16 = MixedPrecisionPolicy(reduce_dtype=torch.float16)
    cases: dict[str, tuple[Wrap, list[list[int]], dict[str, Any]]] = {
        "one micro-batch": (sharding(), [[4], [4]], {}),
        "reduced every time": (sharding(), [[2, 2], [2, 2]], {"loop": synced_every_time}),
        "reductions held back": (sharding(), [[4, 4], [4, 4]], {}),
        "uneven": (sharding(), [[5], [2]], {"told": True}),
        "scaled and clipped": (sharding(), [[3], [3]], {"scale": 1024.0, "clip": 1e-3}),
        "the whole at once": (sharding(parts=()), [[4], [4]], {}),
        "float32": (sharding(**single), [[4], [4]], {}),
        "bfloat16 reduction": (sharding(**single, mp_policy=bfloat16), [[4], [4]], {}),
        "summed": (divided, [[2, 2], [2, 2]], {"loop": synced_every_time}),
        "float16 reduction": (sharding(**single, mp_policy=float16), [[4], [4]], {}),
        "own reduce-scatter": (with_own_scatter, [[4], [4]], {}),
        "two roots": (sharding(root=False), [[4], [4]], {}),
        "sharded in part": (sharding(parts=[0], root=False), [[4], [4]], {}),
    }
    return compared(cases, lambda: ShardedSource(guard=Guard()))


class Ticks:
    """Clock that moves by a step at each look, as fast on each rank as it is told."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def monitored(
    *,
    steps: int = 12,
    on_ranks: Sequence[int] = (0, 1),
    wrap: Wrap = DistributedDataParallel,
    before_wrap: bool = False,
    lr: float = 0.05,
    at_step: Callable[[int, NoiseMonitor | None, list[Reading]], None] = lambda *_: None,
    parts: int = 2,
    **options: Any,
) -> dict[str, Any]:
    """A training with the monitor: what it reads on this rank, its rows, what it warned of, and the weights."""
    population, rank, model = Population(), dist.get_rank(), make_model()
    plan, wrapped = Plan([[4] * parts, [4] * parts]), None if before_wrap else wrap(model)
    optimizer = torch.optim.SGD((wrapped or model).parameters(), lr=lr)
    monitor: NoiseMonitor | None = None
    readings: list[Reading] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if rank in on_ranks:
            options = {"share": 1.0, **options}
            monitor = NoiseMonitor(wrapped or model, optimizer, batch_size=8 * parts, **options)
        called: Any = wrapped or wrap(model)
        for k in range(steps):
            optimizer.zero_grad()
            for index in plan.step()[rank]:
                (population.loss(called, index) / parts).backward()
            optimizer.step()
            if monitor is not None:
                readings.append(monitor.read())
            at_step(k, monitor, readings)
    said = [str(each.message) for each in caught if "noise monitor" in str(each.message)]
    rows = monitor.state_dict()["rows"] if monitor else []
    if monitor is not None:
        monitor.close()
    return {
        "readings": [{**asdict(each), "overhead": None} for each in readings],
        "rows": rows,
        "warnings": said,
        "weights": weights_of(called),
    }


def fails_at(step: int) -> Callable[..., None]:
    """On the second rank the hooks of the source raise from a step on."""

    def break_it(k: int, monitor: NoiseMonitor | None, _: object) -> None:
        if k == step and monitor is not None and dist.get_rank() == 1:
            monitor._choice.source._gradient = None  # type: ignore[attr-defined]

    return break_it


def closes_at(step: int) -> Callable[..., None]:
    def close(k: int, monitor: NoiseMonitor | None, _: object) -> None:
        if k == step and monitor is not None and dist.get_rank() == 1:
            monitor.close()

    return close


def raises_on_the_second_rank(reading: Reading) -> None:
    if dist.get_rank() == 1 and reading.step == 6:
        raise OSError("the disk is full")


def monitors() -> dict[str, Any]:
    """The monitor on all ranks, on one, failing on one, closed on one; and a training without."""
    slow = Ticks(1.0) if dist.get_rank() else Ticks(0.125)
    return {
        "none": monitored(on_ranks=()),
        "all": monitored(),
        "layers": monitored(layers=True),
        "sharded": monitored(wrap=sharding(), steps=8),
        "before the wrapper": monitored(before_wrap=True),
        "one micro-batch": monitored(parts=1),
        "thinned": monitored(steps=200, share=0.1, clock=slow, parts=1),
        "only the first": monitored(on_ranks=[0]),
        "only the second": monitored(on_ranks=[1]),
        "hooks fail": monitored(at_step=fails_at(4)),
        "closed": monitored(at_step=closes_at(5)),
        "reader fails": monitored(on_reading=raises_on_the_second_rank),
        "uneven with join": joined(with_monitor=True) == joined(with_monitor=False),
    }


def long() -> dict[str, Any]:
    """Many steps at the same weights."""
    return {**monitored(steps=150, lr=0.0), "truth": signal_and_noise()}


def signal_and_noise() -> list[float]:
    """`|G|²` and `tr(Σ)` of the population at the first weights."""
    gradients = Population().per_example(make_model())
    mean = gradients.mean(0)
    return [float(mean.square().sum()), float((gradients - mean).square().sum(1).mean())]


def joined(*, with_monitor: bool) -> list[float]:
    """Weights after two epochs in which the first rank has more batches than the second."""
    wrapped, population, rank = DistributedDataParallel(make_model()), Population(), dist.get_rank()
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.05)
    monitor = NoiseMonitor(wrapped, optimizer, batch_size=8, share=1.0) if with_monitor else nullcontext()
    with monitor:
        for epoch in range(2):
            with wrapped.join():
                for k in range(6 - 2 * rank):
                    optimizer.zero_grad()
                    population.loss(wrapped, [k, k + epoch + 1, k + 7, rank]).backward()
                    optimizer.step()
        if isinstance(monitor, NoiseMonitor):
            assert "join()" in monitor.read().reason, monitor.read()
            assert monitor.read().gradient_noise_scale.n == 0
    return weights_of(wrapped)


def main(name: str, folder: Path) -> None:
    torch.set_num_threads(1)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=ranks)
    try:
        answer = globals()[name]()
    finally:
        dist.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
