"""A batch that is split beside a data-parallel training of two processes: nothing is reduced, and nothing is moved."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from batchscope.live.sources.split import SplitSource
from batchscope.live.window import Window

ROOT = Path(__file__).resolve().parents[2]


def loss_of(model: Any, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def train(rank: int, *, measured: bool, wrapped: bool) -> tuple[list[float], list[float]]:
    """Final weights, and the norms that were read."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    source = SplitSource(lambda inner, batch: loss_of(model if wrapped else inner, batch))
    found = list[float]()
    for step in range(4):
        torch.manual_seed(100 * rank + step)
        batch = torch.randn(8, 4), torch.randn(8, 1)
        optimizer.zero_grad()
        if measured:
            source.attach(model, optimizer)
            if rank == 0 or step % 2:  # ranks need not agree: there is no communication
                source.micro_batch(batch)
        loss_of(model, batch).backward()
        optimizer.step()
        if measured and (row := source.take(Window(step=step, examples_before=16 * step, batch_size=16))) is not None:
            found.append(row["mean_square_norm"])
            assert row["group_size"] == 4
    return [float(p.detach().double().sum()) for p in model.parameters()], found


def work(rank: int, folder: str) -> None:
    store = dist.FileStore(f"{folder}/store", 2)  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    plain, _ = train(rank, measured=False, wrapped=False)
    for wrapped in (False, True):
        weights, found = train(rank, measured=True, wrapped=wrapped)
        assert weights == plain
        assert len(found) == (4 if rank == 0 else 2)
        assert all(math.isfinite(value) and value > 0 for value in found)
    dist.destroy_process_group()
    Path(folder, f"done-{rank}").touch()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))  # the processes import this file by its name
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
    assert sorted(path.name for path in tmp_path.glob("done-*")) == ["done-0", "done-1"]
