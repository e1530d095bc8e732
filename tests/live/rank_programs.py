"""Programs that several ranks run at once, each in a process of its own, and the launcher that ends them all.

`launch("name", folder)` starts the ranks on the CPU; they meet in a file, so that no port is needed. It returns what
the program returned on each rank, and leaves no process behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultReduceScatter
from torch.nn.parallel import DistributedDataParallel

from batchscope.live.guard import Guard
from batchscope.live.monitor import NoiseMonitor
from batchscope.live.reading import Reading
from batchscope.live.sources.ranks import RankSource
from batchscope.live.sources.sharded import ShardedSource
from batchscope.live.window import Source

from .rank_trainings import (
    Partly,
    Plan,
    Population,
    Training,
    Wrap,
    built_in,
    hooked,
    make_model,
    never_synced,
    synced_every_time,
    weights_of,
    with_options,
)


def launch(name: str, folder: Path, *, ranks: int = 2, timeout_s: float = 150.0) -> list[Any]:
    """What the program returned on each rank."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(ranks)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.live.rank_programs", name, str(folder)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(ranks):
            with open(folder / f"{rank}.txt", "wb") as output:
                processes.append(
                    subprocess.Popen(
                        command,
                        cwd=Path(__file__).resolve().parents[2],
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
