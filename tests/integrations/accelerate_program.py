"""A loop as Accelerate's users write it, run by torchrun on two processes, with the noise monitor beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from batchscope import NoiseMonitor


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()


def main(folder: Path) -> None:
    from accelerate import Accelerator  # here, as pytest reads this file for doctests where there is no accelerate

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    draw = torch.Generator().manual_seed(1)
    x, y = (torch.randn(96, width, dtype=torch.float64, generator=draw) for width in (4, 1))
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    monitor = NoiseMonitor(model, optimizer, batch_size=16, share=1.0)
    seen: list[list[list[float]]] = []
    for inputs, targets in loader:
        seen.append(torch.cat([inputs, targets], 1).tolist())
        with accelerator.accumulate(model):
            accelerator.backward(F.mse_loss(model(inputs), targets))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
            optimizer.zero_grad()
    reading = monitor.read()
    found = {
        "seen": seen,
        "rows": monitor.state_dict()["rows"],
        "source": reading.source,
        "reason": reading.reason,
        "step": reading.step,
    }
    (folder / f"{accelerator.process_index}.json").write_text(json.dumps(found))
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
